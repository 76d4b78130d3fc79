/** Making things ahead: the prefetcher, and the loader of batches. */
import test from 'ava';
import { type Batch, Prefetcher, PrefetchLoader } from '../../lib/data/index.js';
import { DistilWhisperError } from '../../lib/errors/index.js';
import { until } from '../support/load.js';

const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
const numbers = Array.from({ length: 40 }, (_, i) => i);
const plan = (size: number, from = 0): Batch[] =>
  Array.from({ length: Math.ceil((numbers.length - from) / size) }, (_, position) => ({
    epoch: 0,
    position,
    indices: Int32Array.from(numbers.slice(from + position * size, from + (position + 1) * size)),
  }));
const sum = (items: number[]) => items.reduce((a, b) => a + b, 0);

/** Makes the numbers, each after its time; how many are being made, and what was let go, is told. */
function maker(times: readonly number[]) {
  const told = { begun: 0, made: 0, most: 0, returned: false, let: [] as number[] };
  const source: AsyncIterator<number, undefined, undefined> = {
    async next() {
      const at = told.begun++;
      if (at >= times.length) return { done: true, value: undefined };
      told.most = Math.max(told.most, told.begun - told.made);
      await sleep(times[at]!);
      told.made++;
      if (times[at]! === 13) throw new Error(`${at} cannot be made`);
      return { done: false, value: at };
    },
    async return() {
      told.returned = true;
      return { done: true, value: undefined };
    },
  };
  return { told, source, discard: (item: number) => told.let.push(item) };
}

test('Prefetcher: items come in order, a bounded number of them is made ahead, and the end is told for good', async (t) => {
  const times = numbers.map((n) => (n * 7) % 11);
  for (const lookAhead of [1, 3]) {
    const { told, source, discard } = maker(times);
    const prefetcher = new Prefetcher(source, { lookAhead, discard });
    t.is(told.begun, 0, 'nothing is made before the first is asked for');
    const got: number[] = [];
    for await (const item of prefetcher) {
      got.push(item);
      t.is(told.begun, got.length + lookAhead);
      if (item < 3) await sleep(20);
    }
    t.deepEqual(got, numbers);
    t.is(told.most, lookAhead);
    t.true(told.returned);
    t.deepEqual(told.let, []);
    t.deepEqual(await prefetcher.next(), { done: true, value: undefined });
  }
});

test('Prefetcher: an async generator makes one item behind the other, and calls of next() may overlap', async (t) => {
  let running = 0;
  let ended = false;
  async function* source() {
    try {
      for (const n of numbers) {
        t.is(++running, 1);
        await sleep(1);
        running--;
        yield n;
      }
    } finally {
      ended = true;
    }
  }
  const prefetcher = new Prefetcher(source(), { lookAhead: 4 });
  const first = await Promise.all([prefetcher.next(), prefetcher.next(), prefetcher.next()]);
  t.deepEqual(
    first,
    [0, 1, 2].map((value) => ({ done: false, value })),
  );
  await prefetcher.return();
  t.true(ended);
  t.deepEqual(await prefetcher.next(), { done: true, value: undefined });
});

test('Prefetcher: an error comes at its turn and ends the iteration; what was made behind it is let go', async (t) => {
  const { told, source, discard } = maker([20, 1, 13, 5, 1, 1, 1]);
  const prefetcher = new Prefetcher(source, { lookAhead: 4, discard });
  const got: number[] = [];
  const all = async () => {
    for await (const item of prefetcher) got.push(item);
  };
  await t.throwsAsync(all(), { message: '2 cannot be made' });
  t.deepEqual(got, [0, 1]);
  t.true(told.returned);
  t.deepEqual(told.let, [3, 4, 5]);
  t.deepEqual(await prefetcher.next(), { done: true, value: undefined });
});

test('Prefetcher: close() ends a next() that waits, waits for what is under way, and lets it go', async (t) => {
  let [begun, open] = [0, () => {}];
  const gate = new Promise<void>((resolve) => {
    open = resolve;
  });
  const source = {
    async next() {
      const value = begun++;
      if (value > 0) await gate;
      return { done: false, value } as const;
    },
  };
  const letGo: number[] = [];
  const prefetcher = new Prefetcher(source, { lookAhead: 2, discard: (item) => letGo.push(item) });
  t.is((await prefetcher.next()).value, 0);
  const waiting = prefetcher.next();
  await sleep(2);
  const closed = Promise.all([prefetcher.close(), prefetcher.close()]);
  open();
  await closed;
  t.deepEqual(await waiting, { done: true, value: undefined });
  t.is(begun, 3);
  t.deepEqual(letGo, [1, 2]);
});

test('PrefetchLoader: batches and items stay in order although loads finish in any order', async (t) => {
  const loader = new PrefetchLoader({
    examples: numbers,
    batches: plan(6),
    load: async (n) => {
      await sleep((n * 7) % 11);
      return n * 10;
    },
    collate: (items) => items,
  });
  const got: number[][] = [];
  for await (const { data, position } of loader) {
    t.is(position, got.length);
    got.push(data);
  }
  t.deepEqual(
    got.flat(),
    numbers.map((n) => n * 10),
  );
  t.deepEqual(await loader.next(), { done: true, value: undefined });
});

