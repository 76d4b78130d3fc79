/** A benchmark from the command line: killed at random moments it ends with the same numbers; its page opens in a browser. */
import { execFile, execFileSync, spawn } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import { cli, main } from '../support/cli.js';
import { at, json, manifest } from '../support/cli-models.js';
import { random } from '../support/random.js';

const rows = (split: string) => ({ manifest, split });
const spec = {
  model: at('student'),
  teacher: at('teacher'),
  languages: ['ca'],
  methods: { experts: { learningRates: [1e-3, 1e-2] }, distil: {}, lora: { lora: { rank: 2 } }, full: {} },
  seeds: [1, 2],
  train: rows('train'),
  validation: rows('validation'),
  test: rows('test'),
  steps: 6,
  batchSize: 4,
};
const file = at('benchmark.json');
test.before(() => writeFileSync(file, JSON.stringify(spec)));

/** What must be the same whenever it is run. */
const numbers = (path: string): object =>
  JSON.parse(readFileSync(path, 'utf8'), (key, value) => (['seconds', 'memory'].includes(key) ? undefined : value));

test.serial('killed ten times at random moments it ends with the tables of one that was not', async (t) => {
  const args = ['benchmark', file, '--threads', '2', '--output'];
  const whole = await cli([...args, at('whole'), '--json']);
  t.is(whole.code, 0, whole.stderr);
  const { costs, rows: table, files } = json(t, whole.stdout);
  t.is(costs.length, 4);
  t.deepEqual(
    costs[0].rates.map((one: { learningRate: number }) => one.learningRate),
    [1e-3, 1e-2],
  );
  t.true(
    table.every(
      ({ way, language, unchanged }: { way: string; language: string; unchanged: number }) =>
        !['before', 'experts', 'distil'].includes(way) || language === 'ca' || unchanged === 1,
    ),
  );

  const next = random(Number(process.env.SEED ?? 1));
  let kills = 0;
  while (kills < 10) {
    const child = spawn(process.execPath, [main, ...args, at('broken')], { stdio: 'ignore' });
    const ended = new Promise<number | null>((resolve) => child.on('exit', resolve));
    const killed = setTimeout(() => child.kill('SIGKILL'), 300 + 3000 * next());
    const code = await ended;
    clearTimeout(killed);
    if (code === 0) break;
    kills++;
  }
  t.log(`${kills} kills`);
  const again = await cli([...args, at('broken'), '--json']);
  t.is(again.code, 0, again.stderr);
  t.deepEqual(numbers(json(t, again.stdout).files.json), numbers(files.json));
  t.is(readFileSync(json(t, again.stdout).files.csv, 'utf8'), readFileSync(files.csv, 'utf8'));

  // Two at once come to the same, and more seeds may be added, but it is one benchmark.
  const both = await cli([
    ...args,
    at('both'),
    '--parallel',
    '2',
    '--methods',
    'distil,lora',
    '--seeds',
    '1',
    '--json',
  ]);
  t.is(both.code, 0, both.stderr);
  const heard = (output: string, way: string): string =>
    readFileSync(join(output, 'cells', `${way}.ca.seed-1`, 'evaluation.json'), 'utf8');
  for (const way of ['distil', 'lora']) t.is(heard(at('both'), way), heard(at('whole'), way), way);
  const more = await cli([...args, at('whole'), '--seeds', '1,2,3', '--methods', 'experts', '--json']);
  t.is(more.code, 0, more.stderr);
  t.deepEqual(
    json(t, more.stdout).costs.map(({ seeds }: { seeds: number[] }) => seeds),
    [[1, 2, 3]],
  );
  // A method that was run with other options is another benchmark's: its runs are not taken for what they are not.
  writeFileSync(
    at('rank.json'),
    JSON.stringify({ ...spec, methods: { ...spec.methods, lora: { lora: { rank: 4 } } } }),
  );
  const rank = await cli(['benchmark', at('rank.json'), '--output', at('whole')]);
  t.is(rank.code, 1);
  t.regex(rank.stderr, /ERR_RUN: .*another methods\.lora/);
  writeFileSync(at('other.json'), JSON.stringify({ ...spec, steps: 7 }));
  const other = await cli(['benchmark', at('other.json'), '--output', at('whole')]);
  t.is(other.code, 1);
  t.regex(other.stderr, /ERR_RUN: .*another steps/);
});

test.serial('its page opens in a browser, without an error, on a phone too', async (t) => {
  let browser: string;
  try {
    browser = execFileSync('sh', [
      '-c',
      'command -v chromium || command -v chromium-browser || command -v google-chrome',
    ])
      .toString()
      .trim();
  } catch {
    t.log('skipped: no chromium');
    return t.pass();
  }
  const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr', '--window-size=390,800'];
  const { stdout, stderr } = await promisify(execFile)(
    browser,
    [...flags, '--dump-dom', `file://${at('whole')}/benchmark.html`],
    {
      maxBuffer: 1 << 26,
      timeout: 120_000,
    },
  );
  t.true(stdout.includes('<h2>What it took</h2>') && stdout.includes('</html>'));
  t.notRegex(stderr, /CONSOLE/);
});

test.serial('a dry run says what each kind of run takes and writes nothing; as many run at once as fit', async (t) => {
  writeFileSync(at('small.json'), JSON.stringify({ ...spec, methods: { experts: {}, full: {} }, steps: 2 }));
  const args = ['benchmark', at('small.json'), '--threads', '2', '--output', at('planned'), '--json'];
  const dry = await cli([...args, '--dry-run']);
  t.is(dry.code, 0, dry.stderr);
  const { cells, plans } = json(t, dry.stdout);
  t.is(cells, 4);
  t.deepEqual(
    plans.map(({ way, language, runs }: { way: string; language: string; runs: number }) => [way, language, runs]),
    [
      ['experts', 'ca', 2],
      ['full', 'ca', 2],
    ],
  );
  t.true(plans.every(({ memory, seconds }: { memory: number; seconds: number }) => memory > 0 && seconds > 0));
  t.false(existsSync(at('planned')));
  const unknown = await cli([...args, '--methods', 'experts,fulll']);
  t.is(unknown.code, 1);
  t.regex(unknown.stderr, /ERR_ARGUMENT: --methods: expected of experts, full, got .*fulll/);
  t.false(existsSync(at('planned')));
  const auto = await cli([...args, '--parallel', 'auto']);
  t.is(auto.code, 0, auto.stderr);
  t.is(json(t, auto.stdout).costs.length, 2);
});
