// Profiles: what is counted, what a trace holds, that its times are those of the run, and what becomes of bad files.
import { execFileSync } from 'node:child_process';
import { closeSync, constants, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { type ErrorCode, isDistilWhisperError } from '../../lib/errors/index.js';
import { measureCeilings, onThread, Profile, phase, readProfile } from '../../lib/index.js';
import { Whisper } from '../../lib/model/index.js';
import { defaultThreads } from '../../lib/native/index.js';
import { countWork, measureCeiling } from '../../lib/profile/index.js';
import { rawCall } from '../../lib/tensor/call.js';
import { kernels, Stream, Tape } from '../../lib/tensor/index.js';
import { scratchFolder } from '../support/cli.js';
import { unlessBusy } from '../support/load.js';
import { normals, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';
import { type TraceEvent, traceEvents } from '../support/trace.js';

const { path: scratch, remove } = scratchFolder();
test.after.always(remove);

const ofKind = (events: readonly TraceEvent[], cat: string): TraceEvent[] =>
  events.filter((e) => e.ph === 'X' && e.cat === cat);

function refusal(t: ExecutionContext, error: unknown, code: ErrorCode, message: RegExp): void {
  t.true(isDistilWhisperError(error), String(error));
  t.is((error as { code: ErrorCode }).code, code);
  t.regex((error as Error).message, message);
}

test.serial('ceilings: what the best instructions do is not less than what plain ones do', async (t) => {
  const measure = async () => {
    const [best, portable] = [
      await measureCeilings({ threads: 1 }),
      await measureCeilings({ threads: 1, isa: 'portable' }),
    ];
    t.is(portable.isa, 'portable');
    t.is(best.threads, 1);
    return [best, portable] as const;
  };
  await unlessBusy(
    t,
    measure,
    ([best, portable]) =>
      [best, portable].every(({ fp32, bf16, read }) => fp32 > 0.1 && bf16 > 0.1 && read > 0.1) &&
      best.fp32 > 0.7 * portable.fp32,
    ([best, portable]) => `${best.fp32.toFixed(1)} GFLOP/s in fp32, ${portable.fp32.toFixed(1)} by plain instructions`,
  );
  // Threads that take turns on a processor do not add up to more than it does. What else runs here leaves more of the processors to
  // many threads than to few: the work that a rate claims is held against the time that they gave this process for it.
  const perBusySecond = async (threads: number): Promise<number> => {
    const [before, begin] = [process.cpuUsage(), performance.now()];
    const rate = await measureCeiling('fp32', { threads });
    const { user, system } = process.cpuUsage(before);
    return (1e3 * (performance.now() - begin) * rate) / (user + system);
  };
  const ratios: number[] = [];
  // The least of three: threads that are late to end have counted longer than the others.
  for (let i = 0; i < 3; i++) {
    const all = await perBusySecond(defaultThreads());
    ratios.push((await perBusySecond(Math.min(1024, 16 * defaultThreads()))) / all);
  }
  t.true(Math.min(...ratios) < 1.4, `16 threads a processor against one: ${ratios.map((ratio) => ratio.toFixed(2))}`);
  refusal(t, await t.throwsAsync(measureCeilings({ threads: 0 })), 'ERR_ARGUMENT', /threads: expected .* got 0/);
});

test('measuring a ceiling leaves the JavaScript thread free', async (t) => {
  const measure = async (): Promise<number> => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 5);
    await measureCeilings({ threads: 1 });
    clearInterval(timer);
    return ticks;
  };
  // Three tenths of a second.
  await unlessBusy(
    t,
    measure,
    (ticks) => ticks >= 10,
    (ticks) => `${ticks} ticks`,
  );
});