test('PrefetchLoader: never more than `concurrency` loads, nor more than `lookAhead` batches ahead, and it does look ahead', async (t) => {
  let [running, most, started] = [0, 0, 0];
  const loader = new PrefetchLoader({
    examples: numbers,
    batches: plan(2),
    lookAhead: 3,
    concurrency: 2,
    load: async (n) => {
      started++;
      most = Math.max(most, ++running);
      await sleep(1);
      running--;
      return n;
    },
    collate: sum,
  });
  await loader.next();
  t.true(await until(() => started >= 2 + 3 * 2 && running === 0));
  await sleep(40);
  t.is(most, 2);
  t.is(started, 2 + 3 * 2, 'the delivered batch and three ahead');
  await loader.next();
  t.true(await until(() => started >= 2 + 4 * 2 && running === 0));
  await sleep(40);
  t.is(started, 2 + 4 * 2);
  await loader.close();
});

test('PrefetchLoader: the first failing example in order ends it, named by id and manifest line, after the batches before it', async (t) => {
  let closed = 0;
  const examples = numbers.map((n) => ({ n, id: `u${n}`, manifest: 'm.tsv', line: n + 2 }));
  const loader = new PrefetchLoader({
    examples,
    batches: plan(4),
    concurrency: 16,
    load: async ({ n }) => {
      if (n === 13) throw new DistilWhisperError('ERR_AUDIO_EMPTY', 'x.wav: fails at once');
      await sleep(n === 9 ? 30 : 2);
      if (n === 9) throw new DistilWhisperError('ERR_AUDIO_FORMAT', 'y.wav: fails late');
      return n;
    },
    collate: sum,
    onClose: () => {
      closed++;
    },
  });
  const got: number[] = [];
  const error = await t.throwsAsync(
    (async () => {
      for await (const { data } of loader) got.push(data);
    })(),
    { code: 'ERR_AUDIO_FORMAT', message: 'example u9 (m.tsv line 11): y.wav: fails late' },
  );
  t.is((error!.cause as Error).message, 'y.wav: fails late');
  t.deepEqual(got, [6, 22]);
  t.is(closed, 1);
  t.deepEqual(await loader.next(), { done: true, value: undefined });
});

test('PrefetchLoader: untyped errors of load, errors of collate and indices out of range reach the consumer', async (t) => {
  const base = { examples: numbers, batches: plan(4), collate: sum, load: (n: number) => n };
  const broken = new PrefetchLoader({
    ...base,
    load: (n) => {
      if (n === 2) throw new TypeError('oops');
      return n;
    },
    describe: (n) => `number ${n}`,
  });
  await t.throwsAsync(broken.next(), { message: 'number 2: oops' });
  const collate = () => {
    throw new Error('cannot collate');
  };
  await t.throwsAsync(new PrefetchLoader({ ...base, collate }).next(), { message: 'cannot collate' });
  const batches = [{ epoch: 0, position: 0, indices: Int32Array.of(1, 99, 2) }];
  await t.throwsAsync(new PrefetchLoader({ ...base, batches }).next(), {
    code: 'ERR_ARGUMENT',
    message: /example 99 of 40/,
  });
  t.throws(() => new PrefetchLoader({ ...base, lookAhead: 0 }), { code: 'ERR_ARGUMENT' });
});

test('PrefetchLoader: leaving the loop early stops the loads, ends the source and waits for what runs', async (t) => {
  let [running, started, sourceEnded] = [0, 0, false];
  function* source() {
    try {
      yield* plan(2);
    } finally {
      sourceEnded = true;
    }
  }
  const signals: AbortSignal[] = [];
  const loader = new PrefetchLoader({
    examples: numbers,
    batches: source(),
    concurrency: 3,
    load: async (n, signal) => {
      signals.push(signal);
      started++;
      running++;
      await sleep(5);
      running--;
      return n;
    },
    collate: sum,
  });
  for await (const { position } of loader) if (position === 1) break;
  const before = started;
  t.is(running, 0);
  t.true(sourceEnded);
  t.true(signals[0]!.aborted);
  await sleep(30);
  t.is(started, before);
  t.true(started < numbers.length);
});

test('PrefetchLoader: close() ends a next() that waits', async (t) => {
  const loader = new PrefetchLoader({
    examples: numbers,
    batches: plan(2),
    load: (n, signal) =>
      new Promise<number>((resolve, reject) => {
        if (n < 2) resolve(n);
        signal.addEventListener('abort', () => reject(new Error('aborted')));
      }),
    collate: sum,
  });
  t.is((await loader.next()).value?.data, 1);
  const waiting = loader.next();
  await sleep(5);
  await loader.close();
  t.deepEqual(await waiting, { done: true, value: undefined });
});
