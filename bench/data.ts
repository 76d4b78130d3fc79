/** Random tensors and models of the published sizes: speed does not depend on the values. */
import { type ComputeType, Whisper } from '../lib/model/index.js';
import { elementType, type FloatName, type FloatType, type Stream, type Tensor } from '../lib/tensor/index.js';
import {
  fromFloat32,
  type HostTensor,
  type WhisperConfig,
  type WhisperSize,
  whisperPreset,
  whisperTensorShapes,
} from '../lib/weights/index.js';

export const TYPES: readonly FloatName[] = ['fp32', 'bf16'];

/** Of the types that are asked for those that tensors of rows can have. */
export const floatTypes = (types: readonly ComputeType[]): FloatName[] => TYPES.filter((type) => types.includes(type));

/** Uniform numbers of deviation `scale`, by a linear congruence (Numerical Recipes' constants). */
export function randomFloats(n: number, scale: number, seed = 1): Float32Array {
  const values = new Float32Array(n);
  let state = seed >>> 0;
  const width = (scale * Math.sqrt(12)) / 2 ** 32;
  for (let i = 0; i < n; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    values[i] = (state - 2 ** 31) * width;
  }
  return values;
}

/** A persistent tensor of random numbers. */
export function randomTensor(
  stream: Stream,
  shape: readonly number[],
  type: FloatType,
  scale: number,
  seed = 1,
): Tensor {
  const values = randomFloats(
    shape.reduce((a, b) => a * b, 1),
    scale,
    seed,
  );
  return stream.persistent(fromFloat32(values, shape, type).data, shape, type);
}

/** Token ids below 50,000. */
export function randomIds(n: number): Int32Array {
  return Int32Array.from(randomFloats(n, 1), (x) => Math.abs(Math.trunc(x * 1e9)) % 50000);
}

export const randomModel = (stream: Stream, size: WhisperSize, compute: ComputeType): Promise<Whisper> =>
  Whisper.create(stream, whisperPreset(size), { compute, seed: 1 });

/** Random numbers that the tensors of a `quickModel` are cut from. */
const POOL = 1 << 20;

/** Tensors of a model's shapes that are made when they are asked for: uploaded one by one, they take little memory. */
class PooledTensors extends Map<string, HostTensor> {
  private readonly shapes: Map<string, readonly number[]>;
  private readonly pools: Record<FloatType, Uint8Array>;
  private made = 0;

  constructor(
    config: WhisperConfig,
    private readonly matrices: FloatType,
    seed: number,
  ) {
    super();
    this.shapes = whisperTensorShapes(config);
    const numbers = randomFloats(2 * POOL, config.init_std, seed);
    const pool = (type: FloatType): Uint8Array => fromFloat32(numbers, [2 * POOL], type).data;
    this.pools = { f32: pool('f32'), bf16: pool('bf16') };
  }

  override get(name: string): HostTensor | undefined {
    const shape = this.shapes.get(name);
    if (!shape) return undefined;
    const size = shape.reduce((a, b) => a * b, 1);
    if (name.endsWith('norm.weight')) return fromFloat32(new Float32Array(size).fill(1), shape, 'f32');
    const dtype = shape.length > 1 ? this.matrices : 'f32';
    const width = dtype === 'bf16' ? 2 : 4;
    // Every tensor begins at another place, so that none is another's copy.
    const start = (this.made++ * 7919) % POOL;
    const from = this.pools[dtype].subarray(start * width, (start + POOL) * width);
    const data = new Uint8Array(size * width);
    for (let at = 0; at < data.length; at += from.length) data.set(from.subarray(0, data.length - at), at);
    return { dtype, shape, data };
  }
}

/** A frozen model of random weights, of any size in seconds. */
export const quickModel = (stream: Stream, config: WhisperConfig, compute: FloatName, seed = 1): Whisper =>
  Whisper.fromTensors(stream, config, new PooledTensors(config, elementType(compute), seed), { compute });

export const LANGUAGE = 'catalan';

/** Features f32 [batch, mels, frames] as floats. */
export const randomFeatures = (config: WhisperConfig, batch: number, seed = 1): Float32Array =>
  randomFloats(batch * config.num_mel_bins * 2 * config.max_source_positions, 0.5, seed);

/** The same, [mels, frames] of each item, as training takes them. */
export function randomItems(config: WhisperConfig, batch: number, seed = 1): Float32Array[] {
  const all = randomFeatures(config, batch, seed);
  const size = all.length / batch;
  return Array.from({ length: batch }, (_, b) => all.subarray(b * size, (b + 1) * size));
}
