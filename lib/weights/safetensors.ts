/**
 * safetensors files: 8 bytes of header length (u64, little-endian), the header (a JSON object: for each tensor its
 * dtype, shape and offsets into the data), the data. The reader believes nothing: a file either is consistent or is
 * refused with ERR_SAFETENSORS, which names the file, the tensor and what is wrong.
 */
import type { FileHandle } from 'node:fs/promises';
import { DistilWhisperError, fileReadError, shown } from '../errors/index.js';
import {
  allocateBytes,
  decodeText,
  findFraction,
  isJsonObject,
  isLfsPointer,
  LFS_POINTER_SENTENCE,
  openRegularFile,
  parseJson,
  readExactly,
  TextError,
  writeFileAtomic,
} from '../files/index.js';
import { mapFile, unmapFile } from '../native/index.js';
import {
  checkHostTensor,
  DTYPE_BYTES,
  elementCount,
  formatShape,
  type HostDtype,
  type HostTensor,
  type MappedTensor,
  type StoredTensor,
  type TensorInfo,
} from './host.js';

/**
 * A header of a hundred experts beside the largest Whisper has 10 MB. The format itself allows 100 MB, which as objects would
 * take a gigabyte.
 */
const MAX_HEADER_BYTES = 16 * 1024 * 1024;
const LENGTH_BYTES = 8;
/** Enough to tell a Git LFS pointer from a header's length. */
const PREFIX_BYTES = 64;
/** Data begins at a multiple of a cache line: weights that are read where they are mapped cost up to a fifth more beside one. */
const DATA_ALIGNMENT = 64;

/** Half of a pair: has no UTF-8, so other readers refuse it even when escaped. */
const LONE_SURROGATE = /\p{Surrogate}/u;

const DTYPE_NAMES = Object.keys(DTYPE_BYTES) as HostDtype[];
const DTYPE_BY_FILE_NAME = new Map<string, HostDtype>(DTYPE_NAMES.map((name) => [name.toUpperCase(), name]));

interface Entry extends TensorInfo {
  /** Offset of the first byte in the file. */
  readonly start: number;
}

interface Header {
  readonly entries: ReadonlyMap<string, Entry>;
  readonly metadata: Readonly<Record<string, string>>;
}

function refuse(file: string, what: string): never {
  throw new DistilWhisperError('ERR_SAFETENSORS', `${file} is not a sound safetensors file: ${what}`);
}

/** The length of the header from the first bytes of a file of `fileBytes` bytes, checked. */
function headerLength(prefix: Uint8Array, fileBytes: number, file: string): number {
  if (fileBytes < LENGTH_BYTES) {
    refuse(file, `it has ${fileBytes} bytes, fewer than the 8 that say how long its header is`);
  }
  if (isLfsPointer(prefix)) throw new DistilWhisperError('ERR_SAFETENSORS', `${file} ${LFS_POINTER_SENTENCE}`);
  const length = new DataView(prefix.buffer, prefix.byteOffset, LENGTH_BYTES).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    refuse(file, `its header would be ${length} bytes long, expected at most ${MAX_HEADER_BYTES}`);
  }
  if (Number(length) > fileBytes - LENGTH_BYTES) {
    refuse(file, `its header would be ${length} bytes long, but only ${fileBytes - LENGTH_BYTES} bytes follow`);
  }
  return Number(length);
}

