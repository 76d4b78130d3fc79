/** What the readers of the audio formats have in common: they read forward and give planar samples in pieces. */
import { DistilWhisperError } from '../errors/index.js';

/** What an audio reader tells before its samples. */
export interface AudioPieces {
  /** In Hz, as stored; its range is not checked here. */
  sampleRate: number;
  /** Of the file; every piece has as many. */
  channels: number;
  /** Samples of one channel where the file says so credibly: a hint for allocation, never a promise. */
  length?: number | undefined;
  /**
   * The samples, planar: all channels of a piece are equally long, 65,536 samples at most, and the caller's to keep. Throws
   * ERR_AUDIO_FORMAT where the file turns out to be damaged. `return()` frees the decoder.
   */
  pieces: AsyncGenerator<Float32Array[], void, undefined>;
}

export interface ReaderContext {
  /** Names the audio; every message begins with it. */
  name: string;
  /** Takes what is unusual but was read all the same: what was ignored or assumed, in words, without the name. */
  warn(message: string): void;
}

/** Samples of one channel in a piece. */
export const LONGEST_PIECE = 65536;

/** Real files have 16 at most (ambisonics: 36); what announces thousands would take memory for each. */
const MOST_CHANNELS = 64;

export const ascii = (bytes: Uint8Array, from: number, to: number): string =>
  String.fromCharCode(...bytes.subarray(from, to));

/** A copy at an address of its own: a ByteReader's bytes are valid until its next call only, and a Buffer's slice() is a view. */
export const copy = (bytes: Uint8Array): Uint8Array<ArrayBuffer> => new Uint8Array(bytes);

export const refusal = (context: ReaderContext, what: string): DistilWhisperError =>
  new DistilWhisperError('ERR_AUDIO_FORMAT', `${context.name}: ${what}`);

/** A codec within a known container that no reader here knows: the file is as good as any other, and ffmpeg's. */
export class UnknownCodec extends DistilWhisperError {
  constructor(
    context: ReaderContext,
    /** For people: 'Ogg with Speex'. */
    readonly label: string,
  ) {
    super('ERR_AUDIO_FORMAT', `${context.name}: ${label}, which is not read here`);
  }
}

/** A small file that claims to hold hours of nothing: another program is not asked, for it would make them. */
export class HollowAudio extends DistilWhisperError {
  constructor(context: ReaderContext, what: string) {
    super('ERR_AUDIO_FORMAT', `${context.name}: ${what}`);
  }
}

/** @throws ERR_AUDIO_FORMAT, before any memory is taken for them */
export function checkChannels(channels: number, context: ReaderContext): void {
  if (channels < 1 || channels > MOST_CHANNELS)
    throw refusal(context, `the audio announces ${channels} channels, expected 1 to ${MOST_CHANNELS}`);
}

/** Cuts decoded samples, in any number, into pieces. */
export function* pieces(channels: Float32Array[]): Generator<Float32Array[]> {
  const length = channels[0]?.length ?? 0;
  if (length > 0 && length <= LONGEST_PIECE) yield channels;
  else
    for (let from = 0; from < length; from += LONGEST_PIECE)
      yield channels.map((channel) => channel.slice(from, from + LONGEST_PIECE));
}

/** The mean of all channels; the order of the sums is that of the channels. */
export function mean(channels: Float32Array[]): Float32Array {
  if (channels.length === 1) return channels[0]!;
  const mono = new Float32Array(channels[0]!.length);
  const scale = 1 / channels.length;
  for (let i = 0; i < mono.length; i++) {
    let sum = 0;
    for (const channel of channels) sum += channel[i]!;
    mono[i] = sum * scale;
  }
  return mono;
}

/**
 * Calls a WASM decoder, which throws untyped errors or collects them in an array and goes on.
 * @throws ERR_AUDIO_FORMAT with what it complains about
 */
export async function decoded<T extends object>(context: ReaderContext, call: () => T | Promise<T>): Promise<T> {
  let result: T;
  try {
    result = await call();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new DistilWhisperError('ERR_AUDIO_FORMAT', `${context.name}: the audio is damaged (${reason})`, {
      cause: error,
    });
  }
  const [first] = (result as { errors?: { message: string }[] }).errors ?? [];
  if (first) throw refusal(context, `the audio is damaged (${first.message})`);
  return result;
}
