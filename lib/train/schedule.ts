import type { TrainingOptions } from './options.js';

/** Share of the peak by what is left of the updates behind the warm-up, from 1 to 0. */
const DECAYS: Record<TrainingOptions['schedule'], (left: number) => number> = {
  linear: (left) => left,
  cosine: (left) => 0.5 * (1 + Math.cos(Math.PI * (1 - left))),
  constant: () => 1,
};

/** Learning rate of update `k` (from 0) of `steps`, as transformers' schedules of these names have it, with warm-up. */
export function learningRate(options: TrainingOptions, k: number): number {
  const warm = Math.ceil(options.warmup * options.steps);
  if (k < warm) return options.learningRate * (k / Math.max(1, warm));
  const left = Math.max(0, (options.steps - k) / Math.max(1, options.steps - warm));
  return options.learningRate * DECAYS[options.schedule](left);
}

/** Noise factor of the gates in update `k`: it grows linearly. */
export function gateNoise(options: TrainingOptions, k: number): number {
  const progress = k / options.steps;
  // The published code takes step 0 for "no schedule" and starts with the full noise.
  const share = options.compat === 'reference' && k === 0 ? 1 : Math.min(progress, 1);
  return options.gateNoise * share;
}
