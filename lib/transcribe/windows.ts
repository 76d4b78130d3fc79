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

/** A window and its samples, which are its own until the next one is asked for. */
export interface Cut extends Window {
  samples: Float32Array;
}

/**
 * Cuts a clip that comes in pieces into windows of at most `seconds`, each but the last at the quietest point of its last quarter:
 * the middle of the 20 ms frame whose neighbourhood of 100 ms has the least energy (the later one of equals).
 */
export class WindowCutter {
  private readonly longest: number;
  /** Grows to a window and one sample: that it is not the last is known then. */
  private held = new Float32Array(0);
  private length = 0;
  private begin = 0;

  constructor(
    private readonly sampleRate: number,
    seconds: number,
  ) {
    this.longest = Math.max(1, Math.floor(seconds * sampleRate));
  }

  /** Takes the next samples, copied; gives the windows that are known not to be the last. */
  *push(samples: Float32Array): Generator<Cut, void, undefined> {
    const { longest, sampleRate } = this;
    for (let at = 0; at < samples.length; ) {
      const taken = Math.min(samples.length - at, longest + 1 - this.length);
      const held = this.room(this.length + taken);
      held.set(samples.subarray(at, at + taken), this.length);
      at += taken;
      this.length += taken;
      if (this.length <= longest) return;
      const end = quietest(held, Math.floor(SEARCH_FROM * longest), longest, sampleRate);
      yield this.cut(end);
      held.copyWithin(0, end, this.length);
      this.length -= end;
    }
  }

  /** What is left, when the clip has ended: its last window. */
  end(): Cut {
    return this.cut(this.length);
  }

  private room(length: number): Float32Array {
    const { held } = this;
    if (held.length >= length) return held;
    this.held = new Float32Array(Math.min(this.longest + 1, Math.max(length, 2 * held.length)));
    this.held.set(held.subarray(0, this.length));
    return this.held;
  }

  private cut(length: number): Cut {
    const { begin } = this;
    this.begin += length;
    return { begin, end: this.begin, samples: this.held.subarray(0, length) };
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
