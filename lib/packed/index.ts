/** Packed files: many records in one file, with checksums and an index, read by number or one behind the other. */
export { PackedReader, type PackedRecord } from './reader.js';
export { PackedWriter } from './writer.js';
