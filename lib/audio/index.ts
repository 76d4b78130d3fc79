export { type DecodedAudio, type DecodeOptions, decodeAudio } from './decode.js';
export { DecodePool, type DecodePoolOptions } from './pool.js';
export { encodeWav } from './wav.js';
