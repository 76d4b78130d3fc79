/** Run folders: one process at a time, known by content, whole whatever ends the process; and promises that reject once. */
import { spawn } from 'node:child_process';
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { Whisper } from '../../lib/model/index.js';
import { type TrainRecipe, train } from '../../lib/recipes/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { RunFolder, type TrainBatch, Trainer } from '../../lib/train/index.js';
import { cli, corpusRows, main, type Row, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';
import { normalItems, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
const rows: Row[] = [...corpusRows('ca', 'train', 'in', 6), ...corpusRows('ca', 'validation', 'in', 2)];

test.before(async () => {
  await writeTinyModel(at('student'), 1);
  writeRows(at('data', 'rows.jsonl'), rows);
});
test.after.always(remove);

const recipe = (output: string, more: Partial<TrainRecipe> = {}): TrainRecipe => ({
  model: at('student'),
  manifest: at('data', 'rows.jsonl'),
  output,
  language: 'ca',
  split: 'train',
  batchSize: 2,
  steps: 2,
  ...more,
});

test('a second process in one folder is refused before it touches anything; a killed one is not in the way', async (t) => {
  const output = at('shared');
  const args = ['train', '--model', at('student'), '--manifest', at('data', 'rows.jsonl'), '--split', 'train'];
  args.push('--language', 'ca', '--batch-size', '2', '--threads', '1', '--steps', '400', '--output');
  const first = spawn(process.execPath, [main, ...args, output], { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = new Promise((resolve) => first.on('exit', resolve));
  await new Promise<void>((resolve) => {
    first.stderr.setEncoding('utf8').on('data', (text: string) => {
      if (text.includes('training ')) resolve();
    });
  });
  const second = await cli([...args, `${output}/`]);
  t.is(second.code, 1);
  t.regex(second.stderr, new RegExp(`^error ERR_RUN: .* is in use by process ${first.pid} on host .*run\\.lock$`, 'm'));
  t.is(first.exitCode, null, 'the first goes on');
  first.kill('SIGKILL');
  await ended;
  t.true(existsSync(join(output, 'run.lock')));
  t.is((await cli([...args, output])).code, 0);
  const steps = readFileSync(join(output, 'log.jsonl'), 'utf8').trimEnd().split('\n');
  t.deepEqual(
    steps.map((line) => JSON.parse(line).step),
    Array.from({ length: 400 }, (_, i) => i + 1),
  );
});

test('a run is known by what it is made of, not by the paths that lead there', async (t) => {
  const output = at('known');
  await train(recipe(output));
  cpSync(at('student'), at('moved', 'model'), { recursive: true });
  writeRows(at('moved', 'manifest.jsonl'), rows);
  const again = await train(
    recipe(`${output}/`, { model: `${at('moved', 'model')}/`, manifest: at('moved', '..', 'moved', 'manifest.jsonl') }),
  );
  t.is(again.updates, 0);
  const changes: [string, Partial<TrainRecipe>, RegExp][] = [
    ['seed', { options: { seed: 3 } }, /options\.seed = 77, got 3/],
    ['seed and length', { steps: 3, options: { seed: 3 } }, /options\.seed = 77, got 3/],
    ['another batch size', { batchSize: 3 }, /batchSize = 2, got 3/],
  ];
  writeRows(
    at('moved', 'texts.jsonl'),
    rows.map((row) => ({ ...row, text: `${row.text} si` })),
  );
  changes.push(['other texts', { manifest: at('moved', 'texts.jsonl') }, /other training rows/]);
  const audio = at('moved', 'other.opus');
  cpSync(rows[1]!.audio, audio);
  writeRows(
    at('moved', 'audio.jsonl'),
    rows.map((row, i) => (i === 0 ? { ...row, audio } : row)),
  );
  changes.push(['other audio', { manifest: at('moved', 'audio.jsonl') }, /other training rows/]);
  await writeTinyModel(at('moved', 'other'), 2);
  changes.push(['another model', { model: at('moved', 'other') }, /other model weights/]);
  for (const [what, change, says] of changes) {
    const error = await t.throwsAsync(train(recipe(output, change)), { code: 'ERR_RUN' }, what);
    t.regex(error!.message, says, what);
  }
  writeFileSync(join(output, 'run.json'), '{"model":"some/path"}');
  await t.throwsAsync(train(recipe(output)), { code: 'ERR_RUN', message: /run\.json: expected a run of format 2/ });
});

test('state.json and the log are input like any other: what they cannot say is refused by name', async (t) => {
  const output = at('state');
  await train(recipe(output));
  const folder = join(output, 'checkpoints', 'step-00000002');
  const file = join(folder, 'state.json');
  const sound = JSON.parse(readFileSync(file, 'utf8'));
  const name = Object.keys(sound.optimizerSteps)[0]!;
  const cases: [Record<string, unknown>, RegExp][] = [
    [{ logBytes: 1e11 }, /logBytes/],
    [{ logBytes: -1 }, /logBytes/],
    [{ logBytes: 1.5 }, /logBytes/],
    [{ logBytes: undefined }, /logBytes/],
    [{ step: 1 }, /expected step 2, got 1/],
    [{ step: 'two' }, /step/],
    [{ step: 3 }, /step to be a whole number from 0 to 2/],
    [{ optimizerSteps: null }, /optimizerSteps/],
    [{ optimizerSteps: {} }, /optimizerSteps of /],
    [{ optimizerSteps: { ...sound.optimizerSteps, [name]: 9 } }, /optimizerSteps of /],
    [{ best: 3 }, /best/],
    [{ best: { score: 'low', step: 1 } }, /best\.score/],
    [{ best: { score: 1, step: 7 } }, /best\.step/],
    [{ validated: 99 }, /validated/],
  ];
  const log = readFileSync(join(output, 'log.jsonl'));
  for (const [change, says] of cases) {
    writeFileSync(file, JSON.stringify({ ...sound, ...change }));
    const error = await t.throwsAsync(train(recipe(output)), { code: 'ERR_RUN' }, JSON.stringify(change));
    t.regex(error!.message, says);
    t.true(error!.message.includes(file));
    t.deepEqual(readFileSync(join(output, 'log.jsonl')), log);
  }
  for (const text of ['', '[]', '{"step":', 'null']) {
    writeFileSync(file, text);
    await t.throwsAsync(train(recipe(output)), { code: 'ERR_RUN', message: /state\.json/ }, text);
  }
  writeFileSync(file, JSON.stringify(sound));
  // A line that a killed process began behind the checkpoint is cut off; one that is missing is missed.
  appendFileSync(join(output, 'log.jsonl'), '{"step":3,"lo');
  t.is((await train(recipe(output))).updates, 0);
  t.deepEqual(readFileSync(join(output, 'log.jsonl')), log);
  writeFileSync(join(output, 'log.jsonl'), log.subarray(0, 20));
  await t.throwsAsync(train(recipe(output)), { code: 'ERR_RUN', message: /logBytes of at most 20/ });
  const opened = join(scratch, 'entries');
  const run = await RunFolder.open(opened, {});
  await run.log({ step: 1 });
  appendFileSync(join(opened, 'log.jsonl'), '{"step":2');
  t.deepEqual(await run.entries(), [{ step: 1 }]);
  await run.close();
});

test('whatever a callback throws, at once or later, train() rejects with it, once, and the run can go on', async (t) => {
  // Anything beside the rejection would be an unhandled one, which ends the test with an error.
  const output = at('callbacks');
  const validation = { split: 'validation', every: 1 };
  const thrown = new Error('from a callback');
  const fail = (): never => {
    throw thrown;
  };
  const later = async (): Promise<void> => {
    await new Promise((resolve) => setTimeout(resolve, 5));
    throw thrown;
  };
  for (const callback of ['onCheck', 'onStart', 'onUpdate', 'onValidation'] as const) {
    for (const body of callback === 'onUpdate' ? [fail, later] : [later]) {
      rmSync(output, { recursive: true, force: true });
      const more: Partial<TrainRecipe> = { validation, steps: 4, checkpointEvery: 1 };
      t.is(await t.throwsAsync(train(recipe(output, { ...more, [callback]: body }))), thrown, callback);
      if (callback === 'onCheck' || callback === 'onStart') t.false(existsSync(output), callback);
      else t.false(existsSync(join(output, 'run.lock')), callback);
      t.is((await train(recipe(output, more))).steps, 4);
    }
  }
});

test('a log that cannot be written, a divergence and batches that fail reject run() alone, with the stream as it was', async (t) => {
  const stream = new Stream({ threads: 1 });
  const config = tinyConfig();
  const features = normalItems(2, config.num_mel_bins * 40, random(1));
  const good: TrainBatch = { features, labels: [[1, 2, 3], [4]], languages: [null, null] };
  const run = async (
    name: string,
    batches: () => AsyncIterable<TrainBatch>,
    onUpdate?: () => void,
  ): Promise<unknown> => {
    const model = await Whisper.create(stream, config, { seed: 2, trainable: () => true });
    const options = { steps: 6, learningRate: 1e-3, warmup: 0 };
    const trainer = new Trainer({
      model,
      batches: { stream: batches },
      options,
      folder: at(name),
      ...(onUpdate && { onUpdate }),
    });
    try {
      return await trainer.run();
    } finally {
      trainer.dispose();
      model.dispose();
    }
  };
  const endless = async function* (): AsyncGenerator<TrainBatch> {
    for (;;) yield good;
  };
  const blockLog = (): void => {
    rmSync(at('log', 'log.jsonl'));
    mkdirSync(at('log', 'log.jsonl'));
  };
  await t.throwsAsync(run('log', endless, blockLog), { code: 'ERR_FILE_WRITE', message: /log\.jsonl/ });
  const diverging = async function* (): AsyncGenerator<TrainBatch> {
    yield good;
    yield { ...good, features: features.map((item) => item.map(() => Number.NaN)) };
    yield* endless();
  };
  await t.throwsAsync(run('diverges', diverging), { code: 'ERR_RUN', message: /update 2: .* diverged/ });
  const broken = async function* (): AsyncGenerator<TrainBatch> {
    yield good;
    yield good;
    throw new Error('no more');
  };
  await t.throwsAsync(run('broken', broken), { message: 'no more' });
  const short = async function* (): AsyncGenerator<TrainBatch> {
    yield good;
  };
  await t.throwsAsync(run('short', short), { code: 'ERR_ARGUMENT', message: /enough for 6 updates, got 1/ });
  t.deepEqual(readdirSync(at('diverges', 'checkpoints')), ['step-00000001']);
  t.deepEqual(await stream.tensor(Float32Array.of(3), [1]).read(), Float32Array.of(3));
  stream.close();
});

test('an interruption ends the checks of the audio, the validation, and the updates, each at once', async (t) => {
  const long = { steps: 1000, validation: { split: 'validation', every: 2 } };
  for (const when of ['onCheck', 'onStart', 'onUpdate', 'onValidation'] as const) {
    const abort = new AbortController();
    const output = at('interrupted', when);
    let updates = 0;
    const interrupted = train(
      recipe(output, {
        ...long,
        signal: abort.signal,
        onUpdate: ({ step }) => {
          updates = step;
        },
        [when]: () => abort.abort(),
      }),
    );
    await t.throwsAsync(interrupted, { code: 'ERR_INTERRUPTED' }, when);
    t.true(updates <= 4, `${when}: ended after update ${updates}`);
    if (when === 'onCheck') t.false(existsSync(output));
  }
});
