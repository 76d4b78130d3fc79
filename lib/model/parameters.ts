import { type FloatType, kernels, Parameter, type Stream } from '../tensor/index.js';
import { fromFloat32, type MappedTensor, type StoredTensor, type TensorSource, toFloat32 } from '../weights/index.js';

export interface ParameterOptions {
  /** Type of frozen matrices. */
  compute: FloatType;
  /** Which parameters train, by name. Default: none. */
  trainable?: (name: string) => boolean;
  /** Whether the matrices that every token of a decoding reads are held in int8. */
  quantizes?: boolean;
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
  const type = shape.length > 1 ? options.compute : 'f32';
  if ('mapping' in tensor) return Parameter.frozen(stream, name, tensor, shape, type);
  const data = tensor.dtype === type ? tensor.data : fromFloat32(toFloat32(tensor), shape, type).data;
  return Parameter.frozen(stream, name, data, shape, type);
}

/** A tensor's values in full precision; those in a file are converted where they are loaded. */
export const inFull = (tensor: StoredTensor): Float32Array | MappedTensor =>
  'mapping' in tensor ? tensor : toFloat32(tensor);

/** `n` values of N(0, deviation²), the Philox draw (seed, op) — the same on every machine and backend. */
export async function randomNormals(
  stream: Stream,
  n: number,
  deviation: number,
  seed: number,
  op: number,
): Promise<Float32Array> {
  const drawn = kernels.randomNormal(stream, { count: n, seed, step: 0, op }).values;
  const values = (await drawn.read()) as Float32Array;
  drawn.dispose();
  for (let i = 0; i < n; i++) values[i]! *= deviation;
  return values;
}
