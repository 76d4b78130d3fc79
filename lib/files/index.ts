/** Files as they come: text, JSON. */
export { findFraction, isJsonObject, type JsonObject, parseJson, readJsonObject } from './json.js';
export { decodeText, isLfsPointer, LFS_POINTER_SENTENCE, readTextFile, TextError } from './text.js';
