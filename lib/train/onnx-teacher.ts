/**
 * A teacher in ONNX, as Optimum exports a Whisper, run by onnxruntime-node, which is loaded when it is asked for. Its graphs are asked
 * for a micro-batch before its update is queued, because a runtime of its own cannot wait in a stream.
 */
import { basename, dirname, join } from 'node:path';
import type { InferenceSession, Tensor as OnnxTensor } from 'onnxruntime-node';
import { DistilWhisperError, shown } from '../errors/index.js';
import { isFile, readJsonObject } from '../files/index.js';
import { elementType, type FloatName, type FloatType, Parameter, type Stream, type Tensor } from '../tensor/index.js';
import {
  fromFloat32,
  type OnnxFile,
  openOnnx,
  parseWhisperConfig,
  toFloat32,
  WEIGHTS_FILES,
  type WhisperConfig,
} from '../weights/index.js';
import { type BatchSource, decoderInputs, type TrainBatch } from './batch.js';
import { RowsOfLogits } from './rows-of-logits.js';
import type { Taught, Teacher } from './teacher.js';

type Runtime = typeof import('onnxruntime-node');

/** The graphs of a teacher, and its sizes. */
export interface OnnxTeacherFiles {
  readonly config: WhisperConfig;
  readonly encoder: string;
  readonly decoder: string;
}

/** Decoders by their names in an export, the best first. */
const DECODERS = ['decoder_model_merged', 'decoder_model'];
const DECODER = /^decoder_model(?:_merged)?(_[a-z0-9]+)?\.onnx$/;
const HIDDEN = 'last_hidden_state';
const LOGITS = 'logits';
const PAST = /^past_key_values\.\d+\.(decoder|encoder)\.(key|value)$/;
/** What a decoder may ask for besides caches. */
const ASKED = ['input_ids', 'encoder_hidden_states', 'use_cache_branch', 'cache_position'];

/**
 * The graphs that a path means: a decoder's file, or a folder that has them, or has them in onnx/, and no weights of another kind.
 * null: the path means none. Errors: ERR_ONNX (no encoder or no config.json beside them), ERR_CONFIG, ERR_FILE_READ.
 */
export async function onnxTeacherFiles(path: string): Promise<OnnxTeacherFiles | null> {
  const decoder = await decoderOf(path);
  if (decoder === null) return null;
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_ONNX', what);
  };
  const suffix = DECODER.exec(basename(decoder));
  if (!suffix) refuse(`${decoder}: expected a name as Optimum gives it, such as decoder_model_merged.onnx`);
  const folder = dirname(decoder);
  const encoder = join(folder, `encoder_model${suffix![1] ?? ''}.onnx`);
  if (!(await isFile(encoder))) refuse(`${decoder}: expected its encoder beside it, and there is no ${encoder}`);
  for (const place of [folder, dirname(folder)]) {
    const file = join(place, 'config.json');
    if (await isFile(file))
      return { encoder, decoder, config: parseWhisperConfig(await readJsonObject(file, 'ERR_CONFIG'), file) };
  }
  return refuse(`${decoder}: expected a config.json in its folder or the one above, and there is none`);
}

async function decoderOf(path: string): Promise<string | null> {
  if (path.endsWith('.onnx')) return path;
  for (const other of WEIGHTS_FILES) {
    if (await isFile(join(path, other))) return null;
  }
  for (const folder of [join(path, 'onnx'), path]) {
    for (const name of DECODERS) {
      const file = join(folder, `${name}.onnx`);
      if (await isFile(file)) return file;
    }
  }
  return null;
}

/** Files of a teacher's graphs and of their tensors. Errors: those of `openOnnx`. */
export async function onnxFilesOf({ encoder, decoder }: OnnxTeacherFiles): Promise<string[]> {
  const files: string[] = [];
  for (const path of [encoder, decoder]) {
    const graph = await openOnnx(path);
    files.push(...graph.files);
    await graph.close();
  }
  return files;
}

/** onnxruntime-node, which is an optional part of the package. Errors: ERR_ONNXRUNTIME. */
async function runtime(): Promise<Runtime> {
  try {
    // By a name that bundlers do not follow: who has no such teacher has no such package.
    const name: string = 'onnxruntime-node';
    const module = (await import(name)) as Runtime & { default?: Runtime };
    return module.default ?? module;
  } catch (cause) {
    throw new DistilWhisperError(
      'ERR_ONNXRUNTIME',
      'A teacher in ONNX is run by onnxruntime-node, which could not be loaded; it is installed by ' +
        `npm install --ignore-scripts onnxruntime-node (with its scripts it brings the CUDA provider too): ${(cause as Error).message.split('\n')[0]}`,
      { cause },
    );
  }
}

/** See `OnnxTeacher.open`. */
export class OnnxTeacher implements Teacher {
  private constructor(
    readonly config: WhisperConfig,
    private readonly stream: Stream,
    private readonly head: Parameter,
    /** Where the decoder gives logits alone. */
    private readonly rows: RowsOfLogits | null,
    private readonly graphs: { ort: Runtime; encoder: InferenceSession; decoder: InferenceSession },
  ) {}