test("the work of a model's forward is that of its products", async (t) => {
  const stream = new Stream({ threads: 1 });
  const config = tinyConfig({ encoder_layers: 2, decoder_layers: 3 });
  const model = await Whisper.create(stream, config, { seed: 1 });
  const { d_model: D, encoder_ffn_dim: F, max_source_positions: S, num_mel_bins: mels, vocab_size: V } = config;
  const [B, T] = [3, 7];
  const features = stream.persistent(normals(B * mels * 2 * S, random(1)), [B, mels, 2 * S]);
  const encoder = await countWork(stream, () => void model.encode(features));
  const rows = B * S;
  const stem = 2 * (2 * rows * 3 * mels * D + rows * 3 * D * D);
  t.is(encoder.flop, stem + 2 * (8 * rows * D * D + 4 * rows * S * D + 4 * rows * D * F));
  const memory = stream.persistent(normals(rows * D, random(2)), [B, S, D]);
  const ids = stream.persistent(new Int32Array(B * T), [B, T], 'i32');
  const decoder = await countWork(stream, () => void model.decode(ids, memory));
  const causal = 4 * B * D * ((T * (T + 1)) / 2);
  const projections = 12 * B * T * D * D + 4 * rows * D * D;
  t.is(decoder.flop, 3 * (projections + causal + 4 * B * T * S * D + 4 * B * T * D * F));
  const hidden = stream.persistent(new Float32Array(B * D), [B, D]);
  t.is((await countWork(stream, () => void model.logits(hidden))).flop, 2 * B * D * V);

  await model.addExpert('catalan', { seed: 3 });
  const H = 64;
  const gates = 2 * (2 * S * D * H + 2 * S * H);
  const gated = await countWork(stream, () => void model.encode(features, { languages: ['catalan', null, null] }));
  t.is(gated.flop, encoder.flop + gates, 'hard gates: the gates of the rows that have them, and one FFN a row');
  stream.close();
});

test('work that depends on values, on what trains and on what is cached', async (t) => {
  const stream = new Stream({ threads: 1 });
  const [N, D, V, M] = [6, 8, 40, 16];
  const floats = (...shape: number[]) => {
    const size = shape.reduce((a, b) => a * b, 1);
    return stream.persistent(normals(size, random(size)), shape);
  };
  const [hidden, weight, taught, head, dweight] = [
    floats(N, D),
    floats(V, D),
    floats(N, M),
    floats(V, M),
    floats(V, D),
  ];
  const labels = stream.persistent(Int32Array.of(1, -100, 3, -100, 5, 6), [N], 'i32');
  const loss = (change: Partial<kernels.DistillLossArguments>) =>
    countWork(stream, () => {
      kernels.distillLoss(stream, {
        hidden,
        weight,
        labels,
        smoothing: 0.1,
        temperature: 1,
        kind: 'none',
        crossEntropyWeight: 1,
        divergenceWeight: 1,
        grad: true,
        compute: 'f32',
        workspace: 1 << 20,
        ...change,
      });
    });
  const one = 2 * D * V;
  t.is((await loss({ grad: false })).flop, 4 * one, 'labelled rows');
  t.is((await loss({ dweight })).flop, 4 * 3 * one, 'with both gradients');
  const both = 2 * one + 2 * M * V;
  const teacher = { teacherHidden: taught, teacherWeight: head, kind: 'js' } as const;
  t.is((await loss(teacher)).flop, 4 * both);
  t.is((await loss({ ...teacher, allPositions: true })).flop, N * both, 'all rows');

  // One new row on a cache of 32 of which 5 are filled.
  const [q, cache] = [floats(2, 1, D), floats(2, 32, D)];
  const cached = await countWork(
    stream,
    () =>
      void kernels.attention(stream, { q, k: cache, v: cache, heads: 2, causal: true, keys: 5, offset: 4, out: 'f32' }),
  );
  t.is(cached.flop, 2 * 4 * 5 * D);
  t.is(cached.bytes, 4 * (2 * D + 2 * 2 * 5 * D + 2 * D + 2 * 2), 'q, five rows of k and v, output, log-sums');

  const [p, g, m, v] = [floats(100), floats(100), floats(100), floats(100)];
  const scale = stream.persistent(Float32Array.of(1), [1]);
  const step = (...steps: number[]) =>
    countWork(stream, () => {
      kernels.adamw(stream, {
        scale,
        groups: steps.map((step) => ({ step, value: p, gradient: g, m, v })),
        learningRate: 1e-3,
        betas: [0.9, 0.99],
        epsilon: 1e-8,
        weightDecay: 0,
        compat: 'paper',
      });
    });
  t.is((await step(1)).bytes, 4 + 7 * 400);
  t.is((await step(1, 0)).bytes, 4 + 7 * 400, 'a group that is left out');

  const [x, w, dy, dw] = [floats(5, 4), floats(3, 4), floats(5, 3), floats(3, 4)];
  const backward = await countWork(
    stream,
    () => void kernels.linearBackwardWeight(stream, { dy, x, dweight: dw, compute: 'f32' }),
  );
  t.deepEqual(backward, { flop: 2 * 5 * 4 * 3, bytes: 4 * (15 + 20 + 24), kernels: 1 });
  const bias = await countWork(
    stream,
    () => void kernels.linearBackwardWeight(stream, { dy, x, dbias: floats(3), compute: 'f32' }),
  );
  t.is(bias.flop, 0, 'a frozen weight has no gradient');
  t.is(
    (await countWork(stream, () => void kernels.linear(stream, { x, weight: w, compute: 'f32', out: 'f32' }))).bytes,
    4 * 47,
  );
  t.is((await countWork(stream, () => {})).kernels, 0);
  await t.throwsAsync(
    countWork(stream, () => void rawCall(stream, 'linear', [], [])),
    { code: 'ERR_ARGUMENT' },
  );
  stream.close();
});

