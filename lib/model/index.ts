export { DecoderState, type ReplayedPosition } from './cache.js';
export { type ExpertLayer, LanguageExpert } from './experts.js';
export type { SoftGates } from './gated-ffn.js';
export type { Adapter } from './linear.js';
export type { CacheType, ComputeType, WhisperOptions } from './options.js';
export type { Forward, ModelPass } from './pass.js';
export { Whisper } from './whisper.js';
