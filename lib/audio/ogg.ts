/** Ogg files with Vorbis, Opus or FLAC: the packets of each link of the chain to samples, trimmed by their granule positions. */
import { createOpusDecoder, type OpusOptions } from '@audio/decode-opus/core';
import { decoder as createVorbisDecoder } from '@audio/decode-vorbis';
import type { ByteReader } from './bytes.js';
import { FlacFrames, type FlacStream, flacFrame, flacFrameIsWhole, flacStream } from './flac.js';
import { type OggPacket, oggPackets } from './ogg-pages.js';
import {
  type AudioPieces,
  ascii,
  checkChannels,
  decoded,
  HollowAudio,
  mean,
  pieces,
  type ReaderContext,
  refusal,
  UnknownCodec,
} from './reader.js';

/** What the first packet of a logical stream tells. */
interface OggStream {
  label: string;
  /** In Hz. */
  sampleRate: number;
  channels: number;
  /** Makes the decoder, which has to be freed. */
  start(): Promise<PacketDecoder>;
}

interface PacketDecoder {
  /** Takes the packets in order; gives nothing for headers. `duration`: samples by the codec's count, before any are dropped. */
  decode(packet: Uint8Array): Promise<{ samples: Float32Array[]; duration: number }>;
  free(): void;
}

/**
 * Opens an Ogg file. Streams that follow one another are joined; they may differ in codec and channels (then all are mixed to
 * the mean), not in their sample rate. Missing and early end marks, a last page that is cut short and bytes around the streams
 * are told in a warning.
 * @throws ERR_AUDIO_FORMAT for streams at once, other codecs and damaged headers; its `pieces` throw it for damaged or missing
 * pages and packets
 */
export async function openOgg(reader: ByteReader, context: ReaderContext): Promise<AudioPieces> {
  const packets = oggPackets(reader, context);
  const { value, done } = await packets.next();
  if (done) throw refusal(context, 'truncated Ogg file: it has no whole packet');
  const first = oggStream(value.bytes, context);
  // Streams at once begin before the second packet of any of them.
  const second = await packets.next();
  if (second.done) throw refusal(context, 'truncated Ogg file: it ends behind its first packet');
  return {
    sampleRate: first.sampleRate,
    channels: first.channels,
    pieces: oggPieces(packets, second.value, first, context),
  };
}

async function* oggPieces(
  packets: AsyncGenerator<OggPacket, boolean>,
  second: OggPacket,
  first: OggStream,
  context: ReaderContext,
): AsyncGenerator<Float32Array[], void> {
  const { sampleRate, channels } = first;
  let decoder = await first.start();
  let ending = new PageEnds();
  let any = false;
  const shaped = function* (samples: Float32Array[]) {
    any ||= samples.length > 0 && samples[0]!.length > 0;
    if (samples.length === channels || samples.length === 0) yield* pieces(samples);
    else for (const piece of pieces([mean(samples)])) yield Array.from({ length: channels }, () => piece[0]!.slice());
  };
  try {
    let next: IteratorResult<OggPacket, boolean> = { value: second };
    for (; !next.done; next = await packets.next()) {
      const packet = next.value;
      if (packet.begins) {
        yield* shaped(ending.last());
        const stream = oggStream(packet.bytes, context);
        if (stream.sampleRate !== sampleRate)
          throw refusal(
            context,
            `the Ogg file chains streams of ${sampleRate} Hz and (${stream.label}) ${stream.sampleRate} Hz`,
          );
        decoder.free();
        decoder = await stream.start();
        ending = new PageEnds();
        continue;
      }
      yield* shaped(ending.push(await decoder.decode(packet.bytes), packet));
    }
    yield* shaped(ending.last());
    if (!any && !next.value) throw refusal(context, 'truncated Ogg file: it has no whole page of audio');
  } finally {
    decoder.free();
    await packets.return(true);
  }
}

/** Samples of all channels that are held back; pages of many seconds of many channels have more. */
const MOST_HELD = 1 << 22;

/** Holds back the samples of one page, as only the last page of a stream may hold more than are meant to be heard. */
class PageEnds {
  private page: Float32Array[][] = [];
  private duration = 0;
  private complete = false;
  private before = 0;
  private granule: number | undefined;

