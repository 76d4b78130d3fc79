/**
 * In a process of its own: one of onnxruntime-node and @huggingface/transformers on the graphs of a folder. `run.ts <JSON of a
 * RunOptions>` prints one JSON line, { samples }: the milliseconds of each.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { OnnxDtype } from '../../lib/export/onnx/index.js';

export interface RunOptions {
  library: 'onnxruntime-node' | '@huggingface/transformers';
  /** The folder whose node_modules has the library. */
  from: string;
  /** What `OnnxFolder` wrote. */
  folder: string;
  /** decode: from filled caches; window: the encoder, then the tokens. */
  mode: 'encoder' | 'decode' | 'window';
  weights: OnnxDtype;
  batch: number;
  tokens: number;
  threads: number;
  repeats: number;
  warmup: number;
  /** The first item's hidden rows or logits of every token are written here, f32. */
  output?: string;
}

/** Sizes of the model in the folder, and what is fed. */
export interface FolderInfo {
  size: { mels: number; source: number; width: number; heads: number; layers: number; start: number };
}

/** As much as is used of onnxruntime-node. */
interface OrtTensor {
  data: Float32Array;
}
type Feeds = Record<string, OrtTensor>;
interface Session {
  run(feeds: Feeds): Promise<Feeds>;
}
interface Ort {
  InferenceSession: { create(path: string, options: object): Promise<Session> };
  Tensor: new (type: string, data: ArrayBufferView, shape: readonly number[]) => OrtTensor;
}

/** A sample's work; what has to stand before it is not timed. */
interface Work {
  prepare(): Promise<void>;
  run(): Promise<void>;
  /** Of the last run. */
  result(): Float32Array;
}

const floats = (path: string): Float32Array => new Float32Array(new Uint8Array(readFileSync(path)).buffer);

/** The first item's numbers `batch` times over. */
function repeated(values: Float32Array, batch: number): Float32Array {
  const all = new Float32Array(values.length * batch);
  for (let b = 0; b < batch; b++) all.set(values, b * values.length);
  return all;
}

function joined(rows: readonly Float32Array[]): Float32Array {
  const all = new Float32Array(rows.reduce((n, row) => n + row.length, 0));
  let at = 0;
  for (const row of rows) {
    all.set(row, at);
    at += row.length;
  }
  return all;
}

function largest(values: Float32Array): number {
  let best = 0;
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i;
  return best;
}

async function onnxruntime(ort: Ort, given: RunOptions, { size }: FolderInfo): Promise<Work> {
  const { batch, tokens, threads, folder, mode } = given;
  const options = { intraOpNumThreads: threads, interOpNumThreads: 1, graphOptimizationLevel: 'all' };
  const open = (name: string): Promise<Session> => ort.InferenceSession.create(join(folder, name), options);
  const suffix = given.weights === 'int8' ? '_quantized' : '';
  const tensor = (values: Float32Array, ...shape: number[]): OrtTensor => new ort.Tensor('float32', values, shape);
  const encoder = mode === 'decode' ? null : await open(`onnx/encoder_model${suffix}.onnx`);
  const cross = mode === 'encoder' ? null : await open('cross.onnx');
  const step = mode === 'encoder' ? null : await open(`decoder_step${suffix}.onnx`);
  const features = tensor(
    repeated(floats(join(folder, 'features.f32')), batch),
    ...[batch, size.mels, 2 * size.source],
  );
  let memory = tensor(repeated(floats(join(folder, 'memory.f32')), batch), batch, size.source, size.width);
  let logits: Float32Array[] = [];
  let caches: Feeds = {};
  const fill = async (): Promise<void> => {
    caches = await cross!.run({ encoder_hidden_states: memory });
    for (let i = 0; i < size.layers; i++) {
      for (const kind of ['key', 'value']) {
        const empty = tensor(new Float32Array(0), batch, size.heads, 0, size.width / size.heads);
        caches[`past_key_values.${i}.decoder.${kind}`] = empty;
      }
    }
  };
  const decode = async (): Promise<void> => {
    logits = [];
    let ids = new BigInt64Array(batch).fill(BigInt(size.start));
    for (let n = 0; n < tokens; n++) {
      const out = await step!.run({ ...caches, input_ids: new ort.Tensor('int64', ids, [batch, 1]) });
      for (const [name, value] of Object.entries(out)) {
        if (name.startsWith('present')) caches[name.replace('present', 'past_key_values')] = value;
      }
      const all = out.logits!.data;
      const V = all.length / batch;
      ids = ids.map((_, b) => BigInt(largest(all.subarray(b * V, (b + 1) * V))));
      logits.push(all.subarray(0, V));
    }
  };
  const encode = async (): Promise<void> => {
    memory = (await encoder!.run({ input_features: features })).last_hidden_state!;
  };
  return {
    prepare: async () => {
      if (mode === 'decode') await fill();
    },
    run: async () => {
      if (mode !== 'decode') await encode();
      if (mode === 'window') await fill();
      if (mode !== 'encoder') await decode();
    },
    result: () => (mode === 'encoder' ? memory.data : joined(logits)),
  };
}

