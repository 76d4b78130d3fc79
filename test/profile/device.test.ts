/**
 * Profiles of a GPU's streams, on the emulated device. Its kernels run while the host launches them, so that the times of its
 * clock, which runs at another rate from another moment, are known from the host's; and it tells the time of an event only when
 * that was waited for.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test, { type ExecutionContext } from 'ava';
import { type ErrorCode, isDistilWhisperError } from '../../lib/errors/index.js';
import { countWork, measureCeilings, Profile, readProfile } from '../../lib/profile/index.js';
import { kernels, Stream, type Tensor } from '../../lib/tensor/index.js';
import { scratchFolder } from '../support/cli.js';
import { emulatedPlugin, onEmulated } from '../support/kernels.js';
import { unlessBusy } from '../support/load.js';
import { emulatedCounts, usePlugin } from '../support/plugin.js';
import { normals, random } from '../support/random.js';
import { type TraceEvent, traceEvents } from '../support/trace.js';

const { path: scratch, remove } = scratchFolder();
test.after.always(remove);

/** Times that are not, in the test that runs, what clocks that are compared so often make of it where nothing else runs. */
let untimely: string[] = [];

/** A test that finds the emulated device as cuda:0. */
function onDevice(title: string, body: (t: ExecutionContext) => Promise<void>): void {
  test.serial(
    title,
    onEmulated(async (t, plugin) => {
      const back = usePlugin(plugin);
      try {
        const measure = async () => {
          untimely = [];
          await body(t);
          return untimely;
        };
        const said = (found: string[]) => `${found.length} times are off ${found.slice(0, 5).join('; ')}`;
        await unlessBusy(t, measure, (found) => found.length === 0, said);
      } finally {
        back();
      }
    }),
  );
}

/** The calls of the stream of that label: when they ran on the device, and when the host handed them over. */
function lanesOf(path: string, label: string): { spans: TraceEvent[]; launches: TraceEvent[] } {
  const events = traceEvents(path);
  const named = (name: RegExp): TraceEvent | undefined =>
    events.find((e) => e.name === 'thread_name' && name.test(String(e.args.name)));
  const lane = named(new RegExp(`^stream \\d+: ${label}, cuda:0$`))!;
  const number = /\d+/.exec(String(lane.args.name))![0];
  const on = (tid: number): TraceEvent[] => events.filter((e) => e.ph === 'X' && e.tid === tid);
  return { spans: on(lane.tid), launches: on(named(new RegExp(`^stream ${number}: launches$`))!.tid) };
}

const counts = () => emulatedCounts(emulatedPlugin()!);

/** In flight are 1,024 calls at most, of two events each; one more is being made, and the clocks are compared by a few. */
const MOST_EVENTS = 2 * 1025 + 16;
/** Microseconds: a clock that gains 0.1% is compared four times a second, and what else runs here delays that. */
const TOLERANCE = 600;

/** Every span in the order of the calls, behind the last one, and where the host launched it. */
function checkSpans(t: ExecutionContext, spans: readonly TraceEvent[], launches: readonly TraceEvent[]): void {
  t.deepEqual(
    spans.map(({ name }) => name),
    launches.map(({ name }) => name),
  );
  for (const [i, span] of spans.entries()) {
    const [before, launch] = [spans[i - 1], launches[i]!];
    if (before && span.ts < before.ts + before.dur - 2e-3) t.fail(`${i}: begins before ${i - 1} ends`);
    if (span.ts < launch.ts - 2e-3) t.fail(`${i}: begins ${launch.ts - span.ts} µs before its launch`);
    if (!(span.dur >= 0)) t.fail(`${i}: takes ${span.dur} µs`);
    const behind = span.ts + span.dur - (launch.ts + launch.dur);
    if (!(behind <= TOLERANCE)) untimely.push(`${i}: ends ${behind} µs behind its launch`);
  }
}

