/** Which examples form which batch: a pure function of (seed, epoch, items), so that a resumed run goes on at (epoch, position). */
import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { permutation, SAMPLER_STREAMS } from '../random/index.js';
import { apportion, leveled } from './apportion.js';
import { blockOrder, type EpochParts, epochParts, type ItemBlocks } from './block-order.js';

export interface SamplerItem {
  language?: string;
  /** In seconds; needed by length buckets only. */
  duration?: number;
}

export interface SamplerOptions {
  batchSize: number;
  /** A whole number from 0 to 2^53 − 1; 0 by default. */
  seed?: number | undefined;
  /** Off: examples in their own order, the same in every epoch. */
  shuffle?: boolean | undefined;
  /** Leave out a last batch that is not full. */
  dropLast?: boolean | undefined;
  /**
   * Batches of one language each, in the order in which they fill up along the permutation; what is left over of each language
   * is mixed into the last batches (the reference's batch sampler).
   */
  groupByLanguage?: boolean | undefined;
  /** Share of each language in an epoch, relative to the others. Languages that are not named have weight 0. */
  languageWeights?: Readonly<Record<string, number>>;
  /**
   * Temperature sampling: the share of a language of n examples is n^(1/T), of as many examples in an epoch. 1, the default, leaves the data as
   * they are, Infinity levels them. With `sourceWeights` n is what would come of a language by them, and within it they hold.
   */
  temperature?: number | undefined;
  /** Examples in an epoch; as many as there are items by default. */
  epochSize?: number | undefined;
  /** Where the items of a `Dataset` lie (`Dataset.sampling`): those that are read together come near one another. */
  blocks?: ItemBlocks | undefined;
  /** How often the rows of each source of `blocks` come in an epoch; once each by default. */
  sourceWeights?: readonly number[] | undefined;
  /** Sort by duration within windows of so many batches, to save padding, and shuffle the batches. 0, the default: do not. */
  bucketBatches?: number | undefined;
}

type Filled<T> = { [K in keyof T]-?: Exclude<T[K], undefined> };

/** The names of all options, for calls that take them with their own. */
export const SAMPLER_OPTIONS: Record<keyof SamplerOptions, true> = {
  batchSize: true,
  seed: true,
  shuffle: true,
  dropLast: true,
  groupByLanguage: true,
  languageWeights: true,
  temperature: true,
  epochSize: true,
  blocks: true,
  sourceWeights: true,
  bucketBatches: true,
};

export interface Batch {
  epoch: number;
  /** Position of the batch in its epoch, from 0. */
  position: number;
  /** Indices into the items. */
  indices: Int32Array;
}

/** Deals the items of a data set into batches, epoch by epoch. */
export class EpochSampler {
  /** Batches in an epoch; the same in every epoch. */
  readonly batchesPerEpoch: number;
  readonly #items: readonly SamplerItem[];
  readonly #options: Filled<Omit<SamplerOptions, 'languageWeights' | 'temperature' | 'blocks' | 'sourceWeights'>>;
  /** What an epoch takes where items lie in blocks. */
  readonly #parts: EpochParts | undefined;
  /** Indices of each language and how many of them an epoch takes; undefined when an epoch takes every item once. */
  readonly #quotas: { members: Int32Array; quota: number }[] | undefined;
  #cached: { epoch: number; batches: Int32Array[] } | undefined;

