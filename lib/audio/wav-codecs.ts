/** The sample formats of WAV: blocks of bytes, at any address, to planar samples. Integers are scaled by 2^-(bits-1). */
import { checkChannels, type ReaderContext, refusal, UnknownCodec } from './reader.js';

export interface WavCodec {
  channels: number;
  /** In Hz. */
  sampleRate: number;
  /** Bytes of a block: a frame (one sample of every channel), or a block of ADPCM. */
  block: number;
  /** Samples of one channel in a block. */
  perBlock: number;
  /** Samples of one channel in a last block that was cut to `bytes`. */
  inPart(bytes: number): number;
  /** Decodes whole blocks, the last one possibly cut. `samples`: of one channel, what these blocks hold. */
  decode(bytes: Uint8Array, samples: number): Float32Array[];
}

const FORMATS: Record<number, string> = {
  1: 'PCM',
  2: 'MS ADPCM',
  3: 'float',
  6: 'A-law',
  7: 'µ-law',
  17: 'IMA ADPCM',
};

/**
 * Reads a format chunk (16 bytes or more; big endian in RIFX).
 * @throws ERR_AUDIO_FORMAT for formats that are not read here and for sizes that contradict each other
 */
export function wavCodec(chunk: Uint8Array, bigEndian: boolean, context: ReaderContext): WavCodec {
  const view = new DataView(chunk.buffer, chunk.byteOffset, chunk.byteLength);
  const u16 = (at: number) => view.getUint16(at, !bigEndian);
  let tag = u16(0);
  if (tag === 0xfffe) {
    if (chunk.length < 40)
      throw refusal(context, `an extensible WAV format chunk needs 40 bytes, this one has ${chunk.length}`);
    tag = u16(24);
  }
  const format = FORMATS[tag];
  const channels = u16(2);
  const sampleRate = view.getUint32(4, !bigEndian);
  const byteRate = view.getUint32(8, !bigEndian);
  const block = u16(12);
  const bits = u16(14);
  if (!format) throw new UnknownCodec(context, `WAV with format tag 0x${tag.toString(16)}`);
  checkChannels(channels, context);
  if (block === 0) throw refusal(context, 'the WAV format chunk announces frames of 0 bytes');
  const common = { channels, sampleRate };
  if (format === 'IMA ADPCM' || format === 'MS ADPCM') {
    if (bigEndian) throw new UnknownCodec(context, `${format} in a big-endian WAV file`);
    return { ...common, ...(format === 'IMA ADPCM' ? ima : ms)(view, channels, block, context) };
  }
  const expected = { PCM: [8, 12, 16, 20, 24, 32], float: [32, 64] }[format] ?? [8];
  // Of the odd widths 12 and 20 are common; any other is left-justified in its bytes all the same.
  if (format === 'PCM' ? bits < 1 || bits > 32 : !expected.includes(bits))
    throw refusal(context, `${bits} bits a sample in ${format} WAV, expected ${expected.join(', ')}`);
  let width = Math.ceil(bits / 8);
  if (block !== width * channels) {
    const wide = block / channels;
    // 24 bits in 4 bytes, left-justified. The rate of bytes tells such a container from a wrong block size.
    if (format === 'PCM' && wide > width && (wide === 3 || wide === 4) && byteRate === sampleRate * block) width = wide;
    else
      context.warn(
        `WAV frames of ${block} bytes contradict ${channels} channels of ${bits} bits: read as ${width * channels} bytes`,
      );
  }
  const read =
    format === 'PCM' ? integers(width, bigEndian) : format === 'float' ? floats(width, bigEndian) : g711[tag]!;
  return {
    ...common,
    block: width * channels,
    perBlock: 1,
    inPart: () => 0,
    decode(bytes, samples) {
      const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      return Array.from({ length: channels }, (_, channel) =>
        read(data, channel * width, channels * width, new Float32Array(samples)),
      );
    },
  };
}

/** Reads one channel: the first sample at `at`, each next one `step` bytes on. */
type ReadChannel = (data: DataView, at: number, step: number, to: Float32Array) => Float32Array;

