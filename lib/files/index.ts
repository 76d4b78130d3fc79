/** Files as other programs leave them and find them: reading, writing whole or not at all, outputs of every kind, locks. */
export { copySynced, removeFolderAtomic, writeFileAtomic, writeFolderAtomic, writeSynced } from './atomic.js';
export { findFraction, isJsonObject, type JsonObject, parseJson, readJsonObject } from './json.js';
export { FolderLock } from './lock.js';
export { type Output, openOutput, proveFolder, proveOutput, STANDARD_OUTPUT } from './output.js';
export { allocateBytes, ifThere, isFile, openRegularFile, readExactly, readWhole, retried } from './read.js';
export { type FileSink, isRemnant, Replacement } from './replacement.js';
export { visible } from './terminal.js';
export { decodeText, isLfsPointer, LFS_POINTER_SENTENCE, readTextFile, TextError } from './text.js';
