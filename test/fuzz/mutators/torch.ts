/** PyTorch checkpoints: a zip archive by its headers, with right checksums, and the pickle in it by its instructions. */
import { crc32 } from 'node:zlib';
import type { Random } from '../random.js';
import { ascii, concat, mutateBytes, mutateList, putNumber, randomBytes, view } from './bytes.js';

interface Entry {
  name: string;
  data: Uint8Array;
}

/** The entries of a sound archive without compression. */
export function unzip(bytes: Uint8Array): Entry[] {
  const numbers = view(bytes);
  const end = bytes.length - 22;
  const entries: Entry[] = [];
  let at = numbers.getUint32(end + 16, true);
  for (let i = numbers.getUint16(end + 10, true); i > 0; i--) {
    const [nameBytes, extra, comment] = [28, 30, 32].map((field) => numbers.getUint16(at + field, true)) as [
      number,
      number,
      number,
    ];
    const local = numbers.getUint32(at + 42, true);
    const start = local + 30 + numbers.getUint16(local + 26, true) + numbers.getUint16(local + 28, true);
    const name = new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + nameBytes));
    entries.push({ name, data: bytes.slice(start, start + numbers.getUint32(at + 24, true)) });
    at += 46 + nameBytes + extra + comment;
  }
  return entries;
}

/** Offsets and sizes of the numbers in the headers, by what a header begins with. */
const LOCAL = [4, 6, 8, 14, 18, 22, 26, 28];
const CENTRAL = [4, 6, 8, 10, 16, 20, 24, 28, 30, 32, 34, 42];
const END = [4, 6, 8, 10, 12, 16, 20];
const WIDE = new Set([14, 16, 18, 20, 22, 24, 42, 12]);

/** `bend` changes headers before they are written. */
function zip(
  entries: readonly Entry[],
  bend: (header: Uint8Array, fields: readonly number[]) => void = () => {},
): Uint8Array {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let at = 0;
  for (const { name, data } of entries) {
    const text = new TextEncoder().encode(name);
    const crc = crc32(data);
    const local = new Uint8Array(30);
    const numbers = view(local);
    numbers.setUint32(0, 0x04034b50, true);
    numbers.setUint32(14, crc, true);
    numbers.setUint32(18, data.length, true);
    numbers.setUint32(22, data.length, true);
    numbers.setUint16(26, text.length, true);
    const central = new Uint8Array(46);
    const listed = view(central);
    listed.setUint32(0, 0x02014b50, true);
    central.set(local.subarray(4, 30), 6);
    listed.setUint32(42, at, true);
    bend(local, LOCAL);
    bend(central, CENTRAL);
    parts.push(local, text, data);
    directory.push(central, text);
    at += 30 + text.length + data.length;
  }
  const end = new Uint8Array(22);
  const numbers = view(end);
  numbers.setUint32(0, 0x06054b50, true);
  numbers.setUint16(8, entries.length, true);
  numbers.setUint16(10, entries.length, true);
  numbers.setUint32(
    12,
    directory.reduce((sum, part) => sum + part.length, 0),
    true,
  );
  numbers.setUint32(16, at, true);
  bend(end, END);
  return concat(...parts, ...directory, end);
}

/** How many bytes of arguments an instruction has; lines and counted strings are told apart below. */
const ARGUMENTS: Record<number, number> = { 128: 1, 75: 1, 77: 2, 74: 4, 113: 1, 114: 4, 104: 1, 106: 4 };

/** Cuts a pickle into its instructions. */
export function instructions(pickle: Uint8Array): Uint8Array[] {
  const list: Uint8Array[] = [];
  const numbers = view(pickle);
  for (let at = 0; at < pickle.length; ) {
    const code = pickle[at]!;
    let length = 1 + (ARGUMENTS[code] ?? 0);
    if (code === 0x63) length = pickle.indexOf(10, pickle.indexOf(10, at) + 1) + 1 - at;
    else if (code === 0x58) length = 5 + numbers.getUint32(at + 1, true);
    else if (code === 0x8a) length = 2 + pickle[at + 1]!;
    list.push(pickle.slice(at, at + length));
    at += length;
  }
  return list;
}

