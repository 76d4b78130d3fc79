/**
 * FLAC (RFC 9639). Frames are found and checked here, by the checksums of their headers and of themselves, in one walk; the
 * decoder gets whole frames, one after another.
 */
import { decoder } from '@audio/decode-flac';
import type { ByteReader } from './bytes.js';
import {
  type AudioPieces,
  ascii,
  copy,
  decoded,
  LONGEST_PIECE,
  pieces,
  type ReaderContext,
  refusal,
} from './reader.js';

const CRC8 = Uint8Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x80 ? (crc << 1) ^ 0x07 : crc << 1;
  return crc & 0xff;
});

const CRC16 = Uint16Array.from({ length: 256 }, (_, byte) => {
  let crc = byte << 8;
  for (let bit = 0; bit < 8; bit++) crc = crc & 0x8000 ? (crc << 1) ^ 0x8005 : crc << 1;
  return crc & 0xffff;
});

/** Bytes that are read at once while the end of a frame is looked for. */
const WINDOW = 1 << 16;

export interface FlacStream {
  /** In Hz. */
  sampleRate: number;
  channels: number;
  bits: number;
  /** Samples of one channel; 0 when the encoder did not know. */
  total: number;
  /** 'fLaC' and the stream information alone, for the decoder. */
  header: Uint8Array;
}

/** Reads 'fLaC' and the block of stream information (42 bytes). @throws ERR_AUDIO_FORMAT if it is cut short or none */
export function flacStream(bytes: Uint8Array, context: ReaderContext): FlacStream {
  if (bytes.length < 42) throw refusal(context, `truncated FLAC: ${bytes.length} bytes are shorter than its header`);
  if (ascii(bytes, 0, 4) !== 'fLaC' || (bytes[4]! & 127) !== 0)
    throw refusal(context, 'damaged FLAC: it does not begin with its stream information');
  const header = copy(bytes.subarray(0, 42));
  header.set([0x80, 0, 0, 34], 4);
  const view = new DataView(header.buffer);
  return {
    sampleRate: view.getUint32(18) >>> 12,
    channels: ((header[20]! >> 1) & 7) + 1,
    bits: ((header[20]! & 1) << 4) + (header[21]! >> 4) + 1,
    total: (header[21]! & 15) * 2 ** 32 + view.getUint32(22),
    header,
  };
}

/** The header of a frame: samples of one channel, and bytes that the frame surely does not exceed. */
interface FrameHeader {
  samples: number;
  longest: number;
}

/** Reads the header of a frame; undefined if it is none, or if its checksum is wrong. */
export function flacFrame(bytes: Uint8Array, at: number): FrameHeader | undefined {
  if (at + 6 > bytes.length || bytes[at] !== 0xff || (bytes[at + 1]! & 0xfe) !== 0xf8) return undefined;
  const [b2, b3, number] = [bytes[at + 2]!, bytes[at + 3]!, bytes[at + 4]!];
  const size = b2 >> 4;
  const rate = b2 & 15;
  if (size === 0 || rate === 15 || b3 >> 4 > 10 || b3 & 1) return undefined;
  // The number of the frame, coded like UTF-8.
  let end = at + 5 + (number < 0x80 ? 0 : Math.max(0, Math.clz32(~(number << 24)) - 1));
  const sizeAt = end;
  end += (size === 6 ? 1 : size === 7 ? 2 : 0) + (rate === 12 ? 1 : rate === 13 || rate === 14 ? 2 : 0);
  if (end >= bytes.length) return undefined;
  let crc = 0;
  for (let i = at; i < end; i++) crc = CRC8[crc ^ bytes[i]!]!;
  if (crc !== bytes[end]) return undefined;
  const samples =
    size === 1
      ? 192
      : size <= 5
        ? 576 << (size - 2)
        : size === 6
          ? bytes[sizeAt]! + 1
          : size === 7
            ? bytes[sizeAt]! * 256 + bytes[sizeAt + 1]! + 1
            : 256 << (size - 8);
  const channels = b3 >> 4 < 8 ? (b3 >> 4) + 1 : 2;
  // Twice what the samples take uncompressed, at 32 bits and one more for a difference.
  return { samples, longest: 1024 + Math.ceil((2 * samples * channels * 33) / 8) };
}

