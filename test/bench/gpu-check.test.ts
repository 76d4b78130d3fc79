/**
 * `npm run gpu-check` on the emulated device: the program that a GPU will run is proven from end to end, on tiny shapes.
 * PyTorch, compute-sanitizer and the ladder are stood in for, because what is tried is how they are asked and understood.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { rungs } from '../../bench/gpu/checks.js';
import { run } from '../../bench/gpu/processes.js';
import { peerRuns } from '../../bench/gpu/pytorch.js';
import { bars, besidePyTorch, csv, type GpuRow, report } from '../../bench/gpu/results.js';
import { beyondInputs, fits } from '../../bench/gpu/speed.js';
import { emulatedPlugin } from '../support/kernels.js';
import { scratch } from '../support/weights.js';

const program = fileURLToPath(new URL('../../bench/gpu/main.ts', import.meta.url));
const tiny = ['--shapes', 'tiny', '--repeats', '1'];

const check = (args: readonly string[], plugin: string, env: NodeJS.ProcessEnv = {}) =>
  spawnSync(process.execPath, ['--import=tsx', program, ...args], {
    encoding: 'utf8',
    env: { ...process.env, DISTILWHISPER_CUDA_PLUGIN: plugin, ...env },
  });

const python = ['python3', 'python'].find((name) => spawnSync(name, ['--version']).status === 0);

function ready(t: ExecutionContext): boolean {
  const missing = emulatedPlugin() ? (python ? null : 'no Python') : 'no emulated device';
  if (missing === null) return true;
  t.log(`skipped: ${missing}`);
  t.pass();
  return false;
}

/** A torch that computes nothing and a script that takes 1,000 ms, compiled 500, and never has the memory for a loss. */
function standInForPyTorch(folder: string): { args: string[]; env: NodeJS.ProcessEnv } {
  mkdirSync(join(folder, 'torch'));
  writeFileSync(
    join(folder, 'torch', '__init__.py'),
    `class device:
    def __init__(self, name):
        assert name == "cuda"
    def __enter__(self):
        print("weights are made on the device")
    def __exit__(self, *rest):
        pass
class cuda:
    empty_cache = staticmethod(lambda: None)
`,
  );
  const script = join(folder, 'peer.py');
  writeFileSync(
    script,
    `import json, sys
class Whisper:
    def __init__(self, size):
        self.size = size
def main():
    at = lambda name: sys.argv[sys.argv.index(name) + 1]
    assert (at("--dtype"), at("--device"), at("--repeat")) == ("bf16", "cuda", "1")
    if sys.argv[1] == "kdloss":
        raise MemoryError("CUDA out of memory.\\nTried to allocate")
    if sys.argv[1] == "encoder":
        sys.exit("no encoder today")
    Whisper(at("--student"))
    print(json.dumps(dict(ms_median=500 if "--compile" in sys.argv else 1000, peak_mib=42)))
`,
  );
  return { args: ['--peer', script, '--python', python!], env: { PYTHONPATH: folder } };
}

/** A compute-sanitizer that only runs what it is given. */
function standInForSanitizer(folder: string): NodeJS.ProcessEnv {
  writeFileSync(
    join(folder, 'compute-sanitizer'),
    '#!/bin/sh\necho "========= COMPUTE-SANITIZER"\nshift 8\n"$@"\ncode=$?\necho "========= ERROR SUMMARY: 0 errors"\nexit $code\n',
    { mode: 0o755 },
  );
  return { PATH: `${folder}:${process.env.PATH}` };
}

function standInForLadder(folder: string): NodeJS.ProcessEnv {
  const program = join(folder, 'ladder');
  const lines = [
    '# a GPU',
    'kernel\\trung\\tms\\tTFLOP/s\\tgained\\tdifference',
    'a\\tnear\\t2\\t40\\t1\\t0.001',
    'a\\tfar\\t1\\t80\\t2\\t0.1',
  ];
  writeFileSync(program, `#!/bin/sh\nprintf '${lines.join('\\n')}\\n'\n`, { mode: 0o755 });
  return { DISTILWHISPER_LADDER: program };
}

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

