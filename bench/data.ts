/** Random tensors and models of the published sizes: speed does not depend on the values. */
import { type ComputeType, Whisper } from '../lib/model/index.js';
import type { FloatType, Stream, Tensor } from '../lib/tensor/index.js';
import { fromFloat32, type WhisperConfig, type WhisperSize, whisperPreset } from '../lib/weights/index.js';

export const TYPES: readonly FloatType[] = ['f32', 'bf16'];

/** The field's name of a type. */
export const typeName = (type: ComputeType): string => (type === 'f32' ? 'fp32' : type);

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

export const LANGUAGE = 'catalan';

/** Features f32 [batch, mels, frames] as floats. */
export const randomFeatures = (config: WhisperConfig, batch: number): Float32Array =>
  randomFloats(batch * config.num_mel_bins * 2 * config.max_source_positions, 0.5);
