/** Ogg files by their pages: every page gets a right checksum again, so that mutations reach what lies behind it. */
import type { Random } from '../random.js';
import { ascii, concat, mutateBytes, mutateList, randomBytes, view } from './bytes.js';

interface Page {
  version: number;
  /** 1: begins in the middle of a packet, 2: first of its stream, 4: last. */
  flags: number;
  granule: bigint;
  serial: number;
  number: number;
  lacing: number[];
  body: Uint8Array;
}

const CRC = Uint32Array.from({ length: 256 }, (_, i) => {
  let crc = i << 24;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x80000000 ? (crc << 1) ^ 0x04c11db7 : crc << 1;
  return crc;
});

export function oggPages(bytes: Uint8Array): Page[] {
  const pages: Page[] = [];
  const numbers = view(bytes);
  for (let at = 0; at + 27 <= bytes.length; ) {
    const lacing = [...bytes.subarray(at + 27, at + 27 + bytes[at + 26]!)];
    const body = at + 27 + lacing.length;
    const end = body + lacing.reduce((sum, size) => sum + size, 0);
    pages.push({
      version: bytes[at + 4]!,
      flags: bytes[at + 5]!,
      granule: numbers.getBigUint64(at + 6, true),
      serial: numbers.getUint32(at + 14, true),
      number: numbers.getUint32(at + 18, true),
      lacing,
      body: bytes.slice(body, end),
    });
    at = end;
  }
  return pages;
}

function writePage(page: Page): Uint8Array {
  const bytes = concat(ascii('OggS'), new Uint8Array(22), [page.lacing.length], page.lacing, page.body);
  const numbers = view(bytes);
  bytes[4] = page.version;
  bytes[5] = page.flags;
  numbers.setBigUint64(6, page.granule, true);
  numbers.setUint32(14, page.serial, true);
  numbers.setUint32(18, page.number, true);
  let crc = 0;
  for (const byte of bytes) crc = (crc << 8) ^ CRC[(crc >>> 24) ^ byte]!;
  numbers.setUint32(22, crc >>> 0, true);
  return bytes;
}

const lacingOf = (size: number): number[] => [...Array<number>(Math.floor(size / 255)).fill(255), size % 255];

/** A logical stream whose packets get a page each. */
export function oggOf(packets: readonly Uint8Array[], granules: readonly number[]): Uint8Array {
  const pages = packets.map((body, number) => {
    const flags = (number === 0 ? 2 : 0) + (number === packets.length - 1 ? 4 : 0);
    const granule = BigInt(granules[number] ?? 0);
    return writePage({ version: 0, flags, granule, serial: 7, number, lacing: lacingOf(body.length), body });
  });
  return concat(...pages);
}

/** The lacing that fits the body, packets cut at random. */
function relace(page: Page, random: Random): void {
  let left = page.body.length;
  page.lacing = [];
  while (left > 0 && page.lacing.length < 255) {
    const size = random.chance(0.5) ? Math.min(255, left) : Math.min(left, random.below(256));
    page.lacing.push(size);
    left -= size;
  }
}

/** Pages of packets of a byte or two, as many as fit: little to store, and it may be much to decode. */
function tinyPackets(last: Page, random: Random): Page[] {
  const bytes = random.between(1, 2);
  const packet = randomBytes(random, bytes);
  const lacing = Array<number>(255).fill(bytes);
  const body = Uint8Array.from({ length: 255 * bytes }, (_, i) => packet[i % bytes]!);
  const { serial, number, granule } = last;
  const count = random.count(random.chance(0.1) ? 400 : 4);
  const step = BigInt(255 * random.pick([120, 960, 5760]));
  last.number = number + count;
  last.granule = BigInt.asUintN(64, granule + step * BigInt(count));
  return Array.from({ length: count }, (_, i) => ({
    ...last,
    flags: 0,
    serial,
    number: number + i,
    granule: BigInt.asUintN(64, granule + step * BigInt(i + 1)),
    lacing: [...lacing],
    body,
  }));
}

export function mutateOgg(seed: Uint8Array, random: Random, others: readonly Uint8Array[]): Uint8Array {
  let pages: Page[] = oggPages(seed).map((page) => ({
    ...page,
    lacing: [...page.lacing],
    body: Uint8Array.from(page.body),
  }));
  for (let times = random.count(5); times > 0 && pages.length > 0; times--) {
    const page = random.pick(pages);
    switch (random.below(13)) {
      case 0:
      case 1:
      case 2:
      case 3:
        page.body = mutateBytes(page.body, random, [], random.count(3));
        if (random.chance(0.8)) relace(page, random);
        break;
      case 4:
        // The first pages hold the headers.
        pages[Math.min(pages.length - 1, random.below(2))]!.body[random.below(40)]! ^= 1 << random.below(8);
        break;
      case 5:
        page.flags = random.chance(0.5) ? page.flags ^ (1 << random.below(3)) : random.below(256);
        break;
      case 6:
        page.granule = random.boundary(64);
        break;
      case 7:
        page.serial = random.edge(32);
        break;
      case 8:
        page.number = random.edge(32);
        break;
      case 9:
        page.lacing[random.below(page.lacing.length)] = random.edge(8);
        break;
      case 10:
        mutateList(pages, random);
        if (random.chance(0.7)) for (const [number, each] of pages.entries()) each.number = number;
        break;
      case 11:
        pages = [...pages, ...oggPages(random.pick(others))];
        break;
      default:
        // Decoding what tiny packets hold may take a second: seldom.
        if (random.chance(0.9)) page.version = random.edge(8);
        else pages.splice(pages.length - 1, 0, ...tinyPackets(pages.at(-1)!, random));
    }
  }
  let bytes = concat(...pages.map(writePage));
  if (random.chance(0.15)) bytes = mutateBytes(bytes, random, [], 1);
  if (random.chance(0.1)) bytes = concat(bytes, randomBytes(random, random.count(100)));
  if (random.chance(0.05)) bytes = concat(randomBytes(random, random.count(100)), bytes);
  return bytes;
}