/** Samples of up to 8 bits are unsigned, wider ones signed and left-justified in their bytes. */
function integers(width: number, bigEndian: boolean): ReadChannel {
  const little = !bigEndian;
  const [b0, b1, b2] = little ? [0, 1, 2] : [2, 1, 0];
  return (data, at, step, to) => {
    const n = to.length;
    if (width === 1) for (let i = 0; i < n; i++, at += step) to[i] = (data.getUint8(at) - 128) / 128;
    else if (width === 2) for (let i = 0; i < n; i++, at += step) to[i] = data.getInt16(at, little) / 32768;
    else if (width === 4) for (let i = 0; i < n; i++, at += step) to[i] = data.getInt32(at, little) / 2147483648;
    else
      for (let i = 0; i < n; i++, at += step)
        to[i] = ((data.getInt8(at + b2!) << 16) | (data.getUint8(at + b1!) << 8) | data.getUint8(at + b0!)) / 8388608;
    return to;
  };
}

function floats(width: number, bigEndian: boolean): ReadChannel {
  return (data, at, step, to) => {
    if (width === 4) for (let i = 0; i < to.length; i++, at += step) to[i] = data.getFloat32(at, !bigEndian);
    else for (let i = 0; i < to.length; i++, at += step) to[i] = data.getFloat64(at, !bigEndian);
    return to;
  };
}

/** ITU-T G.711, by format tag: 16-bit values of all codes. */
const g711: Record<number, ReadChannel> = {
  6: table((code) => {
    const even = code ^ 0x55;
    const segment = (even >> 4) & 7;
    const magnitude = ((even & 15) << 4) + 8;
    const value = segment ? (magnitude + 256) << (segment - 1) : magnitude;
    return even & 0x80 ? value : -value;
  }),
  7: table((code) => {
    const inverse = ~code & 255;
    const value = (((inverse & 15) << 3) + 132) << ((inverse >> 4) & 7);
    return inverse & 0x80 ? 132 - value : value - 132;
  }),
};

function table(value: (code: number) => number): ReadChannel {
  const values = Float32Array.from({ length: 256 }, (_, code) => value(code) / 32768);
  return (data, at, step, to) => {
    for (let i = 0; i < to.length; i++, at += step) to[i] = values[data.getUint8(at)]!;
    return to;
  };
}

// ---- ADPCM ----

type BlockCodec = Pick<WavCodec, 'block' | 'perBlock' | 'inPart' | 'decode'>;

/** The samples that a block has room for, checked against what the format chunk announces (0: nothing). */
function samplesPerBlock(view: DataView, room: number, block: number, context: ReaderContext): number {
  const announced = view.byteLength >= 20 ? view.getUint16(18, true) : 0;
  // Unchecked, blocks of 4 bytes that announce 65,535 samples would make gigabytes of a small file.
  if (announced > room || room < 1)
    throw refusal(
      context,
      `WAV blocks of ${block} bytes have room for ${Math.max(0, room)} samples and announce ${announced}`,
    );
  return announced || room;
}

/** A codec of blocks that each hold `perBlock` samples of every channel; `put` writes those of one into to[first, last). */
function blockCodec(
  { block, perBlock, inPart }: Omit<BlockCodec, 'decode'>,
  channels: number,
  put: (data: DataView, from: number, channel: number, to: Float32Array, first: number, last: number) => void,
): BlockCodec {
  return {
    block,
    perBlock,
    inPart: (bytes) => Math.min(perBlock, inPart(bytes)),
    decode(bytes, samples) {
      const data = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
      const output = Array.from({ length: channels }, () => new Float32Array(samples));
      for (let from = 0, first = 0; first < samples; from += block, first += perBlock) {
        const last = Math.min(first + perBlock, samples);
        for (const [channel, to] of output.entries()) put(data, from, channel, to, first, last);
      }
      return output;
    },
  };
}

