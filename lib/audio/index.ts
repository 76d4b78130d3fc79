export { type DecodedAudio, type DecodeOptions, decodeAudio } from './decode.js';
export { FeatureExtractor, type FeatureOptions, FRAMES_PER_SECOND, SAMPLE_RATE } from './features.js';
export { DecodePool, type DecodePoolOptions } from './pool.js';
export { encodeWav } from './wav.js';
