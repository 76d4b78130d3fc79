import test from 'ava';
import { EpochSampler } from '../../lib/data/index.js';

const ITEMS = Array.from({ length: 103 }, (_, i) => ({
  language: ['ca', 'pl', 'th'][i < 60 ? 0 : i < 95 ? 1 : 2]!,
  duration: 1 + ((i * 37) % 50),
}));
const flat = (batches: Iterable<Int32Array>) => [...batches].flatMap((batch) => [...batch]);
const sorted = (values: number[]) => [...values].sort((a, b) => a - b);
const ALL = ITEMS.map((_, i) => i);

test('an epoch holds every item once, in another order each epoch; the same (seed, epoch) gives the same batches', (t) => {
  for (const options of [
    {},
    { groupByLanguage: true },
    { bucketBatches: 3 },
    { groupByLanguage: true, bucketBatches: 2 },
  ]) {
    const make = (seed: number) => new EpochSampler(ITEMS, { batchSize: 8, seed, ...options });
    const sampler = make(5);
    t.is(sampler.batchesPerEpoch, 13);
    for (const epoch of [0, 1, 9]) {
      const batches = sampler.batches(epoch);
      t.is(batches.length, 13, JSON.stringify(options));
      t.deepEqual(sorted(flat(batches)), ALL);
      t.deepEqual(make(5).batches(epoch), batches);
    }
    t.notDeepEqual(sampler.batches(0), sampler.batches(1));
    t.notDeepEqual(sampler.batches(0), make(6).batches(0));
  }
});

test('dropLast leaves only full batches; shuffle: false keeps the order', (t) => {
  for (const options of [
    {},
    { groupByLanguage: true },
    { bucketBatches: 3 },
    { groupByLanguage: true, bucketBatches: 2 },
  ]) {
    const sampler = new EpochSampler(ITEMS, { batchSize: 8, dropLast: true, ...options });
    t.is(sampler.batches(3).length, 12);
    t.is(sampler.batchesPerEpoch, 12);
    t.true(sampler.batches(3).every((batch) => batch.length === 8));
    t.is(new Set(flat(sampler.batches(3))).size, 96);
  }
  t.deepEqual(flat(new EpochSampler(ITEMS, { batchSize: 8, shuffle: false }).batches(4)), ALL);
});

test('groupByLanguage: all batches of one language, except the mixed leftovers at the end', (t) => {
  const sampler = new EpochSampler(ITEMS, { batchSize: 8, groupByLanguage: true });
  const pure = sampler.batches(2).map((batch) => new Set(Array.from(batch, (i) => ITEMS[i]!.language)).size === 1);
  // 60, 35 and 8 items: 7 + 4 + 1 batches of one language, then 4 + 3 + 0 left over.
  t.deepEqual(pure, [...Array<boolean>(12).fill(true), false]);
});

test('bucketBatches saves padding and leaves the order of lengths random', (t) => {
  const items = Array.from({ length: 640 }, (_, i) => ({ duration: 1 + ((i * 7919) % 30) }));
  const padding = (sampler: EpochSampler) =>
    sampler.batches(0).reduce((sum, batch) => {
      const durations = Array.from(batch, (i) => items[i]!.duration);
      return sum + Math.max(...durations) * durations.length - durations.reduce((a, b) => a + b, 0);
    }, 0);
  const plain = padding(new EpochSampler(items, { batchSize: 16 }));
  const bucketed = new EpochSampler(items, { batchSize: 16, bucketBatches: 20 });
  t.true(padding(bucketed) < 0.15 * plain, `${padding(bucketed)} s of padding, ${plain} without buckets`);
  const first = bucketed.batches(0).map((batch) => items[batch[0]!]!.duration);
  const rising = first.slice(1).filter((duration, i) => duration > first[i]!).length;
  t.true(rising > 8 && rising < 32, `${rising} of 39 batches are longer than the one before`);
});

