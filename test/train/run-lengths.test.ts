/** Runs that go on with another length than they had. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Whisper } from '../../lib/model/index.js';
import { type TrainPlan, type TrainRecipe, type TrainResult, train } from '../../lib/recipes/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { learningRate, RunFolder, type RunReport, Trainer, trainingOptions } from '../../lib/train/index.js';
import { cli, corpusRows, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';
import { normalItems, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';

const folder = (t: ExecutionContext): string => {
  const path = mkdtempSync(join(tmpdir(), 'lengths-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
};
const lines = (path: string) =>
  readFileSync(join(path, 'log.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
const runJson = (path: string) => JSON.parse(readFileSync(join(path, 'run.json'), 'utf8'));

/** A run of a tiny model in a folder, perhaps ended behind an update; with the parameters that it ends with. */
async function run(
  path: string,
  steps: number,
  { abortAt, ...options }: { abortAt?: number; learningRate?: number } = {},
): Promise<RunReport & { values: Float32Array }> {
  const stream = new Stream({ threads: 1 });
  const config = tinyConfig();
  const abort = new AbortController();
  try {
    const model = await Whisper.create(stream, config, { seed: 2 });
    await model.addExpert('catalan', { seed: 3 });
    const trainer = new Trainer({
      model,
      batches: {
        async *stream(from) {
          for (let micro = from; ; micro++)
            yield {
              features: normalItems(2, config.num_mel_bins * 40, random(micro)),
              labels: [
                [1, 2, 3],
                [4, 5],
              ],
              languages: ['catalan', null],
            };
        },
      },
      options: { learningRate: 1e-2, ...options, steps },
      folder: path,
      checkpointEvery: 2,
      signal: abort.signal,
      onUpdate: ({ step }) => {
        if (step === abortAt) abort.abort();
      },
    });
    const report = await trainer.run();
    const values = (await model.trainable()[3]!.value.floats()).slice();
    return { ...report, values };
  } finally {
    stream.close();
  }
}

test('a run that had ended goes on to a greater length: schedules follow it from there, and it resumes as any other', async (t) => {
  const [whole, broken] = [folder(t), folder(t)];
  t.is((await run(whole, 4)).updates, 4);
  const first = lines(whole);
  const { updates, values } = await run(whole, 9);
  t.is(updates, 5);
  const all = lines(whole);
  t.deepEqual(all.slice(0, 4), first);
  const rates = (steps: number) => (k: number) => learningRate(trainingOptions({ steps, learningRate: 1e-2 }), k);
  t.deepEqual(
    all.map(({ learningRate }) => learningRate),
    [...[0, 1, 2, 3].map(rates(4)), ...[4, 5, 6, 7, 8].map(rates(9))],
  );
  t.deepEqual(runJson(whole).options.steps, 9);
  t.deepEqual(runJson(whole).lengths, [{ steps: 4, until: 4 }]);
  t.is((await run(whole, 9)).updates, 0);
  // The same, ended on its way.
  await run(broken, 4);
  await t.throwsAsync(run(broken, 9, { abortAt: 6 }), { code: 'ERR_INTERRUPTED' });
  const rest = await run(broken, 9);
  t.true(rest.updates < 4);
  t.deepEqual(rest.values, values);
  t.deepEqual(lines(broken), all);
  t.deepEqual(runJson(broken), runJson(whole));
  // And once more.
  t.is((await run(whole, 10)).updates, 1);
  t.deepEqual(runJson(whole).lengths, [
    { steps: 4, until: 4 },
    { steps: 9, until: 9 },
  ]);
  const held = await RunFolder.open(whole, { ...runJson(whole), lengths: undefined });
  t.is(held.extension, null);
  await held.close();
});

test('an unfinished run takes another length; less than it has done is refused, and nothing is touched', async (t) => {
  const path = folder(t);
  await t.throwsAsync(run(path, 20, { abortAt: 6 }), { code: 'ERR_INTERRUPTED' });
  const done = (await RunFolder.length(path))!.updates;
  t.true(done >= 6);
  const before = readFileSync(join(path, 'run.json'));
  const log = readFileSync(join(path, 'log.jsonl'));
  await t.throwsAsync(run(path, done - 1), {
    code: 'ERR_RUN',
    message: new RegExp(`it has done ${done} of 20 updates; expected a length of at least ${done}, got ${done - 1}$`),
  });
  await t.throwsAsync(run(path, 30, { learningRate: 1e-3 }), { code: 'ERR_RUN', message: /options\.learningRate/ });
  t.deepEqual(readFileSync(join(path, 'run.json')), before);
  t.deepEqual(readFileSync(join(path, 'log.jsonl')), log);
  t.is((await run(path, done + 2)).updates, 2, 'a shorter length that it has not reached');
  t.is((await run(path, done + 3)).updates, 1);
  t.is(lines(path).length, done + 3);
});

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
test.after.always(remove);

test('a recipe: the plan says so, and expert and report are those of the longer run', async (t) => {
  await writeTinyModel(at('student'), 1);
  writeRows(at('rows.jsonl'), corpusRows('ca', 'train', 'in', 6));
  const own = { model: at('student'), manifest: at('rows.jsonl'), output: at('run'), language: 'ca', batchSize: 2 };
  const recipe = (more: Partial<TrainRecipe>): Promise<TrainResult & { plan: TrainPlan }> => {
    let plan!: TrainPlan;
    const onStart = (told: TrainPlan): void => {
      plan = told;
    };
    return train({ ...own, ...more, onStart }).then((result) => ({ ...result, plan }));
  };
  const first = await recipe({ epochs: 1 });
  t.is(first.plan.extension, null);
  const expert = readFileSync(first.result);
  const report = readFileSync(at('run', 'report.json'));
  const second = await recipe({ epochs: 2 });
  t.deepEqual(second.plan.extension, { from: 3, at: 3 });
  t.is(second.updates, 3);
  t.notDeepEqual(readFileSync(second.result), expert);
  t.like(JSON.parse(readFileSync(at('run', 'report.json'), 'utf8')), { steps: 6, updates: 3 });
  // A process that ended behind its last checkpoint left the report of the shorter run.
  writeFileSync(at('run', 'report.json'), report);
  writeFileSync(second.result, expert);
  t.is((await recipe({ epochs: 2 })).updates, 0);
  t.is(JSON.parse(readFileSync(at('run', 'report.json'), 'utf8')).steps, 6);
  t.notDeepEqual(readFileSync(second.result), expert);
  const args = ['train', '--model', own.model, '--manifest', own.manifest, '--output', own.output, '--language', 'ca'];
  const { code, stderr } = await cli([...args, '--batch-size', '2', '--epochs', '3']);
  t.is(code, 0, stderr);
  t.regex(stderr, /goes on behind update 6 of what were 6: learning rate and gate noise follow the new length/);
  const less = await cli([...args, '--batch-size', '2', '--steps', '5']);
  t.is(less.code, 1);
  t.regex(less.stderr, /ERR_RUN: .* it has done 9 of 9 updates; expected a length of at least 9, got 5/);
  t.false(existsSync(at('run', 'run.lock')));
});
