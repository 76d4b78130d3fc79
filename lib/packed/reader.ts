import type { FileHandle } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { DistilWhisperError } from '../errors/index.js';
import {
  decodeText,
  isJsonObject,
  type JsonObject,
  openRegularFile,
  parseJson,
  readExactly,
  TextError,
} from '../files/index.js';
import {
  HEAD_BYTES,
  INDEX_ENTRY_BYTES,
  isMagic,
  MAGIC,
  MAX_HEADER_BYTES,
  MAX_KEY_BYTES,
  MAX_RECORD_BYTES,
  RECORD_HEAD_BYTES,
  refuse,
  TAIL_BYTES,
  VERSION,
  viewOf,
} from './format.js';

/** What is read at once where records are read one behind the other: small records are no calls of their own. */
const READ_AHEAD_BYTES = 2 ** 20;

export interface PackedRecord {
  /** Its number in the file, from 0. */
  index: number;
  key: string;
  bytes: Uint8Array;
}

/** Where records lie: their positions and one more, that of their end; their keys as a part of the index. */
interface Index {
  positions: Float64Array;
  bytes: Uint8Array;
  keys: Uint32Array;
}

/**
 * Reads a packed file, one record at a time, by number or one behind the other. In memory are the index and the record that is read.
 * What is cut short or has a flipped bit is refused: header and index when it is opened, a record when it is read.
 */
export class PackedReader {
  private closed = false;

  private constructor(
    readonly path: string,
    /** What the file's owner said of it. */
    readonly header: JsonObject,
    private readonly file: FileHandle,
    private readonly index: Index,
  ) {}

  /**
   * Opens a file whose records are of a `kind`. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ; ERR_PACKED where it is no packed file, of
   * another kind or version, cut short or damaged, with the number of the record in which it ends.
   */
  static async open(path: string, { kind }: { kind: string }): Promise<PackedReader> {
    const file = await openRegularFile(path);
    try {
      const { size } = await file.stat();
      const { start, header } = await readHeader(file, size, path, kind);
      return new PackedReader(path, header, file, await readIndex(file, size, start, path));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** How many records there are. */
  get length(): number {
    return this.index.keys.length;
  }

  /** The keys of all records, decoded at each call. */
  get keys(): string[] {
    return Array.from({ length: this.length }, (_, i) => this.key(i));
  }

  /** The key of record `i`. Errors: ERR_ARGUMENT. */
  key(i: number): string {
    this.checkNumber(i);
    const { bytes, keys } = this.index;
    const at = keys[i]!;
    return new TextDecoder('utf-8', { ignoreBOM: true }).decode(
      bytes.subarray(at, at + viewOf(bytes).getUint32(at - 4, true)),
    );
  }

  /** Bytes of record `i`, without reading it. Errors: ERR_ARGUMENT. */
  byteLength(i: number): number {
    this.checkNumber(i);
    const { positions } = this.index;
    return positions[i + 1]! - positions[i]! - RECORD_HEAD_BYTES;
  }

  /** The bytes of record `i`, in new memory. Errors: ERR_PACKED (damaged), ERR_FILE_READ, ERR_ARGUMENT, ERR_DISPOSED. */
  async read(i: number): Promise<Uint8Array> {
    this.checkNumber(i);
    const start = this.index.positions[i]!;
    const bytes = await this.bytes(start, this.index.positions[i + 1]!, i);
    return this.checked(i, bytes);
  }

  /**
   * Records from number `from` up to, without, number `to`, in their order, read from the file in pieces that follow one another.
   * Errors: as `read`.
   */
  async *records(from = 0, to = this.length): AsyncGenerator<PackedRecord, void, undefined> {
    const { positions } = this.index;
    if (!(Number.isInteger(from) && Number.isInteger(to) && from >= 0 && from <= to && to <= this.length)) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `records: expected a range in 0 to ${this.length}, got ${from} to ${to}`,
      );
    }
    for (let first = from; first < to; ) {
      let end = first + 1;
      while (end < to && positions[end + 1]! - positions[first]! <= READ_AHEAD_BYTES) end++;
      const start = positions[first]!;
      const piece = await this.bytes(start, positions[end]!, first);
      for (let i = first; i < end; i++) {
        const record = piece.subarray(positions[i]! - start, positions[i + 1]! - start);
        // A record of its own memory: what is kept of one does not keep the others.
        const bytes = this.checked(i, end === first + 1 ? record : record.slice());
        yield { index: i, key: this.key(i), bytes };
      }
      first = end;
    }
  }

  /** Lets go of the file. */
  async close(): Promise<void> {
    if (this.closed) return;
    this.closed = true;
    await this.file.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private async bytes(start: number, end: number, record: number): Promise<Uint8Array> {
    if (this.closed) throw new DistilWhisperError('ERR_DISPOSED', `${this.path} is closed`);
    return readExactly(this.file, start, end - start, this.path, `record ${record}`, 'ERR_PACKED');
  }

  /** The bytes behind a record's head. */
  private checked(i: number, record: Uint8Array): Uint8Array {
    const bytes = record.subarray(RECORD_HEAD_BYTES);
    const view = viewOf(record);
    if (view.getUint32(0, true) !== bytes.byteLength || view.getUint32(4, true) !== crc32(bytes))
      refuse(this.path, `is damaged: record ${i} of ${this.length} does not have the checksum that it gives`);
    return bytes;
  }

  private checkNumber(i: number): void {
    if (Number.isInteger(i) && i >= 0 && i < this.length) return;
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `${this.path}: expected the number of a record below ${this.length}, got ${i}`,
    );
  }
}