test('temperature and languageWeights set the share of each language; small languages repeat in whole passes', (t) => {
  const counts = (options: object, epoch = 0) => {
    const n: Record<string, number> = {};
    const times = new Map<number, number>();
    for (const i of flat(new EpochSampler(ITEMS, { batchSize: 8, ...options }).batches(epoch))) {
      n[ITEMS[i]!.language] = (n[ITEMS[i]!.language] ?? 0) + 1;
      times.set(i, (times.get(i) ?? 0) + 1);
    }
    for (const language of ['ca', 'pl', 'th']) {
      const own = ALL.filter((i) => ITEMS[i]!.language === language).map((i) => times.get(i) ?? 0);
      t.true(Math.max(...own) - Math.min(...own) <= 1, 'no item comes twice more often than another of its language');
    }
    return n;
  };
  t.deepEqual(counts({ temperature: 1 }), { ca: 60, pl: 35, th: 8 });
  t.deepEqual(counts({ temperature: Number.POSITIVE_INFINITY, epochSize: 300 }), { ca: 100, pl: 100, th: 100 });
  // n^(1/2): 7.746, 5.916, 2.828 of 16.490
  t.deepEqual(counts({ temperature: 2, epochSize: 1000 }), { ca: 470, pl: 359, th: 171 });
  t.deepEqual(counts({ languageWeights: { ca: 1, th: 3 }, epochSize: 80 }), { ca: 20, th: 60 });
  t.deepEqual(counts({ epochSize: 206 }), { ca: 120, pl: 70, th: 16 });
});

test('iterate goes on at any (epoch, position) with the batches of an uninterrupted run', (t) => {
  const make = () => new EpochSampler(ITEMS, { batchSize: 8, seed: 3, groupByLanguage: true });
  const whole = [...make().iterate({ epochs: 3 })];
  t.is(whole.length, 39);
  t.deepEqual([whole[14]!.epoch, whole[14]!.position], [1, 1]);
  t.deepEqual([...make().iterate({ epoch: 1, position: 5, epochs: 3 })], whole.slice(18));
  t.deepEqual(
    [...make().iterate({ epoch: 1, position: 13, epochs: 3 })],
    whole.slice(26),
    'the end of an epoch is the next one',
  );
  t.deepEqual([...make().iterate({ epoch: 3, epochs: 3 })], []);
});

test('EpochSampler refuses options out of range', (t) => {
  const bad: [object, RegExp][] = [
    [{ batchSize: 0 }, /batchSize/],
    [{ batchSize: 1.5 }, /batchSize/],
    [{ batchSize: 8, seed: -1 }, /seed/],
    [{ batchSize: 104, dropLast: true }, /dropLast leaves no batch/],
    [{ batchSize: 8, temperature: 0 }, /temperature/],
    [{ batchSize: 8, temperature: 2, languageWeights: { ca: 1 } }, /not both/],
    [{ batchSize: 8, languageWeights: { ca: -1 } }, /weight of language ca/],
    [{ batchSize: 8, languageWeights: { xx: 1 } }, /language xx, but no item/],
    [{ batchSize: 8, languageWeights: {} }, /all languages are 0/],
    [{ batchSize: 8, temperature: 2, shuffle: false }, /need shuffle/],
  ];
  for (const [options, message] of bad)
    t.throws(() => new EpochSampler(ITEMS, options as { batchSize: number }), { code: 'ERR_ARGUMENT', message });
  t.throws(() => new EpochSampler([], { batchSize: 1 }), { code: 'ERR_ARGUMENT', message: /no items/ });
  t.throws(() => new EpochSampler([{}], { batchSize: 1, groupByLanguage: true }), {
    message: /item 0 has no language/,
  });
  t.throws(() => new EpochSampler([{}], { batchSize: 1, bucketBatches: 1 }), { message: /duration of every item/ });
  const sampler = new EpochSampler(ITEMS, { batchSize: 8 });
  t.throws(() => sampler.batches(-1), { code: 'ERR_ARGUMENT' });
  t.throws(() => [...sampler.iterate({ position: 14, epochs: 1 })], { code: 'ERR_ARGUMENT' });
});

