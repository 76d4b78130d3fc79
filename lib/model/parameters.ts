import { type FloatType, Parameter, type Stream } from '../tensor/index.js';
import { fromFloat32, type HostTensor, toFloat32 } from '../weights/index.js';

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

/** A host tensor as a parameter: trainable ones and vectors in f32, frozen matrices in the compute type or in int8. */
export function loadParameter(
  stream: Stream,
  name: string,
  tensor: HostTensor,
  shape: readonly number[],
  options: ParameterOptions,
): Parameter {
  if (options.trainable?.(name)) return Parameter.trainable(stream, name, toFloat32(tensor), shape);
  if (options.quantizes && READ_BY_TOKENS.test(name)) {
    return Parameter.quantized(stream, name, toFloat32(tensor), shape);
  }
  const type = shape.length > 1 ? options.compute : 'f32';
  const data = tensor.dtype === type ? tensor.data : fromFloat32(toFloat32(tensor), shape, type).data;
  return Parameter.frozen(stream, name, data, shape, type);
}

/** `n` values of N(0, deviation²), the Philox draw (seed, op) — the same on every machine and backend. */
export async function randomNormals(
  stream: Stream,
  n: number,
  deviation: number,
  seed: number,
  op: number,
): Promise<Float32Array> {
  const [draw] = stream.call('random_normal', [], [n, seed, 0, op]);
  const values = (await draw!.read()) as Float32Array;
  draw!.dispose();
  for (let i = 0; i < n; i++) values[i]! *= deviation;
  return values;
}
