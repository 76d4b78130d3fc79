/** Plain signal processing for the corpus: WAV in and out, resampling, trimming, noise, equaliser, reverberation. */
import type { Random } from './random.js';

export const RATE = 16000;

export interface Sound {
  samples: Float32Array;
  rate: number;
}

/** Reads 16-bit mono PCM from a WAV as synthesisers write it, also to a pipe, where its sizes are not known. */
export function parseWav(bytes: Buffer): Sound {
  if (bytes.length < 12 || bytes.toString('latin1', 0, 4) !== 'RIFF') throw new Error('the synthesiser wrote no WAV');
  let rate = 0;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const name = bytes.toString('latin1', at, at + 4);
    const size = bytes.readUInt32LE(at + 4);
    if (name === 'fmt ') {
      if (bytes.readUInt16LE(at + 10) !== 1 || bytes.readUInt16LE(at + 22) !== 16) {
        throw new Error('the synthesiser wrote something other than 16-bit mono');
      }
      rate = bytes.readUInt32LE(at + 12);
    }
    if (name === 'data') {
      const end = Math.min(at + 8 + size, bytes.length);
      const samples = new Float32Array((end - at - 8) >> 1);
      for (let i = 0; i < samples.length; i++) samples[i] = bytes.readInt16LE(at + 8 + 2 * i) / 32768;
      return { samples, rate };
    }
    at += 8 + size + (size & 1);
  }
  throw new Error('the synthesiser wrote a WAV without data');
}

/** 16-bit samples (in this machine's order, little-endian wherever the corpus is made). */
export function toPcm(samples: Float32Array): Buffer {
  const out = new Int16Array(samples.length);
  for (let i = 0; i < out.length; i++) {
    out[i] = Math.max(-32768, Math.min(32767, Math.round((samples[i] as number) * 32767)));
  }
  return Buffer.from(out.buffer);
}

export function toWav(samples: Float32Array): Buffer {
  const pcm = toPcm(samples);
  const header = Buffer.alloc(44);
  header.write('RIFF', 0, 'latin1');
  header.writeUInt32LE(36 + pcm.length, 4);
  header.write('WAVEfmt ', 8, 'latin1');
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20);
  header.writeUInt16LE(1, 22);
  header.writeUInt32LE(RATE, 24);
  header.writeUInt32LE(2 * RATE, 28);
  header.writeUInt16LE(2, 32);
  header.writeUInt16LE(16, 34);
  header.write('data', 36, 'latin1');
  header.writeUInt32LE(pcm.length, 40);
  return Buffer.concat([header, pcm]);
}

const HALF_WIDTH = 16;
const filters = new Map<string, { taps: Float32Array[]; reach: number }>();