const text = (value: string): Uint8Array => concat([0x58, value.length, 0, 0, 0], ascii(value));
const FRESH: readonly Uint8Array[] = [
  ...[
    0x28, 0x7d, 0x29, 0x74, 0x85, 0x86, 0x87, 0x4e, 0x88, 0x89, 0x73, 0x75, 0x51, 0x52, 0x62, 0x2e, 0x30, 0x32, 0x5d,
    0x81,
  ].map((code) => Uint8Array.of(code)),
  ...[
    'collections\nOrderedDict\n',
    'torch._utils\n_rebuild_tensor_v2\n',
    'torch\nFloatStorage\n',
    'torch\nDoubleStorage\n',
    'os\nsystem\n',
    '__main__\n__proto__\n',
    '\n\n',
  ].map((name) => concat([0x63], ascii(name))),
  ...['storage', '0', 'cpu', '__proto__', ''].map(text),
];

function instruction(random: Random): Uint8Array {
  if (random.chance(0.6)) return random.pick(FRESH);
  const code = random.pick([0x4b, 0x4d, 0x4a, 0x8a, 0x71, 0x72, 0x68, 0x6a, 0x80]);
  if (code === 0x8a) return concat([code, 8], randomBytes(random, 8));
  const size = ARGUMENTS[code]!;
  const bytes = Uint8Array.of(code, 0, 0, 0, 0).subarray(0, 1 + size);
  putNumber(bytes, 1, size, random.boundary(8 * size), true);
  return bytes;
}

function mutatePickle(pickle: Uint8Array, random: Random): Uint8Array {
  const list = instructions(pickle);
  for (let times = random.count(5); times > 0 && list.length > 0; times--) {
    const at = random.below(list.length);
    const code = list[at]!;
    switch (random.below(7)) {
      case 0:
        mutateList(list, random);
        break;
      case 1:
        list.splice(at, 0, instruction(random));
        break;
      case 2:
        list[at] = instruction(random);
        break;
      case 3:
        if (code.length > 1 && code[0] !== 0x63)
          putNumber(code, 1, code[0] === 0x58 ? 4 : code.length - 1, random.boundary(32), true);
        break;
      case 4: {
        // The same thing over and over: what it costs must be bounded.
        const many = random.chance(0.01) ? random.count(24_000_000) : random.count(2000);
        const again = concat(random.pick(FRESH), random.chance(0.3) ? instruction(random) : []);
        const run = new Uint8Array(many);
        for (let i = 0; i < run.length; i++) run[i] = again[i % again.length]!;
        list.splice(at, 0, run);
        break;
      }
      case 5:
        list[at] = mutateBytes(code, random, [], 1);
        break;
      default: {
        const from = random.below(list.length);
        list.splice(at, 0, ...list.slice(from, from + random.count(20)));
      }
    }
  }
  return concat(...list);
}

/** A mutated checkpoint: mostly its pickle, else its entries, the headers or plain bytes. */
export function mutateTorch(seed: readonly Entry[], random: Random): Uint8Array {
  const entries = seed.map((entry) => ({ ...entry }));
  const entry = random.pick(entries);
  const pickle = entries.find(({ name }) => name.endsWith('data.pkl'));
  const what = random.below(10);
  if (what < 5 && pickle) pickle.data = mutatePickle(pickle.data, random);
  else if (what === 5) entry.data = mutateBytes(entry.data, random);
  else if (what === 6) mutateList(entries, random);
  else if (what === 7)
    entry.name = random.pick(['archive/data.pkl', 'data.pkl', 'a/b/data.pkl', '', '../x', `${entry.name}x`, '\ud800']);
  const headers = what === 8 ? 0.1 : 0.002;
  const bytes = zip(entries, (header, fields) => {
    if (!random.chance(headers)) return;
    const field = random.pick(fields);
    const size = WIDE.has(field) ? 4 : 2;
    putNumber(header, field, size, random.boundary(8 * size), true);
  });
  return what === 9 ? mutateBytes(bytes, random) : bytes;
}
