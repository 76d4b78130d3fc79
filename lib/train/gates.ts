import type { SoftGates } from '../model/index.js';
import { philox4x32, SKIP_STREAM } from '../random/index.js';
import type { Tensor } from '../tensor/index.js';
import { BEHIND, quiet } from './objective.js';
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
    straight: options.gateForward === 'hard',
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

/** How often G (what the gates are sigmoids of, without noise) lies where: counts of equal bins from `low` to `high`, whose ends hold what lies beyond. */
export interface GateHistogram {
  low: number;
  high: number;
  /** Of each layer, encoder before decoder. */
  layers: number[][];
}

const [LOW, HIGH, BINS] = [-10, 10, 80];

/** Gathers G over the layers and micro-batches of an update. */
export class GateObserver {
  private readonly readings: { layer: number; values: Promise<Float32Array> }[] = [];

  constructor(private readonly layers: number) {}

  /** What a micro-batch is observed by; a layer that runs again in the backward is counted once. */
  ofBatch(): (layer: number, gates: readonly Tensor[]) => void {
    const seen = new Set<number>();
    return (layer, gates) => {
      if (seen.has(layer)) return;
      seen.add(layer);
      for (const G of gates) this.readings.push({ layer, values: quiet(G.floats(BEHIND)) });
    };
  }

  /** Rejects when the stream ends before all is there. */
  async histogram(): Promise<GateHistogram> {
    const layers = Array.from({ length: this.layers }, () => Array<number>(BINS).fill(0));
    for (const { layer, values } of this.readings) {
      const counts = layers[layer]!;
      for (const G of await values) {
        const bin = Math.floor(((G - LOW) / (HIGH - LOW)) * BINS);
        counts[Math.min(BINS - 1, Math.max(0, bin))]!++;
      }
    }
    return { low: LOW, high: HIGH, layers };
  }
}
