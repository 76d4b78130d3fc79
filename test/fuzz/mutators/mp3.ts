/** MPEG audio by its frames: headers, Xing and Info tags, ID3, APE and Lyrics tags before, between and behind, junk, cuts. */
import type { Random } from '../random.js';
import { ascii, concat, mutateBytes, mutateList, putNumber, randomBytes } from './bytes.js';

const KBPS = {
  '1': [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  '2': [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
};

/** Length in bytes of the layer III frame whose header these bytes begin with; 0 if there is none. */
function frameLength(bytes: Uint8Array): number {
  if (bytes[0] !== 0xff || (bytes[1]! & 0xe6) !== 0xe2) return 0;
  const first = (bytes[1]! & 0x18) === 0x18;
  const rate = [44100, 48000, 32000, 0][(bytes[2]! >> 2) & 3]! / (first ? 1 : (bytes[1]! & 0x18) === 0x10 ? 2 : 4);
  const kbps = KBPS[first ? '1' : '2'][bytes[2]! >> 4];
  if (!rate || !kbps) return 0;
  return Math.floor(((first ? 144 : 72) * kbps * 1000) / rate) + ((bytes[2]! >> 1) & 1);
}

/** The frames of a file that holds nothing else. */
export function mp3Frames(bytes: Uint8Array): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = frameLength(bytes.subarray(at)) || bytes.length;
    frames.push(bytes.slice(at, at + length));
    at += length;
  }
  return frames;
}

function id3(random: Random): Uint8Array {
  const body = randomBytes(random, random.count(300));
  const size = random.chance(0.7) ? body.length : random.edge(28);
  const lengths = [21, 14, 7, 0].map((shift) => (size >>> shift) & 127);
  return concat(ascii('ID3'), [random.pick([2, 3, 4, 255]), 0, random.pick([0, 16, 128, 255])], lengths, body);
}

function tag(random: Random): Uint8Array {
  switch (random.below(5)) {
    case 0:
      return concat(ascii('TAG'), randomBytes(random, random.pick([0, 10, 125])));
    case 1:
      return concat(ascii('APETAGEX'), randomBytes(random, random.pick([0, 24, 90])));
    case 2:
      return concat(ascii('LYRICSBEGIN'), randomBytes(random, 20), ascii('LYRICS200'));
    default:
      return id3(random);
  }
}

/** Where a Xing or Info tag stands in a frame: behind the side information, by version and channels. */
function tagOffset(frame: Uint8Array): number {
  const mono = frame[3]! >> 6 === 3;
  const first = (frame[1]! & 0x18) === 0x18;
  return 4 + (first ? (mono ? 17 : 32) : mono ? 9 : 17);
}

export function mutateMp3(
  seed: readonly Uint8Array[],
  random: Random,
  others: readonly (readonly Uint8Array[])[],
): Uint8Array {
  let parts: Uint8Array[] = seed.map((frame) => Uint8Array.from(frame));
  for (let times = random.count(5); times > 0 && parts.length > 0; times--) {
    const at = random.below(parts.length);
    const frame = parts[at]!;
    switch (random.below(11)) {
      case 0:
      case 1:
        if (frame.length > 4) frame[random.between(1, 3)]! ^= 1 << random.below(8);
        break;
      case 2:
        parts[at] = mutateBytes(frame, random, [], random.count(3));
        break;
      case 3:
        mutateList(parts, random);
        break;
      case 4: {
        const first = parts[0]!;
        const place = tagOffset(first);
        if (place + 12 > first.length) break;
        first.set(ascii(random.pick(['Xing', 'Info', 'VBRI'])), place);
        const [start, size] = random.pick([
          [4, 4],
          [8, 4],
          [12, 4],
          [141, 3],
        ] as const);
        putNumber(first, place + start, size, random.boundary(8 * size), false);
        break;
      }
      case 5:
        parts.splice(random.pick([0, at, parts.length]), 0, tag(random));
        break;
      case 6:
        parts.splice(
          random.pick([0, at, parts.length]),
          0,
          new Uint8Array(random.count(5000)).fill(random.pick([0, 255, 1])),
        );
        break;
      case 7:
        parts.splice(at, 0, randomBytes(random, random.count(500)));
        break;
      case 8:
        parts[parts.length - 1] = parts.at(-1)!.slice(0, random.below(parts.at(-1)!.length + 1));
        break;
      case 9:
        parts = [...parts, ...random.pick(others).map((other) => Uint8Array.from(other))];
        break;
      default:
        // Free format, and every reserved value.
        if (frame.length > 4) frame[2] = random.pick([0x00, 0xf0, 0x0c, 0xff]) | (frame[2]! & 3);
    }
  }
  const bytes = concat(...parts);
  return random.chance(0.15) ? mutateBytes(bytes, random, [], 1) : bytes;
}
