/** Corpora as they are shipped: Common Voice, FLEURS, parquet, audio folders: splits, counts, filters, weights. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test from 'ava';
import {
  BadRowsError,
  type Dataset,
  type DatasetOptions,
  EpochSampler,
  openDataset,
  parseSpec,
  WhisperTokenizer,
} from '../../lib/index.js';
import { scratchFolder } from '../support/cli.js';
import { parquetOf, tone, VOICE_HEADER_17, voiceLine, voiceRows, writeFleurs, writeVoice } from '../support/corpora.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
test.after.always(remove);

/** What is told of rows, in short; the data set is let go of. */
async function opened<T>(
  data: string | string[],
  options: DatasetOptions,
  tell: (dataset: Dataset) => T | Promise<T>,
): Promise<T> {
  await using dataset = await openDataset(data, options);
  return await tell(dataset);
}
const texts = (dataset: Dataset): string[] => [...dataset.entries()].map(({ text }) => text);
const splitsOf = (dataset: Dataset): Record<string, number> => {
  const counts: Record<string, number> = {};
  for (const { split = 'none' } of dataset.entries()) counts[split] = (counts[split] ?? 0) + 1;
  return counts;
};

const voice = at('cv-corpus-13.0-2023-03-09', 'ca');
const fleurs = at('data', 'ca_es');
const packedFleurs = at('packed', 'ca_es');
const plainTar = at('tar', 'cs_cz');
const fleursRows = (split: string, count: number) =>
  Array.from({ length: count }, (_, i) => ({
    id: 100 + i,
    file: `${split}${i}.wav`,
    text: `text ${split} ${i}`,
    seconds: 0.2 + 0.1 * i,
  }));
test.before(async () => {
  writeVoice(voice, {
    train: voiceRows('train', 5),
    dev: voiceRows('dev', 3),
    test: voiceRows('test', 2),
    validated: [...voiceRows('train', 5), ...voiceRows('dev', 3), ...voiceRows('more', 1)],
    other: voiceRows('other', 1),
  });
  const splits = { train: fleursRows('train', 6), dev: fleursRows('dev', 2), test: fleursRows('test', 3) };
  await writeFleurs(fleurs, splits, 'folder');
  await writeFleurs(packedFleurs, splits, 'tar.gz');
  await writeFleurs(plainTar, splits, 'tar');
});

test('names of data sets: kind, path, splits, weight', (t) => {
  const parsed = (spec: string): unknown[] => {
    const { kind, path, splits, weight } = parseSpec(spec);
    return [kind, path, splits, weight];
  };
  t.deepEqual(parsed('cv:corpora/ca'), ['cv', 'corpora/ca', undefined, 1]);
  t.deepEqual(parsed('fleurs:data/ca_es#train+dev:0.3'), ['fleurs', 'data/ca_es', ['train', 'dev'], 0.3]);
  t.deepEqual(parsed('rows.tsv'), [undefined, 'rows.tsv', undefined, 1]);
  t.deepEqual(parsed('C:\\data'), [undefined, 'C:\\data', undefined, 1]);
  t.deepEqual(parsed('org/name:2'), [undefined, 'org/name', undefined, 2]);
  for (const wrong of ['', 'cv:', 'x#', 'x#a b', 'x:0', 'x:1e9', '#train'])
    t.throws(() => parseSpec(wrong), { code: 'ERR_ARGUMENT' }, wrong);
});

