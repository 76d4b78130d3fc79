/**
 * Whether a build is slower than another: compare-speed.mjs [--only a,b] [--types a,b] [--rounds N] [--repeats N] <old checkout>
 * [<new checkout>], both built. Each question of the benchmark is asked of both in turns (old, new, new, old, …), so that what
 * disturbs the machine disturbs both; compared are the medians over all rounds. Ends with 1 where a case got slower by more than 2%.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const SLOWER = 0.02;
const text = { type: 'string' };
const { values, positionals } = parseArgs({
  options: { only: text, types: text, rounds: text, repeats: text },
  allowPositionals: true,
});
const here = fileURLToPath(new URL('..', import.meta.url));
const [old, now = here] = positionals.map((path) => resolve(path));
if (!old) {
  console.error(
    'usage: compare-speed.mjs [--only a,b] [--types a,b] [--rounds N] [--repeats N] <old checkout> [<new>]',
  );
  process.exit(2);
}
const questions = (values.only ?? 'gated-ffn,loss,encoder,decode,step').split(',');
const types = (values.types ?? 'fp32,bf16').split(',');
const rounds = Number(values.rounds ?? 2);
if (!Number.isInteger(rounds) || rounds < 1) {
  console.error('--rounds: expected a whole number from 1');
  process.exit(2);
}
const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-speed-'));

/** Case → its median in ms, of one process. */
function ask(root, question, type) {
  const json = join(scratch, 'answer.json');
  const asked = ['--only', question, '--types', type, '--repeats', values.repeats ?? '7', '--json', json];
  const { status, stderr } = spawnSync(process.execPath, ['--import=tsx', 'bench/main.ts', ...asked], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`${root}: ${asked.join(' ')}: ${stderr}`);
  const { answers } = JSON.parse(readFileSync(json, 'utf8'));
  const rows = answers.flatMap(({ tables }) => tables.flatMap((table) => table.rows));
  return new Map(rows.filter(({ ms }) => ms).map(({ name, ms }) => [name, ms.median]));
}

const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
};

let slower = 0;
try {
  for (const question of questions)
    for (const type of types) {
      const times = new Map();
      for (let round = 0; round < rounds; round++)
        for (const side of round % 2 === 0 ? ['old', 'now'] : ['now', 'old'])
          for (const [name, ms] of ask(side === 'old' ? old : now, question, type)) {
            if (!times.has(name)) times.set(name, { old: [], now: [] });
            times.get(name)[side].push(ms);
          }
      for (const [name, sides] of times) {
        if (sides.old.length === 0 || sides.now.length === 0) {
          console.log(`MISSING in one of the two ${question}: ${name}`);
          slower++;
          continue;
        }
        const [before, after] = [median(sides.old), median(sides.now)];
        const change = after / before - 1;
        if (change > SLOWER) slower++;
        const percent = `${change > 0 ? '+' : ''}${(100 * change).toFixed(1)}%`;
        console.log(
          `${change > SLOWER ? 'SLOWER' : '      '} ${question}: ${name}: ${before.toPrecision(4)} -> ${after.toPrecision(4)} ms (${percent})`,
        );
      }
    }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
process.exitCode = slower > 0 ? 1 : 0;
