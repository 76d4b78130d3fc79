/**
 * distilwhisper: teach a small Whisper a language with gated experts and distillation, and run the result.
 * Start with `train` and `Transcriber`; everything below them is here too, for other objectives and other data.
 */

// Audio: decoding, resampling, features.
export {
  type AudioInput,
  type AudioStream,
  type DecodedAudio,
  type DecodeOptions,
  DecodePool,
  type DecodePoolOptions,
  decodeAudio,
  encodeWav,
  FeatureExtractor,
  type FeatureOptions,
  FRAMES_PER_SECOND,
  openAudio,
  SAMPLE_RATE,
} from './audio/index.js';
// Data: manifests, sampling, prefetching.
export {
  type BadRow,
  BadRowsError,
  type Batch,
  EpochSampler,
  type LoadedBatch,
  type ManifestEntry,
  type ManifestFormat,
  type ManifestOptions,
  PrefetchLoader,
  type PrefetchLoaderOptions,
  readManifest,
  type SamplerItem,
  type SamplerOptions,
} from './data/index.js';
// Decoding: the searches behind a transcript.
export {
  type BeamOptions,
  type BeamSearchOptions,
  beamSearch,
  type DecodedSequence,
  type DecodingOptions,
  type GreedyOptions,
  greedy,
} from './decode/index.js';
// Errors: every refusal is a DistilWhisperError with a code and a sentence.
export { DistilWhisperError, type ErrorCode, isDistilWhisperError } from './errors/index.js';
// Evaluation: error rates by language and domain.
export {
  defaultNormalizer,
  type ErrorCounts,
  type EvaluateOptions,
  type EvaluationGroup,
  type EvaluationReport,
  evaluate,
  formatHypotheses,
  formatTable,
  type Hypothesis,
  toJSON,
} from './evaluate/index.js';
// The model and its experts.
export {
  type CacheType,
  type ComputeType,
  DecoderState,
  type ExpertLayer,
  LanguageExpert,
  type ModelPass,
  type SoftGates,
  Whisper,
  type WhisperOptions,
} from './model/index.js';
// Where the time goes: traces for Perfetto, summed up against the machine's ceilings.
export {
  type CeilingName,
  type CeilingOptions,
  type Ceilings,
  type KernelSummary,
  measureCeiling,
  measureCeilings,
  Profile,
  type ProfileOptions,
  type ProfileReport,
  readProfile,
  type StreamSummary,
} from './profile/index.js';
// Randomness that is a function of what it is drawn for.
export { permutation, philox4x32 } from './random/index.js';
// Whole runs: from model folders and manifests to an expert file or a model folder, and the demonstration.
export {
  type DemoResult,
  type DemoRow,
  type DemoSettings,
  type DemoStage,
  demo,
  embedded,
  recipeDefaults,
  type TrainMethod,
  type TrainPlan,
  type TrainRecipe,
  type TrainResult,
  train,
} from './recipes/index.js';
// Tensors, streams, the tape, and the operations that a model is made of; `kernels`: the calls that those are made of.
export {
  type AttentionOptions,
  addPositions,
  attention,
  bf16ToFloat32,
  type DType,
  dtypeNumber,
  embedding,
  type FloatType,
  feedForward,
  type Isa,
  kernels,
  layerNorm,
  linear,
  linearGelu,
  type MappedValues,
  type NativeMemory,
  Parameter,
  type Pass,
  Stream,
  type StreamOptions,
  Tape,
  Tensor,
  type TensorData,
  unfold,
} from './tensor/index.js';
// Text: tokenizer, languages, normalisers, error rates.
export {
  basicNormalizer,
  cer,
  type ErrorRate,
  extendedNormalizer,
  LANGUAGES,
  type Language,
  type Normalizer,
  type NormalizerOptions,
  nonSpeechTokens,
  resolveLanguage,
  suppressAtBegin,
  suppressTokens,
  type Task,
  type TimestampTokens,
  type TokenizerJSON,
  tokenizerFromCharacters,
  tokenizerFromTiktoken,
  WhisperTokenizer,
  wer,
} from './text/index.js';
// For a profile's lane of JavaScript: what a piece of one's own work is called.
export { onThread, phase } from './trace/index.js';
// Training: the loop, its options, its batches and its run folder.
export {
  AudioBatches,
  type AudioBatchOptions,
  type BatchSource,
  labelsOf,
  learningRate,
  type Randomness,
  RunFolder,
  type RunReport,
  type RunState,
  type TrainBatch,
  Trainer,
  type TrainerSettings,
  TrainingEngine,
  type TrainingOptions,
  trainingDefaults,
  trainingOptions,
  type UpdateReport,
  type ValidationReport,
} from './train/index.js';
// Transcription: audio to text, with times and languages.
export {
  type AudioSamples,
  type AudioSource,
  cutWindows,
  type DetectedLanguage,
  detectLanguage,
  formatSrt,
  formatTimed,
  formatVtt,
  type TimedText,
  type TranscribeOptions,
  type TranscribeProgress,
  Transcriber,
  type TranscriberOptions,
  type Transcript,
  type TranscriptSegment,
  type Window,
} from './transcribe/index.js';
// Weights on disk: safetensors, model folders, expert files, PyTorch checkpoints.
export {
  checkExpert,
  checkWeights,
  type Expert,
  type ExpertFile,
  expertFileName,
  expertLayerNames,
  expertTensorNames,
  type FloatDtype,
  fromFloat32,
  type HostDtype,
  type HostTensor,
  importTorchCheckpoint,
  type MappedTensor,
  type ModelFolder,
  type ModelFolderContent,
  openExpert,
  openModelFolder,
  openSafetensors,
  parseSafetensors,
  parseWhisperConfig,
  readExpert,
  type SafetensorsFile,
  type StoredTensor,
  serializeSafetensors,
  splitClsrCheckpoint,
  type TensorSource,
  type TorchCheckpoint,
  toFloat32,
  type WeightEntry,
  type WhisperConfig,
  type WhisperSize,
  weightEntries,
  whisperConfigJson,
  whisperPreset,
  whisperTensorShapes,
  writeExpert,
  writeModelFolder,
  writeSafetensors,
} from './weights/index.js';