test('a training step counts the gates, experts and gradients that it has', async (t) => {
  const stream = new Stream({ threads: 1 });
  const config = tinyConfig();
  const [R, D, F, H] = [20, config.d_model, config.encoder_ffn_dim, 64];
  const model = await Whisper.create(stream, config, { seed: 1 });
  await model.addExpert('catalan', { seed: 2 });
  const features = stream.persistent(normals(2 * config.num_mel_bins * 2 * R, random(1)), [
    2,
    config.num_mel_bins,
    2 * R,
  ]);
  const gates = { alpha: 1, gateDropout: 0, expertDropout: 0, seed: 1, step: 0 };
  const pass = (skip: boolean) => {
    const tape = new Tape(stream);
    const { hidden: out } = model.encode(features, {
      tape,
      languages: ['catalan', null],
      gates: { ...gates, skip: () => skip },
    });
    return { tape, out };
  };
  const plain = await countWork(stream, () => void model.encode(features));
  const [ffn, gate] = [4 * R * D * F, 2 * R * D * H];
  const soft = await countWork(stream, () => void pass(false));
  t.is(soft.flop, plain.flop + ffn + gate + 2 * R * H, 'both FFNs for the rows of the language');
  const skipped = await countWork(stream, () => void pass(true));
  t.is(skipped.flop, plain.flop + gate + 2 * R * H);
  const backward = async (skip: boolean): Promise<number> => {
    const { tape, out } = pass(skip);
    const dy = stream.persistent(normals(out.size, random(2)), out.shape);
    tape.set(out, dy);
    return (await countWork(stream, () => tape.backward())).flop;
  };
  // Two products through the shared FFN, two through the expert and two for its weights; the gate's to x and to W_in.
  t.is(await backward(false), 2 * ffn + ffn + ffn + 2 * gate);
  t.is(await backward(true), 2 * ffn + 2 * gate);
  stream.close();
});

