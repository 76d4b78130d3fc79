/** Zip archives as PyTorch writes them: entries stored, not compressed. Every offset is checked against the file. */
import type { FileHandle } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { DistilWhisperError } from '../errors/index.js';
import { readExactly } from '../files/index.js';

const LOCAL_HEADER = 0x04034b50;
const CENTRAL_HEADER = 0x02014b50;
const END = 0x06054b50;
const END64 = 0x06064b50;
const END64_LOCATOR = 0x07064b50;
const END_BYTES = 22;
const LOCATOR_BYTES = 20;
const MAX_COMMENT_BYTES = 65535;
/** A checkpoint has a few thousand entries; this bounds what a hostile file can make us allocate. */
const MAX_DIRECTORY_BYTES = 16 * 1024 * 1024;
const MAX_ENTRIES = 100_000;
/** Data that are read only for their checksum are read in pieces of this size. */
const PIECE_BYTES = 4 * 1024 * 1024;

export interface ZipEntry {
  readonly name: string;
  /** Where its local header lies in the file. */
  readonly headerOffset: number;
  readonly byteLength: number;
  /** CRC-32 of its data, as the directory gives it. */
  readonly checksum: number;
}

function refuse(path: string, what: string): never {
  throw new DistilWhisperError('ERR_MODEL', `${path} is no sound zip archive: ${what}`);
}

function view(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function toNumber(value: bigint, path: string): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) refuse(path, `it gives the size or offset ${value}`);
  return Number(value);
}

interface Directory {
  count: number;
  byteLength: number;
  offset: number;
}

async function findDirectory(file: FileHandle, size: number, path: string): Promise<Directory> {
  const tailBytes = Math.min(size, END_BYTES + MAX_COMMENT_BYTES + LOCATOR_BYTES);
  const tailStart = size - tailBytes;
  const tail = view(await readExactly(file, tailStart, tailBytes, path, 'its end', 'ERR_MODEL'));
  for (let at = tailBytes - END_BYTES; at >= 0; at--) {
    if (tail.getUint32(at, true) !== END || at + END_BYTES + tail.getUint16(at + 20, true) !== tailBytes) continue;
    const locator = at - LOCATOR_BYTES;
    if (locator >= 0 && tail.getUint32(locator, true) === END64_LOCATOR) {
      const offset = toNumber(tail.getBigUint64(locator + 8, true), path);
      if (offset + 56 > tailStart + locator) refuse(path, 'its zip64 record lies outside of it');
      const record = view(await readExactly(file, offset, 56, path, 'its zip64 record', 'ERR_MODEL'));
      if (record.getUint32(0, true) !== END64) refuse(path, 'its zip64 record is not where its locator says');
      return {
        count: toNumber(record.getBigUint64(32, true), path),
        byteLength: toNumber(record.getBigUint64(40, true), path),
        offset: toNumber(record.getBigUint64(48, true), path),
      };
    }
    return {
      count: tail.getUint16(at + 10, true),
      byteLength: tail.getUint32(at + 12, true),
      offset: tail.getUint32(at + 16, true),
    };
  }
  return refuse(path, 'it has no directory at its end');
}

/** The sizes and offset of an entry, from the zip64 field where the 32-bit ones are full. */
function wideFields(header: DataView, at: number, nameBytes: number, extraBytes: number, path: string) {
  let stored = header.getUint32(at + 20, true);
  let byteLength = header.getUint32(at + 24, true);
  let headerOffset = header.getUint32(at + 42, true);
  let field = at + 46 + nameBytes;
  const end = field + extraBytes;
  while (field + 4 <= end) {
    const id = header.getUint16(field, true);
    const next = field + 4 + header.getUint16(field + 2, true);
    if (next > end) refuse(path, 'an entry has a broken extra field');
    if (id === 1) {
      let value = field + 4;
      const wide = (narrow: number) => {
        if (narrow !== 0xffffffff) return narrow;
        if (value + 8 > next) refuse(path, 'an entry has a short zip64 field');
        value += 8;
        return toNumber(header.getBigUint64(value - 8, true), path);
      };
      byteLength = wide(byteLength);
      stored = wide(stored);
      headerOffset = wide(headerOffset);
    }
    field = next;
  }
  return { stored, byteLength, headerOffset };
}