onDevice(
  'a lane for the device and one for launches of each stream, with rates of the device against its ceilings',
  async (t) => {
    const path = join(scratch, 'two.json');
    const profile = await Profile.start(path, { device: 'cuda' });
    const [model, other] = ['model', 'other'].map((label) => new Stream({ device: 'cuda', label }));
    const w = model!.persistent(normals(96 * 64, random(1)), [96, 64]).freeze();
    const x = model!.tensor(normals(50 * 64, random(2)), [50, 64]);
    const y = other!.tensor(Float32Array.of(1, 2), [2]);
    for (let i = 0; i < 60; i++) {
      model!.tidy(
        () => void kernels.linear(model!, { x, weight: w, compute: i % 2 ? 'bf16' : 'f32', out: 'f32' }) as undefined,
      );
      if (i % 2) kernels.add(other!, { a: y, b: y, out: 'f32' });
      if (i % 20 === 0) await x.read();
    }
    for (const stream of [model!, other!]) {
      await stream.sync();
      stream.close();
    }
    profile.stop();
    t.is(counts().events, 0);

    const { spans, launches } = lanesOf(path, 'model');
    t.is(spans.filter(({ cat }) => cat === 'kernel').length, 60);
    checkSpans(t, spans, launches);
    for (const { cat, args, dur } of spans) {
      t.deepEqual(Object.keys(args), ['shape', 'type', 'flop', 'bytes', 'GFLOP/s', 'GB/s']);
      if (cat !== 'kernel') continue;
      t.like(args, { shape: '50×64×96', flop: 2 * 50 * 64 * 96 });
      if (!(dur > 0)) untimely.push(`a product takes ${dur} µs`);
    }
    t.deepEqual(
      [...new Set(launches.map(({ cat, name }) => `${cat}: ${name}`))],
      ['launching: write', 'launching: linear', 'waiting for the device: read'],
    );
    const second = lanesOf(path, 'other');
    checkSpans(t, second.spans, second.launches);
    t.deepEqual(
      second.spans.map(({ name }) => name),
      ['write', ...Array.from({ length: 30 }, () => 'add')],
    );

    const report = await readProfile(path);
    t.like(report.ceilings, { device: 'cuda:0', isa: 'cuda' });
    t.is(report.machine.gpu, 'emulated device');
    const busiest = report.streams.find(({ name }) => /model/.test(name))!;
    const sum = spans.filter(({ cat }) => cat === 'kernel').reduce((all, { dur }) => all + dur, 0) / 1e6;
    t.true(Math.abs(sum - busiest.seconds.kernels) < 1e-6, 'shares are of the time on the device');
    const { kernels: ran, transfers, waitingForData, idle } = busiest.seconds;
    t.true(Math.abs(ran + transfers + waitingForData + idle - report.seconds) < 1e-6);
    for (const k of busiest.kernels.filter(({ name }) => name === 'linear')) {
      t.is(k.calls, 30);
      t.true(Math.abs(k.gflops! - (30 * 2 * 50 * 64 * 96) / k.seconds / 1e9) < 1e-6 * k.gflops!);
      t.true(k.ofCeiling! > 0 && k.boundBy !== null);
    }
    for (const name of ['launching', 'waiting for the device']) t.true(report.lanes.some((lane) => lane.name === name));
  },
);

onDevice('the clocks are compared again and again, so that late spans are where their launches are', async (t) => {
  const path = join(scratch, 'drift.json');
  const profile = await Profile.start(path, { device: 'cuda' });
  const stream = new Stream({ device: 'cuda', label: 'slow' });
  const x = stream.tensor(Float32Array.of(1, 2), [2]);
  const begin = performance.now();
  // Nothing waits: the times are told at the end. Its clock is 2.5 ms fast by then.
  while (performance.now() - begin < 2500) {
    kernels.fill(stream, { x, value: 1 });
    await sleep(10);
  }
  await stream.sync();
  stream.close();
  profile.stop();
  const { spans, launches } = lanesOf(path, 'slow');
  t.true(spans.length > 50);
  checkSpans(t, spans, launches);
  const last = launches.at(-1)!;
  const behind = spans.at(-1)!.ts - last.ts;
  if (!(behind < 2000))
    untimely.push(`the last begins ${behind} µs behind its launch; by its own clock it would be 2.5 ms`);
});

