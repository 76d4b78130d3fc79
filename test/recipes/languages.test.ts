/** Several languages in one run's data. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { planTraining, type TrainRecipe, train } from '../../lib/recipes/index.js';
import { cli, corpusRows, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);

test.before(async () => {
  await writeTinyModel(at('student'), 1);
  writeRows(at('rows.jsonl'), [...corpusRows('ca', 'train', 'in', 16), ...corpusRows('pl', 'test', 'in', 4, 'train')]);
});
test.after.always(remove);

const recipe = (name: string, more: Partial<TrainRecipe> = {}): TrainRecipe => ({
  model: at('student'),
  manifest: at('rows.jsonl'),
  output: at(name),
  method: 'full',
  batchSize: 4,
  epochs: 1,
  ...more,
});

test('a temperature levels the languages of an epoch, which stays as long; the plan and the run say so', async (t) => {
  const plain = await planTraining(recipe('plan'));
  t.is(plain.steps, 5);
  t.deepEqual(plain.languages, [
    { language: 'ca', utterances: 16, epoch: 16 },
    { language: 'pl', utterances: 4, epoch: 4 },
  ]);
  const leveled = await planTraining(recipe('plan', { languageTemperature: 2 }));
  t.is(leveled.steps, 5);
  // √16 to √4: two thirds of 20.
  t.deepEqual(
    leveled.languages.map(({ epoch }) => epoch),
    [13, 7],
  );
  await train(recipe('run', { languageTemperature: 2 }));
  t.is(JSON.parse(readFileSync(at('run', 'run.json'), 'utf8')).languageTemperature, 2);
  await t.throwsAsync(train(recipe('run', { languageTemperature: 3 })), {
    code: 'ERR_RUN',
    message: /languageTemperature = 2, got 3/,
  });
  await train(recipe('one', { languageTemperature: 1 }));
  t.is((await train(recipe('one'))).updates, 0, '1 is the default');
  const args = ['train', '--model', at('student'), '--manifest', at('rows.jsonl'), '--method', 'full', '--dry-run'];
  const { stdout, stderr, code } = await cli([...args, '--language-temperature', '2', '--output', at('dry')]);
  t.is(code, 0, stderr);
  t.regex(stdout, /^ {2}languages: ca 65%, 80% of the rows; pl 35%, 20% of the rows$/m);
});

test('a temperature that means nothing is refused by name, before anything is written', async (t) => {
  for (const languageTemperature of [0, -1, Number.NaN, Number.POSITIVE_INFINITY]) {
    await t.throwsAsync(train(recipe('bad', { languageTemperature })), {
      code: 'ERR_ARGUMENT',
      message: /^languageTemperature: expected a number above 0, got/,
    });
  }
  await t.throwsAsync(train(recipe('bad', { languageTemperature: 2, language: 'ca' })), {
    code: 'ERR_ARGUMENT',
    message: /^languageTemperature: expected with rows of several languages/,
  });
  t.false(existsSync(at('bad')));
});