const IMA_STEPS = Int16Array.of(
  ...[7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97, 107],
  ...[118, 130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796, 876],
  ...[963, 1060, 1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660, 4026, 4428, 4871, 5358],
  ...[5894, 6484, 7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623, 27086],
  ...[29794, 32767],
);
const IMA_MOVES = [-1, -1, -1, -1, 2, 4, 6, 8];

const clamp16 = (value: number) => Math.max(-32768, Math.min(32767, value));

/**
 * IMA ADPCM: a block has for each channel a first sample (i16), the index of a step and a zero byte; then words of 4 bytes, one
 * for each channel in turn, of 8 codes, low half first.
 */
function ima(view: DataView, channels: number, block: number, context: ReaderContext): BlockCodec {
  const inPart = (bytes: number) => (bytes < 4 * channels ? 0 : 1 + 8 * Math.floor(bytes / (4 * channels) - 1));
  const perBlock = samplesPerBlock(view, inPart(block), block, context);
  return blockCodec({ block, perBlock, inPart }, channels, (data, from, channel, to, first, last) => {
    let at = from + 4 * channel;
    let value = data.getInt16(at, true);
    let index = Math.min(data.getUint8(at + 2), 88);
    to[first] = value / 32768;
    for (let i = first + 1, code = 0; i < last; i++, code++) {
      if ((code & 7) === 0) at += 4 * channels;
      const byte = data.getUint8(at + ((code & 7) >> 1));
      const bits = code & 1 ? byte >> 4 : byte & 15;
      const change = ((2 * (bits & 7) + 1) * IMA_STEPS[index]!) >> 3;
      value = clamp16(bits & 8 ? value - change : value + change);
      index = Math.max(0, Math.min(88, index + IMA_MOVES[bits & 7]!));
      to[i] = value / 32768;
    }
  });
}

const MS_SCALES = [230, 230, 230, 230, 307, 409, 512, 614, 768, 614, 512, 409, 307, 230, 230, 230];
const MS_PREDICTORS = [256, 0, 512, -256, 0, 0, 192, 64, 240, 0, 460, -208, 392, -232];

/**
 * Microsoft's ADPCM: a block has the predictors of all channels (u8), then their step sizes, second samples and first samples
 * (i16); then codes, high half first, the channels in turn.
 */
function ms(view: DataView, channels: number, block: number, context: ReaderContext): BlockCodec {
  if (channels > 2) throw refusal(context, `MS ADPCM of ${channels} channels, expected 1 or 2`);
  const inPart = (bytes: number) =>
    bytes < 7 * channels ? 0 : 2 + Math.floor(((bytes - 7 * channels) * 2) / channels);
  const perBlock = samplesPerBlock(view, inPart(block), block, context);
  const count = view.byteLength >= 22 ? Math.min(view.getUint16(20, true), (view.byteLength - 22) >> 2) : 0;
  const predictors = count
    ? Array.from({ length: 2 * count }, (_, i) => view.getInt16(22 + 2 * i, true))
    : MS_PREDICTORS;
  return blockCodec({ block, perBlock, inPart }, channels, (data, from, channel, to, first, last) => {
    const i16 = (row: number) => data.getInt16(from + channels + 2 * (row * channels + channel), true);
    const predictor = 2 * Math.min(data.getUint8(from + channel), predictors.length / 2 - 1);
    const [near, far] = [predictors[predictor]!, predictors[predictor + 1]!];
    let [step, before, beforeThat] = [i16(0), i16(1), i16(2)];
    to[first] = beforeThat / 32768;
    if (first + 1 < last) to[first + 1] = before / 32768;
    for (let i = first + 2, code = channel; i < last; i++, code += channels) {
      const byte = data.getUint8(from + 7 * channels + (code >> 1));
      const bits = code & 1 ? byte & 15 : byte >> 4;
      const signed = bits >= 8 ? bits - 16 : bits;
      const value = clamp16(((before * near + beforeThat * far) >> 8) + signed * step);
      beforeThat = before;
      before = value;
      step = Math.max(16, (MS_SCALES[bits]! * step) >> 8);
      to[i] = value / 32768;
    }
  });
}
