/** RIFF/WAVE: the container is read and checked here (the sample formats are the decoder package's), and written for tools and tests. */
import { decoder } from '@audio/decode-wav';
import { DistilWhisperError } from '../errors/index.js';

/** Sizes that streaming writers leave when they cannot go back and fill in the real one (ffmpeg: all ones; sox: 2^31 − 4096 and up). */
const PLACEHOLDER = 0x7ffff000;
const CODECS: Record<number, string> = {
  1: 'pcm',
  2: 'ms-adpcm',
  3: 'float',
  6: 'a-law',
  7: 'mu-law',
  17: 'ima-adpcm',
};

export interface WavLayout {
  /** The wave format tag (of the sub-format for WAVE_FORMAT_EXTENSIBLE). */
  tag: number;
  /** Undefined when the tag is none that is decoded here. */
  codec: string | undefined;
  channels: number;
  sampleRate: number;
  blockAlign: number;
  bits: number;
  format: Uint8Array;
  data: Uint8Array;
}

const bad = (name: string, what: string) => new DistilWhisperError('ERR_AUDIO_FORMAT', `${name}: ${what}`);

/**
 * Finds the format and data chunks of a WAV file.
 * @throws ERR_AUDIO_FORMAT if a chunk is missing, contradicts itself or is cut short; ERR_AUDIO_EMPTY if there is no sample.
 */
export function wavLayout(bytes: Uint8Array, name: string): WavLayout {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.length < 12) throw bad(name, `truncated WAV: ${bytes.length} bytes are shorter than its header`);
  let format: Uint8Array | undefined;
  for (let at = 12; at + 8 <= bytes.length; ) {
    const id = String.fromCharCode(...bytes.subarray(at, at + 4));
    const size = view.getUint32(at + 4, true);
    const from = at + 8;
    if (id === 'fmt ') {
      if (size < 16) throw bad(name, `the WAV format chunk has ${size} bytes, expected at least 16`);
      if (from + size > bytes.length) throw bad(name, 'truncated WAV: the format chunk is cut short');
      format = bytes.subarray(from, from + size);
    } else if (id === 'data') {
      if (!format) throw bad(name, 'the WAV data chunk comes before any format chunk');
      if (size === 0) throw new DistilWhisperError('ERR_AUDIO_EMPTY', `${name}: the WAV data chunk holds no samples`);
      const left = bytes.length - from;
      if (size > left && size < PLACEHOLDER)
        throw bad(name, `truncated WAV: the data chunk announces ${size} bytes and ${left} follow`);
      return layout(format, bytes.subarray(from, from + Math.min(size, left)), name);
    }
    at = from + size + (size & 1);
  }
  throw bad(name, `truncated WAV: ${format ? 'no data chunk' : 'no format chunk'} was found`);
}

function layout(format: Uint8Array, data: Uint8Array, name: string): WavLayout {
  const view = new DataView(format.buffer, format.byteOffset, format.byteLength);
  let tag = view.getUint16(0, true);
  if (tag === 0xfffe) {
    if (format.length < 40)
      throw bad(name, `an extensible WAV format chunk needs 40 bytes, this one has ${format.length}`);
    tag = view.getUint16(24, true);
  }
  const channels = view.getUint16(2, true);
  const sampleRate = view.getUint32(4, true);
  const blockAlign = view.getUint16(12, true);
  const bits = view.getUint16(14, true);
  const codec = CODECS[tag];
  if (channels === 0) throw bad(name, 'the WAV format chunk announces 0 channels');
  if (blockAlign === 0) throw bad(name, 'the WAV format chunk announces frames of 0 bytes');
  if (codec === 'pcm' || codec === 'float' || codec === 'a-law' || codec === 'mu-law') {
    const expected = codec === 'pcm' ? [8, 16, 24, 32] : codec === 'float' ? [32, 64] : [8];
    if (!expected.includes(bits))
      throw bad(name, `${bits} bits a sample in ${codec} WAV, expected ${expected.join(', ')}`);
    if (blockAlign !== (channels * bits) / 8)
      throw bad(name, `WAV frames of ${blockAlign} bytes contradict ${channels} channels of ${bits} bits`);
    if (data.length < blockAlign)
      throw new DistilWhisperError('ERR_AUDIO_EMPTY', `${name}: the WAV data chunk holds no whole frame`);
  }
  return { tag, codec, channels, sampleRate, blockAlign, bits, format, data };
}

