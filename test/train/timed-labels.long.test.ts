/** Training with timestamps in the labels. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { decodeAudio } from '../../lib/audio/index.js';
import { type ManifestEntry, openDataset, prepare, readManifest } from '../../lib/data/index.js';
import { cacheTeacher, type TrainRecipe, train } from '../../lib/recipes/index.js';
import { tokenizerFromCharacters, WhisperTokenizer } from '../../lib/text/index.js';
import { AudioBatches, type AudioBatchOptions, type TrainBatch } from '../../lib/train/index.js';
import { cli, corpusRows, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
const plain = corpusRows('ca', 'train', 'in', 4);
let tokenizer: WhisperTokenizer;
let config: Awaited<ReturnType<typeof writeTinyModel>>;
/** Seconds of each. */
let seconds: number[];

/** One that tells its parts, one that tells how long it is, and two that tell nothing. */
const rows = plain.map((row, i) => {
  if (i === 0) {
    const [first = '', ...rest] = row.text.split(' ');
    const segments = [
      { start: 0.1, end: 0.62, text: first },
      { start: 0.62, end: 1.5, text: ` ${rest.join(' ')}` },
    ];
    return { ...row, segments };
  }
  return i === 1 ? { ...row, duration: 1.234 } : row;
});

test.before(async () => {
  const tokenizerJson = tokenizerFromCharacters(
    plain.map(({ text }) => text),
    { languages: ['ca'], timestamps: 251 },
  );
  tokenizer = WhisperTokenizer.fromJSON(tokenizerJson);
  config = await writeTinyModel(at('timed'), 3, {}, { tokenizerJson });
  await writeTinyModel(at('teacher'), 4, {}, { tokenizerJson });
  await writeTinyModel(at('untimed'), 1);
  writeRows(at('rows.jsonl'), rows);
  seconds = await Promise.all(
    plain.map(async ({ audio }) => (await decodeAudio(audio, { sampleRate: 16000 })).duration),
  );
});
test.after.always(remove);

const entries = (): ManifestEntry[] => readManifest(at('rows.jsonl'), { segments: true });
const make = (more: Partial<AudioBatchOptions> = {}): AudioBatches =>
  new AudioBatches(entries(), config, tokenizer, { batchSize: 2, seed: 1, timestampShare: 1, ...more });
const shown = (labels: readonly number[]): string => tokenizer.decode(labels, { skipSpecial: false, timestamps: true });
const stamp = (time: number): string => `<|${(Math.round(time * 50) / 50).toFixed(2)}|>`;

async function take(batches: AudioBatches, count: number): Promise<TrainBatch[]> {
  const taken: TrainBatch[] = [];
  for await (const batch of batches.stream(0)) if (taken.push(batch) === count) break;
  return taken;
}

test('labels: the parts that a row tells, its own duration, or what was decoded; to 0.02 s', async (t) => {
  const batches = make();
  t.true(batches.isOpen);
  await batches.check();
  t.false(batches.isOpen);
  const said = [0, 1, 2, 3].map((i) => shown(batches.labelsOf(i)));
  const [first, ...rest] = plain[0]!.text.split(' ');
  t.is(
    said[0],
    `<|ca|><|transcribe|><|0.10|>${first}<|0.62|><|0.62|> ${rest.join(' ')}<|1.50|><|endoftext|>`,
    'and no <|notimestamps|>',
  );
  t.is(said[1], `<|ca|><|transcribe|><|0.00|>${plain[1]!.text}<|1.24|><|endoftext|>`);
  for (const i of [2, 3])
    t.is(said[i], `<|ca|><|transcribe|><|0.00|>${plain[i]!.text}${stamp(seconds[i]!)}<|endoftext|>`);
  // The same in the batches of a run that goes on, which checks nothing before.
  for (const { labels, utterances } of await take(make(), 2))
    for (const [i, u] of utterances!.entries()) t.is(shown(labels[i]!), said[u]!);
  const untimed = make({ timestampShare: 0 });
  t.is(shown(untimed.labelsOf(1)), `<|ca|><|transcribe|><|notimestamps|>${plain[1]!.text}<|endoftext|>`);
});

test('of a share of the utterances, by their ids: whatever the order and the seed', (t) => {
  const many = Array.from({ length: 400 }, (_, i) => ({ ...entries()[1]!, id: `utterance ${i}` }));
  const timed = (list: ManifestEntry[], share: number, seed = 1): Set<string> => {
    const options = { batchSize: 2, seed, timestampShare: share };
    const batches = new AudioBatches(list, config, tokenizer, options);
    return new Set(list.flatMap(({ id }, i) => (shown(batches.labelsOf(i)).includes('<|0.00|>') ? [id] : [])));
  };
  const half = timed(many, 0.5);
  t.true(half.size > 160 && half.size < 240, String(half.size));
  t.deepEqual([...timed([...many].reverse(), 0.5, 9)].sort(), [...half].sort());
  t.true([...timed(many, 0.3)].every((id) => half.has(id)));
});

test('at another speed timestamps come sooner or later', async (t) => {
  for (const speed of [0.8, 1.25]) {
    const batches = make({ augmentation: { speedFactors: [speed] } });
    for (const { labels, utterances } of await take(batches, 2)) {
      for (const [i, u] of utterances!.entries()) {
        const times = labels[i]!.filter((id) => tokenizer.isTimestamp(id)).map((id) => tokenizer.timestampSeconds(id));
        const told = [
          [0.1, 0.62, 0.62, 1.5],
          [0, 1.234],
          [0, seconds[2]!],
          [0, seconds[3]!],
        ][u]!;
        t.is(times.length, told.length);
        for (const [j, time] of times.entries())
          t.true(Math.abs(time - told[j]! / speed) < 0.025, `${time}, ${told[j]}`);
      }
    }
  }
});

