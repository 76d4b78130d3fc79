export { DistilWhisperError, type ErrorCode, isDistilWhisperError } from './error.js';
export { fileReadError, fileWriteError, systemCode } from './files.js';
export { shown } from './shown.js';
