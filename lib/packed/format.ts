/**
 * The layout of a packed file, little-endian:
 *
 *     "DWPACKED" | version u32 | header's length u32 | its CRC-32 u32 | header, JSON {"kind", "header"}
 *     records, one behind the other: length u32 | CRC-32 u32 | bytes
 *     index: for each record its length u32 | key's length u32 | key, UTF-8
 *     index's position u64 | its length u64 | records u32 | CRC-32 of the index and of these numbers u32 | "DWPACKED"
 *
 * Records begin behind the header and follow one another, so that their positions are sums of their lengths.
 */
import { DistilWhisperError } from '../errors/index.js';

export const MAGIC = new TextEncoder().encode('DWPACKED');
export const VERSION = 1;
export const HEAD_BYTES = 20;
export const RECORD_HEAD_BYTES = 8;
export const INDEX_ENTRY_BYTES = 8;
export const TAIL_BYTES = 32;
/** What an owner says of a whole file is some lines. */
export const MAX_HEADER_BYTES = 2 ** 24;
/** Two hours of 16 kHz PCM16 are 230 MB. */
export const MAX_RECORD_BYTES = 2 ** 30;
export const MAX_KEY_BYTES = 2 ** 20;

export const viewOf = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export const isMagic = (bytes: Uint8Array): boolean => MAGIC.every((byte, i) => bytes[i] === byte);

export function refuse(path: string, what: string): never {
  throw new DistilWhisperError('ERR_PACKED', `${path} ${what}`);
}