/** Whether the frame, header to checksum, is whole: the checksum of all its bytes comes out 0. */
export function flacFrameIsWhole(frame: Uint8Array): boolean {
  let crc = 0;
  for (const byte of frame) crc = ((crc << 8) & 0xffff) ^ CRC16[(crc >> 8) ^ byte]!;
  return crc === 0;
}

/** What the package's decoder has beside its declared methods: it takes whole frames (its version is pinned). */
interface FrameDecoder {
  decodeFrames(frames: Uint8Array[]): Promise<{ channelData: Float32Array[]; errors?: { message: string }[] }>;
  free(): void;
}

/** Decodes whole frames of one stream. */
export class FlacFrames {
  private constructor(
    private readonly decoder: FrameDecoder,
    private readonly stream: FlacStream,
    private readonly context: ReaderContext,
  ) {}

  static async open(stream: FlacStream, context: ReaderContext): Promise<FlacFrames> {
    const frames = new FlacFrames((await decoder()) as unknown as FrameDecoder, stream, context);
    // Frames may leave their rate and bits to the stream information.
    try {
      await decoded(context, () => frames.decoder.decodeFrames([stream.header]));
    } catch (error) {
      frames.free();
      throw error;
    }
    return frames;
  }

  /** @param samples of one channel that the headers of the frames announce */
  async decode(frames: Uint8Array[], samples: number): Promise<Float32Array[]> {
    const { channels, bits } = this.stream;
    const { channelData } = await decoded(this.context, () => this.decoder.decodeFrames(frames));
    if (channelData.length !== channels || channelData[0]!.length !== samples)
      throw refusal(
        this.context,
        `damaged FLAC: frames of ${channels} × ${samples} samples decoded to ${channelData.length} × ${channelData[0]?.length ?? 0}`,
      );
    // The decoder divides by 2^(bits-1) − 1. This brings back the usual scale, 2^(bits-1): exactly up to 16 bits, to the last
    // float32 digit above.
    const full = 2 ** (bits - 1);
    for (const channel of channelData)
      for (let i = 0; i < channel.length; i++) channel[i] = Math.round(channel[i]! * (full - 1)) / full;
    return channelData;
  }

  free(): void {
    this.decoder.free();
  }
}

/**
 * Opens a native FLAC file; files of one format that were joined are read one after another, with a warning.
 * @throws ERR_AUDIO_FORMAT if its header is cut short or damaged; its `pieces` throw it for a damaged frame, or if the file ends
 * before the length that it announces. Where none is announced, a last frame that is cut short is left out with a warning.
 */
export async function openFlac(reader: ByteReader, context: ReaderContext): Promise<AudioPieces> {
  const stream = await takeHeader(reader, context);
  return {
    sampleRate: stream.sampleRate,
    channels: stream.channels,
    length:
      stream.total > 0 && reader.size !== undefined && stream.total < reader.size * 4096 ? stream.total : undefined,
    pieces: flacPieces(reader, stream, context),
  };
}

async function takeHeader(reader: ByteReader, context: ReaderContext): Promise<FlacStream> {
  const stream = flacStream(await reader.peek(42), context);
  await reader.skip(4);
  for (;;) {
    const head = await reader.take(4);
    const last = head.length < 4 || (head[0]! & 0x80) !== 0;
    const length = head.length < 4 ? 1 : head[1]! * 65536 + head[2]! * 256 + head[3]!;
    if ((await reader.skip(length)) < length) throw refusal(context, 'truncated FLAC: it ends within its metadata');
    if (last) return stream;
  }
}

async function* flacPieces(
  reader: ByteReader,
  first: FlacStream,
  context: ReaderContext,
): AsyncGenerator<Float32Array[], void> {
  let stream = first;
  let decoder = await FlacFrames.open(stream, context);
  try {
    for (;;) {
      let got = 0;
      for await (const channels of streamPieces(reader, stream, decoder, context)) {
        got += channels[0]!.length;
        yield* pieces(channels);
      }
      if (stream.total > got)
        throw refusal(
          context,
          `truncated or damaged FLAC: it announces ${stream.total} samples and ${got} could be decoded`,
        );
      if (stream.total > 0 && got > stream.total)
        context.warn(`the FLAC file announces ${stream.total} samples and has ${got}`);
      if (ascii(await reader.peek(4), 0, 4) !== 'fLaC') return;
      context.warn('several FLAC files were joined');
      stream = await takeHeader(reader, context);
      const { sampleRate, channels } = stream;
      if (sampleRate !== first.sampleRate || channels !== first.channels)
        throw refusal(
          context,
          `the file joins FLAC of ${first.channels} channels at ${first.sampleRate} Hz and ${channels} at ${sampleRate} Hz`,
        );
      decoder.free();
      decoder = await FlacFrames.open(stream, context);
    }
  } finally {
    decoder.free();
  }
}