/** The entries of a zip archive of `size` bytes, by name. Throws ERR_MODEL for anything but sound, stored entries. */
export async function readZipDirectory(file: FileHandle, size: number, path: string): Promise<Map<string, ZipEntry>> {
  if (size < END_BYTES) refuse(path, `it has only ${size} bytes`);
  const directory = await findDirectory(file, size, path);
  if (directory.offset + directory.byteLength > size) refuse(path, 'its directory lies outside of it');
  if (directory.byteLength > MAX_DIRECTORY_BYTES) refuse(path, `its directory has ${directory.byteLength} bytes`);
  const bytes = await readExactly(file, directory.offset, directory.byteLength, path, 'its directory', 'ERR_MODEL');
  const header = view(bytes);
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < directory.count; i++) {
    if (at + 46 > bytes.byteLength || header.getUint32(at, true) !== CENTRAL_HEADER)
      refuse(path, `entry ${i} of its directory is broken`);
    const nameBytes = header.getUint16(at + 28, true);
    const extraBytes = header.getUint16(at + 30, true);
    const next = at + 46 + nameBytes + extraBytes + header.getUint16(at + 32, true);
    if (next > bytes.byteLength) refuse(path, `entry ${i} of its directory is cut off`);
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameBytes));
    if (i === MAX_ENTRIES) refuse(path, `it has more than ${MAX_ENTRIES} entries`);
    if ((header.getUint16(at + 8, true) & 1) !== 0) refuse(path, `${name} is encrypted`);
    if (header.getUint16(at + 10, true) !== 0)
      refuse(path, `${name} is compressed; a checkpoint's entries are stored as they are`);
    const { stored, byteLength, headerOffset } = wideFields(header, at, nameBytes, extraBytes, path);
    if (stored !== byteLength) refuse(path, `${name} is stored in ${stored} bytes but has ${byteLength}`);
    if (entries.has(name)) refuse(path, `it holds ${name} twice`);
    entries.set(name, { name, headerOffset, byteLength, checksum: header.getUint32(at + 16, true) });
    at = next;
  }
  return entries;
}

/** Where an entry's data start in the file; checks its local header and that the data lie inside. Throws ERR_MODEL. */
export async function zipDataOffset(file: FileHandle, size: number, entry: ZipEntry, path: string): Promise<number> {
  if (entry.headerOffset + 30 > size) refuse(path, `${entry.name} lies outside of it`);
  const header = view(await readExactly(file, entry.headerOffset, 30, path, entry.name, 'ERR_MODEL'));
  if (header.getUint32(0, true) !== LOCAL_HEADER || header.getUint16(8, true) !== 0)
    refuse(path, `${entry.name} has a broken header`);
  const start = entry.headerOffset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
  if (start + entry.byteLength > size) refuse(path, `${entry.name} reaches beyond its end`);
  return start;
}

/** Holds data against the checksum of the entry that they are all of. Throws ERR_MODEL. */
export function checkZipData(entry: ZipEntry, data: Uint8Array, path: string): void {
  if (crc32(data) !== entry.checksum)
    refuse(path, `${entry.name} is damaged: its data do not have the checksum that it gives`);
}

/** The same for an entry that is not needed as a whole: its data are read from `start` in pieces. Throws ERR_MODEL. */
export async function checkZipEntry(file: FileHandle, start: number, entry: ZipEntry, path: string): Promise<void> {
  let checksum = 0;
  for (let done = 0; done < entry.byteLength; done += PIECE_BYTES) {
    const length = Math.min(PIECE_BYTES, entry.byteLength - done);
    checksum = crc32(await readExactly(file, start + done, length, path, entry.name, 'ERR_MODEL'), checksum);
  }
  if (checksum !== entry.checksum)
    refuse(path, `${entry.name} is damaged: its data do not have the checksum that it gives`);
}
