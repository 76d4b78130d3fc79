export { DecoderState, type ReplayedPosition } from './cache.js';
export { type ExpertLayer, isGateParameter, LanguageExpert } from './experts.js';
export { FeatureUploader } from './features.js';
export type { SoftGates } from './gated-ffn.js';
export type { Adapter } from './linear.js';
export { type CacheType, type ComputeType, computeType, type WhisperOptions } from './options.js';
export { loadOutputTable } from './output-table.js';
export type { Forward, ModelPass } from './pass.js';
export { Whisper } from './whisper.js';
