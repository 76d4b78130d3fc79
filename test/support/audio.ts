/** Audio files by byte surgery, and the readers run over them. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { ByteReader } from '../../lib/audio/bytes.js';
import { type AudioFormat, detectFormat } from '../../lib/audio/container.js';
import { openFlac } from '../../lib/audio/flac.js';
import { openMp3 } from '../../lib/audio/mp3.js';
import { openOgg } from '../../lib/audio/ogg.js';
import type { AudioPieces, ReaderContext } from '../../lib/audio/reader.js';
import { openWav } from '../../lib/audio/wav.js';

export const fixture = (name: string) =>
  new Uint8Array(readFileSync(new URL(`../fixtures/audio/${name}`, import.meta.url)));

export const join = (...parts: (Uint8Array | string)[]): Uint8Array =>
  new Uint8Array(Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part, 'latin1') : part))));

export const has = (program: string) => spawnSync(program, ['-version']).error === undefined;

const OPEN: Partial<Record<AudioFormat, (reader: ByteReader, context: ReaderContext) => Promise<AudioPieces>>> = {
  wav: openWav,
  flac: openFlac,
  mp3: openMp3,
  ogg: openOgg,
};

/** Opens audio as the door does: by its first bytes, behind its tags. */
export async function open(reader: ByteReader, warnings: string[] = []): Promise<AudioPieces> {
  let found = detectFormat(await reader.peek(65536));
  const tagged = found.format === 'tagged';
  while (found.format === 'tagged') {
    await reader.skip(found.offset);
    found = detectFormat(await reader.peek(65536));
  }
  const opener = OPEN[found.format] ?? (tagged ? openMp3 : undefined);
  if (!opener) throw new Error(`found ${found.format}, ${found.label}`);
  return opener(reader, { name: 'the test', warn: (message) => warnings.push(message) });
}

/** Bytes in pieces of `size`, each at an odd address; of unknown length as from a pipe, unless `known`. */
export function readerOf(bytes: Uint8Array, size = 65536, known = true): ByteReader {
  const pieces = (async function* () {
    for (let from = 0; from < bytes.length; from += size) {
      const piece = bytes.subarray(from, from + size);
      const odd = Buffer.alloc(piece.length + 1).subarray(1);
      odd.set(piece);
      yield odd;
    }
  })();
  return new ByteReader(pieces, known ? bytes.length : undefined);
}

export interface Read {
  sampleRate: number;
  channels: Float32Array[];
  length: number | undefined;
  warnings: string[];
}

/** Reads audio to its end and checks what is promised of pieces. */
export async function read(source: Uint8Array | ByteReader): Promise<Read> {
  const warnings: string[] = [];
  const audio = await open(source instanceof ByteReader ? source : readerOf(source), warnings);
  const parts: Float32Array[][] = [];
  for await (const piece of audio.pieces) {
    const length = piece[0]?.length ?? 0;
    if (
      piece.length !== audio.channels ||
      length === 0 ||
      length > 65536 ||
      piece.some((each) => each.length !== length)
    )
      throw new Error(`a piece of ${piece.map((each) => each.length)} samples in ${audio.channels} channels`);
    parts.push(piece);
  }
  const channels = Array.from({ length: audio.channels }, (_, channel) => {
    const all = parts.map((part) => part[channel]!);
    const joined = new Float32Array(all.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of all) {
      joined.set(part, at);
      at += part.length;
    }
    return joined;
  });
  return { sampleRate: audio.sampleRate, channels, length: audio.length, warnings };
}

// ---- WAV ----

/** A chunk; `size` instead of its own size, `pad: false` without the padding byte. */
export interface Chunk {
  id: string;
  body: Uint8Array;
  size?: number;
  pad?: boolean;
}

export interface FormatSpec {
  tag?: number;
  bits?: number;
  channels?: number;
  rate?: number;
  block?: number;
  byteRate?: number;
  /** Bytes behind the first 16. */
  extra?: Uint8Array;
}

const u32 = (value: number, bigEndian: boolean) => {
  const bytes = Buffer.alloc(4);
  if (bigEndian) bytes.writeUInt32BE(value);
  else bytes.writeUInt32LE(value);
  return bytes;
};

export function formatChunk(spec: FormatSpec = {}, bigEndian = false): Chunk {
  const { tag = 1, bits = 16, channels = 1, rate = 16000, extra = new Uint8Array(0) } = spec;
  const block = spec.block ?? channels * Math.ceil(bits / 8);
  const body = new Uint8Array(16 + extra.length);
  const view = new DataView(body.buffer);
  const little = !bigEndian;
  view.setUint16(0, tag, little);
  view.setUint16(2, channels, little);
  view.setUint32(4, rate, little);
  view.setUint32(8, spec.byteRate ?? rate * block, little);
  view.setUint16(12, block, little);
  view.setUint16(14, bits, little);
  body.set(extra, 16);
  return { id: 'fmt ', body };
}

