/** Optimiser. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';
import { type Optional, on } from './arguments.js';

export interface GlobalNormArguments {
  gradients: readonly Tensor[];
  /** 0: no clipping. */
  maxNorm: number;
  /** Factor of all gradients. */
  gradientScale?: number | undefined;
}

/** norm = s·√(Σ g²), scale = s·min(1, maxNorm / (norm + 1e-6)), s the gradients' scale; scale = 0 where norm is not finite. f32 [1] each. */
export function globalNorm(stream: Stream, a: GlobalNormArguments): { norm: Tensor; scale: Tensor } {
  const [norm, scale] = call(stream, 'global_norm', a.gradients, [a.maxNorm, a.gradientScale ?? 1]);
  return { norm: norm!, scale: scale! };
}

export interface AdamWArguments {
  /** f32 [1], of the gradients: 0 leaves everything as it is. */
  scale: Tensor;
  /** Tensors of one shape; value, m and v are written. `step` counts from 1; 0 leaves a group as it is, without a gradient or with. */
  groups: readonly { step: number; value: Tensor; gradient?: Optional; m: Tensor; v: Tensor }[];
  learningRate: number;
  betas: readonly [number, number];
  epsilon: number;
  weightDecay: number;
  /** PyTorch's, or that of the reference (transformers): decay after the step, epsilon outside of the bias correction. */
  compat: 'paper' | 'reference';
}

/** In place: one update by AdamW. */
export function adamw(stream: Stream, a: AdamWArguments): void {
  const tensors: Optional[] = [a.scale];
  const mode = on(a.compat === 'reference');
  const numbers = [a.groups.length, a.learningRate, ...a.betas, a.epsilon, a.weightDecay, mode];
  for (const { step, value, gradient, m, v } of a.groups) {
    tensors.push(value, gradient, m, v);
    numbers.push(step);
  }
  call(stream, 'adamw', tensors, numbers);
}
