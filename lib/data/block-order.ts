/**
 * The order of an epoch over sources of which some are read in blocks: rows that lie together come near one another, so that what
 * holds them is read forward, some blocks at a time, and each block once an epoch.
 */
import { permutation, SAMPLER_STREAMS } from '../random/index.js';
import { apportion, leveled } from './apportion.js';

/** Bytes of the blocks among which rows are mixed, and which are in memory together. */
export const MIXED_BYTES = 64 * 2 ** 20;

/** Rows of a source that are read together. */
export interface SourceBlocks {
  /** First row of each block; they are in the order of the rows. */
  starts: number[];
  /** Bytes that a block takes in memory. */
  bytes: number[];
  /** Blocks can be read in their own order only (a compressed archive). */
  sequential: boolean;
}

/** Bytes of a block, about. */
export const BLOCK_BYTES = 8 * 2 ** 20;

/** So many rows in blocks of about BLOCK_BYTES, by the bytes of each. */
export function blocksOf(rows: number, sizeOf: (row: number) => number): SourceBlocks {
  const [starts, bytes]: [number[], number[]] = [[], []];
  for (let row = 0; row < rows; row++) {
    const size = sizeOf(row);
    if (starts.length === 0 || bytes[bytes.length - 1]! + size > BLOCK_BYTES) {
      starts.push(row);
      bytes.push(0);
    }
    bytes[bytes.length - 1]! += size;
  }
  return { starts, bytes, sequential: false };
}

/** The block that a row lies in. */
export function blockOf({ starts }: SourceBlocks, row: number): number {
  let [low, high] = [0, starts.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (starts[middle]! <= row) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** Where items lie: of each its source and its block there; of each source how it is read, and the data set that it is a part of. */
export interface ItemBlocks {
  source: Uint16Array;
  block: Int32Array;
  kinds: readonly (SourceBlocks | undefined)[];
  sets: readonly number[];
}

/** Items that are dealt together. */
interface Part {
  items: Int32Array;
  /** How many an epoch takes. */
  quota: number;
  /** Whether they are read in blocks, and in the blocks' own order only. */
  reading: 'singly' | 'blocks' | 'in order';
}

/** How languages are leveled: that of each item, and the temperature. */
export interface LanguageLevel {
  languages: readonly string[];
  temperature: number;
}

export interface EpochParts {
  blocks: ItemBlocks;
  parts: readonly Part[];
  /** Items of an epoch in all. */
  size: number;
}

/**
 * What an epoch takes of which items. The parts of a data set that are read alike are dealt together, so that what is in memory is bounded for
 * all of its shards; an archive by itself. Of a data set of weight w come w · n of its n rows. With a `level` an epoch has as many
 * rows, each language has a part of its own, and, of the n rows that would come of it, a share in proportion to n^(1/T).
 */
export function epochParts(
  blocks: ItemBlocks,
  weights: readonly number[] | undefined,
  level?: LanguageLevel | undefined,
): EpochParts {
  const { source, kinds, sets } = blocks;
  const groups = new Map<string, { items: number[]; weight: number; reading: Part['reading'] }>();
  for (const [i, s] of source.entries()) {
    const kind = kinds[s];
    const reading = !kind ? 'singly' : kind.sequential ? 'in order' : 'blocks';
    const key = `${sets[s]} ${reading} ${reading === 'in order' ? s : ''}`;
    const group = groups.get(key) ?? { items: [], weight: weights?.[s] ?? 1, reading };
    groups.set(key, group);
    group.items.push(i);
  }
  const quota = ({ items, weight }: { items: number[]; weight: number }): number =>
    weight === 0 ? 0 : Math.max(1, Math.round(weight * items.length));
  const all = [...groups.values()];
  const size = all.reduce((sum, group) => sum + quota(group), 0);
  if (!level) {
    const parts = all.map((group) => ({ ...group, items: Int32Array.from(group.items), quota: quota(group) }));
    return { blocks, parts, size };
  }
  const byLanguage = new Map<string, { items: number[]; amount: number; reading: Part['reading'] }[]>();
  for (const { items, weight, reading } of all) {
    if (weight === 0) continue;
    const own = new Map<string, number[]>();
    for (const i of items) {
      const language = level.languages[i]!;
      const members = own.get(language);
      if (members) members.push(i);
      else own.set(language, [i]);
    }
    for (const [language, members] of own) {
      const parts = byLanguage.get(language) ?? [];
      byLanguage.set(language, parts);
      parts.push({ items: members, amount: weight * members.length, reading });
    }
  }
  if (size === 0) return { blocks, parts: [], size };
  const languages = [...byLanguage].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, parts]) => parts);
  const amounts = languages.map((parts) => parts.reduce((sum, { amount }) => sum + amount, 0));
  const parts = apportion(size, leveled(amounts, level.temperature)).flatMap((quota, l) => {
    const own = languages[l]!;
    const quotas = apportion(
      quota,
      own.map(({ amount }) => amount),
    );
    return own.map(({ items, reading }, i) => ({ items: Int32Array.from(items), quota: quotas[i]!, reading }));
  });
  return { blocks, parts, size };
}

/**
 * Items of an epoch, as a function of seed and epoch. What is taken of a part comes in whole passes, so that none comes a second time
 * before all others came once. In a pass the blocks are dealt in random order (or their own, where they can be read in no other), and rows
 * are mixed among those that are in memory together. The parts are mixed at random, each in its order.
 */
export function blockOrder({ blocks, parts, size }: EpochParts, seed: number, epoch: number): Int32Array {
  let stream: number = SAMPLER_STREAMS.passes;
  const draw = (length: number): Int32Array => permutation(length, seed, epoch, stream++);
  const orders = parts.map((part) => {
    const order = new Int32Array(part.quota);
    for (let done = 0; done < part.quota; done += part.items.length) {
      const pass = passOver(part, blocks, draw);
      order.set(pass.subarray(0, Math.min(pass.length, part.quota - done)), done);
    }
    return order;
  });
  const tags = new Uint16Array(size);
  let at = 0;
  for (const [part, { length }] of orders.entries()) {
    tags.fill(part, at, at + length);
    at += length;
  }
  const next = new Int32Array(orders.length);
  return permutation(size, seed, epoch, SAMPLER_STREAMS.order).map((slot) => {
    const part = tags[slot]!;
    return orders[part]![next[part]!++]!;
  });
}

function passOver(
  { items, reading }: Part,
  { source, block, kinds }: ItemBlocks,
  draw: (length: number) => Int32Array,
): Int32Array {
  if (reading === 'singly') return draw(items.length).map((i) => items[i]!);
  const groups = new Map<number, { members: number[]; bytes: number }>();
  for (const item of items) {
    const [s, number] = [source[item]!, block[item]!];
    const key = s * 2 ** 31 + number;
    const group = groups.get(key) ?? { members: [], bytes: kinds[s]!.bytes[number]! };
    groups.set(key, group);
    group.members.push(item);
  }
  const inOrder = [...groups].sort(([a], [b]) => a - b).map(([, group]) => group);
  const dealt = reading === 'in order' ? inOrder : Array.from(draw(inOrder.length), (i) => inOrder[i]!);
  const order: number[] = [];
  for (let from = 0; from < dealt.length; ) {
    let [to, bytes] = [from, 0];
    do bytes += dealt[to++]!.bytes;
    while (to < dealt.length && bytes + dealt[to]!.bytes <= MIXED_BYTES);
    const together = dealt.slice(from, to).flatMap(({ members }) => members);
    for (const i of draw(together.length)) order.push(together[i]!);
    from = to;
  }
  return Int32Array.from(order);
}
