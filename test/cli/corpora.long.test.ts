/** Corpora from the command line: prepare, train and evaluate on what is shipped, with what cannot be used in it. */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import test from 'ava';
import { cli, corpusRows, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';
import { parquetOf, tone, voiceRows, writeFleurs, writeVoice } from '../support/corpora.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
const student = at('student');
const voice = at('cv', 'ca');
const fleurs = at('fleurs', 'ca_es');
test.before(async () => {
  await writeTinyModel(student, 1);
  writeVoice(voice, { train: voiceRows('t', 4), dev: voiceRows('d', 2), test: voiceRows('e', 2) });
  writeFileSync(join(voice, 'clips', 'common_voice_ca_t1.mp3'), '');
  rmSync(join(voice, 'clips', 'common_voice_ca_t3.mp3'));
  const rows = Array.from({ length: 6 }, (_, id) => ({ id, file: `${id}.wav`, text: `frase ${id}`, seconds: 0.3 }));
  await writeFleurs(fleurs, { train: rows, test: rows.slice(0, 2) }, 'tar.gz');
});
test.after.always(remove);

// biome-ignore lint/suspicious/noExplicitAny: output of many shapes
const json = (stdout: string): any => JSON.parse(stdout);
const trainArgs = (output: string, ...more: string[]): string[] => [
  ...[
    'train',
    '--model',
    student,
    '--language',
    'ca',
    '--output',
    at(output),
    '--batch-size',
    '2',
    '--threads',
    '2',
    '--json',
  ],
  ...more,
];

test('train: a release with bad rows goes on without them and tells of them; --strict refuses them; the same command resumes', async (t) => {
  const args = trainArgs('voice', '--data', `cv:${voice}`, '--validation-split', 'dev', '--steps', '2');
  const done = await cli(args);
  t.is(done.code, 0, done.stderr);
  t.like(json(done.stdout), { utterances: 2, updates: 2 });
  t.deepEqual(
    json(done.stdout).badRows.map(({ line, code }: { line: number; code: string }) => [line, code]),
    [
      [3, 'ERR_AUDIO_EMPTY'],
      [5, 'ERR_FILE_NOT_FOUND'],
    ],
  );
  t.regex(done.stderr, /^2 bad rows left out:/m);
  const { leftOut } = json(readFileSync(at('voice', 'run.json'), 'utf8'));
  t.deepEqual(
    leftOut.map(({ file, line }: { file: string; line: number }) => [file, line]),
    [
      ['ca/train.tsv', 3],
      ['ca/train.tsv', 5],
    ],
  );
  const again = await cli(args);
  t.is(again.code, 0, again.stderr);
  t.is(json(again.stdout).updates, 0);
  const strict = await cli(trainArgs('strict', '--data', voice, '--strict', '--steps', '2'));
  t.is(strict.code, 1);
  t.is(json(strict.stdout).error.rows.length, 2);
  t.false(existsSync(at('strict')));
});

test('prepare, then train on the shards with another corpus and weights; evaluate takes the test split', async (t) => {
  const shards = at('shards');
  const made = await cli(['prepare', voice, `${fleurs}#train`, '--output', shards, '--shard-size', '20KiB', '--json']);
  t.is(made.code, 0, made.stderr);
  t.like(json(made.stdout), { rows: 12, counts: { train: { ca: 8 }, dev: { ca: 2 }, test: { ca: 2 } } });
  t.is(json(made.stdout).badRows.length, 2);
  t.true(readdirSync(shards).length > 2);
  const parquet = at('more.parquet');
  writeFileSync(
    parquet,
    parquetOf([1, 2, 3, 4].map((i) => ({ bytes: tone(0.2, i), text: `més ${i}`, language: 'ca' }))),
  );
  const args = trainArgs(
    'mixed',
    '--data',
    shards,
    '--data',
    `${parquet}:0.5`,
    '--validation-data',
    `${fleurs}#test`,
    '--epochs',
    '1',
  );
  const done = await cli(args);
  t.is(done.code, 0, done.stderr);
  // Eight rows of the shards and half of four others: five batches of two.
  t.like(json(done.stdout), { utterances: 12, updates: 5 });
  const other = await cli(args.map((arg) => (arg === `${parquet}:0.5` ? `${parquet}:1.5` : arg)));
  t.is(other.code, 1);
  t.is(json(other.stdout).error.code, 'ERR_RUN');
  const evaluated = await cli(['evaluate', '--model', student, '--data', shards, '--threads', '2', '--json']);
  t.is(evaluated.code, 0, evaluated.stderr);
  t.is(json(evaluated.stdout).total.utterances, 2);
  const archive = await cli([
    'evaluate',
    '--model',
    student,
    '--data',
    `${fleurs}#train`,
    '--limit',
    '3',
    '--threads',
    '2',
    '--json',
  ]);
  t.is(archive.code, 0, archive.stderr);
  t.is(json(archive.stdout).total.utterances, 3);
});

test('a manifest’s rows are known again by what they always were: a run of an earlier version goes on', async (t) => {
  const rows = corpusRows('ca', 'train', 'in', 4);
  const manifest = writeRows(at('rows.jsonl'), rows);
  const done = await cli(trainArgs('known', '--manifest', manifest, '--steps', '1'));
  t.is(done.code, 0, done.stderr);
  const hash = createHash('sha256');
  for (const { audio, text, language } of rows)
    hash.update(`${JSON.stringify([basename(audio), statSync(audio).size, text, language, 'transcribe'])}\n`);
  const run = json(readFileSync(at('known', 'run.json'), 'utf8'));
  t.is(run['training rows'], `sha256:${hash.digest('hex')}`);
  t.false('data weights' in run);
});

test('wrong names are refused before anything is written', async (t) => {
  mkdirSync(at('nothing'));
  for (const [data, says] of [
    [at('nowhere'), /ERR_FILE_NOT_FOUND/],
    [at('nothing'), /a folder without one/],
    [`${voice}#nightly`, /has the splits train, dev, test/],
    [`${voice}#train:0`, /a weight above 0/],
  ] as const) {
    const { code, stderr } = await cli(trainArgs('never', '--data', data, '--steps', '1'));
    t.is(code, 1, stderr);
    t.regex(stderr, says);
  }
  const both = await cli(trainArgs('never', '--data', voice, '--manifest', 'x.tsv', '--steps', '1'));
  t.regex(both.stderr, /manifest: expected either data or a manifest, got both/);
  const twice = await cli(['evaluate', '--data', voice, '--manifest', 'x']);
  t.regex(twice.stderr, /manifest: expected either data or a manifest, got both/);
  t.is((await cli(trainArgs('never', '--data', fleurs, '--subset', '3k', '--steps', '1'))).code, 1);
  t.is((await cli(['prepare', voice, '--output', at('x'), '--shard-size', 'big'])).code, 2);
  t.is((await cli(['prepare', '--output', at('x')])).code, 2);
  t.false(existsSync(at('never')));
  t.false(existsSync(at('x')));
});
