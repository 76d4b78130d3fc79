/** RIFF/WAVE: the container is read and checked here, its sample formats in wav-codecs.ts; and it is written, for tools and tests. */
import { DistilWhisperError } from '../errors/index.js';
import type { ByteReader } from './bytes.js';
import { type AudioPieces, ascii, copy, LONGEST_PIECE, pieces, type ReaderContext, refusal } from './reader.js';
import { type WavCodec, wavCodec } from './wav-codecs.js';

/** Sizes that streaming writers leave when they cannot go back and fill in the real one (ffmpeg: all ones; sox: 2^31 − 4096 and up). */
const PLACEHOLDER = 0x7ffff000;
/** Chunks that writers put around the samples: behind the data chunk such an id is one, and not the samples going on. */
const KNOWN_CHUNKS = new Set(
  'fmt |data|fact|LIST|list|INFO|bext|cue |plst|labl|smpl|inst|acid|strc|cart|chna|axml|iXML|ixml|_PMX|aXML|ds64|JUNK|junk|PAD |FLLR|PEAK|DISP|id3 |ID3 |afsp|wavl|slnt|levl|link|minf|elm1|regn|umid|LGWV|RIFF|RIFX'.split(
    '|',
  ),
);
/** More than any format chunk has: 256 pairs of ADPCM predictors are 1 KiB. */
const LONGEST_FORMAT = 65536;
/** Bytes that are decoded at once. */
const WINDOW = 1 << 18;

/**
 * Opens a WAV file (RIFF, RIFX, RF64, BW64) with PCM, float, G.711 or ADPCM samples. Wrong sizes of the data chunk, several data
 * chunks and missing padding are read all the same, with a warning. 0xffffffff and its like are what a writer to a pipe leaves.
 * @throws ERR_AUDIO_FORMAT if a header is missing, contradicts itself or announces a format that is not read here;
 * ERR_AUDIO_EMPTY if there is no sample
 */
export async function openWav(reader: ByteReader, context: ReaderContext): Promise<AudioPieces> {
  const head = await reader.take(12);
  if (head.length < 12) throw refusal(context, `truncated WAV: ${head.length} bytes are shorter than its header`);
  const kind = ascii(head, 0, 4);
  if (!['RIFF', 'RIFX', 'RF64', 'BW64'].includes(kind) || ascii(head, 8, 12) !== 'WAVE')
    throw refusal(context, 'no WAV file: it does not begin with RIFF and WAVE');
  const data = new WavData(reader, kind === 'RIFX', context);
  await data.first();
  if (await reader.atEnd()) throw data.nothing();
  const codec = wavCodec(data.format!, data.bigEndian, context);
  const { block, perBlock } = codec;
  const known = Number.isFinite(data.left) ? data.left : (reader.size ?? Number.NaN) - reader.position;
  const left = Math.min(known, (reader.size ?? Number.NaN) - reader.position);
  const length = Math.floor(left / block) * perBlock + codec.inPart(left % block);
  return {
    sampleRate: codec.sampleRate,
    channels: codec.channels,
    length: length > 0 ? length : undefined,
    pieces: wavPieces(data, codec, context),
  };
}

async function* wavPieces(
  data: WavData,
  codec: WavCodec,
  context: ReaderContext,
): AsyncGenerator<Float32Array[], void> {
  const { block, perBlock } = codec;
  const blocks = Math.max(1, Math.min(Math.floor(LONGEST_PIECE / perBlock), Math.floor(WINDOW / block)));
  let any = false;
  for (;;) {
    const bytes = await data.take(blocks * block, block);
    if (bytes.length === 0) break;
    const part = bytes.length % block;
    const inPart = codec.inPart(part);
    if (part > 0)
      context.warn(`the last ${part} bytes of the WAV samples are no whole ${perBlock > 1 ? 'block' : 'frame'}`);
    const samples = ((bytes.length - part) / block) * perBlock + inPart;
    if (samples === 0) continue;
    any = true;
    yield* pieces(codec.decode(bytes, samples));
  }
  if (!any) throw new DistilWhisperError('ERR_AUDIO_EMPTY', `${context.name}: the WAV data chunk holds no whole frame`);
}

/** The chunks of a WAV file, and the bytes of its data chunks in order. */
class WavData {
  /** The format chunk. */
  format: Uint8Array | undefined;
  /** Bytes of this data chunk that are still to come; infinite where the samples go on to the end of the file. */
  left = 0;
  private announced = 0;
  private chunks = 0;
  /** The sizes of an RF64 file's ds64 chunk. */
  private dataSize64: number | undefined;

  constructor(
    private readonly reader: ByteReader,
    readonly bigEndian: boolean,
    private readonly context: ReaderContext,
  ) {}

  /** Goes to the first data chunk that is not empty. */
  async first(): Promise<void> {
    if (await this.nextData()) return;
    if (this.chunks > 0)
      throw new DistilWhisperError('ERR_AUDIO_EMPTY', `${this.context.name}: the WAV data chunk holds no samples`);
    throw refusal(this.context, `truncated WAV: ${this.format ? 'no data chunk' : 'no format chunk'} was found`);
  }

  /** The error where the file ends behind a data chunk's header. */
  nothing(): DistilWhisperError {
    if (this.left < PLACEHOLDER)
      return refusal(this.context, `truncated WAV: the data chunk announces ${this.announced} bytes and none follow`);
    return new DistilWhisperError('ERR_AUDIO_EMPTY', `${this.context.name}: the WAV data chunk holds no samples`);
  }

  /** The next bytes of samples: `n`, or fewer at the end of a data chunk. None: there are no more. */
  async take(n: number, block: number): Promise<Uint8Array> {
    if (this.left === 0 && !(await this.nextData())) return new Uint8Array(0);
    if (this.left <= n) await this.checkEnd(block);
    const bytes = await this.reader.take(Math.min(n, this.left));
    this.left = bytes.length === 0 ? 0 : this.left - bytes.length;
    return bytes;
  }

