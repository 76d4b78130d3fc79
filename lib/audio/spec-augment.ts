/** SpecAugment (Park et al. 2019): stretches of frames and bands of frequencies of log-mel features that are not heard. */

/** How many masks, of what length: names and meaning of Hugging Face's Whisper (`_compute_mask_indices`). */
export interface MaskOptions {
  /** Share of the positions that the masks would cover, did they not overlap. */
  prob: number;
  /** Positions of a mask. */
  length: number;
  /** At least so many masks, where there is room for them. */
  minMasks: number;
}

/**
 * Where masks begin on `heard` of `positions` positions: prob · heard / length of them, rounded up or down at random, no two at
 * one place; they may overlap. `draw`: numbers of [0, 1).
 */
export function maskStarts(
  heard: number,
  positions: number,
  { prob, length, minMasks }: MaskOptions,
  draw: () => number,
): number[] {
  const room = heard - (length - 1);
  let masks = Math.max(Math.floor((prob * heard) / length + draw()), minMasks);
  if (masks * length > positions) masks = Math.floor(positions / length);
  masks = Math.min(masks, Math.max(room, 0));
  // The first of a shuffle of all places, of which only those are kept that were moved.
  const moved = new Map<number, number>();
  return Array.from({ length: masks }, (_, i) => {
    const j = i + Math.floor(draw() * (room - i));
    const start = moved.get(j) ?? j;
    moved.set(j, moved.get(i) ?? i);
    return start;
  });
}

/** A copy of features [mels, frames] of which `heard` frames hold audio, with those masked that begin there: 0, as Hugging Face does. */
export function masked(
  features: Float32Array,
  { mels, heard }: { mels: number; heard: number },
  time: { starts: readonly number[]; length: number },
  feature: { starts: readonly number[]; length: number },
): Float32Array {
  const copy = features.slice();
  const frames = features.length / mels;
  for (let mel = 0; mel < mels; mel++) {
    const row = mel * frames;
    for (const start of time.starts) copy.fill(0, row + start, row + start + time.length);
  }
  for (const start of feature.starts) {
    for (let mel = start; mel < start + feature.length; mel++) copy.fill(0, mel * frames, mel * frames + heard);
  }
  return copy;
}