  /** Takes the samples of the next packet and gives those of a page that is surely not the last. */
  push({ samples, duration }: { samples: Float32Array[]; duration: number }, packet: OggPacket): Float32Array[] {
    let ready: Float32Array[] = [];
    if (this.complete) {
      ready = join(this.page);
      this.page = [];
      this.duration = 0;
      this.complete = false;
      if (this.granule !== undefined) this.before = this.granule;
    }
    const held = this.page.reduce((sum, part) => sum + part.length * part[0]!.length, 0);
    if (held > MOST_HELD) {
      ready = join(this.page);
      this.page = [];
    }
    if (samples[0]?.length) this.page.push(samples);
    this.duration += duration;
    if (packet.endsPage) {
      this.complete = true;
      this.granule = packet.granule;
    }
    return ready;
  }

  /** The samples of the last page, without those behind its granule position. */
  last(): Float32Array[] {
    const samples = join(this.page);
    const { duration, granule, before } = this;
    if (granule === undefined || granule < before || !this.complete) return samples;
    const keep = Math.max(0, (samples[0]?.length ?? 0) - Math.max(0, duration - (granule - before)));
    return samples.map((channel) => channel.subarray(0, keep));
  }
}

function join(parts: Float32Array[][]): Float32Array[] {
  if (parts.length < 2) return parts[0] ?? [];
  const length = parts.reduce((sum, part) => sum + part[0]!.length, 0);
  return parts[0]!.map((_, channel) => {
    const all = new Float32Array(length);
    let at = 0;
    for (const part of parts) {
      all.set(part[channel]!, at);
      at += part[channel]!.length;
    }
    return all;
  });
}

/** The stream that a first packet announces. @throws ERR_AUDIO_FORMAT if it is damaged or of another codec */
function oggStream(packet: Uint8Array, context: ReaderContext): OggStream {
  if (ascii(packet, 0, 8) === 'OpusHead') return opusStream(packet, context);
  if (ascii(packet, 0, 7) === '\x01vorbis') return vorbisStream(packet, context);
  if (ascii(packet, 0, 5) === '\x7fFLAC') return oggFlacStream(packet, context);
  throw new UnknownCodec(context, `Ogg with ${ascii(packet, 0, 5) === 'Speex' ? 'Speex' : 'an unknown codec'}`);
}

const silent = (duration = 0) => ({ samples: [] as Float32Array[], duration });

// ---- Opus ----

/** Where libopus has the channels of Vorbis' order, which mapping family 1 uses (RFC 7845, 5.1.1.2), by their number. */
const VORBIS_ORDER: Record<number, number[]> = {
  3: [0, 2, 1],
  5: [0, 2, 1, 3, 4],
  6: [0, 2, 1, 5, 3, 4],
  7: [0, 2, 1, 6, 5, 3, 4],
  8: [0, 2, 1, 7, 5, 6, 3, 4],
};

/** Samples at 48 kHz of a frame, by the first five bits of a packet (RFC 6716, 3.1). */
const OPUS_FRAME = (config: number) =>
  config < 12 ? [480, 960, 1920, 2880][config & 3]! : config < 16 ? [480, 960][config & 1]! : 120 << (config & 3);

/** Samples at 48 kHz of an Opus packet, and bytes beyond those that say how it is made up. */
function opusPacket(packet: Uint8Array): { duration: number; coded: number } | undefined {
  if (packet.length === 0) return undefined;
  const code = packet[0]! & 3;
  const frames = code === 0 ? 1 : code < 3 ? 2 : (packet[1] ?? 0) & 63;
  const duration = frames * OPUS_FRAME(packet[0]! >> 3);
  // Frames of no more than 120 ms make up a packet.
  return frames < 1 || duration > 5760 ? undefined : { duration, coded: packet.length - (code < 2 ? 1 : 2) };
}

/** Seconds of frames without any coded byte that a file may begin with. */
const MOST_EMPTY = 60;

function opusStream(head: Uint8Array, context: ReaderContext): OggStream {
  if (head.length < 19 || head[8]! > 15)
    throw refusal(context, 'damaged Opus: its header is cut short or of a later version');
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const channels = head[9]!;
  checkChannels(channels, context);
  const family = head[18]!;
  if (family === 0 && channels > 2) throw refusal(context, `damaged Opus: ${channels} channels in mapping family 0`);
  if (family > 0 && head.length < 21 + channels)
    throw refusal(context, 'damaged Opus: its channel mapping is cut short');
  const table = head.subarray(21, 21 + channels);
  const order = family === 1 ? VORBIS_ORDER[channels] : undefined;
  const options: OpusOptions = {
    channels,
    preSkip: view.getUint16(10, true),
    outputGain: view.getInt16(16, true),
    ...(family === 0
      ? {}
      : {
          streamCount: head[19]!,
          coupledStreamCount: head[20]!,
          channelMappingTable: order ? order.map((channel) => table[channel]!) : Array.from(table),
        }),
  };
  return { label: 'Opus', sampleRate: 48000, channels, start: () => startOpus(options, context) };
}

