/** A data set is an index of its rows: memory does not grow with what is read of it. */
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { openDataset } from '../../lib/index.js';
import { scratchFolder } from '../support/cli.js';
import { tone } from '../support/corpora.js';

const { path: scratch, remove } = scratchFolder();
test.after.always(remove);

test('100,000 rows: the index takes some hundred bytes a row, and reading them no more', async (t) => {
  for (const i of [0, 1, 2]) writeFileSync(join(scratch, `${i}.wav`), tone(0.05, i + 1));
  const row = (i: number): string =>
    JSON.stringify({
      id: `utterance ${i}`,
      audio: `${i % 3}.wav`,
      text: `una frase de nou paraules com n'hi ha tantes ${i}`,
      language: 'ca',
    });
  const manifest = join(scratch, 'rows.jsonl');
  writeFileSync(manifest, Array.from({ length: 100_000 }, (_, i) => row(i)).join('\n'));
  const script = fileURLToPath(new URL('../support/rows-memory.ts', import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--expose-gc',
    '--import=tsx',
    script,
    manifest,
    '1000',
    '6000',
  ]);
  const told = JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<string, number>;
  t.log(told);
  t.is(told.rows, 100_000);
  t.is(told.last, 100_000);
  t.true(told.index! < 120 * 2 ** 20, `${told.index} bytes`);
  t.true(told['6000']! - told['1000']! < 24 * 2 ** 20);
});

test('tables of any size are read in pieces: the numbers of lines are right, also of one that is broken', async (t) => {
  const table = join(scratch, 'large.tsv');
  writeFileSync(join(scratch, 'a.wav'), tone(0.05));
  const row = (i: number): string => `a.wav\t${'paraula '.repeat(40)}${i}\tca`;
  const lines = ['path\tsentence\tlocale', ...Array.from({ length: 60_000 }, (_, i) => row(i))];
  writeFileSync(table, lines.join('\r\n'));
  {
    await using data = await openDataset(table, { limit: 60_000 });
    t.like(data.entry(59_999), { line: 60_001, text: `${'paraula '.repeat(40)}59999` });
  }
  const bytes = readFileSync(table);
  const at = bytes.indexOf(' 40000\t');
  bytes[at] = 0xff;
  writeFileSync(table, bytes);
  await t.throwsAsync(openDataset(table), { code: 'ERR_MANIFEST', message: /line 40002: expected UTF-8 text/ });
  bytes[at] = 0;
  writeFileSync(table, bytes);
  await t.throwsAsync(openDataset(table), { code: 'ERR_MANIFEST', message: /NUL bytes/ });
});
