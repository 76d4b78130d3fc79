/**
 * Decoding by recorded calls: on a GPU, and on an emulated one, a CUDA graph that a token launches. The oracle is the same
 * decoding call by call. What is counted, and what is made to fail, is so on the emulated device only.
 */
import test, { type ExecutionContext } from 'ava';
import { type GreedyOptions, greedy } from '../../lib/decode/index.js';
import { ReplayedStep } from '../../lib/decode/replayed-step.js';
import { type DecoderState, type ModelPass, type ReplayedPosition, Whisper } from '../../lib/model/index.js';
import { type FloatName, kernels, Stream, type Tensor } from '../../lib/tensor/index.js';
import { attachRandomExpert } from '../support/experts.js';
import { cpus, deviceNames, emulatedPlugin, onDevice, onEmulated, streamOn } from '../support/kernels.js';
import { emulatedCounts } from '../support/plugin.js';
import { normals, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';

type Open = (graphs?: boolean) => Stream;
const open: Open = (graphs = true) => streamOn(emulatedPlugin()!, { graphs });
const openGpu: Open = (graphs = true) => new Stream({ device: 'cuda', graphs });
function onDevices(title: string, body: (t: ExecutionContext, open: Open) => Promise<void>): void {
  for (const isa of deviceNames)
    test.serial(
      `${title}, on ${isa}`,
      onDevice(isa, (t) => body(t, isa === 'cuda' ? openGpu : open)),
    );
}

const POSITIONS = 300;

/** Large weights, so that what is said depends on the audio and on what was said before. */
async function lively(stream: Stream, compute: FloatName = 'fp32'): Promise<Whisper> {
  const config = tinyConfig({ init_std: 0.4, decoder_layers: 2, max_target_positions: POSITIONS });
  const model = await Whisper.create(stream, config, { seed: 5, compute });
  for (const [i, language] of ['catalan', 'thai'].entries()) attachRandomExpert(model, language, 10 + i);
  return model;
}

function sounds(model: Whisper, batch: number, seed = 100): Tensor {
  const { num_mel_bins: mels, max_source_positions: rows } = model.config;
  const all = Float32Array.from({ length: batch }, (_, i) => i);
  const data = Float32Array.from([...all].flatMap((i) => [...normals(mels * 2 * rows, random(seed + i))]));
  return model.stream.tensor(data, [batch, mels, 2 * rows]);
}

/** A state behind `prompt` tokens, the same ones each time. */
function started(model: Whisper, batch: number, prompt: number, pass: ModelPass = {}): DecoderState {
  const state = model.startDecoding(model.encode(sounds(model, batch), pass).hidden);
  if (prompt > 0) {
    const next = random(7);
    const ids = Int32Array.from({ length: batch * prompt }, () => Math.floor(next() * 48));
    model.decode(model.stream.tensor(ids, [batch, prompt], 'i32'), null, { ...pass, state });
  }
  return state;
}

/** What one token gives: logits, the best and its value, and the gates of all layers. */
type Given = [logits: Tensor, values: Tensor, ids: Tensor, ...gates: Tensor[]];
function token(
  model: Whisper,
  state: DecoderState,
  hidden: Tensor | null,
  pass: ModelPass,
  ids: Tensor,
  at?: ReplayedPosition,
): Given {
  const { hidden: rows, gates } = model.decode(ids, null, { ...pass, state, ...(at && { at }) });
  const logits = model.logits(rows.reshape([state.batch, model.config.d_model]));
  const { values, ids: best } = kernels.topK(model.stream, { logits, suppress: hidden, k: 1 });
  return [logits, values, best, ...gates];
}

const read = async (tensors: readonly Tensor[]): Promise<number[][]> =>
  Promise.all(tensors.map(async (tensor) => Array.from(await tensor.read())));

const counts = () => emulatedCounts(emulatedPlugin()!);
async function counted(body: () => Promise<unknown>): Promise<ReturnType<typeof counts>> {
  const before = counts();
  await body();
  const after = counts();
  for (const name of Object.keys(before) as (keyof typeof before)[]) after[name] -= before[name];
  return after;
}

onDevices('replayed steps give the bits of steps call by call, past the spans of the caches', async (t, open) => {
  const stream = open();
  const languages = ['catalan', null, 'thai', 'catalan', 'czech'];
  const span = stream.graphSpan;
  for (const compute of ['fp32', 'bf16'] as const) {
    const model = await lively(stream, compute);
    const hidden = stream.persistent(Int32Array.of(3, 9), [2], 'i32');
    for (const [batch, prompt, experts] of [
      [1, 0, false],
      [1, span - 4, true],
      [3, 2 * span - 6, true],
      [5, span - 4, false],
      [5, 290, true],
    ] as const) {
      const pass = experts ? { languages: languages.slice(0, batch) } : {};
      const what = `${compute}, batch ${batch}, from ${prompt}, experts ${experts}`;
      const [a, b] = [started(model, batch, prompt, pass), started(model, batch, prompt, pass)];
      const step = new ReplayedStep(stream, a, POSITIONS, (ids, at) => token(model, a, hidden, pass, ids, at));
      let ids = Array.from({ length: batch }, (_, i) => 48 - i);
      for (let n = 0; n < 9; n++) {
        const got = read(step.run(ids));
        const want = await read(token(model, b, hidden, pass, stream.tensor(Int32Array.from(ids), [batch, 1], 'i32')));
        t.deepEqual(await got, want, `${what}, token ${n}`);
        t.is(want.length, experts ? 5 : 3);
        t.true(want[0]!.every(Number.isFinite));
        ids = want[2]!;
        stream.endStep();
      }
      t.is(a.length, prompt + 9);
      for (let layer = 0; layer < 2; layer++)
        t.deepEqual(await read(a.self(layer)), await read(b.self(layer)), `${what}: caches of layer ${layer}`);
      step.dispose();
      a.dispose();
      b.dispose();
    }
    hidden.dispose();
    model.dispose();
  }
  stream.close();
});

test.serial(
  'a token behind the first is one launch of a graph and one small copy',
  onEmulated(async (t) => {
    const stream = open();
    const model = await lively(stream);
    const span = stream.graphSpan;
    t.true(span > 3 && span < POSITIONS, 'as the plugin states it');
    const state = started(model, 2, span - 3, { languages: ['thai', null] });
    const pass = { languages: ['thai', null] };
    const step = new ReplayedStep(stream, state, POSITIONS, (ids, at) => token(model, state, null, pass, ids, at));
    const one = { kernels: 0, products: 0, copies: 1, captures: 0, graphs: 1, events: 0, mostEvents: 0, eventsMade: 0 };
    const run = (): Promise<unknown> => step.run([1, 2]) && stream.sync();
    await stream.sync();
    const first = await counted(run);
    t.like(first, { captures: 1, graphs: 0 });
    t.true(first.kernels > 20, 'the first one runs call by call, and is captured');
    t.is(first.products, 0, 'a few rows take no product');
    t.deepEqual(await counted(run), one);
    t.deepEqual(await counted(run), one);
    t.is(state.length, span);
    t.like(await counted(run), { captures: 1, graphs: 0 }, 'another grid: it is captured anew');
    t.deepEqual(await counted(run), one);
    step.dispose();

    // A whole decoding: each token adds two reads, and nothing else.
    const options = { prompts: [[48, 1], [48, 2]], endOfText: 0, suppress: [0], suppressAtBegin: [5] }; // biome-ignore format: a line
    const said = (maxTokens: number) => () => greedy(model, sounds(model, 2), { ...options, maxTokens });
    const [short, long] = [await counted(said(5)), await counted(said(25))];
    t.deepEqual([short.captures, short.graphs, long.captures, long.graphs], [1, 2, 1, 22]);
    t.deepEqual([long.kernels, long.products], [short.kernels, short.products]);
    t.is(long.copies - short.copies, 20 * 3);
    // With timestamps what a token may be goes with it.
    const timestamps = { begin: 30, end: 50, noTimestamps: 29 };
    const timed = (maxTokens: number) => () => greedy(model, sounds(model, 2), { ...options, timestamps, maxTokens });
    const [few, many] = [await counted(timed(5)), await counted(timed(25))];
    t.deepEqual([few.captures, few.graphs, many.captures, many.graphs], [1, 2, 1, 22]);
    t.deepEqual([many.kernels, many.products, many.copies - few.copies], [few.kernels, few.products, 20 * 3]);
    const plain = open(false);
    const other = await lively(plain);
    const without = await counted(() => greedy(other, sounds(other, 2), { ...options, maxTokens: 5 }));
    t.like(without, { captures: 0, graphs: 0 });
    for (const s of [stream, plain]) s.close();
  }),
);

onDevices('greedy decoding says the same with graphs and without, to the last bit', async (t, open) => {
  const [graphs, plain] = [open(), open(false)];
  t.deepEqual([graphs.graphs, plain.graphs, cpus()[0]!.stream.graphs], [true, false, false]);
  t.deepEqual([plain.graphSpan, cpus()[0]!.stream.graphSpan], [graphs.graphSpan, 0]);
  const [a, b] = [await lively(graphs), await lively(plain)];
  const prompts = [[48, 1, 7], [48, 2, 7], [48, 3, 8], [48, 4, 7]]; // biome-ignore format: a line
  const languages = ['catalan', null, 'thai', 'catalan'];
  for (const batch of [1, 2, 4])
    for (const change of [
      {},
      { languages: languages.slice(0, batch), gateValues: true },
      { suppressAtBegin: [20, 11], suppress: [9], endOfText: 20, maxTokens: 24 },
    ] as Partial<GreedyOptions>[]) {
      // Past the span of a graph once, without experts and with them.
      const maxTokens = batch === 2 ? 140 : 24;
      const options = { prompts: prompts.slice(0, batch), endOfText: 0, maxTokens, ...change };
      const [got, want] = [await greedy(a, sounds(a, batch), options), await greedy(b, sounds(b, batch), options)];
      t.deepEqual(got, want, `batch ${batch}, ${JSON.stringify(change)}`);
    }
  for (const s of [graphs, plain]) s.close();
});

onDevices('two streams, and calls that overlap on one, each say what they say alone', async (t, open) => {
  const streams = [open(), open()];
  const models = await Promise.all(streams.map((stream) => lively(stream)));
  const said = (model: Whisper, seed: number) =>
    greedy(model, sounds(model, 1, seed), { prompts: [[48]], endOfText: 20, maxTokens: 40, languages: ['thai'] });
  const alone = [];
  for (const seed of [1, 2, 3]) alone.push(await said(models[0]!, seed));
  t.is(new Set(alone.map((a) => JSON.stringify(a))).size, 3);
  const together = await Promise.all(models.flatMap((model) => [1, 2, 3].map((seed) => said(model, seed))));
  t.deepEqual(together, [...alone, ...alone]);
  for (const stream of streams) stream.close();
});

onDevices('what a graph refers to stays until its recording is disposed, whoever else lets go', async (t, open) => {
  const stream = open();
  const model = await lively(stream);
  const state = started(model, 2, 3);
  const step = new ReplayedStep(stream, state, POSITIONS, (ids, at) => token(model, state, null, {}, ids, at));
  const first = step.run([1, 2]);
  const logits = await read(first.slice(0, 1));
  const again = step.run([1, 2]);
  t.is(again, first);
  const want = await read(again);
  t.notDeepEqual(want[0], logits[0]);
  state.advance(-1);
  model.dispose();
  state.dispose();
  await stream.sync();
  // Whatever was given back holds other numbers now.
  const noise = [16, 64, 256, 1024, 4096, 16384].flatMap((n) =>
    Array.from({ length: 40 }, () => stream.persistent(new Float32Array(n).fill(Number.NaN), [n])),
  );
  t.deepEqual(await read(step.run([1, 2])), want);
  step.dispose();
  t.throws(() => step.run([1, 2]), { code: 'ERR_DISPOSED' });
  await t.throwsAsync(async () => await first[0].read(), { code: 'ERR_DISPOSED' });
  for (const tensor of noise) tensor.dispose();
  stream.close();
});

test.serial(
  'an error while a graph is captured ends the capture, is typed, and leaves the stream whole',
  onEmulated(async (t) => {
    const stream = open();
    const model = await lively(stream);
    // So many rows that there are products.
    const tokens = Array.from({ length: 17 }, (_, i) => 4 + (i % 2));
    const [a, b] = [started(model, 17, 3), started(model, 17, 3)];
    const ids = (): Tensor => stream.tensor(Int32Array.from(tokens), [17, 1], 'i32');
    const want = await read(token(model, b, null, {}, ids()));
    for (const [call, code, message] of [
      ['cudaStreamBeginCapture', 'ERR_CUDA', /^cuda:0: capturing a graph: operation not permitted/],
      ['capture', 'ERR_CUDA', /^cuda:0: capturing a graph: operation failed due to a previous error during capture/],
      ['cublasLtMatmul, captured', 'ERR_CUDA', /^cuBLASLt: running a product: refused/],
      ['cudaGraphInstantiate', 'ERR_OUT_OF_MEMORY', /^cuda:0: capturing a graph: out of memory/],
    ] as const) {
      const step = new ReplayedStep(stream, a, POSITIONS, (ids, at) => token(model, a, null, {}, ids, at));
      process.env.DW_EMULATOR_FAIL = call;
      try {
        const before = counts();
        await t.throwsAsync(read(step.run(tokens).slice(0, 1)), { code, message });
        t.is(counts().captures, before.captures);
      } finally {
        delete process.env.DW_EMULATOR_FAIL;
      }
      a.advance(-1);
      await stream.sync();
      b.advance(-1);
      t.deepEqual(await read(token(model, b, null, {}, ids())), want, `${call}: calls run again`);
      // The same recording: it is captured now, and then launched.
      for (let n = 0; n < 2; n++) {
        t.deepEqual(await read(step.run(tokens)), want, `${call}: replay ${n}`);
        a.advance(-1);
      }
      step.dispose();
    }
    process.env.DW_EMULATOR_FAIL = 'cudaGraphLaunch';
    const step = new ReplayedStep(stream, a, POSITIONS, (ids, at) => token(model, a, null, {}, ids, at));
    t.deepEqual(await read(step.run(tokens)), want);
    await t.throwsAsync(read(step.run(tokens)), { code: 'ERR_CUDA', message: /^cuda:0: launching a graph: / });
    delete process.env.DW_EMULATOR_FAIL;
    stream.close();
  }),
);

onDevices('what a replayed kernel finds in its data is told by the next read', async (t, open) => {
  const stream = open();
  const model = await lively(stream);
  const state = started(model, 2, 3);
  const step = new ReplayedStep(stream, state, POSITIONS, (ids, at) => token(model, state, null, {}, ids, at));
  await read(step.run([4, 5]));
  const bad = { code: 'ERR_ARGUMENT', message: /^embedding: argument 'ids': expected ids from 0 to 49, got 50/ };
  await t.throwsAsync(read(step.run([4, 50]).slice(0, 1)), bad);
  state.advance(-1);
  const logits = await read(step.run([4, 5]));
  t.true(logits[0]!.every(Number.isFinite));
  stream.close();
});

/** What a recording takes and keeps, and what it refuses. */
async function recordings(t: ExecutionContext, stream: Stream): Promise<void> {
  const before = stream.memory().persistent;
  const x = stream.persistent(Float32Array.of(1, 2, 3), [3]);
  const held = stream.memory().persistent;
  const twice = (a: Tensor): Tensor => kernels.add(stream, { a, b: a, out: 'f32' }).y;
  const recording = stream.record(() => twice(twice(x).reshape([1, 3])));
  t.is(stream.memory().persistent, held + 24);
  recording.replay();
  t.deepEqual(await recording.outputs.read(), Float32Array.of(4, 8, 12));
  stream.endStep();
  for (const n of [5, 6, 7]) {
    x.write(new Float32Array(3).fill(n));
    recording.replay();
    t.deepEqual(await recording.outputs.read(), new Float32Array(3).fill(4 * n));
  }
  // What is used by nothing that waits is refused at once, and a body that fails leaves nothing behind.
  const short = stream.tensor(Float32Array.of(1), [1]);
  const refusals: [body: () => unknown, message: RegExp][] = [
    [() => twice(short), /^add: tensor 0 goes with its step/],
    [() => twice(x) && x.write(new Float32Array(3)), /^write: expected calls only/],
    [() => twice(x) && recording.replay(), /^replay: expected calls only/],
    [() => twice(x) && stream.record(() => twice(x)), /^record: a recording is being made/],
  ];
  for (const [body, message] of refusals) t.throws(() => stream.record(body), { code: 'ERR_ARGUMENT', message });
  t.is(stream.memory().persistent, held + 24);
  t.deepEqual(await twice(short).read(), Float32Array.of(2));
  recording.replay();
  recording.dispose();
  t.throws(() => recording.replay(), { code: 'ERR_DISPOSED', message: /recording was disposed/ });
  await t.throwsAsync(recording.outputs.read(), { code: 'ERR_DISPOSED' });
  await stream.sync();
  x.dispose();
  t.is(stream.memory().persistent, before);
  stream.endStep();
}

test.serial('recordings: what they take and keep, on the processor', (t) => recordings(t, cpus().at(-1)!.stream));
for (const isa of deviceNames)
  test.serial(
    `recordings: what they take and keep, on ${isa}`,
    onDevice(isa, (t, { stream }) => recordings(t, stream)),
  );