test('segments are read where they are asked for; what is none is the fault of its row; shards keep them', async (t) => {
  t.true(readManifest(at('rows.jsonl')).every(({ segments }) => segments === undefined));
  const { text } = plain[0]!;
  const bad: [unknown, RegExp][] = [
    ['soon', /segments: expected a list, got/],
    [[], /segments: expected a list of at least one/],
    [[{ start: 0, end: 1 }], /segments: expected start and end in seconds and text of each, got \{"start":0,"end":1\}/],
    [[{ start: 2, end: 1, text }], /segments: expected times that go forward from 0 s on, got 2 to 1 s as number 1/],
    [[{ start: 0, end: 1, text: 'other words' }], /segments: expected their texts, .* got "other words" where it has/],
    [
      [{ start: 0, end: 1, text: text.split(' ')[0] }],
      /segments: expected their texts to be all of the row's, which ends/,
    ],
  ];
  for (const [segments, message] of bad) {
    writeRows(at('bad.jsonl'), [{ ...plain[0]!, segments }]);
    t.throws(() => readManifest(at('bad.jsonl'), { segments: true }), { code: 'ERR_MANIFEST', message });
    t.is(readManifest(at('bad.jsonl')).length, 1, 'not looked at otherwise');
  }
  const late = [{ start: 0, end: 7, text }];
  t.throws(
    () =>
      new AudioBatches([{ ...entries()[0]!, segments: late }], config, tokenizer, { batchSize: 1, timestampShare: 1 }),
    { code: 'ERR_MANIFEST', message: /segments: expected times within the model's window of 5 s, got 7 s/ },
  );
  const quoted = JSON.stringify([{ start: 0, end: 1, text }]).replaceAll('"', '""');
  writeFileSync(at('table.csv'), `audio,text,language,segments\n${plain[0]!.audio},${text},ca,"${quoted}"\n`);
  t.deepEqual(readManifest(at('table.csv'), { segments: true })[0]!.segments, [{ start: 0, end: 1, text }]);
  await using data = await openDataset(at('rows.jsonl'), { segments: true, split: 'train', text: 'basic' });
  await prepare(data, { output: at('shards') });
  await using packed = await openDataset(at('shards'), { segments: true });
  t.deepEqual(packed.entry(0).segments, data.entry(0).segments);
  t.is(
    packed
      .entry(0)
      .segments!.map((one) => one.text)
      .join(''),
    packed.entry(0).text,
  );
});

const recipe = (name: string, more: Partial<TrainRecipe> = {}): TrainRecipe => ({
  model: at('timed'),
  manifest: at('rows.jsonl'),
  output: at(name),
  language: 'ca',
  split: 'train',
  timestamps: true,
  batchSize: 2,
  steps: 2,
  ...more,
});

test('a run, its teacher cache, and what is refused before anything is written', async (t) => {
  await train(recipe('run'));
  t.is(JSON.parse(readFileSync(at('run', 'run.json'), 'utf8')).timestampShare, 1);
  t.is((await train(recipe('run'))).updates, 0);
  await t.throwsAsync(train(recipe('run', { timestamps: false })), { code: 'ERR_RUN', message: /timestampShare/ });
  const { manifest, language, split, timestamps } = recipe('cache');
  const of = { manifest, language, split, timestamps, output: at('cache') };
  await cacheTeacher({ ...of, teacher: at('teacher'), timestampShare: 0.5 });
  const cached = { teacher: at('teacher'), teacherCache: at('cache') };
  await train(recipe('cached', { ...cached, timestampShare: 0.5, options: { seed: 5 } }));
  await t.throwsAsync(train(recipe('refused', cached)), { code: 'ERR_TEACHER_CACHE', message: /it lacks \d of 4/ });
  const refused = (more: Partial<TrainRecipe>, code: string, message: RegExp) =>
    t.throwsAsync(train(recipe('refused', more)), { code, message });
  const bare =
    /^timestamps: expected a model with timestamp tokens, got a vocabulary of 452 tokens, which ends before them$/;
  await refused({ model: at('untimed') }, 'ERR_VOCABULARY', bare);
  await refused({ timestampShare: 0 }, 'ERR_ARGUMENT', /^timestampShare: expected a share above 0, up to 1, got 0$/);
  await refused(
    { timestamps: false, timestampShare: 0.5 },
    'ERR_ARGUMENT',
    /^timestampShare: expected with timestamps/,
  );
  await refused({ options: { compat: 'reference' } }, 'ERR_ARGUMENT', /^timestamps: expected with compat 'paper'/);
  t.false(existsSync(at('refused')));
  const args = [
    'train',
    '--model',
    at('timed'),
    '--manifest',
    at('rows.jsonl'),
    '--language',
    'ca',
    '--split',
    'train',
  ];
  const line = await cli([...args, '--steps', '1', '--output', at('line'), '--timestamps', '--timestamp-share', '0.5']);
  t.is(line.code, 0, line.stderr);
  t.is(JSON.parse(readFileSync(at('line', 'run.json'), 'utf8')).timestampShare, 0.5);
});
