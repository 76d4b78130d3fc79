import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { DecodePool, encodeWav } from '../../lib/audio/index.js';
import { type Batch, EpochSampler, Prefetcher, PrefetchLoader, readManifest } from '../../lib/data/index.js';
import { DistilWhisperError } from '../../lib/errors/index.js';
import { GATE_STREAMS, layerStream, permutation, philox4x32, SKIP_STREAM } from '../../lib/random/index.js';
import { until } from '../support/load.js';

const shared = new URL('../../../shared/', import.meta.url).pathname;
const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-test-'));
test.after.always(() => rmSync(scratch, { recursive: true, force: true }));
mkdirSync(join(scratch, 'clips'));
for (const name of ['a', 'b', 'c', 'd'])
  writeFileSync(join(scratch, 'clips', `${name}.wav`), encodeWav(new Float32Array(160).fill(0.1), 16000));

let count = 0;
function manifest(content: string | Uint8Array, ending = 'tsv'): string {
  const path = join(scratch, `manifest-${count++}.${ending}`);
  writeFileSync(path, content);
  return path;
}
const tsv = (...rows: string[][]) => rows.map((row) => row.join('\t')).join('\n');
const HEADER = ['audio', 'text', 'language'];

// ---- manifest ----

test('a TSV and a JSONL manifest with all columns give the same entries, with absolute audio paths and line numbers', (t) => {
  const header = ['id', 'audio', 'text', 'language', 'split', 'domain', 'duration', 'speaker', 'task'];
  const rows = [
    ['u1', 'clips/a.wav', 'bon dia', 'ca', 'train', 'in', '1.5', 's1', 'transcribe'],
    ['u2', 'clips/b.wav', 'dobrý den', 'Czech', 'test', 'out', '2', 's2', 'translate'],
  ];
  const table = manifest(tsv(header, ...rows));
  const lines = rows.map((row) => JSON.stringify(Object.fromEntries(row.map((value, i) => [header[i], value]))));
  const json = manifest(`${lines.join('\n')}\n`, 'jsonl');
  const entries = readManifest(table);
  t.deepEqual(entries[1], {
    id: 'u2',
    audio: join(scratch, 'clips', 'b.wav'),
    text: 'dobrý den',
    language: 'cs',
    split: 'test',
    domain: 'out',
    duration: 2,
    speaker: 's2',
    task: 'translate',
    manifest: table,
    line: 3,
  });
  t.deepEqual(
    readManifest(json).map(({ manifest, line, ...rest }) => rest),
    entries.map(({ manifest, line, ...rest }) => rest),
  );
  t.is(readManifest(json)[1]!.line, 2);
});

test('other column names are known (path, transcript, sentence, locale, seconds) or can be mapped', (t) => {
  const common = manifest(tsv(['path', 'sentence', 'locale'], ['a.wav', 'hola', 'ca']));
  t.is(readManifest(common, { audioRoot: join(scratch, 'clips') })[0]!.audio, join(scratch, 'clips', 'a.wav'));
  const shared = manifest(
    tsv(['path', 'language', 'transcript', 'seconds'], ['clips/a.wav', 'pl', 'dzień dobry', '0.64']),
  );
  t.is(readManifest(shared)[0]!.duration, 0.64);
  const own = manifest(tsv(['file', 'raw', 'audio'], ['clips/a.wav', 'witaj', 'other']));
  const [entry] = readManifest(own, { columns: { audio: 'file', text: 'raw' }, defaultLanguage: 'polish' });
  t.deepEqual([entry!.id, entry!.text, entry!.language], ['clips/a.wav', 'witaj', 'pl']);
});

