/**
 * One error type for everything a user can get wrong or the machine can refuse.
 * `code` is stable and meant for programs; `message` is a sentence for people that names the argument or file,
 * what was expected and what came.
 */
export type ErrorCode =
  | 'ERR_ADAPTER'
  | 'ERR_ARGUMENT'
  | 'ERR_AUDIO_EMPTY'
  | 'ERR_AUDIO_FORMAT'
  | 'ERR_AUDIO_SAMPLES'
  | 'ERR_AUDIO_TOO_LONG'
  | 'ERR_CONFIG'
  | 'ERR_CUDA'
  | 'ERR_CUDA_PLUGIN'
  | 'ERR_DISK_FULL'
  | 'ERR_DISPOSED'
  | 'ERR_DTYPE'
  | 'ERR_EXPERT'
  | 'ERR_FILE_NOT_FOUND'
  | 'ERR_FILE_READ'
  | 'ERR_FILE_WRITE'
  | 'ERR_HUB'
  | 'ERR_HUB_ACCESS'
  | 'ERR_HUB_CORRUPT'
  | 'ERR_HUB_NOT_FOUND'
  | 'ERR_HUB_OFFLINE'
  | 'ERR_INTERRUPTED'
  | 'ERR_KERNEL'
  | 'ERR_LABEL_TOO_LONG'
  | 'ERR_LANGUAGE'
  | 'ERR_MANIFEST'
  | 'ERR_MEMORY'
  | 'ERR_MODEL'
  | 'ERR_NATIVE_LOAD'
  | 'ERR_ONNX'
  | 'ERR_ONNXRUNTIME'
  | 'ERR_OUT_OF_MEMORY'
  | 'ERR_PACKED'
  | 'ERR_RUN'
  | 'ERR_SAFETENSORS'
  | 'ERR_SHAPE'
  | 'ERR_STREAM'
  | 'ERR_TEACHER_CACHE'
  | 'ERR_TOKENIZER'
  | 'ERR_TRACE'
  | 'ERR_VOCABULARY';

export class DistilWhisperError extends Error {
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'DistilWhisperError';
    this.code = code;
  }
}

/** True for errors of this package (also across realms and duplicated installs, where `instanceof` fails). */
export function isDistilWhisperError(error: unknown): error is DistilWhisperError {
  return error instanceof Error && error.name === 'DistilWhisperError' && 'code' in error;
}
