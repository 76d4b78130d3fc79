import type { SoftGates } from '../model/index.js';
import { philox4x32, SKIP_STREAM } from '../random/index.js';
import type { TrainingOptions } from './options.js';
import { gateNoise } from './schedule.js';

/** Replaces parts of a micro-batch's randomness by recorded values. */
export type Randomness = (micro: number) => Partial<SoftGates>;

/** How gates behave in micro-batch `micro` of the run, in update `k`. */
export function softGates(
  options: TrainingOptions,
  layers: number,
  k: number,
  micro: number,
  recorded?: Randomness,
): SoftGates {
  const skips = skipDraws(options.seed, micro, layers, options.skipGate);
  return {
    alpha: gateNoise(options, k),
    gateDropout: options.gateDropout,
    expertDropout: options.expertDropout,
    seed: options.seed,
    step: micro,
    skip: (layer) => skips[layer]!,
    ...recorded?.(micro),
  };
}

/** Which layers (encoder's, then decoder's) leave their expert out in a micro-batch: a pure function of (seed, micro-batch, layer). */
export function skipDraws(seed: number, micro: number, layers: number, probability: number): boolean[] {
  const word = (layer: number): number =>
    philox4x32([layer, 0, micro, SKIP_STREAM], [seed >>> 0, Math.floor(seed / 2 ** 32)])[0]!;
  return Array.from({ length: layers }, (_, layer) => word(layer) / 2 ** 32 < probability);
}
