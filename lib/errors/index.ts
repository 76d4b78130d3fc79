export { editDistance } from './edit-distance.js';
export { DistilWhisperError, type ErrorCode, isDistilWhisperError } from './error.js';
export { fileReadError, fileWriteError, systemCode } from './files.js';
export { checkOptions } from './options.js';
export { shown } from './shown.js';