test('Common Voice: the official splits, one by its name or by the other name of it, and those that overlap', async (t) => {
  t.deepEqual(await opened(voice, {}, splitsOf), { train: 5, dev: 3, test: 2 });
  t.deepEqual(await opened(`cv:${voice}#validation`, {}, splitsOf), { dev: 3 });
  t.deepEqual(await opened(`${voice}#train+other`, {}, splitsOf), { train: 5, other: 1 });
  t.deepEqual(await opened(voice, { split: 'validated' }, splitsOf), { validated: 9 });
  t.deepEqual(await opened(voice, { defaultSplit: 'train' }, splitsOf), { train: 5 });
  const [first] = await opened(`${voice}#train`, {}, (data) => [...data.entries()]);
  t.like(first, {
    audio: join(voice, 'clips', 'common_voice_ca_train0.mp3'),
    text: 'frase train 0.',
    language: 'ca',
    speaker: 'speaker-1',
    manifest: join(voice, 'train.tsv'),
    line: 2,
  });
  await t.throwsAsync(openDataset(`${voice}#nightly`), {
    code: 'ERR_ARGUMENT',
    message: /train, dev, test.*"nightly"/,
  });
});

test('Common Voice: the header of version 17, durations of clips, names without an ending', async (t) => {
  const folder = at('cv-17', 'ca');
  writeVoice(folder, { train: voiceRows('t', 2) });
  const line = (path: string): string =>
    ['s', path, 'id', 'Hola.', 'general', 2, 0, '', '', '', '', 'ca', ''].join('\t');
  writeFileSync(
    join(folder, 'train.tsv'),
    [VOICE_HEADER_17, line('common_voice_ca_t0.mp3'), line('common_voice_ca_t1')].join('\n'),
  );
  writeFileSync(
    join(folder, 'clip_durations.tsv'),
    'clip\tduration[ms]\ncommon_voice_ca_t0.mp3\t1500\ncommon_voice_ca_t1.mp3\t900\n',
  );
  const seconds = (data: Dataset): (number | undefined)[] => [...data.entries()].map(({ duration }) => duration);
  t.deepEqual(await opened(folder, {}, seconds), [1.5, 0.9]);
  t.deepEqual(await opened(folder, { maxDuration: 1 }, seconds), [0.9]);
  t.deepEqual(await opened(folder, { minDuration: 1 }, seconds), [1.5]);
});

test("Common Voice: the reference's subset by votes, held against a table made by hand", async (t) => {
  // up, down; of equals the first in the table is first.
  const votes: [up: number, down: number][] = [
    [2, 0],
    [5, 1],
    [5, 0],
    [2, 0],
    [9, 9],
    [2, 1],
    [0, 0],
    [5, 0],
  ];
  const byHand = [4, 2, 7, 1, 0, 3, 5, 6];
  const folder = at('votes', 'ca');
  // 3,000 clips have three votes; the eight above stand among them, so that five of them are in the 3k and three are not.
  const filler = Array.from({ length: 2996 }, (_, i) => ({ path: `f${i}.mp3`, sentence: `f${i}`, up: 3, down: 0 }));
  const special = votes.map(([up, down], i) => ({ path: `s${i}.mp3`, sentence: `s${i}`, up, down }));
  mkdirSync(join(folder, 'clips'), { recursive: true });
  const rows = [...special.slice(0, 4), ...filler, ...special.slice(4)];
  writeVoice(folder, { train: [], dev: [], test: [] });
  for (const split of ['train', 'dev', 'test'])
    writeFileSync(join(folder, `${split}.tsv`), [await header(), ...rows.map((row) => voiceLine(row))].join('\n'));
  for (const { path } of rows) writeFileSync(join(folder, 'clips', path), '');
  const kept = await opened(`${folder}#train`, { subset: '3k' }, texts);
  t.is(kept.length, 3000);
  t.deepEqual(
    kept.filter((text) => text.startsWith('s')).sort(),
    byHand
      .slice(0, 4)
      .map((i) => `s${i}`)
      .sort(),
  );
  const counted = await opened(folder, { subset: '3k' }, splitsOf);
  t.deepEqual(counted, { train: 3000, dev: 500, test: 3004 });
  t.deepEqual(await opened(folder, { subset: '10k' }, splitsOf), { train: 3004, dev: 1000, test: 3004 });
  // Of 500: the four with most votes, then the first of those with three.
  const dev = await opened(`${folder}#dev`, { subset: '3k' }, texts);
  t.deepEqual(
    dev.filter((text) => text.startsWith('f')),
    filler.slice(0, 496).map(({ sentence }) => sentence),
  );
  await t.throwsAsync(openDataset(fleurs, { subset: '3k' }), {
    code: 'ERR_ARGUMENT',
    message: /^subset: expected a release/,
  });
});