/** Checks the header's text and every promise that it makes about the `dataBytes` bytes after it. */
function parseHeader(bytes: Uint8Array, dataBytes: number, file: string): Header {
  if (bytes[0] !== 0x7b) refuse(file, "its header does not start with '{'");
  let text: string;
  let json: Record<string, unknown>;
  try {
    text = decodeText(bytes);
    json = parseJson(text) as Record<string, unknown>;
  } catch (error) {
    if (!(error instanceof TextError)) throw error;
    refuse(file, `its header ${error.message}`);
  }
  const dataStart = LENGTH_BYTES + bytes.byteLength;
  const metadata: Record<string, string> = Object.create(null);
  const entries = new Map<string, Entry>();
  for (const [name, value] of Object.entries(json)) {
    if (name === '__metadata__') Object.assign(metadata, checkMetadata(value, file));
    else entries.set(name, parseEntry(name, value, dataStart, dataBytes, file));
  }
  checkLayout(entries, dataStart, dataBytes, file);
  const fraction = findFraction(text);
  if (fraction !== undefined)
    refuse(file, `its header holds the number ${shown(fraction)}, expected whole ones in digits`);
  return { entries, metadata };
}

function checkMetadata(value: unknown, file: string): Record<string, string> {
  if (!isJsonObject(value)) refuse(file, '__metadata__ is not an object of strings');
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== 'string') refuse(file, `__metadata__ holds ${shown(key)}, which is not a string`);
  }
  return value as Record<string, string>;
}

function parseEntry(name: string, value: unknown, dataStart: number, dataBytes: number, file: string): Entry {
  const tensor = `tensor ${shown(name)}`;
  if (!isJsonObject(value)) refuse(file, `${tensor} is not described by an object`);
  for (const field of Object.keys(value)) {
    if (field !== 'dtype' && field !== 'shape' && field !== 'data_offsets') {
      refuse(file, `${tensor} has the unknown field ${shown(field)}`);
    }
  }
  const dtype = typeof value.dtype === 'string' ? DTYPE_BY_FILE_NAME.get(value.dtype) : undefined;
  if (dtype === undefined) refuse(file, `${tensor} has the dtype ${shown(value.dtype)}, which is not known`);
  const shape = value.shape;
  if (!Array.isArray(shape)) refuse(file, `${tensor} has no shape`);
  const count = elementCount(shape);
  if (count === undefined || !Number.isSafeInteger(count * DTYPE_BYTES[dtype])) {
    refuse(file, `${tensor} has the shape ${shown(shape)}; expected whole numbers ≥ 0 of a product below 2^53`);
  }
  const offsets = value.data_offsets;
  if (
    !Array.isArray(offsets) ||
    offsets.length !== 2 ||
    !offsets.every((offset) => typeof offset === 'number' && Number.isSafeInteger(offset) && offset >= 0)
  ) {
    refuse(file, `${tensor} has the data_offsets ${shown(offsets)}; expected two whole numbers ≥ 0`);
  }
  const [begin, end] = offsets as [number, number];
  if (begin > end || end > dataBytes) {
    refuse(file, `${tensor} lies at bytes ${begin} to ${end} of the data, which has ${dataBytes}`);
  }
  const byteLength = count * DTYPE_BYTES[dtype];
  if (end - begin !== byteLength) {
    refuse(
      file,
      `${tensor} of shape ${formatShape(shape)} and dtype ${dtype} needs ${byteLength} bytes, its offsets give ${end - begin}`,
    );
  }
  return { dtype, shape: shape as number[], byteLength, start: dataStart + begin };
}

/** The tensors must tile the data: no overlap, no hole, nothing behind the last. */
function checkLayout(entries: ReadonlyMap<string, Entry>, dataStart: number, dataBytes: number, file: string): void {
  const inOrder = [...entries].sort(([, a], [, b]) => a.start - b.start || a.byteLength - b.byteLength);
  let next = dataStart;
  let before = '';
  for (const [name, entry] of inOrder) {
    if (entry.start < next) refuse(file, `tensor ${shown(name)} overlaps tensor ${shown(before)}`);
    if (entry.start > next) {
      refuse(file, `${entry.start - next} bytes before tensor ${shown(name)} belong to no tensor`);
    }
    next = entry.start + entry.byteLength;
    before = name;
  }
  const rest = dataStart + dataBytes - next;
  if (rest > 0) refuse(file, `${rest} bytes at its end belong to no tensor`);
}

