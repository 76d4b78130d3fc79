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

/** One array of all pieces; the list is emptied on the way, so that they can be freed. */
export function join(pieces: Float32Array[]): Float32Array {
  if (pieces.length === 1) return pieces.pop()!;
  const joined = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (let piece = pieces.shift(); piece; piece = pieces.shift()) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}