test('temperature with data sets of their own weights: shares follow what would come of a language, and within it the weights hold', (t) => {
  // Catalan from two data sets, the second half as often; Thai lies in blocks; Polish beside Catalan in the first.
  const source = Uint16Array.from([
    ...Array<number>(400).fill(0),
    ...Array<number>(200).fill(1),
    ...Array<number>(40).fill(2),
  ]);
  const items = Array.from(source, (s, i) => ({ language: s === 2 ? 'th' : s === 0 && i % 4 === 0 ? 'pl' : 'ca' }));
  const sourceWeights = [1, 0.5, 1];
  const starts = [0, 10, 20, 30];
  const blocks = {
    source,
    block: Int32Array.from(source, (s, i) => (s === 2 ? Math.floor((i - 600) / 10) : 0)),
    kinds: [undefined, undefined, { starts, bytes: starts.map(() => 32 * 2 ** 20), sequential: false }],
    sets: [0, 1, 2],
  };
  const sampler = (temperature?: number, seed = 3) =>
    new EpochSampler(items, { batchSize: 8, seed, blocks, sourceWeights, temperature });
  const dealt = (one: EpochSampler, epoch = 0): number[] => flat(one.batches(epoch));
  const size = 400 + 100 + 40;
  t.deepEqual([...sampler().languageCounts()].sort(), [
    ['ca', 400],
    ['pl', 100],
    ['th', 40],
  ]);
  t.deepEqual(dealt(sampler(1)), dealt(sampler()), '1 is as the data are, in their order');
  // √400, √100, √40 of 36.32; within Catalan 3 to 1.
  const half = sampler(2);
  t.deepEqual([...half.languageCounts()].sort(), [
    ['ca', 297],
    ['pl', 149],
    ['th', 94],
  ]);
  for (const epoch of [0, 1, 5]) {
    const rows = dealt(half, epoch);
    t.is(rows.length, size, 'an epoch is as long as without it');
    const [first, second] = [0, 1].map(
      (s) => rows.filter((i) => items[i]!.language === 'ca' && source[i] === s).length,
    );
    t.deepEqual([first, second], [223, 74]);
    for (const language of ['pl', 'th']) {
      const times = items.map(() => 0);
      for (const i of rows) times[i]!++;
      const own = times.filter((_, i) => items[i]!.language === language);
      t.true(Math.max(...own) - Math.min(...own) <= 1, 'whole passes');
    }
    t.deepEqual(dealt(sampler(2), epoch), rows, 'a function of seed and epoch');
  }
  t.notDeepEqual(dealt(half, 0), dealt(half, 1));
  t.notDeepEqual(dealt(half), dealt(sampler(2, 4)));
  // The languages are mixed all along the epoch.
  const rows = dealt(half);
  for (const part of [rows.slice(0, 270), rows.slice(270)]) {
    const thai = part.filter((i) => items[i]!.language === 'th').length;
    t.true(thai > 30 && thai < 64, `${thai} of 94 in a half`);
  }
  t.deepEqual([...sampler(Number.POSITIVE_INFINITY).languageCounts().values()].sort(), [180, 180, 180]);
  t.deepEqual(
    [...half.iterate({ epoch: 1, position: 3, epochs: 2 })],
    [...sampler(2).iterate({ epoch: 1, epochs: 2 })].slice(3),
  );
  t.throws(() => sampler(0), { code: 'ERR_ARGUMENT', message: /temperature must be positive, got 0/ });
  t.throws(() => new EpochSampler(items, { batchSize: 8, blocks, epochSize: 9 }), { message: /blocks do not go with/ });
});