function lookUp(header: Header, name: string, file: string): Entry {
  const entry = header.entries.get(name);
  if (entry === undefined) {
    throw new DistilWhisperError('ERR_SAFETENSORS', `${file} holds no tensor ${shown(name)}`);
  }
  return entry;
}

/** Tensors by name, read one at a time: a file, a sharded folder, or several of them. */
export interface TensorSource {
  names(): string[];
  has(name: string): boolean;
  info(name: string): TensorInfo;
  /** The tensor's data, in new memory. */
  read(name: string): Promise<HostTensor>;
  /**
   * The tensor for a model to load before the source is closed: in the mapped file, where the format allows it, unless it is to
   * be copied.
   */
  stored(name: string, copied?: boolean): Promise<StoredTensor>;
  close(): Promise<void>;
}

/** An open file whose header has been checked; data is read from the disk when asked for. Safe for concurrent reads. */
export class SafetensorsFile implements TensorSource {
  readonly path: string;
  readonly #size: number;
  readonly #header: Header;
  #file: FileHandle | undefined;
  #reads = new Set<Promise<unknown>>();
  /** Of the file, mapped and copied. */
  readonly #mappings = new Map<boolean, Promise<number>>();

  /** Use `openSafetensors`. */
  constructor(path: string, file: FileHandle, size: number, header: Header) {
    this.path = path;
    this.#file = file;
    this.#size = size;
    this.#header = header;
  }

  /** The strings of `__metadata__`; empty where there is none. */
  get metadata(): Readonly<Record<string, string>> {
    return this.#header.metadata;
  }

