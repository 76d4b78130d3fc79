import type { SampleReader } from './sample-reader.js';

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
  /** Nothing of the source lies behind it. */
  last: boolean;
}

/** A way to choose the windows of a source. */
export interface WindowChooser {
  /**
   * The window of `audio` that is heard from `position` (a sample) on, which lies nowhere before that of the call before. Where
   * the source has ended before, the window is empty. Errors: those of `SampleReader.read`.
   */
  window(audio: SampleReader, position: number): Promise<Cut>;
}

/**
 * Windows of at most `seconds`, each but the last cut at the quietest point of its last quarter: the middle of the 20 ms frame
 * whose neighbourhood of 100 ms has the least energy (the later one of equals).
 */
export class PauseWindows implements WindowChooser {
  constructor(private readonly seconds: number) {}

  async window(audio: SampleReader, position: number): Promise<Cut> {
    const longest = samplesOf(this.seconds, audio.sampleRate);
    // One sample more tells that it is not the last.
    const samples = await audio.read(position, longest + 1);
    const length = untilPause(samples, longest, audio.sampleRate);
    const last = length === samples.length;
    return { begin: position, end: position + length, samples: samples.subarray(0, length), last };
  }
}

/** The windows of a whole clip, as `PauseWindows` cuts them. */
export function cutWindows(samples: Float32Array, sampleRate: number, seconds: number): Window[] {
  const longest = samplesOf(seconds, sampleRate);
  const windows: Window[] = [];
  let end = 0;
  do {
    const begin = end;
    end += untilPause(samples.subarray(begin, begin + longest + 1), longest, sampleRate);
    windows.push({ begin, end });
  } while (end < samples.length);
  return windows;
}

const samplesOf = (seconds: number, sampleRate: number): number => Math.max(1, Math.floor(seconds * sampleRate));

/** How many of `samples` the window takes that begins with them: all, if they are no more than `longest`. */
const untilPause = (samples: Float32Array, longest: number, sampleRate: number): number =>
  samples.length <= longest
    ? samples.length
    : quietest(samples, Math.floor(SEARCH_FROM * longest), longest, sampleRate);

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
