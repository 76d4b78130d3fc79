/** Resampling in pieces, equal to the last bit to resampling the whole. */
import { kernels, type Stream, type Tensor } from '../tensor/index.js';

/** Half the length of the kernel's sinc, in samples of the lower rate (native/core/audio.h). */
const SINC_HALF = 64;
/** Samples that are waited for: a call makes its table of coefficients anew, which is then a small part of it. */
const AT_ONCE = 1 << 18;

export class Resampler {
  /** to / from in lowest terms is up / down: output j stands at j · down / up input samples. */
  private readonly up: number;
  private readonly down: number;
  /** Input samples that an output reads to each side. */
  private readonly reach: number;
  private held: Float32Array[] = [];
  private heldLength = 0;
  /** The first held sample's index in the input, a multiple of `down`. */
  private start = 0;
  /** Index of the next output. */
  private next = 0;

  /** Rates in whole Hz. The kernel runs on `stream`. */
  constructor(
    private readonly stream: Stream,
    private readonly from: number,
    private readonly to: number,
  ) {
    let [divisor, rest] = [from, to];
    while (rest !== 0) [divisor, rest] = [rest, divisor % rest];
    this.up = to / divisor;
    this.down = from / divisor;
    this.reach = Math.ceil(SINC_HALF * Math.max(1, from / to));
  }

  /** Takes the next samples; returns what they complete, which may be nothing yet. */
  async push(samples: Float32Array): Promise<Float32Array> {
    this.held.push(samples);
    this.heldLength += samples.length;
    return this.heldLength < AT_ONCE + 2 * this.reach + this.down ? new Float32Array(0) : this.run(false);
  }

  /** What is left when the input has ended: ceil(n · to / from) outputs have then come of n samples. */
  async end(): Promise<Float32Array> {
    return this.heldLength === 0 ? new Float32Array(0) : this.run(true);
  }

  private async run(last: boolean): Promise<Float32Array> {
    const { stream, up, down, reach } = this;
    const samples = new Float32Array(this.heldLength);
    let at = 0;
    for (const piece of this.held) {
      samples.set(piece, at);
      at += piece.length;
    }
    const base = (this.start / down) * up;
    const made: Tensor[] = [];
    let outputs: Float32Array;
    try {
      const input = stream.tensor(samples, [samples.length]);
      made.push(input);
      const { resampled } = kernels.resample(stream, { samples: input, from: this.from, to: this.to });
      made.push(resampled);
      outputs = (await resampled.read()) as Float32Array;
    } finally {
      for (const tensor of made) tensor.dispose();
    }
    // Outputs near the end of what is held wait for the samples that follow.
    const whole = last ? outputs.length : Math.ceil(((samples.length - reach - 1) * up) / down);
    const ready = outputs.slice(this.next - base, whole);
    this.next = base + whole;
    const needed = Math.floor((this.next * down) / up) - reach - this.start;
    const drop = Math.max(0, Math.floor(needed / down) * down);
    this.held = last ? [] : [samples.slice(drop)];
    this.heldLength = last ? 0 : samples.length - drop;
    this.start += drop;
    return ready;
  }
}
