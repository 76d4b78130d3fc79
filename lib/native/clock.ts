import { load } from './addon.js';

/**
 * The addon's clock when `performance.now()` was 0, in its nanoseconds. Both count the same steady clock on Linux; elsewhere
 * they may start at different moments, so that it is measured: the clock is read between two readings of the other, and of
 * several tries the one counts whose readings are the closest.
 */
export function clockOrigin(): number {
  const { clock } = load();
  let [origin, closest] = [0, Number.POSITIVE_INFINITY];
  for (let i = 0; i < 16; i++) {
    const before = performance.now();
    const ns = clock();
    const after = performance.now();
    if (after - before >= closest) continue;
    closest = after - before;
    origin = Math.round(ns - ((before + after) / 2) * 1e6);
  }
  return origin;
}