async function startOpus(options: OpusOptions, context: ReaderContext): Promise<PacketDecoder> {
  const opus = await createOpusDecoder();
  try {
    opus.configure(options);
  } catch (error) {
    opus.free();
    throw refusal(context, `damaged Opus: ${(error as Error).message}`);
  }
  let tags = true;
  let empty = 0;
  return {
    async decode(packet) {
      if (tags) {
        tags = false;
        return silent();
      }
      const told = opusPacket(packet);
      if (!told) throw refusal(context, 'damaged Opus: a packet has no frames, or frames of more than 120 ms');
      // Encoders code some bytes every 400 ms even of silence. Without this a few kilobytes could hold hours of nothing: a
      // second of frames without a byte has to be made up for by one byte elsewhere.
      empty += told.coded > 0 ? -told.coded : told.duration / 48000;
      if (empty > MOST_EMPTY)
        throw new HollowAudio(context, `damaged Opus: more than ${MOST_EMPTY} seconds of frames without a coded byte`);
      const { channelData } = await decoded(context, () => opus.decodeFrames([packet]));
      return { samples: channelData, duration: told.duration };
    },
    free: () => opus.free(),
  };
}

// ---- Vorbis ----

/** What the package's decoder takes packets with; the package itself takes pages only (its version is pinned). */
interface VorbisPackets {
  sendSetupHeader(packet: Uint8Array): void;
  initDsp(): void;
  decodePackets(packets: Uint8Array[]): {
    channelData: Float32Array[];
    samplesDecoded: number;
    errors: { message: string }[];
  };
}

/** The decoder's input buffer. */
const LONGEST_VORBIS_PACKET = 128 * 1024;

function vorbisStream(head: Uint8Array, context: ReaderContext): OggStream {
  if (head.length < 30) throw refusal(context, 'damaged Vorbis: its header is cut short');
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const channels = head[11]!;
  const sampleRate = view.getUint32(12, true);
  const [short, long] = [head[28]! & 15, head[28]! >> 4];
  checkChannels(channels, context);
  if (view.getUint32(7, true) !== 0 || short < 6 || long > 13 || short > long)
    throw refusal(context, `damaged Vorbis: blocks of 2^${short} and 2^${long} samples, expected 2^6 to 2^13`);
  return { label: 'Vorbis', sampleRate, channels, start: () => startVorbis(head, VORBIS_ORDER[channels], context) };
}

async function startVorbis(
  head: Uint8Array,
  order: number[] | undefined,
  context: ReaderContext,
): Promise<PacketDecoder> {
  const whole = await createVorbisDecoder();
  const vorbis = (whole as unknown as { _decoder: VorbisPackets })._decoder;
  let headers = 0;
  return {
    async decode(packet) {
      if (headers === 0 || headers === 1) {
        const type = headers++ === 0 ? 3 : 5;
        if (packet[0] !== type) throw refusal(context, `damaged Vorbis: its header packet ${type} is missing`);
        if (type === 3) return silent();
      }
      if (packet.length > LONGEST_VORBIS_PACKET)
        throw refusal(context, `damaged Vorbis: a packet of ${packet.length} bytes`);
      if (headers === 2) {
        headers++;
        await decoded(context, () => {
          vorbis.sendSetupHeader(head);
          vorbis.sendSetupHeader(packet);
          vorbis.initDsp();
          return {};
        });
        return silent();
      }
      if (packet.length === 0) return silent();
      const { channelData } = await decoded(context, () => vorbis.decodePackets([packet]));
      const samples = order ? order.map((channel) => channelData[channel]!) : channelData;
      return { samples, duration: samples[0]?.length ?? 0 };
    },
    free: () => whole.free(),
  };
}

// ---- FLAC ----

function oggFlacStream(head: Uint8Array, context: ReaderContext): OggStream {
  const stream = flacStream(head.subarray(9), context);
  const { sampleRate, channels } = stream;
  return { label: 'FLAC', sampleRate, channels, start: () => startFlac(stream, context) };
}

async function startFlac(stream: FlacStream, context: ReaderContext): Promise<PacketDecoder> {
  const frames = await FlacFrames.open(stream, context);
  return {
    async decode(packet) {
      if (packet[0] !== 0xff) return silent();
      const header = flacFrame(packet, 0);
      if (!header || !flacFrameIsWhole(packet)) throw refusal(context, 'damaged FLAC: a frame has a wrong checksum');
      return { samples: await frames.decode([packet], header.samples), duration: header.samples };
    },
    free: () => frames.free(),
  };
}