test.serial('a trace: every call with its fields, none overlapping on a lane, and the times add up', async (t) => {
  const path = join(scratch, 'trace.json');
  const before = new Stream({ threads: 2, label: 'early' });
  const profile = await Profile.start(path, { threads: 2 });
  const after = new Stream({ threads: 1 });
  const w = before.persistent(normals(96 * 64, random(1)), [96, 64]).freeze();
  const x = before.tensor(normals(50 * 64, random(2)), [50, 64]);
  const end = phase('all of it', { of: 2 });
  for (let i = 0; i < 200; i++) {
    onThread('queue', () =>
      before.tidy(
        () => void kernels.linear(before, { x, weight: w, compute: i % 2 ? 'bf16' : 'f32', out: 'f32' }) as undefined,
      ),
    );
    if (i % 50 === 0) await before.sync();
  }
  const other = after.tensor(Float32Array.of(1, 2), [2]);
  await kernels.add(after, { a: other, b: other, out: 'f32' }).y.read();
  await before.sync();
  end();
  before.close();
  after.close();
  profile.stop();
  profile.stop();

  const events = traceEvents(path);
  const lanes = new Map(events.filter((e) => e.name === 'thread_name').map((e) => [e.tid, e.args.name as string]));
  t.deepEqual([...lanes.values()].slice(0, 2), ['JavaScript', lanes.get(2)!]);
  t.regex(lanes.get(2)!, /^stream 1: early, \w+, 2 threads$/);
  t.true([...lanes.values()].some((name) => /^stream 2: \w+, 1 thread$/.test(name)));
  const ran = ofKind(events, 'kernel');
  const linear = ran.filter((e) => e.name === 'linear');
  t.is(linear.length, 200);
  for (const [i, { args, dur }] of linear.entries()) {
    t.deepEqual(Object.keys(args), ['shape', 'type', 'flop', 'bytes', 'GFLOP/s', 'GB/s']);
    t.like(args, { shape: '50×64×96', type: i % 2 ? 'bf16' : 'f32', flop: 2 * 50 * 64 * 96, bytes: 4 * 14144 });
    t.true(Math.abs(args['GFLOP/s'] - args.flop / dur / 1e3) < 0.01 + 1e-3 * args['GFLOP/s'], `${args['GFLOP/s']}`);
  }
  const transfers = ofKind(events, 'transfer');
  t.deepEqual(
    transfers.map(({ name, args }) => [name, args.shape, args.bytes]),
    [
      ['write', '50×64', 12800],
      ['write', '2', 8],
      ['read', '2', 8],
    ],
  );
  // Lanes: the JavaScript thread's pieces may nest, those of a stream follow each other.
  for (const [tid, name] of lanes) {
    if (name === 'JavaScript') continue;
    const own = events.filter((e) => e.tid === tid && e.ph === 'X').sort((a, b) => a.ts - b.ts);
    for (const [i, e] of own.entries()) {
      t.true(e.dur >= 0 && e.ts >= 0);
      if (i > 0) t.true(e.ts >= own[i - 1]!.ts + own[i - 1]!.dur - 1e-3, `${name}, event ${i}`);
    }
  }
  // The clocks of the threads agree: a call begins after it was queued, and ends before the wait for it does.
  const queued = ofKind(events, 'javascript').filter((e) => e.name === 'queue');
  t.is(queued.length, 200);
  const tolerance = 200;
  for (const [i, e] of linear.entries()) t.true(e.ts >= queued[i]!.ts - tolerance, `${e.ts} ${queued[i]!.ts}`);
  const [begin, finish] = events.filter((e) => e.cat === 'phase');
  t.is(`${begin!.ph}${finish!.ph}`, 'be');
  t.true(linear.at(-1)!.ts + linear.at(-1)!.dur <= finish!.ts + tolerance);

  const report = await readProfile(path);
  t.false(report.interrupted);
  t.is(report.lost, 0);
  t.is(report.ceilings.threads, 2);
  const [busiest] = report.streams;
  const { seconds } = busiest!;
  const total = seconds.kernels + seconds.transfers + seconds.waitingForData + seconds.idle;
  t.true(Math.abs(total - report.seconds) < 1e-6);
  const sum = ran.filter((e) => e.tid === 2).reduce((s, e) => s + e.dur, 0) / 1e6;
  t.true(Math.abs(sum - seconds.kernels) < 1e-6);
  t.deepEqual(busiest!.kernels.map((k) => [k.name, k.type, k.calls]).sort(), [
    ['linear', 'bf16', 100],
    ['linear', 'fp32', 100],
    ['write', 'fp32', 1],
  ]);
  for (const k of busiest!.kernels.filter((k) => k.name === 'linear')) {
    t.true(k.ofCeiling! > 0 && k.gflops! > 0 && k.gbs! > 0);
    const shape = (await readProfile(path, { byShape: true })).streams[0]!.kernels.find((s) => s.type === k.type);
    t.is(shape!.shape, '50×64×96');
  }
  const small = report.streams.find((s) => s.threads === 1)!;
  t.is(small.kernels.find((k) => k.name === 'add')!.ofCeiling, null, 'the ceilings are those of two threads');
});

test.serial('a long profile: every call is written or counted as lost, and memory stays', async (t) => {
  const path = join(scratch, 'long.json');
  const stream = new Stream({ threads: 1 });
  const x = stream.persistent(new Float32Array(4), [4]);
  const profile = await Profile.start(path, { threads: 1 });
  // More than a timeline holds, without a chance to empty it.
  for (let i = 0; i < 80_000; i++) kernels.fill(stream, { x, value: i });
  await stream.sync();
  const grown: number[] = [];
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < 5_000; i++) kernels.fill(stream, { x, value: i });
    await stream.sync();
    await new Promise((resolve) => setTimeout(resolve, 20));
    grown.push(process.memoryUsage().rss);
  }
  profile.stop();
  stream.close();
  const report = await readProfile(path);
  t.is(report.streams[0]!.kernels.find((k) => k.name === 'fill')!.calls + report.lost, 180_000);
  t.true(report.lost < 50_000);
  t.true(grown.at(-1)! - grown[4]! < 48 * 2 ** 20, `${grown.map((b) => Math.round(b / 2 ** 20))}`);
});

test.serial('a place that cannot be written is refused before anything begins', async (t) => {
  const folder = join(scratch, 'folder');
  mkdirSync(folder);
  refusal(
    t,
    await t.throwsAsync(Profile.start(folder)),
    'ERR_FILE_WRITE',
    /folder: expected the name of a file.* got a folder/,
  );
  const nowhere = join(scratch, 'no', 'trace.json');
  refusal(
    t,
    await t.throwsAsync(Profile.start(nowhere)),
    'ERR_FILE_WRITE',
    /trace\.json could not be written: .*ENOENT/,
  );
  const wrong = join(scratch, 'wrong.json');
  refusal(t, await t.throwsAsync(Profile.start(wrong, { threads: -1 })), 'ERR_ARGUMENT', /threads: expected/);
  const profile = await Profile.start(join(scratch, 'first.json'), { threads: 1 });
  const second = join(scratch, 'second.json');
  refusal(t, await t.throwsAsync(Profile.start(second)), 'ERR_ARGUMENT', /expected one profile at a time/);
  t.false(existsSync(second));
  const stream = new Stream({ threads: 1 });
  await t.throwsAsync(
    countWork(stream, () => {}),
    { code: 'ERR_ARGUMENT', message: /no profile to be taken/ },
  );
  stream.close();
  profile.stop();
  (await Profile.start(second, { threads: 1 })).stop();
});