test('filters by split, domain and language; a filter that leaves nothing is an error that says so', (t) => {
  const path = manifest(
    tsv(
      ['audio', 'text', 'language', 'split', 'domain'],
      ['clips/a.wav', 'u', 'ca', 'train', 'in'],
      ['clips/b.wav', 'dos', 'ca', 'test', 'out'],
      ['clips/c.wav', 'raz', 'pl', 'test', 'in'],
      ['clips/d.wav', 'dwa', 'pl', '', ''],
    ),
  );
  const ids = (options: Parameters<typeof readManifest>[1]) => readManifest(path, options).map(({ line }) => line);
  t.deepEqual(ids({ split: 'test' }), [3, 4]);
  t.deepEqual(ids({ split: ['train', 'test'], domain: 'in' }), [2, 4]);
  t.deepEqual(ids({ language: 'Polish' }), [4, 5]);
  t.throws(() => ids({ split: 'dev' }), { code: 'ERR_MANIFEST', message: /none of its 4 rows has split dev/ });
  t.throws(() => ids({ language: 'klingon' }), { code: 'ERR_LANGUAGE' });
});

test('a BOM, CRLF, blank lines, quotes and missing last columns are handled', (t) => {
  const path = manifest(
    `\ufeff${HEADER.join('\t')}\tspeaker\r\n\r\nclips/a.wav\t"Va dir ""no"" i prou"\tca\r\nclips/b.wav\t"Hola" va dir\tca\ts\r\n`,
  );
  const entries = readManifest(path);
  t.deepEqual(
    entries.map(({ text, line, speaker }) => [text, line, speaker]),
    [
      ['Va dir "no" i prou', 3, undefined],
      ['"Hola" va dir', 4, 's'],
    ],
  );
  const json = manifest('\ufeff{"audio":"clips/a.wav","text":"hola","language":"ca","id":7}\r\n\r\n', 'txt');
  t.is(readManifest(json)[0]!.id, '7');
});

test('the same audio twice without ids gets ids of its own', (t) => {
  const path = manifest(tsv(HEADER, ['clips/a.wav', 'u', 'ca'], ['clips/a.wav', 'one', 'en']));
  t.deepEqual(
    readManifest(path).map(({ id }) => id),
    ['clips/a.wav', 'clips/a.wav:3'],
  );
});