onDevice('a host far ahead: few events, all spans', async (t) => {
  const path = join(scratch, 'ahead.json');
  const stream = new Stream({ device: 'cuda', label: 'ahead' });
  const x = stream.persistent(new Float32Array(4), [4]);
  const profile = await Profile.start(path, { device: 'cuda' });
  const before = counts();
  const CALLS = 6000;
  for (let i = 0; i < CALLS; i++) kernels.fill(stream, { x, value: i });
  t.deepEqual(await x.read(), new Float32Array(4).fill(CALLS - 1));
  const { events, mostEvents, eventsMade } = counts();
  t.true(events > 0 && mostEvents <= MOST_EVENTS, `${mostEvents} events at a time`);
  const made = eventsMade - before.eventsMade;
  t.true(made <= MOST_EVENTS + 100, `${made} events made`);
  // An open stream gives its events back when the profile ends.
  profile.stop();
  await stream.sync();
  t.is(counts().events, 0);
  const { spans, launches } = lanesOf(path, 'ahead');
  t.is(spans.length, CALLS + 1);
  checkSpans(t, spans, launches);
  t.is((await readProfile(path)).lost, 0);
  stream.close();
});

onDevice('without a profile there are no events, and counting work makes none', async (t) => {
  const before = counts();
  const stream = new Stream({ device: 'cuda' });
  const x = stream.tensor(Float32Array.of(1, 2), [2]);
  const add = (): Tensor => kernels.add(stream, { a: x, b: x, out: 'f32' }).y;
  t.deepEqual(await add().read(), Float32Array.of(2, 4));
  t.deepEqual(await countWork(stream, () => void add()), { flop: 0, bytes: 24, kernels: 1 });
  const profile = await Profile.start(join(scratch, 'counted.json'), { device: 'cuda' });
  await add().read();
  profile.stop();
  await stream.sync();
  const { eventsMade } = counts();
  t.true(eventsMade > before.eventsMade, 'a profile has some');
  t.deepEqual(await countWork(stream, () => void add()), { flop: 0, bytes: 24, kernels: 1 });
  await add().read();
  stream.close();
  t.like(counts(), { events: 0, eventsMade });
});

onDevice('what is closed, or still queued when the profile ends, and a profile after another', async (t) => {
  const stream = new Stream({ device: 'cuda', label: 'kept' });
  const x = stream.persistent(new Float32Array(4), [4]);
  await stream.sync();
  for (const name of ['first', 'second']) {
    const path = join(scratch, `${name}.json`);
    const profile = await Profile.start(path, { device: 'cuda' });
    const closed = new Stream({ device: 'cuda', label: 'closed' });
    const y = closed.persistent(null, [3]);
    await y.read();
    const launched = counts().kernels;
    for (let i = 0; i < 5; i++) kernels.fill(closed, { x: y, value: i });
    // Launched, never waited for: closing it tells their times.
    while (counts().kernels < launched + 5) await sleep(10);
    closed.close();
    for (let i = 0; i < 10; i++) kernels.fill(stream, { x, value: i });
    await stream.sync();
    for (let i = 0; i < 100; i++) kernels.fill(stream, { x, value: i });
    profile.stop();
    t.is(lanesOf(path, 'closed').spans.filter(({ cat }) => cat === 'kernel').length, 6);
    const { spans, launches } = lanesOf(path, 'kept');
    t.true(spans.length >= 10 && spans.length <= launches.length);
    checkSpans(t, spans, launches.slice(0, spans.length));
    await stream.sync();
    t.is(counts().events, 0);
  }
  stream.close();
});

onDevice('a graph is one span', async (t) => {
  const path = join(scratch, 'graph.json');
  const stream = new Stream({ device: 'cuda', label: 'graphs' });
  const [x, y] = [1, 2].map(() => stream.persistent(normals(400, random(3)), [20, 20]));
  await stream.sync();
  const profile = await Profile.start(path, { device: 'cuda' });
  const recording = stream.record(() => {
    const { y: product } = kernels.linear(stream, { x: x!, weight: y!, compute: 'bf16', out: 'f32' });
    return kernels.add(stream, { a: product, b: y!, out: 'f32' });
  });
  for (let i = 0; i < 4; i++) recording.replay();
  kernels.fill(stream, { x: x!, value: 0 });
  await stream.sync();
  recording.dispose();
  profile.stop();
  const { spans, launches } = lanesOf(path, 'graphs');
  t.deepEqual(
    spans.map(({ name }) => name),
    ['graph', 'graph', 'graph', 'graph', 'fill'],
  );
  checkSpans(t, spans, launches);
  for (const { args } of spans.slice(0, 4)) t.like(args, { flop: 2 * 20 ** 3, type: 'bf16' });
  stream.close();
  t.is(counts().events, 0);
});