  /** Names in the order of the header, except that names such as "12" come first (JSON objects order them so). */
  names(): string[] {
    return [...this.#header.entries.keys()];
  }

  has(name: string): boolean {
    return this.#header.entries.has(name);
  }

  /** Throws ERR_SAFETENSORS for an unknown name. */
  info(name: string): TensorInfo {
    const { dtype, shape, byteLength } = lookUp(this.#header, name, this.path);
    return { dtype, shape, byteLength };
  }

  /**
   * Reads one tensor into new memory. Throws ERR_SAFETENSORS for an unknown name or a file cut short since it was
   * opened, ERR_FILE_READ, ERR_OUT_OF_MEMORY, and ERR_DISPOSED after `close`.
   */
  async read(name: string): Promise<HostTensor> {
    const { dtype, shape, byteLength, start } = lookUp(this.#header, name, this.path);
    const file = this.#open(name);
    const reading = readExactly(file, start, byteLength, this.path, `tensor ${shown(name)}`, 'ERR_SAFETENSORS');
    this.#reads.add(reading);
    try {
      return { dtype, shape, data: await reading };
    } finally {
      this.#reads.delete(reading);
    }
  }

  /**
   * One tensor where it lies: the first call maps the file, as the header was checked, and `close` leaves the mapping to the
   * tensors that a model made in it. The file may then be deleted or replaced; whoever cuts it short or writes into it changes
   * weights that are in use, and ends the process (SIGBUS) where a page is gone. With `copied` a model reads the file while it
   * loads, into memory of its own, and nothing that becomes of the file later reaches it.
   * Throws ERR_SAFETENSORS for an unknown name or a file cut short since it was opened, ERR_FILE_READ, ERR_OUT_OF_MEMORY,
   * ERR_NATIVE_LOAD, and ERR_DISPOSED after `close`.
   */
  async stored(name: string, copied = false): Promise<MappedTensor> {
    const { start, ...info } = lookUp(this.#header, name, this.path);
    const file = this.#open(name);
    const mapping = this.#mappings.get(copied) ?? this.#map(file, copied);
    this.#mappings.set(copied, mapping);
    return { ...info, mapping: await mapping, byte: start };
  }

  /** Waits for reads under way and closes the file; a second call does nothing. */
  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    if (file === undefined) return;
    await Promise.allSettled(this.#reads);
    for (const mapping of this.#mappings.values()) await mapping.then(unmapFile, () => undefined);
    await file.close();
  }

  #open(name: string): FileHandle {
    if (this.#file !== undefined) return this.#file;
    throw new DistilWhisperError('ERR_DISPOSED', `${this.path} was closed before ${name} was read`);
  }

  async #map(file: FileHandle, copied: boolean): Promise<number> {
    const { size } = await file.stat();
    if (size < this.#size) refuse(this.path, `it has ${size} bytes, it had ${this.#size} when it was opened`);
    return mapFile(file.fd, this.#size, this.path, copied);
  }
}

/**
 * Opens a safetensors file and checks its whole header; tensors are read when asked for. Close it when done.
 * Throws ERR_FILE_NOT_FOUND, ERR_FILE_READ (a folder, no permission) or ERR_SAFETENSORS.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const file = await openRegularFile(path);
  try {
    const { size } = await file.stat();
    const prefix = await readExactly(
      file,
      0,
      Math.min(size, PREFIX_BYTES),
      path,
      'its header length',
      'ERR_SAFETENSORS',
    );
    const length = headerLength(prefix, size, path);
    const bytes = await readExactly(file, LENGTH_BYTES, length, path, 'its header', 'ERR_SAFETENSORS');
    return new SafetensorsFile(path, file, size, parseHeader(bytes, size - LENGTH_BYTES - length, path));
  } catch (error) {
    await file.close();
    throw fileReadError(error, path);
  }
}

/**
 * The tensors of a safetensors file that is already in memory, by name in the order of `names()`. The data are views
 * of `bytes`, not copies. `file` names it in errors. Throws ERR_SAFETENSORS.
 */
export function parseSafetensors(
  bytes: Uint8Array,
  file = 'The buffer',
): { tensors: Map<string, HostTensor>; metadata: Readonly<Record<string, string>> } {
  const length = headerLength(bytes, bytes.byteLength, file);
  const dataStart = LENGTH_BYTES + length;
  const header = parseHeader(bytes.subarray(LENGTH_BYTES, dataStart), bytes.byteLength - dataStart, file);
  const tensors = new Map<string, HostTensor>();
  for (const [name, { dtype, shape, start, byteLength }] of header.entries) {
    tensors.set(name, { dtype, shape, data: bytes.subarray(start, start + byteLength) });
  }
  return { tensors, metadata: header.metadata };
}

/** A tensor to be written: its data, or a function that makes it when its turn comes. */
export interface WeightEntry {
  readonly name: string;
  readonly dtype: HostDtype;
  readonly shape: readonly number[];
  readonly data: Uint8Array | (() => Uint8Array | Promise<Uint8Array>);
}

/** The bytes that an entry will take; throws ERR_ARGUMENT, ERR_DTYPE or ERR_SHAPE where it says something impossible. */
export function entryBytes(entry: WeightEntry): number {
  const { name, dtype, shape, data } = entry;
  if (typeof name !== 'string' || name === '__metadata__' || LONE_SURROGATE.test(name)) {
    throw new DistilWhisperError('ERR_ARGUMENT', `${shown(name)} cannot be the name of a tensor in safetensors`);
  }
  if (typeof data !== 'function') checkHostTensor({ dtype, shape, data }, `tensor ${shown(name)}`);
  const size: number | undefined = DTYPE_BYTES[dtype];
  const count = elementCount(shape);
  if (size === undefined) {
    throw new DistilWhisperError('ERR_DTYPE', `tensor ${shown(name)} has the unknown dtype ${shown(dtype)}`);
  }
  if (count === undefined || !Number.isSafeInteger(count * size)) {
    throw new DistilWhisperError(
      'ERR_SHAPE',
      `tensor ${shown(name)} has the shape ${formatShape(shape)}; expected whole numbers ≥ 0 of a product below 2^53`,
    );
  }
  return count * size;
}

/** The entries of a plain collection of tensors, in its order. */
export function weightEntries(tensors: Iterable<readonly [string, HostTensor]>): WeightEntry[] {
  return Array.from(tensors, ([name, tensor]) => ({ name, ...tensor }));
}

function buildHeader(
  entries: readonly WeightEntry[],
  metadata: Readonly<Record<string, string>> | undefined,
): Uint8Array {
  const header: [string, unknown][] = [];
  if (metadata !== undefined) {
    for (const [key, value] of Object.entries(metadata)) {
      if (typeof value !== 'string' || LONE_SURROGATE.test(key + value)) {
        throw new DistilWhisperError('ERR_ARGUMENT', `metadata ${shown(key)} must be a string, it is ${shown(value)}`);
      }
    }
    header.push(['__metadata__', metadata]);
  }
  const names = new Set<string>();
  let offset = 0;
  for (const entry of entries) {
    const byteLength = entryBytes(entry);
    if (names.has(entry.name)) {
      throw new DistilWhisperError('ERR_ARGUMENT', `tensor ${shown(entry.name)} is given twice`);
    }
    names.add(entry.name);
    const end = offset + byteLength;
    header.push([entry.name, { dtype: entry.dtype.toUpperCase(), shape: entry.shape, data_offsets: [offset, end] }]);
    offset = end;
  }
  if (!Number.isSafeInteger(offset)) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `the tensors need ${offset} bytes together, more than a file can have`,
    );
  }
  // Not one JSON.stringify of an object: that would move names such as "1" to the front.
  const fields = header.map(([name, value]) => `${JSON.stringify(name)}:${JSON.stringify(value)}`);
  const text = new TextEncoder().encode(`{${fields.join(',')}}`);
  const padded = Math.ceil((LENGTH_BYTES + text.byteLength) / DATA_ALIGNMENT) * DATA_ALIGNMENT - LENGTH_BYTES;
  if (padded > MAX_HEADER_BYTES) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `the header would be ${padded} bytes long, expected at most ${MAX_HEADER_BYTES}`,
    );
  }
  const bytes = new Uint8Array(LENGTH_BYTES + padded).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(padded), true);
  bytes.set(text, LENGTH_BYTES);
  return bytes;
}

/**
 * Writes a safetensors file: entries in the order given, data one entry at a time, whole or not at all (a temporary
 * file beside is synced and renamed; after any failure it is gone and an earlier `path` is untouched).
 * Everything that can be checked is checked before anything is written. Throws ERR_ARGUMENT, ERR_DTYPE, ERR_SHAPE,
 * ERR_DISK_FULL or ERR_FILE_WRITE; what an entry's function throws passes through.
 */
export async function writeSafetensors(
  path: string,
  entries: readonly WeightEntry[],
  options: { metadata?: Readonly<Record<string, string>> } = {},
): Promise<void> {
  const header = buildHeader(entries, options.metadata);
  await writeFileAtomic(path, async (sink) => {
    await sink.append(header);
    for (const { name, dtype, shape, data } of entries) {
      const bytes = typeof data === 'function' ? await data() : data;
      checkHostTensor({ dtype, shape, data: bytes }, `tensor ${shown(name)}`);
      await sink.append(bytes);
    }
  });
}

/** The same file in memory, for entries that hold their data. */
export function serializeSafetensors(
  tensors: Iterable<readonly [string, HostTensor]>,
  options: { metadata?: Readonly<Record<string, string>> } = {},
): Uint8Array {
  const entries = weightEntries(tensors);
  const header = buildHeader(entries, options.metadata);
  const total = entries.reduce((sum, entry) => sum + entryBytes(entry), header.byteLength);
  const bytes = allocateBytes(total, 'serializeSafetensors');
  bytes.set(header);
  let at = header.byteLength;
  for (const { data } of entries) {
    bytes.set(data as Uint8Array, at);
    at += (data as Uint8Array).byteLength;
  }
  return bytes;
}