  /** Near the end that a data chunk announces: whether it is one. */
  private async checkEnd(block: number): Promise<void> {
    const { left, announced, reader, context } = this;
    const window = await reader.peek(left + 9);
    const behind = window.subarray(left);
    if (window.length < left) {
      context.warn(`the WAV data chunk announces ${announced} bytes and ${announced - left + window.length} follow`);
      this.left = window.length;
      return;
    }
    const padded = announced & 1 && behind[0] === 0 ? 1 : 0;
    if (behind.length - padded <= 0) return;
    if (
      this.isChunk(behind, padded, reader.position + left) ||
      (padded && this.isChunk(behind, 0, reader.position + left))
    )
      return;
    if (behind.length <= 8 && behind.length < block) {
      if (behind.some((byte) => byte !== 0)) context.warn(`${behind.length} bytes behind the WAV samples were ignored`);
      return;
    }
    context.warn(`the WAV data chunk announces ${announced} bytes, but the samples go on to the end of the file`);
    this.left = Number.POSITIVE_INFINITY;
  }

  /** Walks the chunks to the next data chunk with samples; false where there is none. */
  private async nextData(): Promise<boolean> {
    const { reader, context } = this;
    if (this.chunks > 0 && this.announced & 1) await this.skipPadding('data');
    for (;;) {
      const head = await reader.peek(12);
      if (head.length < 8) return false;
      const id = ascii(head, 0, 4);
      if (this.chunks > 0 && !this.isChunk(head, 0, reader.position)) {
        if (head.some((byte) => byte !== 0)) context.warn('what follows the last WAV chunk was ignored');
        return false;
      }
      if ((id === 'RIFF' || id === 'RIFX') && ascii(head, 8, 12) === 'WAVE') {
        await reader.skip(12);
        continue;
      }
      const size = u32(head, 4, this.bigEndian);
      await reader.skip(8);
      if (id === 'fmt ') await this.takeFormat(size);
      else if (id === 'ds64') await this.takeSizes(size);
      else if (id === 'data') {
        if (!this.format) throw refusal(context, 'the WAV data chunk comes before any format chunk');
        if (await this.enter(size)) return true;
        continue;
      } else if ((await reader.skip(size)) < size) {
        if (this.chunks > 0) context.warn(`the WAV chunk ${JSON.stringify(id)} behind the samples is cut short`);
        return false;
      }
      if (size & 1) await this.skipPadding(id);
    }
  }

  /** Enters a data chunk; false if it is empty. */
  private async enter(size: number): Promise<boolean> {
    const { reader, context } = this;
    if (size === 0xffffffff && this.dataSize64 !== undefined) size = this.dataSize64;
    const toEnd = (reader.size ?? 0) - reader.position;
    this.announced = size;
    this.left = size;
    if (size === 0) {
      const next = await reader.peek(9);
      if (next.length === 0 || this.isChunk(next, 0, reader.position)) {
        this.chunks++;
        return false;
      }
      if (next.length < 8 && next.every((byte) => byte === 0)) return false;
      context.warn('the WAV data chunk announces 0 bytes: read to the end of the file');
      this.left = Number.POSITIVE_INFINITY;
    } else if (size >= PLACEHOLDER && toEnd < size) this.left = Number.POSITIVE_INFINITY;
    if (++this.chunks === 2) context.warn('the WAV file has several data chunks, which were joined');
    return true;
  }

  private async takeFormat(size: number): Promise<void> {
    const { reader, context } = this;
    if (size < 16) throw refusal(context, `the WAV format chunk has ${size} bytes, expected at least 16`);
    if (size > LONGEST_FORMAT) throw refusal(context, `the WAV format chunk announces ${size} bytes`);
    const format = copy(await reader.take(size));
    if (format.length < size) throw refusal(context, 'truncated WAV: the format chunk is cut short');
    if (this.chunks > 0 && format.subarray(0, 16).some((byte, i) => byte !== this.format![i]))
      throw refusal(context, 'the WAV file joins samples of unlike formats');
    this.format = format;
  }

  private async takeSizes(size: number): Promise<void> {
    const sizes = copy(await this.reader.take(Math.min(size, 16)));
    if (sizes.length === 16) {
      const dataSize = u32(sizes, 12, false) * 2 ** 32 + u32(sizes, 8, false);
      if (Number.isSafeInteger(dataSize)) this.dataSize64 = dataSize;
    }
    await this.reader.skip(size - sizes.length);
  }

  private async skipPadding(id: string): Promise<void> {
    const head = await this.reader.peek(5);
    const known = (at: number) => KNOWN_CHUNKS.has(ascii(head, at, at + 4));
    if (known(0) && !known(1))
      this.context.warn(`the padding byte behind the WAV chunk ${JSON.stringify(id)} is missing`);
    else await this.reader.skip(1);
  }

  /** Whether a chunk begins at `at` of `bytes`, which is byte `position` of the file. */
  private isChunk(bytes: Uint8Array, at: number, position: number): boolean {
    const id = ascii(bytes, at, at + 4);
    if (KNOWN_CHUNKS.has(id)) return true;
    if (!/^[A-Za-z][A-Za-z0-9_]{2}[A-Za-z0-9_ ]$/.test(id) || bytes.length < at + 8) return false;
    // An unknown name is believed where its size fits.
    return position + at + 8 + u32(bytes, at + 4, this.bigEndian) <= (this.reader.size ?? 0);
  }
}

const u32 = (bytes: Uint8Array, at: number, bigEndian: boolean) =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength).getUint32(at, !bigEndian);

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
