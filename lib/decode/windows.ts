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

/** A window and its samples, in an array of their own. */
export interface Cut extends Window {
  samples: Float32Array;
}

/**
 * Cuts a clip that comes in pieces into windows of at most `seconds`, each but the last at the quietest point of its last quarter:
 * the middle of the 20 ms frame whose neighbourhood of 100 ms has the least energy (the later one of equals).
 */
export class WindowCutter {
  private readonly longest: number;
  private held: Float32Array[] = [];
  private length = 0;
  private begin = 0;

  constructor(
    private readonly sampleRate: number,
    seconds: number,
  ) {
    this.longest = Math.max(1, Math.floor(seconds * sampleRate));
  }

  /** Takes the next samples; returns the windows that are known not to be the last. */
  push(samples: Float32Array): Cut[] {
    const { longest, sampleRate } = this;
    this.held.push(samples);
    this.length += samples.length;
    const cuts: Cut[] = [];
    if (this.length <= longest) return cuts;
    let rest = this.joined();
    while (rest.length > longest) {
      const end = quietest(rest, Math.floor(SEARCH_FROM * longest), longest, sampleRate);
      cuts.push(this.cut(rest.slice(0, end)));
      rest = rest.subarray(end);
    }
    this.held = [rest.slice()];
    this.length = rest.length;
    return cuts;
  }

  /** What is left, when the clip has ended: its last window. */
  end(): Cut {
    return this.cut(this.joined());
  }

  private cut(samples: Float32Array): Cut {
    const { begin } = this;
    this.begin += samples.length;
    return { begin, end: this.begin, samples };
  }

  private joined(): Float32Array {
    if (this.held.length === 1) return this.held[0]!;
    const joined = new Float32Array(this.length);
    let at = 0;
    for (const piece of this.held) {
      joined.set(piece, at);
      at += piece.length;
    }
    return joined;
  }
}

/** The windows of a whole clip, as `WindowCutter` cuts them. */
export function cutWindows(samples: Float32Array, sampleRate: number, seconds: number): Window[] {
  const cutter = new WindowCutter(sampleRate, seconds);
  return [...cutter.push(samples), cutter.end()].map(({ begin, end }) => ({ begin, end }));
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