/** Planar samples of a WAV file whose layout was checked. Integers are scaled by 2^-(bits-1), as Whisper's features expect. */
export function decodeWav(wav: WavLayout): Float32Array[] {
  // The package is fed a canonical header (it does not skip the padding byte of odd-sized chunks), then the data without a copy.
  const header = new Uint8Array(28 + wav.format.length);
  const view = new DataView(header.buffer);
  header.set([0x52, 0x49, 0x46, 0x46, 0xff, 0xff, 0xff, 0xff, 0x57, 0x41, 0x56, 0x45, 0x66, 0x6d, 0x74, 0x20]);
  view.setUint32(16, wav.format.length, true);
  header.set(wav.format, 20);
  header.set([0x64, 0x61, 0x74, 0x61], 20 + wav.format.length);
  view.setUint32(24 + wav.format.length, wav.data.length, true);
  const wavDecoder = decoder();
  try {
    wavDecoder.decode(header);
    const channels = wavDecoder.decode(wav.data).channelData;
    if (wav.codec === 'pcm' && wav.bits <= 24) rescale(channels, wav.bits, 'positive');
    return channels;
  } finally {
    wavDecoder.free();
  }
}

/**
 * The decoders of integer formats divide by 2^(bits-1) − 1: the WAV package positive codes only, the FLAC one both signs. This
 * brings back the usual scale, 2^(bits-1) for both signs: exactly up to 16 bits, to the last float32 digit above.
 */
export function rescale(channels: Float32Array[], bits: number, signs: 'positive' | 'both'): void {
  const full = 2 ** (bits - 1);
  for (const channel of channels)
    for (let i = 0; i < channel.length; i++) {
      const x = channel[i]!;
      if (x > 0 || signs === 'both') channel[i] = Math.round(x * (full - 1)) / full;
    }
}

/**
 * Writes mono samples as a WAV file.
 * @param samples -1..1; values outside are clipped in `pcm16` and kept in `float32`
 * @param sampleRate in Hz
 * @throws ERR_AUDIO_SAMPLES for NaN or infinite samples in `pcm16`; ERR_ARGUMENT for a sample rate that WAV cannot hold
 */
export function encodeWav(
  samples: Float32Array,
  sampleRate: number,
  format: 'pcm16' | 'float32' = 'pcm16',
): Uint8Array {
  if (!Number.isInteger(sampleRate) || sampleRate <= 0 || sampleRate > 0xffffffff)
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `encodeWav: sampleRate must be a whole number of Hz, got ${sampleRate}`,
    );
  const width = format === 'pcm16' ? 2 : 4;
  const bytes = new Uint8Array(44 + samples.length * width);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode('RIFF....WAVEfmt '));
  view.setUint32(4, bytes.length - 8, true);
  view.setUint32(16, 16, true);
  view.setUint16(20, format === 'pcm16' ? 1 : 3, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, sampleRate, true);
  view.setUint32(28, sampleRate * width, true);
  view.setUint16(32, width, true);
  view.setUint16(34, width * 8, true);
  bytes.set([0x64, 0x61, 0x74, 0x61], 36);
  view.setUint32(40, samples.length * width, true);
  for (let i = 0; i < samples.length; i++) {
    const x = samples[i]!;
    if (width === 4) {
      view.setFloat32(44 + 4 * i, x, true);
    } else {
      if (!Number.isFinite(x)) throw new DistilWhisperError('ERR_AUDIO_SAMPLES', `encodeWav: sample ${i} is ${x}`);
      view.setInt16(44 + 2 * i, Math.max(-32768, Math.min(32767, Math.round(x * 32768))), true);
    }
  }
  return bytes;
}