  /**
   * Loads the graphs, for a student on `stream`, on whose kind of device they run; `compute`: of the loss. A decoder that gives its last hidden rows is asked
   * for them; of one that gives logits they are found again (`RowsOfLogits`). Errors: ERR_ONNX (what a graph takes or gives, no output
   * projection in floats, a graph that onnxruntime refuses, a device that it lacks), ERR_ONNXRUNTIME (it is not installed), ERR_FILE_NOT_FOUND,
   * ERR_FILE_READ, ERR_OUT_OF_MEMORY.
   */
  static async open(
    stream: Stream,
    { config, encoder, decoder }: OnnxTeacherFiles,
    compute: FloatName,
  ): Promise<OnnxTeacher> {
    const ort = await runtime();
    const heard = await openOnnx(encoder);
    await heard.close();
    expectValues(heard, ['input_features'], [HIDDEN]);
    const said = await openOnnx(decoder);
    let head: Parameter | null = null;
    let rows: RowsOfLogits | null = null;
    const sessions: InferenceSession[] = [];
    try {
      expectValues(said, ['input_ids', 'encoder_hidden_states'], [LOGITS]);
      const other = said.inputs.find(({ name }) => !ASKED.includes(name) && !PAST.test(name));
      if (other) throw new DistilWhisperError('ERR_ONNX', `${decoder}: nothing is known of its input ${other.name}`);
      const table = await outputProjection(said, config);
      const shape = [config.vocab_size, config.d_model];
      const projection = (type: FloatType): Parameter =>
        Parameter.frozen(stream, 'output projection', fromFloat32(table, shape, type).data, shape, type);
      head = projection(elementType(compute));
      if (!said.outputs.some(({ name }) => name === HIDDEN)) rows = await RowsOfLogits.of(stream, projection('f32'));
      for (const path of [encoder, decoder]) sessions.push(await session(ort, path, stream));
      return new OnnxTeacher(config, stream, head, rows, {
        ort,
        encoder: sessions[0]!,
        decoder: sessions[1]!,
      });
    } catch (error) {
      for (const made of sessions) await made.release();
      rows?.dispose();
      head?.dispose();
      throw error;
    } finally {
      await said.close();
    }
  }

  /** The batches of a source, with what the teacher says of each. Errors, at a batch's turn: ERR_ONNX. */
  ahead(source: BatchSource): BatchSource {
    const teach = (batch: TrainBatch): Promise<TrainBatch> => this.taught(batch);
    return {
      async *stream(from) {
        for await (const batch of source.stream(from)) yield await teach(batch);
      },
    };
  }

  teach(_: Tensor, ids: Tensor, batch: TrainBatch): Taught {
    const [B, T] = ids.shape as [number, number];
    const D = this.config.d_model;
    const all = new Float32Array(B * T * D);
    for (const [b, rows] of batch.taught!.entries()) all.set(rows.subarray(0, T * D), b * T * D);
    return { rows: this.stream.tensor(all, [B * T, D]), head: this.head.value };
  }

  async close(): Promise<void> {
    this.rows?.dispose();
    this.head.dispose();
    await this.graphs.encoder.release();
    await this.graphs.decoder.release();
  }

  private async taught(batch: TrainBatch): Promise<TrainBatch> {
    const { config, rows } = this;
    const D = config.d_model;
    const { ids, T } = decoderInputs(batch, config);
    const memory = await this.encode(batch.teacherFeatures ?? batch.features);
    const taught: Float32Array[] = [];
    if (rows) {
      // One item at a time: logits are as many as the vocabulary for every label.
      const size = config.max_source_positions * D;
      for (let b = 0; b < batch.labels.length; b++) {
        const heard = memory.subarray(b * size, (b + 1) * size);
        taught.push(await rows.find(await this.decode(heard, ids.subarray(b * T, (b + 1) * T), T, LOGITS), T));
      }
    } else {
      const said = await this.decode(memory, ids, T, HIDDEN);
      for (let b = 0; b < batch.labels.length; b++) taught.push(said.subarray(b * T * D, (b + 1) * T * D));
    }
    return { ...batch, taught };
  }

  /** Features [mels, frames] of each item → last hidden rows [B, S, D]. */
  private async encode(features: readonly Float32Array[]): Promise<Float32Array> {
    const { num_mel_bins: mels, max_source_positions: S, d_model } = this.config;
    const shape = [features.length, mels, 2 * S];
    const all = new Float32Array(product(shape));
    for (const [b, item] of features.entries()) all.set(item, b * mels * 2 * S);
    const input_features = this.tensor('float32', all, shape);
    return run(this.graphs.encoder, { input_features }, HIDDEN, [features.length, S, d_model]);
  }

