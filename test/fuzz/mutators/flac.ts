/** FLAC files by their metadata blocks and frames, with the checksums of changed frames made right again. */
import type { Random } from '../random.js';
import { ascii, concat, mutateBytes, mutateList, putNumber, randomBytes } from './bytes.js';

export interface Flac {
  blocks: { type: number; body: Uint8Array; size?: number }[];
  frames: Uint8Array[];
}

const table = (bits: number, polynomial: number): Uint16Array =>
  Uint16Array.from({ length: 256 }, (_, i) => {
    let crc = i << (bits - 8);
    for (let bit = 0; bit < 8; bit++) crc = crc & (1 << (bits - 1)) ? (crc << 1) ^ polynomial : crc << 1;
    return crc & ((1 << bits) - 1);
  });
const CRC8 = table(8, 0x07);
const CRC16 = table(16, 0x8005);

const crc8 = (bytes: Uint8Array): number => bytes.reduce((crc, byte) => CRC8[crc ^ byte]!, 0);
const crc16 = (bytes: Uint8Array): number =>
  bytes.reduce((crc, byte) => ((crc << 8) & 0xffff) ^ CRC16[(crc >> 8) ^ byte]!, 0);

/** Length of a frame's header without its checksum, by what its first bytes announce. */
function headerLength(frame: Uint8Array): number {
  const coded = frame[4]!;
  const number = coded < 0x80 ? 1 : Math.max(1, Math.clz32(~coded << 24));
  const block = frame[2]! >> 4;
  const rate = frame[2]! & 15;
  return 4 + number + (block === 6 ? 1 : block === 7 ? 2 : 0) + (rate === 12 ? 1 : rate === 13 || rate === 14 ? 2 : 0);
}

const startsFrame = (bytes: Uint8Array, at: number): boolean => {
  if (bytes[at] !== 0xff || (bytes[at + 1]! & 0xfe) !== 0xf8 || at + 8 > bytes.length) return false;
  const frame = bytes.subarray(at);
  const length = headerLength(frame);
  return crc8(frame.subarray(0, length)) === frame[length];
};

export function readFlac(bytes: Uint8Array): Flac {
  const flac: Flac = { blocks: [], frames: [] };
  let at = 4;
  for (let last = false; !last; ) {
    last = bytes[at]! >= 128;
    const size = (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
    flac.blocks.push({ type: bytes[at]! & 127, body: bytes.slice(at + 4, at + 4 + size) });
    at += 4 + size;
  }
  for (let next = at + 1; at < bytes.length; next++) {
    if (next < bytes.length && !(startsFrame(bytes, next) && crc16(bytes.subarray(at, next)) === 0)) continue;
    flac.frames.push(bytes.slice(at, next));
    at = next;
  }
  return flac;
}

const blockHead = (type: number, size: number): number[] => [type, size >> 16, (size >> 8) & 255, size & 255];

export function writeFlac({ blocks, frames }: Flac): Uint8Array {
  const parts = blocks.map(({ type, body, size = body.length }, i) =>
    concat(blockHead(type | (i === blocks.length - 1 ? 128 : 0), size), body),
  );
  return concat(ascii('fLaC'), ...parts, ...frames);
}

/** The packets of FLAC in Ogg: the mapping's header with the stream information, an empty comment, the frames. */
export function flacPackets({ blocks, frames }: Flac): Uint8Array[] {
  const comment = concat(blockHead(128 | 4, 8), new Uint8Array(8));
  const first = concat([0x7f], ascii('FLAC'), [1, 0, 0, 1], ascii('fLaC'), blockHead(0, 34), blocks[0]!.body);
  return [first, comment, ...frames];
}

function repair(frame: Uint8Array): void {
  const length = headerLength(frame);
  if (length + 3 > frame.length) return;
  frame[length] = crc8(frame.subarray(0, length));
  const end = frame.length - 2;
  const crc = crc16(frame.subarray(0, end));
  frame[end] = crc >> 8;
  frame[end + 1] = crc & 255;
}

/** Offsets and sizes in bytes of the numbers of STREAMINFO; the packed ones are hit by bits. */
const STREAMINFO: readonly (readonly [at: number, size: number])[] = [
  [0, 2],
  [2, 2],
  [4, 3],
  [7, 3],
  [10, 3],
  [12, 2],
  [13, 5],
  [14, 4],
];

export function mutateFlac(seed: Flac, random: Random): Uint8Array {
  const flac: Flac = {
    blocks: seed.blocks.map((block) => ({ ...block, body: Uint8Array.from(block.body) })),
    frames: seed.frames.map((frame) => Uint8Array.from(frame)),
  };
  for (let times = random.count(5); times > 0; times--) {
    const block = flac.blocks.length > 0 ? random.pick(flac.blocks) : undefined;
    const at = random.below(flac.frames.length);
    const frame = flac.frames[at];
    switch (random.below(12)) {
      case 0:
      case 1:
        if (block) {
          const [start, size] = random.pick(STREAMINFO);
          putNumber(flac.blocks[0]!.body, start, size, random.boundary(8 * size), false);
        }
        break;
      case 2:
        // Of unknown length.
        flac.blocks[0]?.body.fill(0, 14, 18);
        break;
      case 3:
        if (block) block.type = random.below(128);
        break;
      case 4:
        if (block)
          block.size = random.chance(0.5) ? random.edge(24) : Math.max(0, block.body.length + random.between(-8, 8));
        break;
      case 5:
        if (random.chance(0.7)) mutateList(flac.frames, random);
        else mutateList(flac.blocks, random);
        break;
      case 6:
        flac.blocks.push({ type: random.pick([1, 2, 3, 4, 5, 6, 126]), body: randomBytes(random, random.count(80)) });
        break;
      case 7:
      case 8:
        if (!frame) break;
        frame[random.between(1, Math.min(9, frame.length - 1))]! ^= 1 << random.below(8);
        if (random.chance(0.9)) repair(frame);
        break;
      case 9:
        if (!frame) break;
        flac.frames[at] = mutateBytes(frame, random, [], random.count(3));
        if (random.chance(0.9)) repair(flac.frames[at]!);
        break;
      case 10:
        if (frame) flac.frames[at] = frame.slice(0, random.below(frame.length));
        break;
      default: {
        // What looks like the beginning of a frame, over and over, or one frame many times.
        const many = random.chance(0.05) ? 100_000 : 500;
        const again =
          random.chance(0.7) || !frame ? Uint8Array.of(0xff, 0xf8, random.below(256), random.below(256)) : frame;
        const run = new Uint8Array(random.count(many) + again.length);
        for (let i = 0; i < run.length; i++) run[i] = again[i % again.length]!;
        flac.frames.splice(at, 0, run);
      }
    }
  }
  const bytes = writeFlac(flac);
  return random.chance(0.15) ? mutateBytes(bytes, random, [], 1) : bytes;
}