test('a command that is not there', async (t) => {
  const { status, output } = await run('/no/such/command', [], { write: () => {} });
  t.not(status, 0);
  t.regex(output, /ENOENT/);
});

test('without a GPU: code 3 and why, and nothing is written; wrong usage: code 2', async (t) => {
  const folder = join(await scratch(t), 'results');
  const none = check([folder], join(folder, 'none.so'));
  t.is(none.status, 3);
  t.regex(none.stderr, /^no GPU can be checked: .*none\.so/);
  for (const [args, message] of [
    [[], /expected one folder/],
    [[program], /expected a folder for results, got the file .*main\.ts/],
    [[folder, '--only', 'speed'], /--only: expected some of tests, .*got 'speed'/],
    [[folder, '--minutes', '0'], /--minutes: expected a number above 0/],
    [[folder, '--shapes', 'huge'], /--shapes: expected full or tiny/],
    [[folder, '--peer', join(folder, 'none.py')], /--peer: expected a Python script, got .*none\.py/],
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
  const held = [8, 16, 32].map((batch, i) => [batch, [10, 14, 22][i]! * gib] as const);
  t.is(fits(held, 80 * gib), 128);
  t.is(fits(held.slice(0, 1), 80 * gib), 0);
});

test('bars: met, not met, or open where a figure is missing; PyTorch counts by the better of its two', (t) => {
  const peer = ['train', '--batch', '8'];
  const bar = { ratio: 1.5, mfu: 0.4 };
  const row: GpuRow = { stage: 'training', name: 'step', ms: 10, peer, compile: true, mfu: 0.39, bars: bar };
  const other = { ...row, peer: ['train', '--batch', '16'], compile: false };
  t.deepEqual(peerRuns([row, other]), [
    { args: peer, compiled: false },
    { args: other.peer, compiled: false },
    { args: peer, compiled: true },
  ]);
  const peers = [
    { stage: 'pytorch', name: 'train --batch 8', ms: 18, peakMiB: 7 },
    { stage: 'pytorch', name: 'train --batch 8 --compile', ms: 15 },
  ];
  const [merged] = besidePyTorch([row], peers);
  t.like(merged, { peerMs: 18, compiledMs: 15, ratio: 1.5, peerPeakMiB: 7 });
  const verdicts = (rows: readonly GpuRow[]) => bars(rows).map(({ verdict }) => verdict);
  t.deepEqual(verdicts([merged!]), ['met', 'NOT MET']);
  t.deepEqual(verdicts([row]), ['open', 'NOT MET']);
  const loss = (extraMiB: number): GpuRow => ({ stage: 'loss', name: 'loss', extraMiB, bars: { extraMiB: 286 } });
  t.deepEqual(verdicts([loss(286), loss(287)]), ['met', 'NOT MET']);
  t.regex(report([merged!]), /\| step, share of the bf16 ceiling \| at least 40\.0% \| +39\.0% \| NOT MET \|/);
  t.is(csv([{ stage: 'a', name: 'b, "c"', note: 'd' }], { gpu: 'e' }).split('\n')[1], 'a,"b, ""c""",,,,,,,,,,,,,d,,e');
});

test('memory of calls: scratch memory and what was used of the arena, not the chunks that the arena took', (t) => {
  const gib = 2 ** 30;
  const chunk = 2.2 * gib;
  const memory = { stepUsed: 0, persistent: 3 * gib, deviceHeld: 3.5 * gib + chunk };
  t.is(beyondInputs(3.25 * gib, { ...memory, stepReserved: chunk, stepPeak: 1000 }), 0.25 * gib + 1000);
});

test("the ladder's table", (t) => {
  const text =
    '# a GPU\nkernel\trung\tms\tTFLOP/s\tgained\tdifference\nattention\ttiles\t1.5000\t40.0\t3.00\t1.0e-03\n';
  t.deepEqual(rungs(text), [{ name: 'attention: tiles', ms: 1.5, tflops: 40, gained: 3, difference: 1e-3 }]);
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