/** As much as is used of @huggingface/transformers. */
interface TransformersModel {
  generate(options: object): Promise<{ data: BigInt64Array }>;
  forward(inputs: object): Promise<Feeds>;
}
interface Transformers {
  env: { allowRemoteModels: boolean };
  Tensor: new (type: string, data: ArrayBufferView, shape: readonly number[]) => unknown;
  WhisperForConditionalGeneration: { from_pretrained(path: string, options: object): Promise<TransformersModel> };
}

/** A window by `generate`, whose result is the tokens; or, to be checked, token by token, whose result is the logits. */
async function transformers(library: Transformers, given: RunOptions, { size }: FolderInfo): Promise<Work> {
  const { batch, tokens, threads, folder, weights, mode } = given;
  library.env.allowRemoteModels = false;
  const model = await library.WhisperForConditionalGeneration.from_pretrained(folder, {
    dtype: weights === 'int8' ? 'q8' : 'fp32',
    device: 'cpu',
    session_options: { intraOpNumThreads: threads, interOpNumThreads: 1 },
  });
  const values = repeated(floats(join(folder, 'features.f32')), batch);
  const inputs = new library.Tensor('float32', values, [batch, size.mels, 2 * size.source]);
  let ids: number[] = [];
  let logits: Float32Array[] = [];
  const generate = async (): Promise<void> => {
    // No token ends the text: as many are decoded as are asked for.
    const settings = { decoder_input_ids: [size.start], max_new_tokens: tokens, eos_token_id: null };
    ids = Array.from((await model.generate({ inputs, ...settings })).data.subarray(1), Number);
  };
  const stepwise = async (): Promise<void> => {
    logits = [];
    let id = size.start;
    let past: Feeds | null = null;
    for (let n = 0; n < tokens; n++) {
      const decoder_input_ids = new library.Tensor('int64', BigInt64Array.of(BigInt(id)), [1, 1]);
      const out = await model.forward({ input_features: inputs, decoder_input_ids, past_key_values: past });
      const cached: Feeds = {};
      for (const [name, value] of Object.entries(out)) {
        const key = name.replace('present', 'past_key_values');
        if (name !== key) cached[key] = past && name.includes('encoder') ? past[key]! : value;
      }
      past = cached;
      id = largest(out.logits!.data);
      logits.push(out.logits!.data);
    }
  };
  return {
    prepare: async () => undefined,
    run: mode === 'decode' ? stepwise : generate,
    result: () => (mode === 'decode' ? joined(logits) : Float32Array.from(ids)),
  };
}

const given = JSON.parse(process.argv[2]!) as RunOptions;
const info = JSON.parse(readFileSync(join(given.folder, 'info.json'), 'utf8')) as FolderInfo;
const path = createRequire(join(given.from, 'package.json')).resolve(given.library);
const work =
  given.library === 'onnxruntime-node'
    ? await onnxruntime(createRequire(import.meta.url)(path) as Ort, given, info)
    : await transformers((await import(pathToFileURL(path).href)) as Transformers, given, info);
const samples: number[] = [];
for (let i = 0; i < given.warmup + given.repeats; i++) {
  await work.prepare();
  const start = performance.now();
  await work.run();
  if (i >= given.warmup) samples.push(performance.now() - start);
}
if (given.output !== undefined) writeFileSync(given.output, work.result());
console.log(JSON.stringify({ samples }));