/** The phases of a Hann-windowed sinc (16 zero crossings a side) for reading an input at every multiple of step/up. */
function polyphase(up: number, down: number): { taps: Float32Array[]; reach: number } {
  const key = `${up}/${down}`;
  const known = filters.get(key);
  if (known !== undefined) return known;
  const cutoff = Math.min(1, up / down) * 0.97;
  const reach = Math.ceil(HALF_WIDTH / cutoff);
  const taps = Array.from({ length: up }, (_, phase) => {
    const row = new Float32Array(2 * reach);
    for (let k = 0; k < row.length; k++) {
      const x = (k - reach + 1 - phase / up) * cutoff;
      if (Math.abs(x) >= HALF_WIDTH) continue;
      const window = 0.5 + 0.5 * Math.cos((Math.PI * x) / HALF_WIDTH);
      row[k] = cutoff * window * (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
    }
    return row;
  });
  filters.set(key, { taps, reach });
  return { taps, reach };
}

/** Band-limited resampling; `speed` above 1 also plays faster and higher, as a tape would (in steps of 1%). */
export function resample(sound: Sound, rate: number, speed = 1): Float32Array {
  let up = rate * 100;
  let down = sound.rate * Math.round(speed * 100);
  for (let a = up, b = down; ; [a, b] = [b, a % b]) {
    if (b !== 0) continue;
    up /= a;
    down /= a;
    break;
  }
  if (up === down) return sound.samples;
  const { taps, reach } = polyphase(up, down);
  const padded = new Float32Array(sound.samples.length + 2 * reach);
  padded.set(sound.samples, reach);
  const output = new Float32Array(Math.floor((sound.samples.length * up) / down));
  for (let i = 0; i < output.length; i++) {
    const position = i * down;
    const row = taps[position % up] as Float32Array;
    const first = Math.floor(position / up) + 1;
    let sum = 0;
    for (let k = 0; k < row.length; k++) sum += (padded[first + k] as number) * (row[k] as number);
    output[i] = sum;
  }
  return output;
}

/** Without the silence at both ends (below 1% of the peak). */
export function trim(samples: Float32Array): Float32Array {
  let peak = 0;
  for (const x of samples) peak = Math.max(peak, Math.abs(x));
  const floor = 0.01 * peak;
  let first = 0;
  let last = samples.length;
  while (first < last && Math.abs(samples[first] as number) <= floor) first++;
  while (last > first && Math.abs(samples[last - 1] as number) <= floor) last--;
  return samples.subarray(first, last);
}

function power(samples: Float32Array): number {
  let sum = 0;
  for (const x of samples) sum += x * x;
  return sum / Math.max(1, samples.length);
}

export type NoiseColour = 'white' | 'pink' | 'brown';

/** Noise of unit power whose spectrum falls by 0, about 3 or 6 dB an octave. */
function noise(length: number, colour: NoiseColour, random: Random): Float32Array {
  const out = new Float32Array(length);
  let slow = 0;
  let middle = 0;
  let fast = 0;
  for (let i = 0; i < length; i++) {
    // The sum of four uniform draws is close enough to normal and far cheaper.
    const white = random.next() + random.next() + random.next() + random.next() - 2;
    if (colour === 'white') out[i] = white;
    else if (colour === 'brown') out[i] = slow = 0.98 * slow + white;
    else {
      slow = 0.997 * slow + 0.03 * white;
      middle = 0.95 * middle + 0.1 * white;
      fast = 0.6 * fast + 0.3 * white;
      out[i] = slow + middle + fast + 0.15 * white;
    }
  }
  const scale = 1 / Math.sqrt(power(out) || 1);
  for (let i = 0; i < length; i++) out[i] = (out[i] as number) * scale;
  return out;
}

/** Adds noise at a signal-to-noise ratio in decibels. */
export function addNoise(samples: Float32Array, ratio: number, colour: NoiseColour, random: Random): void {
  const level = Math.sqrt(power(samples) * 10 ** (-ratio / 10));
  const added = noise(samples.length, colour, random);
  for (let i = 0; i < samples.length; i++) samples[i] = (samples[i] as number) + level * (added[i] as number);
}

/** First-order tilt: `amount` from -0.6 (dull) to 0.6 (thin), then a two-pole low pass at `cutoff` Hz. */
export function equalise(samples: Float32Array, amount: number, cutoff: number): void {
  const omega = (2 * Math.PI * cutoff) / RATE;
  const alpha = Math.sin(omega) / Math.SQRT2;
  const cos = Math.cos(omega);
  const b0 = (1 - cos) / 2 / (1 + alpha);
  const a1 = (-2 * cos) / (1 + alpha);
  const a2 = (1 - alpha) / (1 + alpha);
  let before = 0;
  let x1 = 0;
  let x2 = 0;
  let y1 = 0;
  let y2 = 0;
  for (let i = 0; i < samples.length; i++) {
    const x = (samples[i] as number) - amount * before;
    before = samples[i] as number;
    const y = b0 * (x + 2 * x1 + x2) - a1 * y1 - a2 * y2;
    x2 = x1;
    x1 = x;
    y2 = y1;
    y1 = y;
    samples[i] = y;
  }
}

/** A small room: sparse random echoes that fall by 60 dB in `seconds`, `wet` times as loud as the voice at first. */
export function reverberate(samples: Float32Array, seconds: number, wet: number, random: Random): Float32Array {
  const out = Float32Array.from(samples);
  const echoes = 60;
  for (let e = 0; e < echoes; e++) {
    const delay = Math.floor(random.uniform(0.004, seconds) * RATE);
    const gain = (random.chance(0.5) ? 1 : -1) * wet * 10 ** ((-3 * delay) / RATE / seconds) * 0.35;
    for (let i = delay; i < out.length; i++) out[i] = (out[i] as number) + gain * (samples[i - delay] as number);
  }
  return out;
}

/** Scales to a peak. */
export function scaleTo(samples: Float32Array, peak: number): void {
  let largest = 0;
  for (const x of samples) largest = Math.max(largest, Math.abs(x));
  const scale = largest === 0 ? 0 : peak / largest;
  for (let i = 0; i < samples.length; i++) samples[i] = (samples[i] as number) * scale;
}

const MU = 255;

/** A telephone: 8 kHz, 8 bits of μ-law. */
export function telephone(samples: Float32Array): Float32Array {
  const narrow = resample({ samples, rate: RATE }, RATE / 2);
  for (let i = 0; i < narrow.length; i++) {
    const x = Math.max(-1, Math.min(1, narrow[i] as number));
    const pressed = Math.round((127 * Math.log1p(MU * Math.abs(x))) / Math.log1p(MU)) / 127;
    narrow[i] = (Math.sign(x) * Math.expm1(pressed * Math.log1p(MU))) / MU;
  }
  const wide = resample({ samples: narrow, rate: RATE / 2 }, RATE);
  const out = new Float32Array(samples.length);
  out.set(wide.subarray(0, out.length));
  return out;
}
