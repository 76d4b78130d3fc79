/** Noise that is added to speech: drawn, or out of a folder of audio. */
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { DistilWhisperError, fileReadError } from '../errors/index.js';
import { kernels, type Stream, type Tensor } from '../tensor/index.js';
import { SAMPLE_RATE } from './features.js';
import type { DecodePool } from './pool.js';

/** Which files of a folder are taken for audio: what else lies there (lists, licences) is left alone. */
const AUDIO = /\.(wav|flac|mp3|ogg|oga|opus|m4a|aac|wma|aiff?|webm|mp4)$/i;
/** Of decoded noise in memory, about. */
const NOISE_BYTES = 256 << 20;

/** What the last of these tensors holds. */
async function valuesOf(made: readonly Tensor[]): Promise<Float32Array> {
  try {
    return (await made[made.length - 1]!.read()) as Float32Array;
  } finally {
    for (const tensor of made) tensor.dispose();
  }
}

/** Samples at another rate; `from` and `to` in whole Hz. */
export function resampled(stream: Stream, samples: Float32Array, from: number, to: number): Promise<Float32Array> {
  const input = stream.tensor(samples, [samples.length]);
  return valuesOf([input, kernels.resample(stream, { samples: input, from, to }).resampled]);
}

/** White noise: N(0, 1), the Philox draw (seed, step, op). */
export const whiteNoise = (stream: Stream, draw: kernels.RandomArguments): Promise<Float32Array> =>
  valuesOf([kernels.randomNormal(stream, draw).values]);

/** Pink noise out of white, in place: power falls by 3 dB an octave (Kellet's filter: to 0.05 dB above 9 Hz at 44.1 kHz). */
export function pink(white: Float32Array): Float32Array {
  let [b0, b1, b2, b3, b4, b5, b6] = [0, 0, 0, 0, 0, 0, 0];
  for (let i = 0; i < white.length; i++) {
    const x = white[i]!;
    b0 = 0.99886 * b0 + 0.0555179 * x;
    b1 = 0.99332 * b1 + 0.0750759 * x;
    b2 = 0.969 * b2 + 0.153852 * x;
    b3 = 0.8665 * b3 + 0.3104856 * x;
    b4 = 0.55 * b4 + 0.5329522 * x;
    b5 = -0.7616 * b5 - 0.016898 * x;
    white[i] = b0 + b1 + b2 + b3 + b4 + b5 + b6 + 0.5362 * x;
    b6 = 0.115926 * x;
  }
  return white;
}

const power = (samples: Float32Array): number => {
  let sum = 0;
  for (let i = 0; i < samples.length; i++) sum += samples[i]! * samples[i]!;
  return sum / samples.length;
};

/** Speech with noise `snr` dB below its mean power, in an array of its own; the speech itself where one of them is silent. */
export function mixed(speech: Float32Array, noise: Float32Array, snr: number): Float32Array {
  const factor = Math.sqrt(power(speech) / (power(noise) * 10 ** (snr / 10)));
  if (!Number.isFinite(factor)) return speech;
  return speech.map((x, i) => x + factor * noise[i]!);
}

/** The audio files of a folder and of those in it, in the order of their names; decoded when they are asked for. */
export class NoiseFiles {
  /** Names within the folder, and bytes. */
  readonly files: readonly (readonly [name: string, size: number])[];
  /** The one that was not used for longest first. */
  private readonly held = new Map<number, Float32Array>();
  private bytes = 0;

  /** Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ; ERR_ARGUMENT (no audio in it). */
  constructor(readonly folder: string) {
    try {
      const names = (readdirSync(folder, { recursive: true, encoding: 'utf8' }) as string[])
        .map((name) => name.replaceAll('\\', '/'))
        .filter((name) => AUDIO.test(name));
      names.sort();
      this.files = names.map((name) => [name, statSync(join(folder, name)).size] as const);
    } catch (error) {
      throw fileReadError(error, folder);
    }
    if (this.files.length > 0) return;
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `noiseFolder: expected a folder with audio files, got none in ${folder}`,
    );
  }

  /** Bytes of decoded noise that may still come to be held. */
  get missingBytes(): number {
    return this.held.size === this.files.length ? 0 : Math.max(0, NOISE_BYTES - this.bytes);
  }

  /** Noise of `length` samples from file `file`, from a place on that `share` of [0, 1) says, round and round. Errors: those of `decodeAudio`. */
  async excerpt(file: number, share: number, length: number, pool: DecodePool): Promise<Float32Array> {
    const all = await this.samples(file, pool);
    // Where it is long enough, it is not cut by its end.
    const room = all.length > length ? all.length - length + 1 : all.length;
    let from = Math.floor(share * room);
    const noise = new Float32Array(length);
    for (let at = 0; at < length; from = 0) {
      const piece = all.subarray(from, from + length - at);
      noise.set(piece, at);
      at += piece.length;
    }
    return noise;
  }

  /** Decodes each file once. Errors: those of `decodeAudio`; ERR_INTERRUPTED. */
  async check(pool: DecodePool, signal?: AbortSignal): Promise<void> {
    for (const file of this.files.keys()) {
      if (signal?.aborted) {
        throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted while the noise was checked; nothing was written');
      }
      await this.samples(file, pool);
    }
  }

  private async samples(file: number, pool: DecodePool): Promise<Float32Array> {
    const here = this.held.get(file);
    if (here) {
      this.held.delete(file);
      this.held.set(file, here);
      return here;
    }
    const { samples } = await pool.decode(join(this.folder, this.files[file]![0]), { sampleRate: SAMPLE_RATE });
    if (!this.held.has(file)) {
      this.held.set(file, samples);
      this.bytes += samples.byteLength;
    }
    for (const [oldest, { byteLength }] of this.held) {
      if (this.bytes <= NOISE_BYTES || oldest === file) break;
      this.held.delete(oldest);
      this.bytes -= byteLength;
    }
    return samples;
  }
}
