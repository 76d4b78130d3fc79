/** Part of a clip, in samples: [begin, end). */
export interface Window {
  begin: number;
  end: number;
}

/** Where in a window, as a share of it, the search for a pause begins. */
const SEARCH_FROM = 0.75;
/** Seconds of a frame whose energy is measured, and frames that are averaged: a pause, not the gap inside a plosive. */
const FRAME = 0.02;
const SMOOTH = 5;

/**
 * Cuts a clip into windows of at most `seconds`, each but the last at the quietest point of its last quarter: the middle of the
 * 20 ms frame whose neighbourhood of 100 ms has the least energy (the later one of equals).
 */
export function cutWindows(samples: Float32Array, sampleRate: number, seconds: number): Window[] {
  const longest = Math.max(1, Math.floor(seconds * sampleRate));
  const windows: Window[] = [];
  let begin = 0;
  while (samples.length - begin > longest) {
    const end = quietest(samples, begin + Math.floor(SEARCH_FROM * longest), begin + longest, sampleRate);
    windows.push({ begin, end });
    begin = end;
  }
  windows.push({ begin, end: samples.length });
  return windows;
}

/** The quietest point in (from, to], `to` if no whole frame fits. */
function quietest(samples: Float32Array, from: number, to: number, sampleRate: number): number {
  const frame = Math.max(1, Math.round(FRAME * sampleRate));
  const count = Math.floor((to - from) / frame);
  const energies = Array.from({ length: count }, (_, f) => {
    let energy = 0;
    for (let i = from + f * frame; i < from + (f + 1) * frame; i++) energy += samples[i]! ** 2;
    return energy;
  });
  const width = Math.min(SMOOTH, count);
  let least = Number.POSITIVE_INFINITY;
  let at = to;
  for (let f = 0; f + width <= count; f++) {
    let energy = 0;
    for (let i = f; i < f + width; i++) energy += energies[i]!;
    if (energy > least) continue;
    least = energy;
    at = from + Math.max(1, Math.floor((f + width / 2) * frame));
  }
  return at;
}
