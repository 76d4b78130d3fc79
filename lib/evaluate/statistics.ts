/** Whether a difference between two systems is one: over utterances by the paired bootstrap, over runs by Student's t. */
import { philox4x32, philoxKey } from '../random/index.js';

export interface Interval {
  low: number;
  high: number;
}

/** Of each utterance: how long its reference is, and the errors that either side makes in it. */
export interface PairedCounts {
  lengths: Float64Array;
  a: Float64Array;
  b: Float64Array;
}

/**
 * The paired bootstrap (Koehn, 2004) of the difference of two error rates, Σ(b − a) / Σ length: as many utterances are drawn with
 * replacement, again and again, the same for both sides. `interval`: from the (1 − level) / 2 quantile of the differences to
 * its counterpart; `p`: how often a difference falls on the other side of none than most do, doubled. A function of its arguments.
 */
export function pairedBootstrap(
  { lengths, a, b }: PairedCounts,
  { resamples, seed, level }: { resamples: number; seed: number; level: number },
): { interval: Interval; p: number } {
  const n = lengths.length;
  const gaps = b.map((errors, i) => errors - a[i]!);
  const differences = new Float64Array(resamples);
  const key = philoxKey(seed);
  let [below, above] = [0, 0];
  for (let r = 0; r < resamples; r++) {
    let [gap, length] = [0, 0];
    for (let i = 0; i < n; i += 4) {
      const words = philox4x32([i, r, 0, 0], key);
      for (let k = 0; k < 4 && i + k < n; k++) {
        const drawn = Math.floor((words[k]! / 2 ** 32) * n);
        gap += gaps[drawn]!;
        length += lengths[drawn]!;
      }
    }
    const difference = gap / length;
    differences[r] = difference;
    if (difference <= 0) below++;
    if (difference >= 0) above++;
  }
  differences.sort();
  const tail = Math.floor(((1 - level) / 2) * resamples);
  return {
    interval: { low: differences[tail]!, high: differences[resamples - 1 - tail]! },
    p: Math.min(1, (2 * (Math.min(below, above) + 1)) / (resamples + 1)),
  };
}

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;
/** Of the mean. */
function variance(values: readonly number[]): number {
  const middle = mean(values);
  return values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (values.length - 1) / values.length;
}

/**
 * Welch's interval of the difference of two means, b − a, as runs of several seeds give them. Null where a side has fewer than
 * two values, of which no spread can be told.
 */
export function welchInterval(a: readonly number[], b: readonly number[], level: number): Interval | null {
  if (a.length < 2 || b.length < 2) return null;
  const difference = mean(b) - mean(a);
  const [va, vb] = [variance(a), variance(b)];
  if (va + vb === 0) return { low: difference, high: difference };
  const freedom = (va + vb) ** 2 / (va ** 2 / (a.length - 1) + vb ** 2 / (b.length - 1));
  const reach = studentQuantile((1 + level) / 2, freedom) * Math.sqrt(va + vb);
  return { low: difference - reach, high: difference + reach };
}

/** t below which Student's distribution of so many degrees of freedom (1 or more, of any fraction) has the share p, 0.5 < p < 1. */
export function studentQuantile(p: number, freedom: number): number {
  // ∫ from 0 to t = tan θ √ν of the density is c ∫ cos^(ν − 1): smooth, and within a quarter of a turn.
  const share = (angle: number): number => 0.5 + (0.5 * simpson(angle, freedom)) / simpson(Math.PI / 2, freedom);
  let [low, high] = [0, Math.PI / 2];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (share(middle) < p) low = middle;
    else high = middle;
  }
  return Math.tan(low) * Math.sqrt(freedom);
}

/** ∫ from 0 to `end` of cos^(ν − 1), by Simpson's rule. */
function simpson(end: number, freedom: number): number {
  const parts = 400;
  const f = (x: number): number => Math.max(Math.cos(x), 0) ** (freedom - 1);
  let sum = f(0) + f(end);
  for (let i = 1; i < parts; i++) sum += (i % 2 === 1 ? 4 : 2) * f((i * end) / parts);
  return (sum * end) / parts / 3;
}
