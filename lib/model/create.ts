/** How parameters are made: from weights, or of random numbers. */
import { BACKBONE_STREAM, EXPERT_STREAM } from '../random/index.js';
import { elementType, type FloatName, kernels, Parameter, type Stream, type Tensor } from '../tensor/index.js';
import {
  expertLayerNames,
  expertTensorNames,
  fromFloat32,
  GATE_SIZE,
  type HostTensor,
  type MappedTensor,
  type StoredTensor,
  type TensorSource,
  toFloat32,
  type WhisperConfig,
  whisperTensorShapes,
} from '../weights/index.js';

export interface ParameterOptions {
  /** Type of frozen matrices. */
  compute: FloatName;
  /** Which parameters train, by name. Default: none. */
  trainable?: ((name: string) => boolean) | undefined;
  /** Whether the matrices that every token of a decoding reads are held in int8. */
  quantizes?: boolean | undefined;
}

/** Matrices that are read once for every token, where a token's time is that of reading them. */
const READ_BY_TOKENS =
  /^model\.decoder\.layers\.\d+\.(self_attn\.(q|k|v|out)_proj|encoder_attn\.(q|out)_proj|(ffn_clsr\.proj\.\w+\.)?fc[12])\.weight$/;

/** What a source holds, for a model to load before it is closed; `copied`: into memory of its own, all of it. */
export async function storedTensors(source: TensorSource, copied = false): Promise<Map<string, StoredTensor>> {
  const tensors = new Map<string, StoredTensor>();
  for (const name of source.names()) tensors.set(name, await source.stored(name, copied));
  return tensors;
}

/** A tensor as a parameter: trainable ones and vectors in f32, frozen matrices in the compute type or in int8. */
export function loadParameter(
  stream: Stream,
  name: string,
  tensor: StoredTensor,
  shape: readonly number[],
  options: ParameterOptions,
): Parameter {
  if (options.trainable?.(name)) return Parameter.trainable(stream, name, inFull(tensor), shape);
  if (options.quantizes && READ_BY_TOKENS.test(name)) return Parameter.quantized(stream, name, inFull(tensor), shape);
  const type = shape.length > 1 ? elementType(options.compute) : 'f32';
  if ('mapping' in tensor) return Parameter.frozen(stream, name, tensor, shape, type);
  const data = tensor.dtype === type ? tensor.data : fromFloat32(toFloat32(tensor), shape, type).data;
  return Parameter.frozen(stream, name, data, shape, type);
}

/** A tensor's values in full precision; those in a file are converted where they are loaded. */
export const inFull = (tensor: StoredTensor): Float32Array | MappedTensor =>
  'mapping' in tensor ? tensor : toFloat32(tensor);

const inF32 = (shape: readonly number[], values: Float32Array): HostTensor => ({
  dtype: 'f32',
  shape,
  data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
});

/** A new model's tensors: matrices N(0, init_std²), biases 0, norms 1, encoder positions sinusoids (Hugging Face's initialisation). */
export async function newModelTensors(
  stream: Stream,
  config: WhisperConfig,
  seed: number,
): Promise<Map<string, HostTensor>> {
  const tensors = new Map<string, HostTensor>();
  let op = BACKBONE_STREAM;
  for (const [name, shape] of whisperTensorShapes(config)) {
    const size = shape.reduce((a, b) => a * b, 1);
    let values: Float32Array;
    if (name === 'model.encoder.embed_positions.weight') values = sinusoids(shape[0]!, shape[1]!);
    else if (name.endsWith('norm.weight')) values = new Float32Array(size).fill(1);
    else if (name.endsWith('.bias')) values = new Float32Array(size);
    else values = await randomNormals(stream, size, config.init_std, seed, op);
    op++;
    tensors.set(name, inF32(shape, values));
  }
  return tensors;
}

/**
 * A new expert's tensors: the FFNs are copies of the `shared` ones; W_in ~ N(0, 0.01²), b_in = 0, w_out = 0, or, in the
 * reference's way, W_in and w_out ~ N(0, 0.02²).
 */
export async function newExpertTensors(
  stream: Stream,
  config: WhisperConfig,
  language: string,
  shared: (name: string) => Promise<Float32Array>,
  { seed = 0, compat = 'paper' }: { seed?: number | undefined; compat?: 'paper' | 'reference' | undefined },
): Promise<Map<string, HostTensor>> {
  const reference = compat === 'reference';
  const tensors = new Map<string, HostTensor>();
  let op = EXPERT_STREAM;
  const put = (name: string, shape: readonly number[], values: Float32Array): void => {
    tensors.set(name, inF32(shape, values));
  };
  const shapes = expertTensorNames(config, language);
  for (const side of ['encoder', 'decoder'] as const) {
    for (let i = 0; i < config[`${side}_layers`]; i++) {
      const names = expertLayerNames(side, i, language);
      const layer = `model.${side}.layers.${i}`;
      const D = config.d_model;
      const draw = (n: number): Promise<Float32Array> => randomNormals(stream, n, reference ? 0.02 : 0.01, seed, op++);
      put(names.gateIn, [GATE_SIZE, D], await draw(GATE_SIZE * D));
      put(names.gateInBias, [GATE_SIZE], new Float32Array(GATE_SIZE));
      put(names.gateOut, [1, GATE_SIZE], reference ? await draw(GATE_SIZE) : new Float32Array(GATE_SIZE));
      for (const [to, from] of [
        [names.fc1, `${layer}.fc1.weight`],
        [names.fc1Bias, `${layer}.fc1.bias`],
        [names.fc2, `${layer}.fc2.weight`],
        [names.fc2Bias, `${layer}.fc2.bias`],
      ] as const) {
        put(to, shapes.get(to)!, await shared(from));
      }
    }
  }
  return tensors;
}

/** `n` values of N(0, deviation²), the Philox draw (seed, op) — the same on every machine and backend. */
async function randomNormals(
  stream: Stream,
  n: number,
  deviation: number,
  seed: number,
  op: number,
): Promise<Float32Array> {
  const values = await drawn(kernels.randomNormal(stream, { count: n, seed, step: 0, op }));
  for (let i = 0; i < n; i++) values[i]! *= deviation;
  return values;
}

/** `n` values, uniform in ±bound, of the same kind of draw. */
export async function randomUniforms(
  stream: Stream,
  n: number,
  bound: number,
  seed: number,
  op: number,
): Promise<Float32Array> {
  const values = await drawn(kernels.randomUniform(stream, { count: n, seed, step: 0, op }));
  for (let i = 0; i < n; i++) values[i] = bound * (2 * values[i]! - 1);
  return values;
}

async function drawn({ values }: { values: Tensor }): Promise<Float32Array> {
  const read = (await values.read()) as Float32Array;
  values.dispose();
  return read;
}

/** Whisper's encoder positions: sines, then cosines, of position · 10000^(−i / (D/2 − 1)). */
function sinusoids(positions: number, width: number): Float32Array {
  const half = width / 2;
  const table = new Float32Array(positions * width);
  for (let t = 0; t < positions; t++) {
    for (let i = 0; i < half; i++) {
      const angle = t * Math.exp((-Math.log(10000) * i) / (half - 1));
      table[t * width + i] = Math.sin(angle);
      table[t * width + half + i] = Math.cos(angle);
    }
  }
  return table;
}
