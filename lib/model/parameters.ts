import { type FloatType, Parameter, type Stream } from '../tensor/index.js';
import { fromFloat32, type HostTensor, toFloat32 } from '../weights/index.js';

export interface ParameterOptions {
  /** Type of frozen matrices. */
  compute: FloatType;
  /** Which parameters train, by name. Default: none. */
  trainable?: (name: string) => boolean;
}

/** A host tensor as a parameter: trainable ones and vectors in f32, frozen matrices in the compute type. */
export function loadParameter(
  stream: Stream,
  name: string,
  tensor: HostTensor,
  shape: readonly number[],
  options: ParameterOptions,
): Parameter {
  if (options.trainable?.(name)) return Parameter.trainable(stream, name, toFloat32(tensor), shape);
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