const header = async (): Promise<string> => (await import('../support/corpora.js')).VOICE_HEADER;

test('FLEURS: splits, texts, durations, and the same audio from a folder, a tar.gz and a tar', async (t) => {
  t.deepEqual(await opened(fleurs, {}, splitsOf), { train: 6, dev: 2, test: 3 });
  t.deepEqual(await opened(`fleurs:${packedFleurs}#dev`, {}, splitsOf), { dev: 2 });
  const [row] = await opened(`${fleurs}#train`, {}, (data) => [...data.entries()]);
  t.like(row, { text: 'text train 0', language: 'ca', split: 'train', duration: 0.2, line: 1 });
  const [czech] = await opened(`${plainTar}#train`, {}, (data) => [...data.entries()]);
  t.is(czech?.language, 'cs');
  for (const folder of [packedFleurs, plainTar]) {
    await opened(`${folder}#train`, {}, async (data) => {
      // The archive is in another order than the table.
      t.deepEqual(
        texts(data),
        [5, 4, 3, 2, 1, 0].map((i) => `text train ${i}`),
      );
      for (const i of [3, 0, 5, 1]) {
        const row = 5 - i;
        t.deepEqual(
          new Uint8Array((await data.audio(i)) as Uint8Array),
          new Uint8Array(tone(0.2 + 0.1 * row, 1 + ((100 + row) % 7))),
        );
      }
    });
  }
});

const parquetRows = (count: number, from = 0) =>
  Array.from({ length: count }, (_, i) => ({
    bytes: tone(0.1 + 0.02 * i, from + i + 1),
    text: `row ${from + i}`,
    language: i % 2 ? 'cs' : 'ca',
  }));

test('parquet: shards, splits, row groups; a missing shard is refused', async (t) => {
  const folder = at('hub');
  mkdirSync(join(folder, 'data'), { recursive: true });
  writeFileSync(join(folder, 'data', 'train-00000-of-00002.parquet'), parquetOf(parquetRows(5)));
  writeFileSync(join(folder, 'data', 'train-00001-of-00002.parquet'), parquetOf(parquetRows(3, 5)));
  writeFileSync(join(folder, 'data', 'test-00000-of-00001-0f3c9a.parquet'), parquetOf(parquetRows(2, 8)));
  t.deepEqual(await opened(folder, {}, splitsOf), { test: 2, train: 8 });
  t.deepEqual(await opened(`parquet:${folder}#train`, { languages: 'cs' }, texts), ['row 1', 'row 3', 'row 6']);
  await opened(`${folder}#train`, { limit: 7 }, async (data) => {
    t.is(data.length, 7);
    for (const i of [6, 0, 4, 1]) {
      const row = parquetRows(5).concat(parquetRows(3, 5))[i]!;
      t.deepEqual(new Uint8Array((await data.audio(i)) as Uint8Array), new Uint8Array(row.bytes));
    }
  });
  const lost = at('lost');
  mkdirSync(lost);
  copyFileSync(join(folder, 'data', 'train-00000-of-00002.parquet'), join(lost, 'train-00000-of-00002.parquet'));
  await t.throwsAsync(openDataset(lost), { code: 'ERR_FILE_NOT_FOUND', message: /expected 2 shards, got 1/ });
});

