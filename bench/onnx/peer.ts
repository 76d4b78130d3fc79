/** onnxruntime-node and @huggingface/transformers on Whisper-small with the weights of our own bench, in turns with our cases. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DistilWhisperError } from '../../lib/errors/index.js';
import {
  crossGraph,
  decoderStepGraph,
  encoderGraph,
  mergedDecoderGraph,
  type OnnxModel,
} from '../../lib/export/onnx/index.js';
import type { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import type { WhisperConfig } from '../../lib/weights/index.js';
import { randomFeatures, randomFloats, randomModel } from '../data.js';
import { type Spread, spread } from '../spread.js';
import type { FolderInfo, RunOptions } from './run.js';

export type Library = RunOptions['library'];

/** Relative L2 error of the fp32 graphs against ours, above which the peer computes something else. */
const TOLERANCE = 1e-5;
const CHECKED_TOKENS = 4;

/** What to run: see RunOptions. */
export type Job = Pick<RunOptions, 'mode' | 'weights'> & Partial<Pick<RunOptions, 'batch' | 'tokens'>>;

export class OnnxPeer {
  private constructor(
    readonly library: Library,
    private readonly from: string,
    private readonly threads: number,
    readonly version: string,
  ) {}

  /** The library as it is installed in or above `from`, or the reason why there is none. */
  static find(library: Library, from: string, threads: number): OnnxPeer | string {
    let path: string;
    try {
      path = createRequire(join(from, 'package.json')).resolve(library);
    } catch {
      return `${library} is not installed in ${from} (--peers-from FOLDER)`;
    }
    // Its package.json stands above what is loaded, and need not be exported.
    let folder = dirname(path);
    while (!existsSync(join(folder, 'package.json')) && folder !== dirname(folder)) folder = dirname(folder);
    const { version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { version: string };
    return new OnnxPeer(library, from, threads, version);
  }

  /** Milliseconds of `repeats` runs in a process of its own. Throws ERR_RUN with what it said. */
  run(folder: OnnxFolder, job: Job, repeats: number, warmup: number, output?: string): Spread {
    const given: RunOptions = {
      ...{ library: this.library, from: this.from, folder: folder.path, threads: this.threads },
      ...{ batch: 1, tokens: 0, ...job, repeats, warmup },
      ...(output !== undefined && { output }),
    };
    const script = fileURLToPath(new URL('run.ts', import.meta.url));
    const { error, status, stdout, stderr } = spawnSync(
      process.execPath,
      ['--import=tsx', script, JSON.stringify(given)],
      { encoding: 'utf8' },
    );
    if (error || status !== 0) {
      const why = error?.message ?? stderr.split('\n').find((line) => /error/i.test(line)) ?? stderr;
      throw new DistilWhisperError('ERR_RUN', `${this.library} failed on ${job.mode}, ${job.weights}: ${why.trim()}`);
    }
    return spread((JSON.parse(stdout.trim().split('\n').at(-1)!) as { samples: number[] }).samples);
  }

  /** One run's result. */
  private result(folder: OnnxFolder, job: Job): Float32Array {
    const output = join(folder.path, 'result.f32');
    this.run(folder, job, 1, 0, output);
    return new Float32Array(new Uint8Array(readFileSync(output)).buffer);
  }

  /**
   * Holds what the library computes against ours, and returns sentences about it. Throws ERR_RUN where fp32 differs by more
   * than rounding: a peer that computes something else is no peer.
   */
  check(folder: OnnxFolder): string[] {
    const { expected } = folder;
    const errors: string[] = [];
    const compare = (what: string, job: Job, from: Float32Array): void => {
      const error = relativeError(this.result(folder, { tokens: CHECKED_TOKENS, ...job }), from);
      if (job.weights === 'fp32' && !(error <= TOLERANCE)) {
        throw new DistilWhisperError(
          'ERR_RUN',
          `${this.library}: expected our ${what} within ${TOLERANCE} (relative L2), got ${error}`,
        );
      }
      errors.push(`${what} ${error.toExponential(1)}`);
    };
    return (['fp32', 'int8'] as const).map((weights) => {
      errors.length = 0;
      if (this.library === 'onnxruntime-node') {
        compare('encoder', { mode: 'encoder', weights }, expected.hidden);
        compare('logits', { mode: 'decode', weights }, expected.memoryLogits);
      } else compare('logits', { mode: 'decode', weights }, expected.logits);
      return `${this.library} ${this.version}: ${weights} differs from ours in fp32 by ${errors.join(', ')} (relative L2)`;
    });
  }
}

function relativeError(values: Float32Array, expected: Float32Array): number {
  if (values.length !== expected.length) return Number.POSITIVE_INFINITY;
  let error = 0;
  let norm = 0;
  for (let i = 0; i < expected.length; i++) {
    error += (values[i]! - expected[i]!) ** 2;
    norm += expected[i]! ** 2;
  }
  return Math.sqrt(error / norm);
}

/** What ours computes in fp32 for the features and the memory of the folder. */
interface Expected {
  hidden: Float32Array;
  /** Of the first tokens behind the features, and behind the folder's memory. */
  logits: Float32Array;
  memoryLogits: Float32Array;
}

/** Whisper-small as ONNX, with inputs and what should come out, in a temporary folder that goes when the process ends. */
export class OnnxFolder {
  private constructor(
    readonly path: string,
    readonly expected: Expected,
  ) {}

