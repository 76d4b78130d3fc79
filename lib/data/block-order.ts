/**
 * The order of an epoch over sources of which some are read in blocks: rows that lie together come near one another, so that what
 * holds them is read forward, some blocks at a time, and each block once an epoch.
 */
import { permutation, SAMPLER_STREAMS } from '../random/index.js';

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
  weight: number;
  /** Whether they are read in blocks, and in the blocks' own order only. */
  reading: 'singly' | 'blocks' | 'in order';
}

/** The parts of a data set that are read alike are dealt together, so that what is in memory is bounded for all of its shards; an archive by itself. */
function partsOf({ source, kinds, sets }: ItemBlocks, weights: readonly number[] | undefined): Part[] {
  const parts = new Map<string, { items: number[] } & Omit<Part, 'items'>>();
  const partOf = kinds.map((kind, s) => {
    const reading = !kind ? 'singly' : kind.sequential ? 'in order' : 'blocks';
    const key = `${sets[s]} ${reading} ${reading === 'in order' ? s : ''}`;
    const part = parts.get(key) ?? { items: [], weight: weights?.[s] ?? 1, reading };
    parts.set(key, part);
    return part;
  });
  for (const [i, s] of source.entries()) partOf[s]!.items.push(i);
  return [...parts.values()].map(({ items, ...part }) => ({ ...part, items: Int32Array.from(items) }));
}

/**
 * Items of an epoch, as a function of seed and epoch. Of a data set of weight w come w · n of its n rows, in whole passes, so that none
 * comes a second time before all others came once. In a pass the blocks are dealt in random order (or their own, where they can be read
 * in no other), and rows are mixed among those that are in memory together. The data sets are mixed at random, each in its order.
 */
export function blockOrder(
  blocks: ItemBlocks,
  weights: readonly number[] | undefined,
  seed: number,
  epoch: number,
): Int32Array {
  let stream: number = SAMPLER_STREAMS.passes;
  const draw = (length: number): Int32Array => permutation(length, seed, epoch, stream++);
  const orders = partsOf(blocks, weights).map((part) => {
    const wanted = quota(part);
    const order = new Int32Array(wanted);
    for (let done = 0; done < wanted; done += part.items.length) {
      const pass = passOver(part, blocks, draw);
      order.set(pass.subarray(0, Math.min(pass.length, wanted - done)), done);
    }
    return order;
  });
  const total = orders.reduce((sum, { length }) => sum + length, 0);
  const tags = new Uint16Array(total);
  let at = 0;
  for (const [part, { length }] of orders.entries()) {
    tags.fill(part, at, at + length);
    at += length;
  }
  const next = new Int32Array(orders.length);
  return permutation(total, seed, epoch, SAMPLER_STREAMS.order).map((slot) => {
    const part = tags[slot]!;
    return orders[part]![next[part]!++]!;
  });
}

/** Items of an epoch in all. */
export const blockEpochSize = (blocks: ItemBlocks, weights: readonly number[] | undefined): number =>
  partsOf(blocks, weights).reduce((sum, part) => sum + quota(part), 0);

const quota = ({ items, weight }: Part): number =>
  items.length === 0 || weight === 0 ? 0 : Math.max(1, Math.round(weight * items.length));

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
