// --profile and `distilwhisper profile`: traces of whole runs, of interrupted and killed ones, and what is refused.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import type { ProfileReport } from '../../lib/index.js';
import { cli } from '../support/cli.js';
import { at, manifest, speech } from '../support/cli-models.js';
import { until } from '../support/load.js';
import { type TraceEvent, traceEvents } from '../support/trace.js';

const trainArgs = (output: string, ...more: string[]): string[] => [
  ...['train', '--language', 'ca', '--split', 'train', '--batch-size', '8', '--threads', '2'],
  ...['--model', at('student'), '--teacher', at('teacher'), '--manifest', manifest, '--output', output, ...more],
];

async function summary(t: ExecutionContext, trace: string): Promise<ProfileReport> {
  const { code, stdout, stderr } = await cli(['profile', trace, '--json']);
  t.is(code, 0, stderr);
  return JSON.parse(stdout);
}

test('train: the trace has every thread, and its summary says where the time went', async (t) => {
  const trace = at('train.json');
  const { code, stderr } = await cli(
    trainArgs(at('run'), '--steps', '6', '--validation-split', 'test', '--validate-every', '3', '--profile', trace),
  );
  t.is(code, 0, stderr);
  t.regex(stderr, /^profile: .*train\.json; 'distilwhisper profile .*train\.json' sums it up$/m);
  const events = traceEvents(trace);
  const lanes = new Map(events.filter((e) => e.name === 'thread_name').map((e) => [e.tid, String(e.args.name)]));
  const kinds = new Set(
    [...lanes.values()].map((name) => name.replace(/ \d+$/, '').replace(/:.*/, '').replace(/ \d+$/, '')),
  );
  for (const kind of ['JavaScript', 'stream', 'loader', 'audio worker', 'waiting for data'])
    t.true(kinds.has(kind), kind);
  t.true([...lanes.values()].some((name) => /^stream \d+: features, /.test(name)));
  for (const e of events.filter((e) => e.cat === 'kernel')) {
    const part = e.args.part === undefined ? [] : ['part'];
    t.deepEqual(Object.keys(e.args), ['shape', 'type', ...part, 'flop', 'bytes', 'GFLOP/s', 'GB/s']);
    t.true(Number.isFinite(e.dur) && e.dur >= 0);
  }
  for (const [tid, name] of lanes) {
    if (name === 'JavaScript') continue;
    const own = events.filter((e) => e.tid === tid && e.ph === 'X').sort((a, b) => a.ts - b.ts);
    for (let i = 1; i < own.length; i++) t.true(own[i]!.ts >= own[i - 1]!.ts + own[i - 1]!.dur - 1e-3, name);
  }
  const phases = events.filter((e) => e.cat === 'phase');
  const count = (ph: string, name: string): number => phases.filter((e) => e.ph === ph && e.name === name).length;
  for (const ph of ['b', 'e']) {
    t.is(count(ph, 'update'), 6);
    t.is(count(ph, 'validation'), 2);
    t.true(count(ph, 'checkpoint') >= 1);
  }
  t.is(events.filter((e) => e.name === 'queue an update').length, 6);
  // All are checked, which keeps their features: 24 and eight, and the eight are validated on twice.
  t.is(events.filter((e) => e.cat === 'audio worker').length, 48);

  const report = await summary(t, trace);
  t.false(report.interrupted);
  t.is(report.lost, 0);
  t.is(report.ceilings.threads, 2);
  const stream = report.streams.find(({ kernels }) => kernels.some((k) => k.name === 'adamw'));
  const { kernels, transfers, waitingForData, idle } = stream!.seconds;
  t.true(Math.abs(kernels + transfers + waitingForData + idle - report.seconds) < 1e-6);
  for (const name of ['gated_ffn', 'gated_ffn_backward', 'distill_loss', 'adamw']) {
    const calls = stream!.kernels.filter((k) => k.name === name).reduce((sum, k) => sum + k.calls, 0);
    t.true(calls > 0 && calls % 6 === 0, `${name}: ${calls}`);
  }
  t.true(report.javascript.busy! > 0 && report.javascript.busy! <= 1);
  t.deepEqual(
    stream!.parts.map(({ name }) => name),
    ['teacher', 'forward', 'backward', 'optimiser'],
  );
  const inParts = stream!.parts.reduce((sum, part) => sum + part.seconds, 0);
  t.true(inParts > 0 && inParts <= kernels + transfers);

  const words = await cli(['profile', trace, '--top', '3']);
  t.is(words.code, 0);
  t.is(words.stderr, '');
  t.regex(
    words.stdout,
    /^.*train\.json: [\d.]+ s\nceilings: fp32 [\d.]+ GFLOP\/s, bf16 [\d.]+ GFLOP\/s, reading [\d.]+ GB\/s /,
  );
  t.regex(words.stdout, /^kernel +type +calls +ms +share +µs a call +GFLOP\/s +GB\/s +ceiling +bound$/m);
  t.regex(
    words.stdout,
    /^training step +ms +share +GFLOP\/s\n-.*\nteacher +[\d.]+ +[\d.]+% +[\d.]+\nforward .*\nbackward .*\noptimiser /m,
  );
  t.regex(words.stdout, /^\d+ more +[\d.]+ +[\d.]+%$/m);
  t.regex(words.stdout, /^idle +[\d.]+ +[\d.]+%$/m);
  t.regex(words.stdout, /^JavaScript thread: busy [\d.]+%, [\d.]+ ms of garbage collection$/m);
  t.regex((await cli(['profile', trace, '--shapes'])).stdout, /^linear \d+×\d+×\d+ +fp32 +/m);
});

