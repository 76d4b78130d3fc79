// `npm run gpu-check` on the emulated device: the script that a GPU will run is proven from end to end, on tiny shapes.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { fits } from '../bench/gpu/speed.js';
import { emulated } from './support/kernels.js';
import { scratch } from './support/weights.js';

const program = fileURLToPath(new URL('../bench/gpu/main.ts', import.meta.url));

const check = (args: readonly string[], plugin: string) =>
  spawnSync(process.execPath, ['--import=tsx', program, ...args], {
    encoding: 'utf8',
    env: { ...process.env, DISTILWHISPER_CUDA_PLUGIN: plugin },
  });

/** A Python without torch that answers as the PyTorch script would. */
function fakePeer(folder: string): string[] {
  const [python, script] = [join(folder, 'python'), join(folder, 'peer.py')];
  writeFileSync(python, '#!/bin/sh\necho 2.13.0\n', { mode: 0o755 });
  writeFileSync(script, '');
  return ['--peer', script, '--python', python];
}

function ready(t: ExecutionContext): boolean {
  if (emulated) return true;
  t.log('skipped: no emulated device');
  t.pass();
  return false;
}

test('curves of both devices agree, every figure is measured, and table, CSV and JSON hold them', async (t) => {
  if (!ready(t)) return;
  const folder = join(await scratch(t), 'results');
  const only = 'curves,sanitizer,ladder,ceilings,ffn,loss,encoder,decode,training';
  const run = check(
    [folder, '--shapes', 'tiny', '--repeats', '1', '--only', only, ...fakePeer(await scratch(t))],
    emulated!,
  );
  t.is(run.status, 0, run.stdout + run.stderr);
  t.regex(run.stdout, /^emulated device, compute capability 9\.0; /);
  for (const stage of only.split(',')) t.regex(run.stdout, new RegExp(`^${stage} `, 'm'), stage);
  const { machine, rows } = JSON.parse(readFileSync(join(folder, 'results.json'), 'utf8'));
  t.is(machine.gpu.name, 'emulated device');
  t.regex(machine.commit, /^[0-9a-f]{7,}\+?$|^unknown$/);
  const checked = rows.filter((row: { ok?: boolean }) => row.ok !== undefined);
  t.deepEqual(
    checked.map(({ stage, ok }: { stage: string; ok: boolean }) => [stage, ok]),
    [
      ['curves', true],
      ['curves', true],
    ],
  );
  for (const row of rows.filter((row: { ms?: number }) => row.ms !== undefined)) t.true(row.ms > 0, row.name);
  const csv = readFileSync(join(folder, 'results.csv'), 'utf8').trim().split('\n');
  t.is(csv.length, 1 + rows.length);
  t.regex(csv[0]!, /^stage,name,ms,peerMs,compiledMs,ratio,bar,ok/);
});

test('a stage that dies is reported, and the others go on; time that is up is said', async (t) => {
  if (!ready(t)) return;
  const folder = await scratch(t);
  const dead = check(
    [
      folder,
      '--shapes',
      'tiny',
      '--only',
      'ffn,ceilings',
      '--repeats',
      '1',
      '--device',
      'cuda:0',
      '--minutes',
      '0.00001',
    ],
    emulated!,
  );
  t.is(dead.status, 1);
  t.regex(dead.stdout, /^ffn +stage: (stopped: out of time|not begun)/m);
  t.regex(dead.stdout, /^ceilings +stage: not begun: out of time, NOT MET$/m);
});

test('without a GPU: code 3 and why, and nothing is written; wrong usage: code 2', async (t) => {
  const folder = join(await scratch(t), 'results');
  const none = check([folder], join(folder, 'none.so'));
  t.is(none.status, 3);
  t.regex(none.stderr, /^no GPU can be checked: .*none\.so/);
  for (const [args, message] of [
    [[], /expected one folder/],
    [[folder, '--only', 'speed'], /--only: expected some of tests, .*got 'speed'/],
    [[folder, '--minutes', '0'], /--minutes: expected a number above 0/],
    [[folder, '--shapes', 'huge'], /--shapes: expected full or tiny/],
    [[folder, '--fast'], /--fast/],
  ] as const) {
    const run = check(args, join(folder, 'none.so'));
    t.is(run.status, 2, run.stderr);
    t.regex(run.stderr, message);
  }
  t.false(existsSync(folder));
});

test('the largest batch: on the line through the last two, within nine tenths of the memory, in eights', (t) => {
  const gib = 2 ** 30;
  t.is(
    fits(
      [
        [8, 10 * gib],
        [16, 14 * gib],
        [32, 22 * gib],
      ],
      80 * gib,
    ),
    128,
  );
  t.is(fits([[8, gib]], 80 * gib), 0);
});

test('the bundle: one folder that runs without Node and npm', async (t) => {
  if (!ready(t)) return;
  const folder = join(await scratch(t), 'bundle');
  const root = fileURLToPath(new URL('..', import.meta.url));
  execFileSync(process.execPath, [join(root, 'scripts', 'gpu-bundle.mjs'), folder], {
    env: { ...process.env, DISTILWHISPER_CUDA_PLUGIN: emulated! },
    stdio: 'pipe',
  });
  const results = join(folder, 'results');
  const run = spawnSync(
    join(folder, 'gpu-check'),
    [results, '--shapes', 'tiny', '--only', 'curves,training', '--repeats', '1'],
    {
      encoding: 'utf8',
      env: { PATH: '/usr/bin:/bin' },
    },
  );
  t.is(run.status, 0, run.stdout + run.stderr);
  t.regex(run.stdout, /^training +training step, batch 2: /m);
  t.true(existsSync(join(results, 'results.csv')));
});