test('bad manifests: typed errors with the file and the line', (t) => {
  const row = ['clips/a.wav', 'hola', 'ca'];
  const good = JSON.stringify({ audio: 'clips/a.wav', text: 'hola', language: 'ca' });
  const cases: [content: string | Uint8Array, ending: string, message: RegExp][] = [
    [tsv(['audio', 'language'], ['clips/a.wav', 'ca']), 'tsv', /line 1: missing column text or transcript or sentence/],
    [
      tsv(['file', 'text', 'language'], row),
      'tsv',
      /line 1: missing column audio or path or file_name.*; the header has file, text/,
    ],
    [tsv(['audio', 'text'], ['clips/a.wav', 'hola']), 'tsv', /line 1: missing column language/],
    [tsv(HEADER, row, ['clips/b.wav', 'hola']), 'tsv', /line 3: missing column language/],
    [tsv(HEADER, row, ['clips/b.wav', ' ', 'ca']), 'tsv', /line 3: column text is empty/],
    [tsv(HEADER, row, ['', 'hola', 'ca']), 'tsv', /line 3: column audio is empty/],
    [tsv(HEADER, row, ['clips/b.wav', 'hola', 'xx']), 'tsv', /line 3: .*'?xx/],
    [tsv(HEADER, row, ['clips/b.wav', 'ho', 'la', 'ca']), 'tsv', /line 3: expected 3 columns.*got 4/],
    [tsv(['audio', 'text', 'language', 'text'], [...row, 'x']), 'tsv', /line 1: the header names column "text" twice/],
    [tsv([...HEADER, 'id'], [...row, 'u1'], [...row, 'u1']), 'tsv', /line 3: id "u1" was already used on line 2/],
    [tsv([...HEADER, 'duration'], [...row, 'long']), 'tsv', /line 2: duration must be a positive number/],
    [tsv([...HEADER, 'duration'], [...row, '-1']), 'tsv', /line 2: duration/],
    [tsv([...HEADER, 'task'], [...row, 'sing']), 'tsv', /line 2: task must be transcribe or translate, got "sing"/],
    [tsv(HEADER), 'tsv', /it has no rows/],
    ['', 'tsv', /it has no rows/],
    ['', 'jsonl', /it has no rows/],
    [`${good}\n{"audio": "clips/b.wav", "text": "ho`, 'jsonl', /line 2: .*not valid JSON/],
    [`${good}\n{"audio": "clips/b.wav", "language": "ca"}`, 'jsonl', /line 2: missing column text/],
    [`${good}\n{"audio": "clips/b.wav", "text": null, "language": "ca"}`, 'jsonl', /line 2: missing column text/],
    [`${good}\n{"audio": {"path": 1}, "text": "a", "language": "ca"}`, 'jsonl', /line 2: column audio must be text/],
    [`${good}\n["clips/b.wav"]`, 'jsonl', /line 2: expected one JSON object a line/],
    ['[\n{"audio": 1}\n]', 'txt', /line 2: missing column text/],
    [Buffer.from(`${HEADER.join('\t')}\nclips/a.wav\tM\xfcller\tde\n`, 'latin1'), 'tsv', /line 2: expected UTF-8/],
  ];
  for (const [content, ending, message] of cases) {
    const path = manifest(content, ending);
    const error = t.throws(() => readManifest(path), { code: 'ERR_MANIFEST', message }, `${content}`);
    t.true(error!.message.startsWith(path));
  }
});

test('a missing manifest, a directory and a missing audio file are typed errors', (t) => {
  t.throws(() => readManifest(join(scratch, 'none.tsv')), { code: 'ERR_FILE_NOT_FOUND', message: /none\.tsv/ });
  t.throws(() => readManifest(scratch), { code: 'ERR_FILE_READ', message: /directory/ });
  for (const missing of ['clips/z.wav', 'clips']) {
    const path = manifest(tsv(HEADER, ['clips/a.wav', 'u', 'ca'], [missing, 'dos', 'ca']));
    t.throws(() => readManifest(path), { code: 'ERR_FILE_NOT_FOUND', message: /line 3: there is no audio file/ });
    t.is(readManifest(path, { checkFiles: false }).length, 2);
  }
});

test('emptyText: skip leaves out rows with an empty text, but not rows without the column', (t) => {
  const path = manifest(tsv(HEADER, ['clips/a.wav', '', 'ca'], ['clips/b.wav', 'dos', 'ca']));
  t.deepEqual(
    readManifest(path, { emptyText: 'skip' }).map(({ line }) => line),
    [3],
  );
  t.throws(() => readManifest(manifest(tsv(HEADER, ['clips/a.wav', '', 'ca'])), { emptyText: 'skip' }), {
    code: 'ERR_MANIFEST',
    message: /none of its 1 rows has text/,
  });
  const json = manifest('{"audio":"clips/a.wav","language":"ca"}', 'jsonl');
  t.throws(() => readManifest(json, { emptyText: 'skip' }), {
    code: 'ERR_MANIFEST',
    message: /line 1: missing column/,
  });
});

if (!existsSync(shared)) console.log('../shared is absent: the test on its manifest is skipped');
(existsSync(shared) ? test : test.skip)(
  "../shared/speech's manifest reads as it is; clips without transcript need emptyText: skip",
  (t) => {
    const path = join(shared, 'speech', 'manifest.tsv');
    t.throws(() => readManifest(path), { code: 'ERR_MANIFEST', message: /line \d+: column text is empty/ });
    const entries = readManifest(path, { emptyText: 'skip' });
    t.true(entries.length > 1000);
    t.true(entries.every(({ duration }) => duration! > 0));
    t.true(readManifest(path, { language: 'pl', emptyText: 'skip' }).length >= 350);
  },
);

// ---- sampler ----

test('philox4x32 gives the known answers of the Random123 library', (t) => {
  const hex = (words: Uint32Array) => Array.from(words, (word) => word.toString(16).padStart(8, '0')).join(' ');
  const ones = 0xffffffff;
  t.is(hex(philox4x32([0, 0, 0, 0], [0, 0])), '6627e8d5 e169c58d bc57ac4c 9b00dbd8');
  t.is(hex(philox4x32([ones, ones, ones, ones], [ones, ones])), '408f276d 41c83b0e a20bc7c6 6d5451fd');
  t.is(
    hex(philox4x32([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0])),
    'd16cfe09 94fdcceb 5001e420 24126ea1',
  );
});

test('Philox streams: those of the kernels are the same in TypeScript and C++, and no two draws share one', (t) => {
  const header = readFileSync('native/core/philox_streams.h', 'utf8');
  const kernels = [...header.matchAll(/\bk(\w)(\w+) = (\d+)/g)].map(([, first, rest, n]) => [
    first!.toLowerCase() + rest!,
    Number(n),
  ]);
  t.deepEqual(Object.fromEntries(kernels), GATE_STREAMS);
  const layers = Array.from({ length: 2 * 1024 }, (_, layer) => layerStream(layer));
  const all = [SKIP_STREAM, ...layers.flatMap((first) => Object.values(GATE_STREAMS).map((stream) => first + stream))];
  t.is(new Set(all).size, all.length);
});

test('permutation: all values once, uniform, and different for every seed (also above 2^32), epoch and stream', (t) => {
  const seen = new Set<string>();
  for (const [seed, epoch, stream] of [
    [0, 0, 0],
    [1, 0, 0],
    [2 ** 32, 0, 0],
    [0, 1, 0],
    [0, 0, 1],
  ] as const) {
    const order = permutation(100, seed, epoch, stream);
    t.deepEqual(
      [...order].sort((a, b) => a - b),
      Array.from({ length: 100 }, (_, i) => i),
    );
    t.deepEqual(permutation(100, seed, epoch, stream), order);
    seen.add(order.join());
  }
  t.is(seen.size, 5);
  // All 24 orders of 4 items over 24,000 draws: chi-square with 23 degrees of freedom, 99.9% quantile 49.7.
  const counts = new Map<string, number>();
  for (let epoch = 0; epoch < 24000; epoch++) {
    const key = permutation(4, 7, epoch, 0).join();
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  t.is(counts.size, 24);
  const chi = [...counts.values()].reduce((sum, n) => sum + (n - 1000) ** 2 / 1000, 0);
  t.true(chi < 49.7, `chi-square ${chi}`);
});

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

// ---- loader ----

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

test('manifest → sampler → loader over a DecodePool: a resumed run sees the batches of an uninterrupted one', async (t) => {
  const names = ['a', 'b', 'c', 'd'];
  const path = manifest(tsv(HEADER, ...names.map((name) => [`clips/${name}.wav`, name, 'ca'])));
  const examples = readManifest(path);
  const run = async (from: { epoch: number; position: number }) => {
    const pool = new DecodePool();
    const sampler = new EpochSampler(examples, { batchSize: 3, seed: 1 });
    const loader = new PrefetchLoader({
      examples,
      batches: sampler.iterate({ ...from, epochs: 3 }),
      load: async ({ audio, text }) => ({ text, samples: (await pool.decode(audio)).samples.length }),
      collate: (items) => items.map(({ text, samples }) => `${text}${samples}`).join(),
      onClose: () => pool.close(),
    });
    const seen: string[] = [];
    for await (const { epoch, position, data } of loader) seen.push(`${epoch}.${position} ${data}`);
    t.is(pool.threads, 0);
    return seen;
  };
  const whole = await run({ epoch: 0, position: 0 });
  t.is(whole.length, 6);
  t.regex(whole[0]!, /^0\.0 [a-d]160,[a-d]160,[a-d]160$/);
  t.deepEqual(await run({ epoch: 1, position: 1 }), whole.slice(3));
});
