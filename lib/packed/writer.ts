import { crc32 } from 'node:zlib';
import { DistilWhisperError, shown } from '../errors/index.js';
import { type JsonObject, Replacement } from '../files/index.js';
import {
  HEAD_BYTES,
  INDEX_ENTRY_BYTES,
  MAGIC,
  MAX_HEADER_BYTES,
  MAX_KEY_BYTES,
  MAX_RECORD_BYTES,
  RECORD_HEAD_BYTES,
  TAIL_BYTES,
  VERSION,
  viewOf,
} from './format.js';

/**
 * Writes a packed file: records of bytes, each with a checksum and a key, behind a header, with an index at the end. It is made
 * beside its path and stands there whole with `finish`, or not at all.
 */
export class PackedWriter {
  private readonly index: Uint8Array[] = [];
  private ended = false;

  private constructor(
    readonly path: string,
    private readonly file: Replacement,
    private end: number,
  ) {}

  /**
   * Begins a file in the place of what may be at `path`, which stays until `finish`. `kind`: what its records are, which a reader
   * asks for; `header`: what else its owner wants to say of it, as JSON. Errors: ERR_FILE_WRITE, ERR_DISK_FULL; ERR_ARGUMENT (a header above 16 MiB).
   */
  static async create(path: string, { kind, header }: { kind: string; header: JsonObject }): Promise<PackedWriter> {
    const json = new TextEncoder().encode(JSON.stringify({ kind, header }));
    if (json.byteLength > MAX_HEADER_BYTES) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `header: expected at most ${MAX_HEADER_BYTES} bytes of JSON, got ${json.byteLength}`,
      );
    }
    const head = new Uint8Array(HEAD_BYTES + json.byteLength);
    head.set(MAGIC);
    head.set(json, HEAD_BYTES);
    const view = viewOf(head);
    view.setUint32(8, VERSION, true);
    view.setUint32(12, json.byteLength, true);
    view.setUint32(16, crc32(json), true);
    const file = await Replacement.begin(path);
    try {
      await file.write(head, 0);
    } catch (error) {
      await file.discard();
      throw error;
    }
    return new PackedWriter(path, file, head.byteLength);
  }

  /** Records that were appended. */
  get length(): number {
    return this.index.length;
  }

  /** Bytes that the file has so far, without its index. */
  get byteLength(): number {
    return this.end;
  }

  /**
   * Puts a record behind the others. `key`: what its owner finds it by. One call at a time.
   * Errors: ERR_DISK_FULL, ERR_FILE_WRITE, after which only `discard` is left; ERR_ARGUMENT (a key above 1 MiB, a record above 1 GiB); ERR_DISPOSED.
   */
  async append(key: string, bytes: Uint8Array): Promise<void> {
    if (this.ended) throw new DistilWhisperError('ERR_DISPOSED', `${this.path} takes no more records: it is closed`);
    const name = new TextEncoder().encode(key);
    const limited = (what: string, length: number, most: number): void => {
      if (length <= most) return;
      const sentence = `${what} of record ${this.length} (${shown(key, 60)}): expected at most ${most} bytes, got ${length}`;
      throw new DistilWhisperError('ERR_ARGUMENT', sentence);
    };
    limited('key', name.byteLength, MAX_KEY_BYTES);
    limited('bytes', bytes.byteLength, MAX_RECORD_BYTES);
    const record = new Uint8Array(RECORD_HEAD_BYTES + bytes.byteLength);
    const view = viewOf(record);
    view.setUint32(0, bytes.byteLength, true);
    view.setUint32(4, crc32(bytes), true);
    record.set(bytes, RECORD_HEAD_BYTES);
    await this.file.write(record, this.end);
    const entry = new Uint8Array(INDEX_ENTRY_BYTES + name.byteLength);
    viewOf(entry).setUint32(0, bytes.byteLength, true);
    viewOf(entry).setUint32(4, name.byteLength, true);
    entry.set(name, INDEX_ENTRY_BYTES);
    this.index.push(entry);
    this.end += record.byteLength;
  }

  /** Writes the index and puts the file in its place, durably. Errors: ERR_DISK_FULL, ERR_FILE_WRITE, with nothing left beside; ERR_DISPOSED. */
  async finish(): Promise<void> {
    if (this.ended) throw new DistilWhisperError('ERR_DISPOSED', `${this.path} is closed`);
    this.ended = true;
    const index = Buffer.concat(this.index);
    const tail = new Uint8Array(TAIL_BYTES);
    const view = viewOf(tail);
    view.setBigUint64(0, BigInt(this.end), true);
    view.setBigUint64(8, BigInt(index.byteLength), true);
    view.setUint32(16, this.length, true);
    view.setUint32(20, crc32(tail.subarray(0, 20), crc32(index)), true);
    tail.set(MAGIC, TAIL_BYTES - MAGIC.length);
    try {
      await this.file.write(Buffer.concat([index, tail]), this.end);
      await this.file.commit();
    } finally {
      await this.file.discard();
    }
  }

  /** Leaves nothing of an unfinished file; after `finish` it does nothing. */
  async discard(): Promise<void> {
    if (this.ended) return;
    this.ended = true;
    await this.file.discard();
  }
}
