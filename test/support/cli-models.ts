/** Two models with random weights and a manifest of the embedded corpus, for tests of the command line. */
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { corpusRows, scratchFolder, writeRows, writeTinyModel } from './cli.js';

const { path, remove } = scratchFolder();
/** The folder of all that they write. */
export const scratch = path;
export const at = (...names: string[]): string => join(path, ...names);
export const manifest = at('manifest.jsonl');
const rows = [
  ...corpusRows('ca', 'train', 'in', 24),
  ...corpusRows('ca', 'validation', 'in', 6),
  ...corpusRows('ca', 'test', 'in', 4),
  ...corpusRows('ca', 'test', 'out', 4),
  ...corpusRows('cs', 'test', 'in', 4),
];
/** Path of the audio of a row for tests. */
export const speech = (n: number): string => rows.filter((row) => row.split === 'test')[n]!.audio;

test.before(async () => {
  writeRows(manifest, rows);
  await writeTinyModel(at('student'), 1);
  await writeTinyModel(at('teacher'), 2, { d_model: 32, encoder_ffn_dim: 128, decoder_ffn_dim: 128 });
});
test.after.always(remove);

/** Standard output as JSON; fails when there is anything else. */
// biome-ignore lint/suspicious/noExplicitAny: output of many shapes
export function json(t: ExecutionContext, stdout: string): any {
  t.true(stdout.endsWith('\n'));
  return JSON.parse(stdout);
}

export const TRAIN = [
  'train',
  '--language',
  'ca',
  '--split',
  'train',
  '--validation-split',
  'validation',
  '--batch-size',
  '8',
];
export const trainArgs = (output: string, ...more: string[]): string[] => [
  ...[...TRAIN, '--model', at('student'), '--teacher', at('teacher'), '--manifest', manifest, '--output', output],
  ...['--learning-rate', '0.01', '--threads', '2', ...more],
];