  static async make(merged: boolean): Promise<OnnxFolder> {
    const stream = new Stream();
    const model = await randomModel(stream, 'small', 'fp32');
    const { config } = model;
    const path = mkdtempSync(join(tmpdir(), 'distilwhisper-onnx-'));
    process.once('exit', () => rmSync(path, { recursive: true, force: true }));
    mkdirSync(join(path, 'onnx'));
    const file = (name: string): string => join(path, name);
    const onnx: OnnxModel = {
      config,
      expert: null,
      weights: {
        shape: (name) => model.parameters.get(name)!.shape,
        values: (name) => model.parameters.get(name)!.value.floats(),
      },
    };
    await crossGraph(onnx).write(file('cross.onnx'));
    for (const dtype of ['fp32', 'int8'] as const) {
      const suffix = dtype === 'int8' ? '_quantized' : '';
      await encoderGraph(onnx, dtype).write(file(`onnx/encoder_model${suffix}.onnx`));
      await decoderStepGraph(onnx, dtype).write(file(`decoder_step${suffix}.onnx`));
      if (merged) await mergedDecoderGraph(onnx, dtype).write(file(`onnx/decoder_model_merged${suffix}.onnx`));
    }
    const rows = [1, config.max_source_positions, config.d_model];
    const inputs = { features: randomFeatures(config, 1), memory: randomFloats(rows[1]! * rows[2]!, 1) };
    for (const [name, numbers] of Object.entries(inputs)) writeFileSync(file(`${name}.f32`), numbers);
    writeFileSync(file('info.json'), JSON.stringify({ size: sizes(config) } satisfies FolderInfo));
    const whisper = { ...config, model_type: 'whisper', architectures: ['WhisperForConditionalGeneration'] };
    writeFileSync(file('config.json'), JSON.stringify({ ...whisper, is_encoder_decoder: true }));
    const generation = { decoder_start_token_id: config.decoder_start_token_id, is_multilingual: false };
    writeFileSync(file('generation_config.json'), JSON.stringify(generation));
    const features = stream.tensor(inputs.features, [1, config.num_mel_bins, 2 * rows[1]!]);
    const hidden = (await model.encode(features).hidden.floats()).slice();
    const logits = await greedily(model, hidden);
    const memoryLogits = await greedily(model, inputs.memory);
    stream.close();
    return new OnnxFolder(path, { hidden, logits, memoryLogits });
  }
}

/** Logits of a few tokens that ours decodes greedily from the encoder's rows. */
async function greedily(model: Whisper, rows: Float32Array): Promise<Float32Array> {
  const { stream, config } = model;
  const { d_model: D, vocab_size: V } = config;
  const state = model.startDecoding(stream.tensor(rows, [1, rows.length / D, D]));
  const logits = new Float32Array(CHECKED_TOKENS * V);
  let id = config.decoder_start_token_id;
  for (let i = 0; i < CHECKED_TOKENS; i++) {
    const { hidden } = model.decode(stream.tensor(Int32Array.of(id), [1, 1], 'i32'), null, { state });
    const row = await model.logits(hidden.reshape([1, D])).floats();
    logits.set(row, i * V);
    id = row.indexOf(row.reduce((a, b) => Math.max(a, b)));
    stream.endStep();
  }
  state.dispose();
  return logits;
}

const sizes = (config: WhisperConfig): FolderInfo['size'] => ({
  mels: config.num_mel_bins,
  source: config.max_source_positions,
  width: config.d_model,
  heads: config.decoder_attention_heads,
  layers: config.decoder_layers,
  start: config.decoder_start_token_id,
});
