/**
 * `npm run gpu-check` on the emulated device: the program that a GPU will run is proven from end to end, on tiny shapes.
 * PyTorch, compute-sanitizer and the ladder are stood in for, because what is tried is how they are asked and understood.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { run } from '../../bench/gpu/processes.js';
import type { GpuRow } from '../../bench/gpu/results.js';
import { check, ready, standInForLadder, standInForPyTorch, standInForSanitizer, tiny } from '../support/gpu-check.js';
import { emulatedPlugin } from '../support/kernels.js';
import { scratch } from '../support/weights.js';

test.serial('on the emulated device every stage runs, and tables, CSV and JSON hold what came out', async (t) => {
  if (!ready(t)) return;
  const results = join(await scratch(t), 'results');
  const pytorch = standInForPyTorch(await scratch(t));
  const env = { ...pytorch.env, ...standInForSanitizer(await scratch(t)), ...standInForLadder(await scratch(t)) };
  const run = check([results, ...tiny, ...pytorch.args], emulatedPlugin()!, env);
  t.regex(run.stdout, /^emulated device, compute capability 9\.0; /);
  const { machine, rows, bars } = JSON.parse(readFileSync(join(results, 'results.json'), 'utf8')) as {
    machine: { gpu: { name: string }; commit: string; date: string };
    rows: GpuRow[];
    bars: { name: string; verdict: string }[];
  };
  t.is(machine.gpu.name, 'emulated device');
  t.regex(machine.commit, /^[0-9a-f]{7,}\+?$|^unknown$/);

  const checks = rows.filter(({ ok }) => ok !== undefined);
  t.deepEqual(
    checks.map(({ stage, ok }) => [stage, ok]),
    [
      ['tests', true],
      ['curves', true],
      ['curves', true],
      // A rung that computes something else.
      ['ladder', true],
      ['ladder', false],
      ['sanitizer', true],
      ['sanitizer', true],
    ],
    run.stdout,
  );
  t.regex(checks[0]!.note!, /\d+ tests passed/);
  t.like(checks[3], { name: 'a: near', ms: 2, tflops: 40 });
  t.regex(checks[5]!.note!, /ERROR SUMMARY: 0 errors; \d+ tests passed/);

  const figure = (name: string): GpuRow => rows.find((row) => row.name.startsWith(name))!;
  t.true(figure('bf16 product').tflops! > 0 && figure('fp32 product').tflops! > 0 && figure('memory').bandwidth! > 0);
  for (const name of ['gated FFN', 'distillation loss', 'encoder', 'decode', 'training step'])
    t.true(figure(name).ms! > 0 && figure(name).bandwidth! > 0, name);
  const step = figure('training step, batch 2');
  t.like(step, { peerMs: 1000, compiledMs: 500, peerPeakMiB: 42, ratio: 500 / step.ms! });
  t.true(step.mfu! > 0 && step.peakMiB! > 0);
  t.like(figure('decode'), { peerMs: 1000, compiledMs: undefined });
  // Of the training steps PyTorch compiles one, and only there is ours held against it.
  t.like(figure('training step, batch 1'), { peerMs: 1000, compiledMs: undefined });
  t.deepEqual(rows.filter(({ stage, name }) => stage === 'pytorch' && /^train .*--compile$/.test(name)).length, 1);
  t.false(bars.some(({ name }) => /^training step, batch 1, times PyTorch/.test(name)));
  t.true(bars.some(({ name }) => /^training step, batch 2, times PyTorch/.test(name)));
  // Of 500 tokens and 7 rows: a chunk of the arena alone would be 64 MiB.
  t.true(figure('distillation loss').extraMiB! > 0 && figure('distillation loss').extraMiB! < 40, run.stdout);
  t.is(figure('distillation loss').ratio, undefined);
  const said = (mode: string) => rows.find((row) => row.stage === 'pytorch' && row.name.startsWith(mode))!.note;
  t.is(said('kdloss'), 'MemoryError: CUDA out of memory.');
  t.is(said('encoder'), 'SystemExit: no encoder today');

  t.is(bars.find(({ name }) => name.startsWith('gated FFN'))!.verdict, 'met');
  t.is(run.status, 1, 'for the rung that does not hold');
  const lines = readFileSync(join(results, 'results.csv'), 'utf8').trim().split('\n');
  t.is(lines.length, 1 + rows.length);
  t.regex(lines[0]!, /^stage,name,ms,peerMs,compiledMs,ratio,.*,gpu,driver,cuda,date,commit$/);
  t.regex(readFileSync(join(results, 'results.md'), 'utf8'), /\| gated FFN, forward and backward, batch 1 /);
});

test.serial('a peer that dies and a sanitizer that does not work here are told, and stages go on', async (t) => {
  if (!ready(t)) return;
  const folder = await scratch(t);
  const dead = join(folder, 'dead-python');
  writeFileSync(dead, '#!/bin/sh\necho "no torch here" >&2\nexit 3\n', { mode: 0o755 });
  writeFileSync(join(folder, 'peer.py'), '');
  writeFileSync(
    join(folder, 'compute-sanitizer'),
    '#!/bin/sh\necho "========= COMPUTE-SANITIZER"\necho "========= Error: Device not supported"\nexit 1\n',
    { mode: 0o755 },
  );
  const results = join(folder, 'results');
  const only = ['--only', 'ffn,pytorch,sanitizer', '--peer', join(folder, 'peer.py'), '--python', dead];
  const run = check([results, ...tiny, ...only], emulatedPlugin()!, { PATH: `${folder}:${process.env.PATH}` });
  t.is(run.status, 1);
  t.regex(run.stdout, /^pytorch +ffn .*: .*dead-python ended with code 3: see pytorch\.log, FAILED$/m);
  t.regex(readFileSync(join(results, 'pytorch.log'), 'utf8'), /no torch here/);
  t.regex(run.stdout, /^sanitizer +compute-sanitizer: skipped: it does not work here: Error: Device not supported$/m);
  t.regex(run.stdout, /gated FFN, .*times PyTorch's speed +\| +at least 1\.30 +\| not measured \| +open/);
});

test.serial('what is out of time is stopped with all that it began, and the rest is not begun', async (t) => {
  if (!ready(t)) return;
  const results = join(await scratch(t), 'results');
  const folder = await scratch(t);
  const tool = join(folder, 'ladder');
  writeFileSync(tool, '#!/bin/sh\nsleep 1000\n', { mode: 0o755 });
  const env = { DISTILWHISPER_LADDER: tool };
  const late = check([results, ...tiny, '--only', 'pytorch,ladder', '--minutes', '0.5'], emulatedPlugin()!, env);
  t.is(late.status, 1, late.stdout);
  // A tenth of half a minute.
  t.regex(late.stdout, /^ladder +stage: stopped: after 3 s, its share of the time; see ladder\.log, FAILED$/m);
  t.regex(late.stdout, /^pytorch +PyTorch: skipped/m);
  const none = check([results, ...tiny, '--only', 'curves,ladder', '--minutes', '0.00001'], emulatedPlugin()!, env);
  for (const stage of ['curves', 'ladder'])
    t.regex(none.stdout, new RegExp(`^${stage} +stage: not begun: out of time, FAILED$`, 'm'));
  t.true(existsSync(join(results, 'results.csv')));
  const mark = `sleep ${3000 + (process.pid % 1000)}.125`;
  const { late: stopped, status } = await run('sh', ['-c', `${mark} & ${mark}`], { limitMs: 200 });
  t.deepEqual([stopped, status], [true, null]);
  t.false(execFileSync('ps', ['-eo', 'args'], { encoding: 'utf8' }).includes(`\n${mark}`));
});

test.serial('the bundle: one folder that runs where there is no Node', async (t) => {
  if (!ready(t)) return;
  const folder = join(await scratch(t), 'bundle');
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const bundle = (...args: string[]) =>
    spawnSync(process.execPath, [join(root, 'scripts', 'gpu-bundle.mjs'), ...args], {
      encoding: 'utf8',
      env: { ...process.env, DISTILWHISPER_CUDA_PLUGIN: emulatedPlugin()! },
    });
  const made = bundle(folder, '--level', '0');
  t.is(made.status, 0, made.stdout + made.stderr);
  // Nothing of this machine but what any has.
  const tools = await scratch(t);
  for (const name of ['dirname', 'mkdir', 'rm', 'tar', 'xz', 'gunzip', 'gzip', 'python3']) {
    const found = spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim();
    if (found) symlinkSync(found, join(tools, name));
  }
  const results = join(folder, 'results');
  const run = spawnSync(join(folder, 'gpu-check'), [results, ...tiny, '--only', 'tests,curves,ceilings'], {
    encoding: 'utf8',
    env: { PATH: tools },
  });
  t.is(run.status, 0, run.stdout + run.stderr);
  t.regex(run.stdout, /^tests +kernels against their oracles, native\/optimizer: \d+ tests passed, held$/m);
  t.true(existsSync(join(results, 'results.csv')));

  t.regex(bundle(folder).stderr, /expected an empty folder or none/);
  t.regex(bundle(join(folder, 'other'), '--level', 'x').stderr, /--level: expected a digit, got 'x'/);
  t.regex(bundle().stderr, /expected one folder to make, got 0/);
});
