import type { TrainingOptions } from './options.js';

/** Learning rate of update `k` (from 0) of `steps`: transformers' linear schedule with warm-up. */
export function learningRate(options: TrainingOptions, k: number): number {
  const warm = Math.ceil(options.warmup * options.steps);
  const share = k < warm ? k / Math.max(1, warm) : (options.steps - k) / Math.max(1, options.steps - warm);
  return options.learningRate * Math.max(0, share);
}

/** Noise factor of the gates in update `k`: it grows linearly. */
export function gateNoise(options: TrainingOptions, k: number): number {
  const progress = k / options.steps;
  // The published code takes step 0 for "no schedule" and starts with the full noise.
  const share = options.compat === 'reference' && k === 0 ? 1 : Math.min(progress, 1);
  return options.gateNoise * share;
}