test('audio folders: a folder a split, or a column; metadata as CSV and JSON lines', async (t) => {
  const folder = at('audiofolder');
  for (const [split, name, table] of [
    ['train', 'metadata.csv', 'file_name,text\na.wav,"hola, ""tu"""\nsub/b.wav,adéu\n'],
    ['validation', 'metadata.jsonl', '{"file_name": "a.wav", "text": "bon dia", "language": "cs"}\n'],
  ] as const) {
    mkdirSync(join(folder, 'data', split, 'sub'), { recursive: true });
    for (const file of ['a.wav', 'sub/b.wav']) writeFileSync(join(folder, 'data', split, file), tone(0.1));
    writeFileSync(join(folder, 'data', split, name), table);
  }
  const options = { defaultLanguage: 'ca' };
  t.deepEqual(await opened(folder, options, splitsOf), { train: 2, validation: 1 });
  t.deepEqual(await opened(`${folder}#train`, options, texts), ['hola, "tu"', 'adéu']);
  t.deepEqual(await opened(`${folder}#dev`, options, (data) => data.entry(0).language), 'cs');
  const flat = at('flat');
  mkdirSync(flat);
  for (const file of ['a.wav', 'b.wav']) writeFileSync(join(flat, file), tone(0.1));
  writeFileSync(join(flat, 'metadata.csv'), 'file_name,text,language,split\na.wav,u,ca,train\nb.wav,dos,ca,test\n');
  t.deepEqual(await opened(`audiofolder:${flat}#test`, {}, texts), ['dos']);
});

test('filters: lengths that must be decoded, labels, limits; texts in NFC and normalised', async (t) => {
  const folder = at('filters');
  mkdirSync(folder);
  const rows = [
    ['a', 0.1, 'Cafe\u0301, no?'],
    ['b', 0.5, 'Sí!'],
    ['c', 1, '…'],
  ] as const;
  for (const [name, seconds] of rows) writeFileSync(join(folder, `${name}.wav`), tone(seconds));
  const table = rows.map(([name, , text]) => JSON.stringify({ audio: `${name}.wav`, text, language: 'ca' })).join('\n');
  writeFileSync(join(folder, 'rows.jsonl'), table);
  const manifest = join(folder, 'rows.jsonl');
  t.deepEqual(await opened(manifest, {}, texts), ['Café, no?', 'Sí!', '…']);
  const progress: number[] = [];
  t.deepEqual(
    await opened(manifest, { minDuration: 0.3, maxDuration: 0.9, onProgress: (done) => progress.push(done) }, texts),
    ['Sí!'],
  );
  t.deepEqual(progress, [1, 2, 3]);
  t.deepEqual(await opened(manifest, { limit: 2 }, texts), ['Café, no?', 'Sí!']);
  await opened(manifest, { text: 'extended' }, (data) => {
    t.deepEqual(texts(data), ['café no', 'sí']);
    t.like(data.badRows, [{ line: 3, code: 'ERR_MANIFEST' }]);
  });
  const tokenizer = await WhisperTokenizer.fromFolder(
    join(dirname(new URL(import.meta.url).pathname), '../../models/pocket-student'),
  );
  const lengths = ['Café, no?', 'Sí!'].map((text) => tokenizer.labels(text, { language: 'ca' }).length - 1);
  t.deepEqual(await opened(manifest, { tokenizer, maxLabels: lengths[1]! }, texts), ['Sí!', '…']);
  await t.throwsAsync(openDataset(manifest, { maxLabels: 5 }), {
    code: 'ERR_ARGUMENT',
    message: /^maxLabels: expected a tokenizer/,
  });
  await t.throwsAsync(openDataset(manifest, { minDuration: 7 }), { code: 'ERR_MANIFEST', message: /no row is of the/ });
});