  /** @throws ERR_ARGUMENT for options out of range, a missing language or duration, or no items */
  constructor(items: readonly SamplerItem[], options: SamplerOptions) {
    checkOptions('EpochSampler', options, SAMPLER_OPTIONS);
    const { batchSize, seed = 0, bucketBatches = 0, blocks, sourceWeights } = options;
    const whole = (name: string, value: number, least: number, most = Number.MAX_SAFE_INTEGER) => {
      if (!Number.isInteger(value) || value < least || value > most)
        throw argument(`${name} must be a whole number from ${least} to ${most}, got ${value}`);
    };
    if (items.length === 0) throw argument('there are no items');
    whole('batchSize', batchSize, 1);
    whole('seed', seed, 0);
    if (options.epochSize !== undefined) whole('epochSize', options.epochSize, 1, 2 ** 31 - 1);
    whole('bucketBatches', bucketBatches, 0);
    const { languageWeights, temperature, shuffle = true, dropLast = false, groupByLanguage = false } = options;
    if (languageWeights && temperature !== undefined) throw argument('give languageWeights or temperature, not both');
    if (temperature !== undefined && !(temperature > 0))
      throw argument(`temperature must be positive, got ${temperature}`);
    const levels = temperature !== undefined && temperature !== 1;
    if (blocks && (languageWeights !== undefined || options.epochSize !== undefined))
      throw argument('blocks do not go with languageWeights or epochSize');
    if (blocks && blocks.source.length !== items.length)
      throw argument(`blocks are of ${blocks.source.length} items, expected ${items.length}`);
    if (sourceWeights && !(blocks && shuffle)) throw argument('sourceWeights need blocks and shuffle');
    const drawn =
      languageWeights !== undefined ||
      levels ||
      (options.epochSize !== undefined && options.epochSize !== items.length);
    if (drawn && !shuffle)
      throw argument('languageWeights, temperature and epochSize draw examples at random: they need shuffle');
    if (groupByLanguage || languageWeights || levels) {
      const at = items.findIndex((item) => !item.language);
      if (at >= 0) throw argument(`item ${at} has no language`);
    }
    if (bucketBatches > 0) {
      const at = items.findIndex((item) => !(item.duration! >= 0));
      if (at >= 0)
        throw argument(`bucketBatches needs the duration of every item, item ${at} has ${items[at]!.duration}`);
    }
    const level = levels ? { languages: items.map(({ language }) => language!), temperature } : undefined;
    this.#parts = blocks && epochParts(blocks, sourceWeights, level);
    const epochSize = options.epochSize ?? this.#parts?.size ?? items.length;
    if (epochSize === 0) throw argument('the weights of all sources are 0');
    this.#items = items;
    this.#options = {
      batchSize,
      seed,
      shuffle,
      dropLast,
      groupByLanguage,
      epochSize,
      bucketBatches,
    };
    this.#quotas = drawn && !blocks ? quotas(items, epochSize, languageWeights, temperature) : undefined;
    this.batchesPerEpoch = dropLast ? Math.floor(epochSize / batchSize) : Math.ceil(epochSize / batchSize);
    if (this.batchesPerEpoch === 0)
      throw argument(`dropLast leaves no batch: an epoch has ${epochSize} examples, fewer than batchSize ${batchSize}`);
  }

  /** All batches of an epoch, as indices into the items. */
  batches(epoch: number): readonly Int32Array[] {
    if (!Number.isInteger(epoch) || epoch < 0 || epoch >= 2 ** 32)
      throw argument(`epoch must be a whole number from 0, got ${epoch}`);
    if (this.#cached?.epoch !== epoch) this.#cached = { epoch, batches: this.#deal(epoch) };
    return this.#cached.batches;
  }

  /** Examples of each language in an epoch, the first one, by name; those without a language are not counted. */
  languageCounts(): Map<string, number> {
    const counts = new Map<string, number>();
    for (const batch of this.batches(0)) {
      for (const i of batch) {
        const { language } = this.#items[i]!;
        if (language !== undefined) counts.set(language, (counts.get(language) ?? 0) + 1);
      }
    }
    return counts;
  }

  /** Batches from (epoch, position) on, for `epochs` epochs counted from epoch 0 (endlessly by default). */
  *iterate(from: { epoch?: number; position?: number; epochs?: number } = {}): Generator<Batch, void, undefined> {
    const { epochs = Number.POSITIVE_INFINITY } = from;
    let { epoch = 0, position = 0 } = from;
    if (!Number.isInteger(position) || position < 0 || position > this.batchesPerEpoch)
      throw argument(`position must be a whole number from 0 to ${this.batchesPerEpoch}, got ${position}`);
    for (; epoch < epochs; epoch++, position = 0)
      for (; position < this.batchesPerEpoch; position++)
        yield { epoch, position, indices: this.batches(epoch)[position]! };
  }

  #deal(epoch: number): Int32Array[] {
    const { batchSize, seed, shuffle, dropLast, groupByLanguage, bucketBatches } = this.#options;
    const order = this.#order(epoch);
    const window = bucketBatches * batchSize;
    // What dropLast drops is chosen by the permutation, before the sort by duration, so that it is not always the longest.
    const trim = (indices: Int32Array) =>
      dropLast ? indices.subarray(0, indices.length - (indices.length % batchSize)) : indices;
    const batches: Int32Array[] = [];
    if (!groupByLanguage) {
      batches.push(...split(this.#bucket(trim(order), window), batchSize));
    } else {
      const groups = new Map<string, number[]>();
      for (const index of order) {
        const language = this.#items[index]!.language!;
        const group = groups.get(language) ?? [];
        groups.set(language, group);
        group.push(index);
        if (group.length < (window || batchSize)) continue;
        batches.push(...split(this.#bucket(Int32Array.from(group), window), batchSize));
        group.length = 0;
      }
      const rest: number[] = [];
      for (const group of groups.values()) {
        const full = group.length - (group.length % batchSize);
        rest.push(...group.slice(full));
        batches.push(...split(this.#bucket(Int32Array.from(group.slice(0, full)), window), batchSize));
      }
      batches.push(...split(this.#bucket(trim(Int32Array.from(rest)), window), batchSize));
    }
    if (window === 0 || !shuffle) return batches;
    return Array.from(permutation(batches.length, seed, epoch, SAMPLER_STREAMS.batches), (at) => batches[at]!);
  }

  /** The epoch's examples in random order. */
  #order(epoch: number): Int32Array {
    const { seed, shuffle, epochSize } = this.#options;
    if (!shuffle) return Int32Array.from(this.#items, (_, i) => i);
    if (this.#parts) return blockOrder(this.#parts, seed, epoch);
    if (!this.#quotas) return permutation(epochSize, seed, epoch, SAMPLER_STREAMS.order);
    // Each language is dealt in whole passes, so that no example comes a second time before all others came once.
    const drawn = new Int32Array(epochSize);
    let at = 0;
    let stream: number = SAMPLER_STREAMS.passes;
    for (const { members, quota } of this.#quotas) {
      for (let left = quota; left > 0; left -= members.length) {
        const pass = permutation(members.length, seed, epoch, stream++);
        for (let i = 0; i < Math.min(left, members.length); i++) drawn[at++] = members[pass[i]!]!;
      }
    }
    return permutation(epochSize, seed, epoch, SAMPLER_STREAMS.order).map((i) => drawn[i]!);
  }

  /** Sorts by duration within windows; equal durations keep their random order. */
  #bucket(order: Int32Array, window: number): Int32Array {
    if (window === 0) return order;
    const sorted: number[] = [];
    for (let from = 0; from < order.length; from += window)
      sorted.push(
        ...Array.from(order.subarray(from, from + window)).sort(
          (a, b) => this.#items[a]!.duration! - this.#items[b]!.duration!,
        ),
      );
    return Int32Array.from(sorted);
  }
}

function split(order: Int32Array, batchSize: number): Int32Array[] {
  const batches: Int32Array[] = [];
  for (let from = 0; from < order.length; from += batchSize) batches.push(order.slice(from, from + batchSize));
  return batches;
}

/** How many examples of each language an epoch takes: shares in proportion to the weights, rounded by largest remainder. */
function quotas(
  items: readonly SamplerItem[],
  epochSize: number,
  weights: Readonly<Record<string, number>> | undefined,
  temperature = 1,
): { members: Int32Array; quota: number }[] {
  const languages = new Map<string, number[]>();
  for (const [index, { language = '' }] of items.entries()) {
    const members = languages.get(language);
    if (members) members.push(index);
    else languages.set(language, [index]);
  }
  for (const [language, weight] of Object.entries(weights ?? {})) {
    if (!(weight >= 0 && weight < Number.POSITIVE_INFINITY))
      throw argument(`the weight of language ${language} must be 0 or a positive number, got ${weight}`);
    if (weight > 0 && !languages.has(language))
      throw argument(`there is a weight for language ${language}, but no item of it`);
  }
  const named = [...languages].sort(([a], [b]) => (a < b ? -1 : 1));
  const shares = weights
    ? named.map(([language]) => weights[language] ?? 0)
    : leveled(
        named.map(([, members]) => members.length),
        temperature,
      );
  if (shares.every((share) => share === 0)) throw argument('the weights of all languages are 0');
  return apportion(epochSize, shares).map((quota, l) => ({ members: Int32Array.from(named[l]![1]), quota }));
}

const argument = (what: string) => new DistilWhisperError('ERR_ARGUMENT', `EpochSampler: ${what}`);