  /** memory [B, S, D], ids [B, T] → what is `wanted` of the decoder [B, T, ..]. */
  private decode(memory: Float32Array, ids: Int32Array, T: number, wanted: string): Promise<Float32Array> {
    const { decoder_attention_heads: heads, d_model, max_source_positions, vocab_size } = this.config;
    const B = ids.length / T;
    const { decoder } = this.graphs;
    const feeds: Record<string, OnnxTensor> = {};
    for (const name of decoder.inputNames) {
      if (name === 'input_ids') feeds[name] = this.tensor('int64', BigInt64Array.from(ids, BigInt), [B, T]);
      else if (name === 'encoder_hidden_states')
        feeds[name] = this.tensor('float32', memory, [B, max_source_positions, d_model]);
      else if (name === 'use_cache_branch') feeds[name] = this.tensor('bool', Uint8Array.of(0), [1]);
      else if (name === 'cache_position')
        feeds[name] = this.tensor(
          'int64',
          BigInt64Array.from({ length: T }, (_, i) => BigInt(i)),
          [T],
        );
      else feeds[name] = this.tensor('float32', new Float32Array(0), [B, heads, 0, d_model / heads]);
    }
    return run(decoder, feeds, wanted, [B, T, wanted === LOGITS ? vocab_size : d_model]);
  }

  private tensor(type: 'float32' | 'int64' | 'bool', data: Float32Array | BigInt64Array | Uint8Array, dims: number[]) {
    const { Tensor } = this.graphs.ort;
    return new (Tensor as unknown as new (type: string, data: ArrayBufferView, dims: number[]) => OnnxTensor)(
      type,
      data,
      dims,
    );
  }
}

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** The output `wanted`, which must be f32 of this shape. Throws ERR_ONNX. */
async function run(
  graph: InferenceSession,
  feeds: Record<string, OnnxTensor>,
  wanted: string,
  shape: readonly number[],
): Promise<Float32Array> {
  let output: OnnxTensor;
  try {
    output = (await graph.run(feeds, [wanted]))[wanted]!;
  } catch (cause) {
    throw new DistilWhisperError('ERR_ONNX', `the teacher's graph failed: ${(cause as Error).message}`, { cause });
  }
  const { data, dims } = output;
  if (data instanceof Float32Array && data.length === product(shape)) return data;
  throw new DistilWhisperError('ERR_ONNX', `the teacher's ${wanted}: expected f32 [${shape}], got [${dims}]`);
}

/** No other device is taken silently: onnxruntime refuses a provider that it lacks. */
async function session(ort: Runtime, path: string, { device, threads }: Stream): Promise<InferenceSession> {
  const cuda = device !== 'cpu';
  const deviceId = Number(device.split(':')[1] ?? 0);
  try {
    return await ort.InferenceSession.create(path, {
      executionProviders: [cuda ? { name: 'cuda', deviceId } : 'cpu'],
      intraOpNumThreads: threads,
      interOpNumThreads: 1,
    });
  } catch (cause) {
    const what = cuda ? `on ${device} ` : '';
    throw new DistilWhisperError(
      'ERR_ONNX',
      `${path}: onnxruntime did not load it ${what}: ${(cause as Error).message}`,
      {
        cause,
      },
    );
  }
}

/** Throws ERR_ONNX where a graph lacks inputs or outputs, or its numbers are of another type than f32. */
function expectValues({ path, inputs, outputs }: OnnxFile, takes: readonly string[], gives: readonly string[]): void {
  const check = (what: string, wanted: readonly string[], there: OnnxFile['inputs']): void => {
    const names = there.map(({ name }) => name);
    const missing = wanted.find((name) => !names.includes(name));
    if (missing === undefined) return;
    throw new DistilWhisperError(
      'ERR_ONNX',
      `${path}: expected ${what} ${missing}, as in Optimum's export, got ${shown(names)}`,
    );
  };
  check('the input', takes, inputs);
  check('the output', gives, outputs);
  for (const { name, f32 } of [...inputs, ...outputs]) {
    if (f32 || ['input_ids', 'use_cache_branch', 'cache_position'].includes(name)) continue;
    throw new DistilWhisperError('ERR_ONNX', `${path}: expected ${name} in fp32: take the export in fp32`);
  }
}

/** The tied output projection [V, D]. */
async function outputProjection(graph: OnnxFile, { vocab_size: V, d_model: D }: WhisperConfig): Promise<Float32Array> {
  const of = (rows: number, columns: number): string | undefined =>
    graph
      .names()
      .filter((name) => {
        const { shape } = graph.info(name);
        return shape.length === 2 && shape[0] === rows && shape[1] === columns;
      })
      // Where the vocabulary is as large as a layer: the table goes by its name.
      .sort((a, b) => Number(b.includes('embed_tokens')) - Number(a.includes('embed_tokens')))[0];
  const table = of(V, D);
  if (table !== undefined) return toFloat32(await graph.read(table));
  throw new DistilWhisperError(
    'ERR_ONNX',
    `${graph.path}: expected the token embedding [${V}, ${D}] in floats, got none: take the export in fp32`,
  );
}
