export {
  type Augmentation,
  type AugmentedItem,
  Augmenter,
  augmentationDefaults,
  augmentationOptions,
  type NoiseKind,
} from './augmentation.js';
export {
  type AudioStream,
  type DecodedAudio,
  type DecodeOptions,
  decodeAudio,
  openAudio,
} from './decode.js';
export { FEATURES_VERSION, FeatureExtractor, type FeatureOptions, FRAMES_PER_SECOND, SAMPLE_RATE } from './features.js';
export { resampled } from './noise.js';
export { DecodePool, type DecodePoolOptions } from './pool.js';
export { checkSampleRate, checkSamples } from './samples.js';
export type { AudioInput } from './source.js';
export { encodeWav } from './wav.js';