onDevice('calls that fail leave a trace of the others', async (t) => {
  const path = join(scratch, 'failing.json');
  const profile = await Profile.start(path, { device: 'cuda' });
  const stream = new Stream({ device: 'cuda', label: 'failing' });
  const w = stream.persistent(normals(64, random(1)), [8, 8]).freeze();
  const x = stream.tensor(normals(160, random(2)), [20, 8]);
  const product = (of = x): Tensor => kernels.linear(stream, { x: of, weight: w, compute: 'f32', out: 'f32' }).y;
  const want = await product().read();
  for (const [call, code, message] of [
    ['cublasLtMatmul', 'ERR_CUDA', /^cuBLASLt: running a product: refused/],
    ['cudaEventCreateWithFlags', 'ERR_OUT_OF_MEMORY', /^cuda:0: timing a call: out of memory/],
  ] as const) {
    process.env.DW_EMULATOR_FAIL = call;
    // More calls than there are events to take up again.
    for (let i = 0; i < 50; i++) product(x.slice(0, 19));
    await t.throwsAsync(stream.sync(), { code, message });
    delete process.env.DW_EMULATOR_FAIL;
    t.deepEqual(await product().read(), want, `${call}: calls run again`);
  }
  // A fault that only the data shows.
  const ids = stream.tensor(Int32Array.of(1, 99), [1, 2], 'i32');
  const { y: rows } = kernels.embedding(stream, { ids, table: w, positions: w, out: 'f32' });
  await t.throwsAsync(rows.read(), { code: 'ERR_ARGUMENT', message: /got 99/ });
  t.deepEqual(await product().read(), want);
  stream.close();
  profile.stop();
  t.is(counts().events, 0);
  const { spans } = lanesOf(path, 'failing');
  for (const [i, { ts }] of spans.entries()) if (i > 0) t.true(ts >= spans[i - 1]!.ts + spans[i - 1]!.dur - 2e-3);
  const report = await readProfile(path);
  const failing = report.streams.find(({ name }) => /failing/.test(name))!;
  const calls = (name: string): number => failing.kernels.find((k) => k.name === name)!.calls;
  // Of the products that were refused none, and of the others those that there were events for.
  t.true(calls('linear') >= 4 && calls('linear') < 50, `${calls('linear')} products`);
  t.is(calls('embedding'), 1);
});

onDevice(
  "ceilings of a device are measured there; a device that is not there is refused before the trace's file is touched",
  async (t) => {
    const { fp32, bf16, read, ...what } = await measureCeilings({ device: 'cuda', threads: 1 });
    t.deepEqual(what, { device: 'cuda:0', isa: 'cuda', threads: 1 });
    for (const rate of [fp32, bf16, read]) t.true(rate > 1e-3 && rate < 1e4, `${rate}`);
    const path = join(scratch, 'refused.json');
    writeFileSync(path, 'kept');
    for (const [device, code, message] of [
      ['cuda:7', 'ERR_CUDA', /^cuda:7: no such device/],
      ['gpu', 'ERR_ARGUMENT', /device: expected 'cpu', 'cuda' or 'cuda:N', got 'gpu'/],
    ] as const) {
      const error = await t.throwsAsync(Profile.start(path, { device }));
      t.true(isDistilWhisperError(error), String(error));
      t.is((error as unknown as { code: ErrorCode }).code, code);
      t.regex(error!.message, message);
    }
    t.is(readFileSync(path, 'utf8'), 'kept');
    // A stream of another device than the ceilings are of is not held against them.
    const profile = await Profile.start(path, { threads: 1 });
    const stream = new Stream({ device: 'cuda', label: 'model' });
    const x = stream.persistent(new Float32Array(4), [4]);
    await kernels.add(stream, { a: x, b: x, out: 'f32' }).y.read();
    stream.close();
    profile.stop();
    const [busiest] = (await readProfile(path)).streams;
    t.like(
      busiest!.kernels.find(({ name }) => name === 'add'),
      { calls: 1, ofCeiling: null, boundBy: null },
    );
  },
);