test('several at once, with weights: so many rows of each come in an epoch, in whole passes', async (t) => {
  await using data = await openDataset([`${voice}#train`, `${fleurs}#train:0.5`, `${plainTar}#train:2`]);
  t.is(data.length, 17);
  const { items, blocks, sourceWeights } = data.sampling;
  const sampler = new EpochSampler(items, { batchSize: 4, seed: 3, blocks, sourceWeights });
  t.is(sampler.batchesPerEpoch, 5);
  const drawn = (epoch: number): number[] => sampler.batches(epoch).flatMap((batch) => [...batch]);
  const seen = new Map<number, number>();
  for (const epoch of [0, 1, 2, 3]) {
    const order = drawn(epoch);
    t.is(order.length, 5 + 3 + 12);
    const of = (from: number, to: number) => order.filter((i) => i >= from && i < to);
    t.is(new Set(of(0, 5)).size, 5);
    t.is(new Set(of(5, 11)).size, 3);
    t.deepEqual(
      of(11, 17).map((i) => of(11, 17).filter((j) => j === i).length),
      Array(12).fill(2),
    );
    for (const i of order) seen.set(i, (seen.get(i) ?? 0) + 1);
    t.deepEqual(drawn(epoch), order);
  }
  t.notDeepEqual(drawn(0), drawn(1));
  t.is(seen.size, 17);
});

test('blocks of all shards: a few are mixed at a time, each once an epoch; a run goes on anywhere', async (t) => {
  const folder = at('blocks');
  mkdirSync(folder);
  for (const shard of [0, 1])
    writeFileSync(join(folder, `train-0000${shard}-of-00002.parquet`), parquetOf(parquetRows(20, 20 * shard), 4));
  await using data = await openDataset(folder);
  const { items, blocks } = data.sampling;
  // As if each took a quarter of what is mixed.
  for (const kind of blocks!.kinds) for (const i of kind!.bytes.keys()) kind!.bytes[i] = 2 ** 24;
  const sampler = new EpochSampler(items, { batchSize: 4, seed: 1, blocks });
  const order = sampler.batches(2).flatMap((batch) => [...batch]);
  t.deepEqual(
    [...order].sort((a, b) => a - b),
    [...items.keys()],
  );
  const windows = [0, 16, 32].map((from) => new Set(order.slice(from, from + 16).map((i) => Math.floor(i / 4))));
  t.deepEqual(
    windows.map(({ size }) => size),
    [4, 4, 2],
  );
  t.is(new Set(windows.flatMap((blocks) => [...blocks])).size, 10);
  const on = [...sampler.iterate({ epoch: 2, position: 7, epochs: 3 })].flatMap(({ indices }) => [...indices]);
  t.deepEqual(on, order.slice(28));
});

test('bad rows: left out and listed, or all in one error; nothing that is wanted is an error too', async (t) => {
  const folder = at('bad', 'ca');
  writeVoice(folder, {
    train: [...voiceRows('t', 2), { path: 'gone.mp3', sentence: 'x' }, { path: 't.mp3', sentence: '' }],
  });
  (await import('node:fs')).rmSync(join(folder, 'clips', 'gone.mp3'));
  await using data = await openDataset(folder);
  t.is(data.length, 2);
  t.deepEqual(
    data.badRows.map(({ line, code }) => [line, code]),
    [
      [4, 'ERR_FILE_NOT_FOUND'],
      [5, 'ERR_MANIFEST'],
    ],
  );
  const error = await t.throwsAsync(openDataset(folder, { strict: true }), { instanceOf: BadRowsError });
  t.is((error as BadRowsError).rows.length, 2);
  t.deepEqual(await opened(folder, { emptyText: 'skip' }, ({ badRows }) => badRows.length), 1);
  await t.throwsAsync(openDataset(at('nowhere')), { code: 'ERR_FILE_NOT_FOUND' });
  mkdirSync(at('empty'));
  await t.throwsAsync(openDataset(at('empty')), { code: 'ERR_MANIFEST', message: /a folder without one/ });
  await t.throwsAsync(openDataset([]), { code: 'ERR_ARGUMENT' });
  await t.throwsAsync(openDataset(folder, { langauges: 'ca' } as DatasetOptions), {
    message: /did you mean languages\?/,
  });
});
