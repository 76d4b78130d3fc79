/** What samples have to be, wherever they come from: a file, a pipe or a caller's memory. */
import { DistilWhisperError, type ErrorCode } from '../errors/index.js';

/** Beyond this the samples are surely integers that were stored as floats without scaling. */
const LARGEST_SAMPLE = 16;

/** Sample rates that are decoded and resampled, in Hz. */
const LOWEST_RATE = 1000;
const HIGHEST_RATE = 768000;

/** @throws ERR_AUDIO_SAMPLES for NaN, infinite or unscaled samples; `from` is the index of the first one in the whole */
export function checkSamples(samples: Float32Array, name: string, from = 0): void {
  for (let i = 0; i < samples.length; i++)
    if (!(Math.abs(samples[i]!) <= LARGEST_SAMPLE))
      throw new DistilWhisperError(
        'ERR_AUDIO_SAMPLES',
        `${name}: sample ${from + i} is ${samples[i]}; expected finite samples scaled to -1..1`,
      );
}

/** @throws `code` for a sample rate that is out of range or no whole number of Hz */
export function checkSampleRate(sampleRate: number, name: string, code: ErrorCode): void {
  if (!(Number.isInteger(sampleRate) && sampleRate >= LOWEST_RATE && sampleRate <= HIGHEST_RATE))
    throw new DistilWhisperError(
      code,
      `${name}: expected a sample rate of 1 to 768 kHz in whole Hz, got ${sampleRate} Hz`,
    );
}

/** Samples that come in pieces and shall be one array: written where they belong at once, where their number is known ahead. */
export class Samples {
  private readonly pieces: Float32Array[] = [];
  private array: Float32Array | null = null;
  private length = 0;

  constructor(expected = 0) {
    try {
      if (expected > 0) this.array = new Float32Array(expected);
    } catch {
      // More than there is memory for: what comes may be less.
    }
  }

  add(piece: Float32Array): void {
    if (this.array && this.length + piece.length <= this.array.length) this.array.set(piece, this.length);
    else {
      // More than was expected.
      if (this.array) this.pieces.push(this.array.subarray(0, this.length));
      this.array = null;
      this.pieces.push(piece);
    }
    this.length += piece.length;
  }

  /** All of them; to be asked once. The pieces are let go of on the way. */
  whole(): Float32Array {
    if (this.array) {
      const { length } = this.array;
      if (this.length === length) return this.array;
      // Of an array that is nearly full a view will do: a copy of hours is what shall not be made.
      return this.length > 0.95 * length ? this.array.subarray(0, this.length) : this.array.slice(0, this.length);
    }
    if (this.pieces.length === 1) return this.pieces.pop()!;
    const joined = new Float32Array(this.length);
    let at = 0;
    for (let piece = this.pieces.shift(); piece; piece = this.pieces.shift()) {
      joined.set(piece, at);
      at += piece.length;
    }
    return joined;
  }
}