/** The samples of the frames up to the end of one stream. */
async function* streamPieces(
  reader: ByteReader,
  { total }: FlacStream,
  decoder: FlacFrames,
  context: ReaderContext,
): AsyncGenerator<Float32Array[], void> {
  let before = 0;
  let samples = 0;
  let batch: Uint8Array[] = [];
  for (let frame: Frame | undefined; ; ) {
    frame = await takeFrame(reader, before + samples > 0 && before + samples >= total, context);
    if (samples > 0 && (!frame?.sure || samples + frame.samples > LONGEST_PIECE)) {
      yield await decoder.decode(batch, samples);
      before += samples;
      samples = 0;
      batch = [];
    }
    if (!frame) return;
    if (frame.sure) {
      batch.push(frame.bytes);
      samples += frame.samples;
    } else {
      const start = reader.position - frame.bytes.length;
      try {
        yield await decoder.decode([frame.bytes], frame.samples);
        before += frame.samples;
      } catch (error) {
        if (before === 0 || before < total) throw error;
        warnOfRest(start, context);
        return;
      }
    }
  }
}

/** Tags that other programs put behind a file. */
const isTag = (bytes: Uint8Array, at: number) =>
  ['TAG', 'ID3'].includes(ascii(bytes, at, at + 3)) || ['APETAGEX', 'LYRICSBE'].includes(ascii(bytes, at, at + 8));

interface Frame {
  bytes: Uint8Array;
  samples: number;
  /** Whether something known follows it; else the frame's end is only likely. */
  sure: boolean;
}

/**
 * Takes the next frame. It ends where its checksum comes out 0 and another header, a file, a tag or the end follows.
 * @param complete whether some samples came already, and all of those that are announced
 * @returns undefined where no frame follows
 */
async function takeFrame(reader: ByteReader, complete: boolean, context: ReaderContext): Promise<Frame | undefined> {
  const start = reader.position;
  let wanted = WINDOW;
  let bytes = await reader.peek(wanted);
  if (bytes.length === 0 || ascii(bytes, 0, 4) === 'fLaC') return undefined;
  const header = flacFrame(bytes, 0);
  if (!header) {
    if (!complete) throw refusal(context, `damaged FLAC: no frame begins at byte ${start}`);
    if (!isTag(bytes, 0) && bytes.some((byte) => byte !== 0)) warnOfRest(start, context);
    return undefined;
  }
  const take = async (length: number, sure: boolean) => {
    return { bytes: copy(await reader.take(length)), samples: header.samples, sure };
  };
  let crc = 0;
  let likelyEnd = 0;
  let headerBehind = false;
  for (let at = 0; ; ) {
    const atEnd = bytes.length < wanted;
    // A header is 16 bytes at most: nearer to the end of the window it cannot be told.
    for (const to = atEnd ? bytes.length : wanted - 16; at < to; at++) {
      if (at > 4 && crc === 0) {
        if (flacFrame(bytes, at) || ascii(bytes, at, at + 4) === 'fLaC' || isTag(bytes, at)) return take(at, true);
        likelyEnd = at;
      } else if (at > 4 && !headerBehind && flacFrame(bytes, at)) headerBehind = true;
      crc = ((crc << 8) & 0xffff) ^ CRC16[(crc >> 8) ^ bytes[at]!]!;
    }
    if (atEnd && crc === 0) return take(bytes.length, true);
    if (atEnd || at > header.longest) break;
    wanted = at + WINDOW;
    bytes = await reader.peek(wanted);
  }
  // Behind the last frame there may be bytes of any kind. A frame with another one behind it is damaged.
  if (!headerBehind && likelyEnd > 0) return take(likelyEnd, false);
  if (headerBehind || !complete)
    throw refusal(context, `truncated or damaged FLAC: the frame at byte ${start} is not whole`);
  warnOfRest(start, context);
  return undefined;
}

const warnOfRest = (position: number, context: ReaderContext) =>
  context.warn(`what follows byte ${position} of the FLAC file is no whole frame and was ignored`);