async function readHeader(
  file: FileHandle,
  size: number,
  path: string,
  kind: string,
): Promise<{ start: number; header: JsonObject }> {
  const exactly = (at: number, length: number, what: string): Promise<Uint8Array> =>
    readExactly(file, at, length, path, what, 'ERR_PACKED');
  const magic = await exactly(0, Math.min(size, MAGIC.length), 'its start');
  if (!isMagic(magic)) refuse(path, 'is no packed file');
  const view = viewOf(await exactly(0, HEAD_BYTES, 'its header'));
  const version = view.getUint32(8, true);
  if (version !== VERSION) refuse(path, `is a packed file of version ${version}, expected ${VERSION}`);
  const length = view.getUint32(12, true);
  if (length > MAX_HEADER_BYTES) refuse(path, `is damaged: its header has ${length} bytes`);
  const bytes = await exactly(HEAD_BYTES, length, 'its header');
  if (crc32(bytes) !== view.getUint32(16, true))
    refuse(path, 'is damaged: its header does not have the checksum that it gives');
  let value: unknown;
  try {
    value = parseJson(decodeText(bytes));
  } catch (error) {
    if (!(error instanceof TextError)) throw error;
    return refuse(path, `is damaged: its header ${error.message}`);
  }
  if (!isJsonObject(value) || typeof value.kind !== 'string' || !isJsonObject(value.header))
    return refuse(path, 'is damaged: its header names no kind');
  if (value.kind !== kind) refuse(path, `holds ${JSON.stringify(value.kind)}, expected ${JSON.stringify(kind)}`);
  return { start: HEAD_BYTES + length, header: value.header };
}

async function readIndex(file: FileHandle, size: number, start: number, path: string): Promise<Index> {
  const tailAt = Math.max(start, size - TAIL_BYTES);
  const tail = await readExactly(file, tailAt, size - tailAt, path, 'its end', 'ERR_PACKED');
  if (tail.byteLength < TAIL_BYTES || !isMagic(tail.subarray(TAIL_BYTES - MAGIC.length))) {
    const record = await lastRecord(file, size, start, path);
    return refuse(path, `is cut short: it ends in record ${record} or behind it, without its index`);
  }
  const view = viewOf(tail);
  const [indexAt, length] = [view.getBigUint64(0, true), view.getBigUint64(8, true)];
  if (indexAt < BigInt(start) || indexAt + length !== BigInt(tailAt))
    refuse(path, 'is damaged: its index does not lie where its end says');
  const bytes = await readExactly(file, Number(indexAt), Number(length), path, 'its index', 'ERR_PACKED');
  if (crc32(tail.subarray(0, 20), crc32(bytes)) !== view.getUint32(20, true))
    refuse(path, 'is damaged: its index does not have the checksum that it gives');
  const count = view.getUint32(16, true);
  // Before anything of that size is made.
  if (count * INDEX_ENTRY_BYTES > bytes.byteLength)
    refuse(path, `is damaged: its index is too short for ${count} records`);
  const entries = viewOf(bytes);
  const positions = new Float64Array(count + 1);
  const keys = new Uint32Array(count);
  positions[0] = start;
  let at = 0;
  for (let i = 0; i < count; i++) {
    const fits = at + INDEX_ENTRY_BYTES <= bytes.byteLength;
    const record = fits ? entries.getUint32(at, true) : 0;
    const key = fits ? entries.getUint32(at + 4, true) : 0;
    at += INDEX_ENTRY_BYTES;
    if (!fits || record > MAX_RECORD_BYTES || key > MAX_KEY_BYTES || at + key > bytes.byteLength)
      refuse(path, `is damaged: its index is wrong at record ${i}`);
    keys[i] = at;
    positions[i + 1] = positions[i]! + RECORD_HEAD_BYTES + record;
    at += key;
  }
  if (at !== bytes.byteLength || positions[count] !== Number(indexAt))
    refuse(path, 'is damaged: its index does not say where its records end');
  return { positions, bytes, keys };
}

/** The number of the record in which a file without an index ends, as far as the records' own lengths lead. */
async function lastRecord(file: FileHandle, size: number, start: number, path: string): Promise<number> {
  let record = 0;
  for (let at = start; at + RECORD_HEAD_BYTES <= size; record++) {
    const head = await readExactly(file, at, RECORD_HEAD_BYTES, path, `record ${record}`, 'ERR_PACKED');
    const next = at + RECORD_HEAD_BYTES + viewOf(head).getUint32(0, true);
    if (next > size) break;
    at = next;
  }
  return record;
}
