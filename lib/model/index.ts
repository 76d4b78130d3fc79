export { DecoderState, type ReplayedPosition } from './cache.js';
export { type ExpertLayer, LanguageExpert } from './experts.js';
export type { SoftGates } from './gated-ffn.js';
export { type CacheType, type ComputeType, type ModelPass, Whisper, type WhisperOptions } from './whisper.js';
