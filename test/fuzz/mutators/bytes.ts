/** Mutations that know nothing of a format: bits, numbers at the ends of their types, pieces moved, doubled and left out. */
import type { Random } from '../random.js';

/** Inputs stay below this, so that thousands a second are read. */
const MOST_BYTES = 1 << 18;

export const concat = (...parts: readonly (Uint8Array | readonly number[])[]): Uint8Array => {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    joined.set(part, at);
    at += part.length;
  }
  return joined;
};

export const ascii = (text: string): Uint8Array => Uint8Array.from(text, (c) => c.charCodeAt(0));
export const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

export function randomBytes(random: Random, count: number): Uint8Array {
  const bytes = new Uint8Array(count);
  for (let i = 0; i < count; i++) bytes[i] = random.next();
  return bytes;
}

/** Writes `value` at `at`, as far as the bytes reach. */
export function putNumber(bytes: Uint8Array, at: number, size: number, value: bigint, little: boolean): void {
  for (let i = 0; i < size; i++) {
    const place = at + (little ? i : size - 1 - i);
    if (place < bytes.length) bytes[place] = Number((value >> BigInt(8 * i)) & 255n);
  }
}

function getNumber(bytes: Uint8Array, at: number, size: number, little: boolean): bigint {
  let value = 0n;
  for (let i = 0; i < size; i++) value = (value << 8n) | BigInt(bytes[at + (little ? size - 1 - i : i)] ?? 0);
  return value;
}

/** Looks for a number that could be a length or an offset of these bytes and bends it. */
function bendLength(bytes: Uint8Array, random: Random): void {
  for (let tries = 0; tries < 16; tries++) {
    const at = random.below(bytes.length);
    const size = random.pick([2, 4, 8]);
    const little = random.chance(0.5);
    const value = getNumber(bytes, at, size, little);
    if (value < 1n || value > BigInt(bytes.length)) continue;
    const bent = [value - 1n, value + 1n, value * 2n, value / 2n, value + 4096n, random.boundary(8 * size)];
    putNumber(bytes, at, size, random.pick(bent), little);
    return;
  }
}

/** A stretch of the bytes, short mostly. */
function stretch(bytes: Uint8Array, random: Random): [from: number, to: number] {
  const length = Math.min(bytes.length, random.count(bytes.length));
  const from = random.below(bytes.length - length + 1);
  return [from, from + length];
}

function step(bytes: Uint8Array, random: Random, others: readonly Uint8Array[]): Uint8Array {
  if (bytes.length === 0) return randomBytes(random, random.count(64));
  const at = random.below(bytes.length);
  switch (random.below(14)) {
    case 0:
    case 1:
      bytes[at]! ^= 1 << random.below(8);
      return bytes;
    case 2:
      bytes[at] = random.edge(8);
      return bytes;
    case 3:
    case 4: {
      const size = random.pick([1, 2, 3, 4, 8]);
      putNumber(bytes, at, size, random.boundary(8 * size), random.chance(0.5));
      return bytes;
    }
    case 5: {
      const size = random.pick([1, 2, 4, 8]);
      const little = random.chance(0.5);
      const value = getNumber(bytes, at, size, little) + BigInt(random.between(-16, 16));
      putNumber(bytes, at, size, value & ((1n << BigInt(8 * size)) - 1n), little);
      return bytes;
    }
    case 6:
      bendLength(bytes, random);
      return bytes;
    case 7:
      return bytes.slice(0, at);
    case 8: {
      const [from, to] = stretch(bytes, random);
      return concat(bytes.subarray(0, from), bytes.subarray(to));
    }
    case 9: {
      const [from, to] = stretch(bytes, random);
      const times = random.chance(0.1) ? random.count(64) : 1;
      const room = Math.max(1, Math.floor((MOST_BYTES - bytes.length) / (to - from)));
      const again = Array.from({ length: Math.min(times, room) }, () => bytes.subarray(from, to));
      return concat(bytes.subarray(0, to), ...again, bytes.subarray(to));
    }
    case 10: {
      const [from, to] = stretch(bytes, random);
      bytes.copyWithin(at, from, to);
      return bytes;
    }
    case 11: {
      const [from, to] = stretch(bytes, random);
      bytes.fill(random.pick([0, 255, 0x20, random.below(256)]), from, to);
      return bytes;
    }
    case 12: {
      const fresh = randomBytes(random, random.count(64));
      return concat(bytes.subarray(0, at), fresh, bytes.subarray(at));
    }
    default: {
      const other = others.length > 0 ? random.pick(others) : bytes;
      const from = random.below(other.length);
      return concat(bytes.subarray(0, at), other.subarray(from));
    }
  }
}

/** A mutated copy; `others` are inputs of the same kind whose ends may be grafted on. */
export function mutateBytes(
  bytes: Uint8Array,
  random: Random,
  others: readonly Uint8Array[] = [],
  times = random.count(6),
): Uint8Array {
  let mutated: Uint8Array = Uint8Array.from(bytes);
  for (let i = 0; i < times; i++) mutated = step(mutated, random, others);
  return mutated.subarray(0, MOST_BYTES);
}

/** Leaves out, doubles or swaps items of a list, in place. */
export function mutateList<T>(list: T[], random: Random): void {
  if (list.length === 0) return;
  const at = random.below(list.length);
  switch (random.below(4)) {
    case 0:
      list.splice(at, 1);
      return;
    case 1:
      list.splice(random.below(list.length + 1), 0, list[at]!);
      return;
    case 2: {
      const other = random.below(list.length);
      [list[at], list[other]] = [list[other]!, list[at]!];
      return;
    }
    default:
      list.splice(at + 1);
  }
}