export function riff(chunks: Chunk[], kind = 'RIFF'): Uint8Array {
  const bigEndian = kind === 'RIFX';
  const parts = chunks.map(({ id, body, size = body.length, pad = true }) =>
    join(id, u32(size, bigEndian), body, new Uint8Array(pad ? body.length & 1 : 0)),
  );
  const length = 4 + parts.reduce((sum, part) => sum + part.length, 0);
  return join(kind, u32(kind.endsWith('64') ? 0xffffffff : length, bigEndian), 'WAVE', ...parts);
}

// ---- Ogg ----

const CRC32 = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 24;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x80000000 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  return crc;
});

/** The pages of a file, each a copy. */
export function oggPages(bytes: Uint8Array): Uint8Array[] {
  const pages: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const body = at + 27 + bytes[at + 26]!;
    const end = bytes.subarray(at + 27, body).reduce((sum, size) => sum + size, body);
    pages.push(bytes.slice(at, end));
    at = end;
  }
  return pages;
}

/** Changes fields of a page and makes its checksum right again. */
export function sealed(
  page: Uint8Array,
  fields: { flags?: number; granule?: number; serial?: number; number?: number } = {},
): Uint8Array {
  const bytes = Uint8Array.from(page);
  const view = new DataView(bytes.buffer);
  if (fields.flags !== undefined) bytes[5] = fields.flags;
  if (fields.granule !== undefined) view.setBigInt64(6, BigInt(fields.granule), true);
  if (fields.serial !== undefined) view.setUint32(14, fields.serial, true);
  if (fields.number !== undefined) view.setUint32(18, fields.number, true);
  view.setUint32(22, 0);
  let crc = 0;
  for (const byte of bytes) crc = (crc << 8) ^ CRC32[(crc >>> 24) ^ byte]!;
  view.setUint32(22, crc >>> 0, true);
  return bytes;
}

/** A page of whole packets, but for the last one where `goesOn`. */
export function oggPage(
  packets: Uint8Array[],
  fields: { flags?: number; granule?: number; serial?: number; number?: number; goesOn?: boolean },
): Uint8Array {
  const segments = packets.flatMap((packet, i) => {
    const sizes = Array.from({ length: Math.floor(packet.length / 255) }, () => 255);
    return fields.goesOn && i === packets.length - 1 ? sizes : [...sizes, packet.length % 255];
  });
  const head = new Uint8Array(27);
  head.set([0x4f, 0x67, 0x67, 0x53]);
  head[26] = segments.length;
  return sealed(join(head, Uint8Array.from(segments), ...packets), { serial: 1, granule: 0, ...fields });
}

// ---- FLAC ----

function crc(bytes: Uint8Array, polynomial: number, bits: number): number {
  let value = 0;
  for (const byte of bytes) {
    value ^= byte << (bits - 8);
    for (let bit = 0; bit < 8; bit++) value = value & (1 << (bits - 1)) ? (value << 1) ^ polynomial : value << 1;
    value &= (1 << bits) - 1;
  }
  return value;
}

/**
 * FLAC of 16-bit mono at 16 kHz that does not announce its length: frames of 4096 samples, stored as they are (`raw`: the bytes of
 * one frame's samples), so that what looks like a header can stand anywhere.
 */
export function verbatimFlac(frames: number, raw: Uint8Array): Uint8Array {
  const info = new Uint8Array(42);
  info.set([0x66, 0x4c, 0x61, 0x43, 0x80, 0, 0, 34, 0x10, 0, 0x10, 0]);
  info.set([0x03, 0xe8, 0x00, 0xf0], 18);
  const one = (number: number) => {
    const coded = number < 128 ? [number] : [0xc0 | (number >> 6), 0x80 | (number & 63)];
    const head = Uint8Array.of(0xff, 0xf8, 0xc5, 0x08, ...coded);
    const body = join(head, Uint8Array.of(crc(head, 0x07, 8), 0x02), raw);
    const check = crc(body, 0x8005, 16);
    return join(body, Uint8Array.of(check >> 8, check & 255));
  };
  return join(info, ...Array.from({ length: frames }, (_, number) => one(number)));
}

/** Whether planar samples agree to the last bit, and in number (an assertion on arrays of samples takes seconds to compare). */
export function same(got: Float32Array[], want: Float32Array[]): boolean {
  const bytes = (array: Float32Array) => Buffer.from(array.buffer, array.byteOffset, array.byteLength);
  return got.length === want.length && got.every((channel, i) => bytes(channel).equals(bytes(want[i]!)));
}