test('transcribe and evaluate write traces too', async (t) => {
  const student = ['--model', at('student')];
  for (const [name, args] of [
    ['transcribe', ['transcribe', speech(0), ...student, '--language', 'ca']],
    ['evaluate', ['evaluate', ...student, '--manifest', manifest, '--split', 'test']],
  ] as const) {
    const [plain, profiled] = [await cli(args), await cli([...args, '--profile', at(`${name}.json`)])];
    t.is(profiled.code, 0, profiled.stderr);
    t.is(profiled.stdout, plain.stdout, 'the result is the same');
    const report = await summary(t, at(`${name}.json`));
    // The busiest stream comes first: on so small a model that may be the one of the features.
    const having = (kernel: string) => report.streams.find(({ kernels }) => kernels.some((k) => k.name === kernel));
    const model = having('top_k');
    t.true(model?.kernels.some((k) => k.name === 'attention'));
    t.truthy(having('log_mel'));
  }
});

const signalled = async (args: string[], when: RegExp, signal: NodeJS.Signals) => {
  let sent = false;
  return cli(args, {
    onStderr: (text, kill) => {
      if (sent || !when.test(text)) return;
      sent = true;
      kill(signal);
    },
  });
};

test('a run that is interrupted leaves a whole trace, one that is killed a trace without its end', async (t) => {
  for (const [signal, code] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
  ] as const) {
    const trace = at(`${signal}.json`);
    const args = trainArgs(at('runs', signal), '--steps', '100000', '--profile', trace);
    t.is((await signalled(args, /^training 1\//m, signal)).code, code);
    t.true(traceEvents(trace).length > 0);
    const report = await summary(t, trace);
    t.false(report.interrupted);
    t.true(report.streams[0]!.kernels.length > 0);
  }
  const trace = at('killed.json');
  let sent = false;
  const killed = await cli(trainArgs(at('runs', 'killed'), '--steps', '100000', '--profile', trace), {
    onStderr: (text, kill) => {
      if (sent || !/^training 1\//m.test(text)) return;
      sent = true;
      // What it has told so far is in the file, or will be within a second.
      void until(() => readFileSync(trace, 'utf8').includes('"adamw"')).then(() => kill('SIGKILL'));
    },
  });
  t.is(killed.signal, 'SIGKILL');
  const text = readFileSync(trace, 'utf8');
  t.throws(() => JSON.parse(text), undefined, 'no end');
  // What Perfetto and chrome://tracing make of it: the events up to the last whole one.
  const events: TraceEvent[] = JSON.parse(`${text.slice(0, text.lastIndexOf('}}') + 2)}\n]`);
  t.true(events.some((e) => e.name === 'gated_ffn_backward'));
  const report = await summary(t, trace);
  t.true(report.interrupted);
  t.true(report.streams.some(({ kernels }) => kernels.some((k) => k.name === 'adamw')));
  t.regex((await cli(['profile', trace])).stdout, /killed\.json: [\d.]+ s, interrupted$/m);
});

test('a trace that cannot be written is refused before the work begins', async (t) => {
  mkdirSync(at('folder'));
  for (const [place, reason] of [
    [at('folder'), /expected the name of a file for the trace, got a folder/],
    [at('nowhere', 'trace.json'), /nowhere\/trace\.json could not be written: .*ENOENT/],
  ] as const) {
    const output = at('runs', 'refused');
    const { code, stdout, stderr } = await cli(trainArgs(output, '--steps', '1', '--profile', place, '--json'));
    t.is(code, 1);
    t.is(JSON.parse(stdout).error.code, 'ERR_FILE_WRITE');
    t.regex(stderr, reason);
    t.false(existsSync(output));
  }
  const wrong = await cli(['evaluate', '--model', at('none'), '--profile', at('wrong.json'), '--json']);
  t.is(wrong.code, 1);
  t.is(JSON.parse(wrong.stdout).error.code, 'ERR_FILE_NOT_FOUND', "the run's own error is the one that is told");
  t.deepEqual((await summary(t, at('wrong.json'))).streams, []);
});

test('profile: what is no trace is refused', async (t) => {
  writeFileSync(at('notes.txt'), 'these are notes\n');
  for (const [file, code, reason] of [
    [at('notes.txt'), 'ERR_TRACE', /notes\.txt is no trace that this package wrote: line 1/],
    [at('missing.json'), 'ERR_FILE_NOT_FOUND', /There is no file .*missing\.json/],
  ] as const) {
    const { code: exit, stdout, stderr } = await cli(['profile', file, '--json']);
    t.is(exit, 1);
    t.is(JSON.parse(stdout).error.code, code);
    t.regex(stderr, reason);
    t.notRegex(stderr, /^\s+at /m, 'no stack');
  }
  t.is((await cli(['profile'])).code, 2);
  t.is((await cli(['profile', at('notes.txt'), '--top', '0'])).code, 2);
});