test.serial('a disk that is full is refused; one that fills later ends the trace, not the work', async (t) => {
  if (process.platform !== 'linux') {
    t.pass('needs /dev/full and pipes');
    return;
  }
  refusal(
    t,
    await t.throwsAsync(Profile.start('/dev/full')),
    'ERR_DISK_FULL',
    /full: the trace ends early: the disk is full/,
  );
  // A pipe whose reader goes away stands for the disk: from then on every write fails.
  const pipe = join(scratch, 'pipe');
  execFileSync('mkfifo', [pipe]);
  const reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK);
  const profile = await Profile.start(pipe, { threads: 1 });
  closeSync(reader);
  const stream = new Stream({ threads: 1 });
  t.is((await stream.persistent(null, [3]).floats()).length, 3);
  stream.close();
  refusal(
    t,
    t.throws(() => profile.stop()),
    'ERR_FILE_WRITE',
    /pipe: the trace ends early: EPIPE/,
  );
  (await Profile.start(join(scratch, 'next.json'), { threads: 1 })).stop();
});

test.serial('reading: cut traces are whole up to the cut, other files are refused', async (t) => {
  const path = join(scratch, 'cut.json');
  const profile = await Profile.start(path, { threads: 1 });
  const stream = new Stream({ threads: 1 });
  for (let i = 0; i < 10; i++) stream.persistent(null, [3]);
  await stream.sync();
  stream.close();
  profile.stop();
  const text = readFileSync(path, 'utf8');
  const at = (name: string, content: string): string => {
    writeFileSync(join(scratch, name), content);
    return join(scratch, name);
  };
  const fills = async (file: string) =>
    (await readProfile(file)).streams[0]!.kernels.find((k) => k.name === 'fill')!.calls;
  t.is(await fills(path), 10);
  const last = text.lastIndexOf('"name":"fill"');
  for (const [end, calls] of [
    [text.indexOf('\n', last), 10],
    [last, 9],
    [text.lastIndexOf('\n', last), 9],
  ] as const) {
    const file = at('part.json', text.slice(0, end));
    t.is(await fills(file), calls);
    t.true((await readProfile(file)).interrupted);
  }
  // As the ceiling of fp32 was called.
  t.regex(text, /"fp32":/);
  const { file: _, ...before } = await readProfile(at('before.json', text.replace('"fp32":', '"f32":')));
  const { file: __, ...now } = await readProfile(path);
  t.deepEqual(before, now);
  const refused = async (file: string, code: ErrorCode, message: RegExp): Promise<void> =>
    refusal(t, await t.throwsAsync(readProfile(file)), code, message);
  await refused(at('empty.json', ''), 'ERR_TRACE', /it has no head of a profile/);
  await refused(at('other.json', '{"traceEvents": []}'), 'ERR_TRACE', /line 1: expected the array/);
  await refused(
    at('array.json', '[\n{"ph":"M","name":"thread_name","args":{}}\n]\n'),
    'ERR_TRACE',
    /line 2: expected the head/,
  );
  await refused(
    at('hole.json', text.replace(/"name":"fill"/, '"name:fill')),
    'ERR_TRACE',
    /line \d+: expected an event, got/,
  );
  for (const [from, to] of [
    [/"format":1/, '"format":2'],
    [/"ceilings":\{/, '"limits":{'],
    [/"read":[\d.]+/, '"read":0'],
    [/\{"ph":"M","pid":1,"tid":1.*\}/, 'null'],
    [/"type":"f32"/, '"type":32'],
    [/"dur":[\d.]+/, '"dur":"long"'],
    [/"flop":0,/, ''],
    [/"lost":0/, '"lost":null'],
  ] as const) {
    t.regex(text, from);
    await refused(
      at('field.json', text.replace(from, to)),
      'ERR_TRACE',
      /line \d+: expected an event with all its fields/,
    );
  }
  await refused(join(scratch, 'none.json'), 'ERR_FILE_NOT_FOUND', /none\.json/);
  await refused(scratch, 'ERR_FILE_READ', /folder/);
});
