/** Audio of any kind to mono samples, in pieces or whole. */
import { checkOptions, DistilWhisperError, isDistilWhisperError, systemCode } from '../errors/index.js';
import type { ByteReader } from './bytes.js';
import { type AudioFormat, detectFormat } from './container.js';
import { FfmpegMissing, openFfmpeg } from './ffmpeg.js';
import { openFlac } from './flac.js';
import { openMp3 } from './mp3.js';
import { openOgg } from './ogg.js';
import { type AudioPieces, HollowAudio, mean, type ReaderContext, UnknownCodec } from './reader.js';
import { Resampler } from './resample.js';
import { resamplingStream } from './resampling-stream.js';
import { checkSampleRate, checkSamples, Samples } from './samples.js';
import { type AudioInput, type OpenSource, openSource } from './source.js';
import { openWav } from './wav.js';

export interface DecodeOptions {
  /** How messages name the audio when it is given as bytes. */
  name?: string | undefined;
  /** Resample to so many Hz. Default: the rate as stored (Opus: 48000). */
  sampleRate?: number | undefined;
  /** Refuse what lasts longer, in seconds: a small file can claim days. Default 86,400: a day. */
  maxDuration?: number | undefined;
  /** Refuse what is unusual or damaged but could be decoded, instead of warning of it. Default false. */
  strict?: boolean | undefined;
  /** When aborted, reading ends with ERR_INTERRUPTED, also where a pipe is being waited for. */
  signal?: AbortSignal | undefined;
}

/** Audio as it is decoded: mono, in pieces. */
export interface AudioStream {
  /** Of the pieces, in Hz. */
  readonly sampleRate: number;
  /** Channels of the file before the mean was taken. */
  readonly channels: number;
  /** How many samples the pieces will have, where the file says so credibly; never a promise. */
  readonly expected?: number | undefined;
  /** Seconds that were decoded so far, by the rate as stored; those of the whole when the pieces have ended. */
  readonly duration: number;
  /** What was unusual and passed over, a sentence each; all of them when the pieces have ended. */
  readonly warnings: readonly string[];
  /** Nominally -1..1; lossy codecs and float files may go slightly beyond. To be read once. Errors: as `decodeAudio`. */
  readonly pieces: AsyncGenerator<Float32Array, void, undefined>;
  /** Ends reading, also where a pipe is being waited for, and the program that decodes. Can be called at any time, and again. */
  close(): Promise<void>;
}

export interface DecodedAudio {
  /** Mono: the mean of the channels. Nominally -1..1; lossy codecs and float files may go slightly beyond. */
  samples: Float32Array;
  /** In Hz: as stored (Opus: 48000), or as asked for. */
  sampleRate: number;
  /** Channels of the file before the mean was taken. */
  channels: number;
  /** In seconds. */
  duration: number;
  /** What was unusual and passed over, a sentence each; mostly none. */
  warnings: string[];
}

const OPTIONS: Record<keyof DecodeOptions, true> = {
  name: true,
  sampleRate: true,
  maxDuration: true,
  strict: true,
  signal: true,
};
const LONGEST = 24 * 3600;
/** Samples that a byte of a file may announce and be believed: speech in Opus has a few hundred at most. */
const MOST_PER_BYTE = 500;
/** Bytes that the format is told from. */
const HEAD = 1 << 16;
const READERS: Partial<Record<AudioFormat, (reader: ByteReader, context: ReaderContext) => Promise<AudioPieces>>> = {
  wav: openWav,
  flac: openFlac,
  mp3: openMp3,
  ogg: openOgg,
};

/**
 * Decodes audio: WAV (8 to 32-bit PCM, float, A-law, µ-law, ADPCM), FLAC, MP3, Ogg Vorbis, Ogg FLAC and Opus; all else, and what
 * those readers refuse, through the system's ffmpeg, if there is one. The format is told by the content, never by the file's
 * name. What is merely unusual is decoded, with a warning; a damaged file is an error, unless ffmpeg makes sense of it.
 * @param source a path, '-' for standard input, or the file's bytes
 * @throws ERR_FILE_NOT_FOUND, ERR_FILE_READ (a directory, no permission), ERR_AUDIO_EMPTY (no bytes, no samples),
 * ERR_AUDIO_FORMAT (not audio, damaged, truncated), ERR_AUDIO_SAMPLES (NaN, infinite or unscaled samples), ERR_AUDIO_TOO_LONG
 */
export async function decodeAudio(source: AudioInput, options: DecodeOptions = {}): Promise<DecodedAudio> {
  return collect(await openAudio(source, options));
}

/** The whole of a stream, which is closed. */
export async function collect(audio: AudioStream): Promise<DecodedAudio> {
  const samples = new Samples(audio.expected);
  try {
    for await (const piece of audio.pieces) samples.add(piece);
  } finally {
    await audio.close();
  }
  const { sampleRate, channels, duration, warnings } = audio;
  return { samples: samples.whole(), sampleRate, channels, duration, warnings: [...warnings] };
}

/** How messages call a source. */
export const nameOf = (source: AudioInput, { name }: DecodeOptions): string =>
  name ?? (typeof source !== 'string' ? 'the audio' : source === '-' ? 'standard input' : source);

/**
 * Opens audio of any length: read, decoded, mixed down and resampled in pieces as they are asked for, in bounded memory. What
 * `decodeAudio` throws comes from here or, when it is found on the way, from the pieces. Errors: also ERR_ARGUMENT.
 */
export async function openAudio(source: AudioInput, options: DecodeOptions = {}): Promise<AudioStream> {
  checkOptions('decodeAudio', options, OPTIONS);
  const name = nameOf(source, options);
  checkArguments(source, options, name);
  if (options.signal?.aborted) throw interrupted(name);
  const opening = new Opening(await openSource(source, name), name, options);
  try {
    // Aborted while it was opened: nobody was told.
    if (options.signal?.aborted) throw interrupted(name);
    return opening.stream(await opening.decoded());
  } catch (error) {
    const told = opening.typed(error);
    await opening.close();
    throw told;
  }
}

function checkArguments(source: AudioInput, options: DecodeOptions, name: string): void {
  if (typeof source !== 'string' && !(source instanceof Uint8Array))
    throw new DistilWhisperError('ERR_ARGUMENT', `${name}: expected a path or a file's bytes, got ${typeof source}`);
  const { sampleRate, maxDuration } = options;
  if (sampleRate !== undefined) checkSampleRate(sampleRate, 'sampleRate', 'ERR_ARGUMENT');
  if (maxDuration !== undefined && !(maxDuration > 0))
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `maxDuration: expected a number of seconds above 0, got ${maxDuration}`,
    );
}

class Opening {
  private readonly warnings: string[] = [];
  private readonly ending = new AbortController();
  private readonly context: ReaderContext;
  private found: { format: AudioFormat; label: string } = { format: 'unknown', label: '' };
  /** Of one channel. */
  private decodedSamples = 0;
  private pieces: AsyncGenerator<Float32Array, void, undefined> | null = null;

  constructor(
    private readonly source: OpenSource,
    private readonly name: string,
    private readonly options: DecodeOptions,
  ) {
    this.context = { name, warn: (message) => this.warn(message) };
    options.signal?.addEventListener('abort', this.interrupt, { once: true });
  }

  private readonly interrupt = (): void => {
    void this.close();
  };

  async close(): Promise<void> {
    // What waits for bytes ends by itself when there are no more.
    this.ending.abort();
    await this.source.close();
    await this.pieces?.return().catch(() => {});
  }

  /** By the reader of the format, or by ffmpeg. */
  async decoded(): Promise<AudioPieces> {
    const { source } = this;
    this.found = await this.detect();
    const open = READERS[this.found.format];
    if (!open) return this.byFfmpeg(null);
    try {
      const audio = await open(source.reader, this.context);
      source.settle();
      return { ...audio, pieces: this.rescued(audio) };
    } catch (error) {
      if (!(error instanceof UnknownCodec)) return this.byFfmpeg(this.refusal(error));
      this.found = { format: 'foreign', label: error.label };
      return this.byFfmpeg(null);
    }
  }

  /** Mono, checked, within the limits, and resampled where that is asked for. */
  stream(audio: AudioPieces): AudioStream {
    const { name, options, warnings } = this;
    checkSampleRate(audio.sampleRate, name, 'ERR_AUDIO_FORMAT');
    const longest = (options.maxDuration ?? LONGEST) * audio.sampleRate;
    // A header may say a little more than there is.
    this.limit((audio.length ?? 0) - audio.sampleRate, longest);
    const { sampleRate = audio.sampleRate } = options;
    const mono = this.mono(audio, longest);
    this.pieces = this.ended(sampleRate === audio.sampleRate ? mono : resampled(mono, audio.sampleRate, sampleRate));
    const { pieces } = this;
    const seconds = (): number => this.decodedSamples / audio.sampleRate;
    const { size = 0 } = this.source.reader;
    const believed = audio.length !== undefined && audio.length <= MOST_PER_BYTE * size;
    return {
      expected: believed ? Math.ceil((audio.length! * sampleRate) / audio.sampleRate) : undefined,
      sampleRate,
      channels: audio.channels,
      warnings,
      pieces,
      get duration() {
        return seconds();
      },
      close: () => this.close(),
    };
  }

  /** What ends the reading, as people are told. */
  typed(error: unknown): DistilWhisperError {
    const { name } = this;
    if (this.options.signal?.aborted) return interrupted(name);
    if (this.ending.signal.aborted) return disposed(name);
    if (isDistilWhisperError(error)) return error;
    const reason = error instanceof Error ? error.message : String(error);
    return systemCode(error)
      ? new DistilWhisperError('ERR_FILE_READ', `${name}: the file cannot be read (${reason})`, { cause: error })
      : new DistilWhisperError('ERR_AUDIO_FORMAT', `${name}: the audio could not be decoded (${reason})`, {
          cause: error,
        });
  }

  private warn(message: string): void {
    if (this.options.strict) throw new DistilWhisperError('ERR_AUDIO_FORMAT', `${this.name}: ${message}`);
    this.warnings.push(message);
  }

  private async detect(): Promise<{ format: AudioFormat; label: string }> {
    const { name } = this;
    const { reader } = this.source;
    if (await reader.atEnd()) throw new DistilWhisperError('ERR_AUDIO_EMPTY', `${name}: the file is empty (0 bytes)`);
    for (let tagged = false; ; tagged = true) {
      const found = detectFormat(await reader.peek(HEAD));
      if (found.format !== 'tagged') return tagged && found.format === 'unknown' ? { ...found, format: 'mp3' } : found;
      await reader.skip(found.offset);
    }
  }

  /** What a reader says of a file that it cannot read; anything else is thrown on. */
  private refusal(error: unknown): DistilWhisperError {
    const refused = this.typed(error);
    const final = refused.code !== 'ERR_AUDIO_FORMAT' || refused instanceof HollowAudio;
    if (final || this.options.strict || this.ending.signal.aborted) throw refused;
    return refused;
  }

  /** Errors: `refusal`, of the format's own reader, where ffmpeg does no better. */
  private async byFfmpeg(refusal: DistilWhisperError | null): Promise<AudioPieces> {
    const { source, name, found } = this;
    const { label } = found;
    const bad = (what: string, cause?: unknown) =>
      new DistilWhisperError('ERR_AUDIO_FORMAT', `${name}: ${what}`, { cause });
    const unknown = `expected WAV, FLAC, MP3, Ogg Vorbis or Opus audio, got ${label}`;
    const own = refusal ?? (found.format === 'unknown' ? bad(unknown) : null);
    const from = source.path ?? source.again();
    if (from === null) throw own ?? bad(`the file is ${label}, and its beginning is no longer held for ffmpeg`);
    try {
      const request = { from, label, damaged: refusal !== null };
      const audio = await openFfmpeg(request, name, this.ending.signal);
      if (refusal) this.warn(`${this.reason(refusal)}; it was decoded by ffmpeg`);
      return audio;
    } catch (error) {
      if (error instanceof FfmpegMissing) {
        const needs = `the file is ${label}, which needs ffmpeg, and ${error.message}`;
        throw own ?? bad(`${needs}; WAV, FLAC, MP3, Ogg Vorbis and Opus need nothing else`, error);
      }
      if (!own || !isDistilWhisperError(error)) throw error;
      throw bad(`${this.reason(own)} (${this.reason(error)})`, error);
    }
  }

  /** A message without the name that it begins with. */
  private reason({ message }: Error): string {
    const { name } = this;
    return message.startsWith(`${name}: `) ? message.slice(name.length + 2) : message;
  }

  /** What a reader refuses on its way ffmpeg goes on with, where it can begin anew: what was delivered is passed over. */
  private async *rescued(audio: AudioPieces): AsyncGenerator<Float32Array[], void, undefined> {
    let delivered = 0;
    let refusal: DistilWhisperError;
    try {
      for await (const piece of audio.pieces) {
        delivered += piece[0]?.length ?? 0;
        yield piece;
      }
      return;
    } catch (error) {
      refusal = this.refusal(error);
    }
    const rest = await this.byFfmpeg(refusal);
    if (rest.sampleRate !== audio.sampleRate) {
      await rest.pieces.return();
      throw refusal;
    }
    for await (const piece of rest.pieces) {
      const length = piece[0]?.length ?? 0;
      const passed = Math.min(delivered, length);
      delivered -= passed;
      if (passed < length) yield piece.map((channel) => channel.slice(passed));
    }
  }

  private async *mono(audio: AudioPieces, longest: number): AsyncGenerator<Float32Array, void, undefined> {
    for await (const channels of audio.pieces) {
      for (const channel of channels) checkSamples(channel, this.name, this.decodedSamples);
      this.decodedSamples += channels[0]?.length ?? 0;
      this.limit(this.decodedSamples, longest);
      yield mean(channels);
    }
    if (this.decodedSamples === 0)
      throw new DistilWhisperError('ERR_AUDIO_EMPTY', `${this.name}: the audio holds no samples`);
  }

  private limit(length: number, longest: number): void {
    if (length > longest)
      throw new DistilWhisperError(
        'ERR_AUDIO_TOO_LONG',
        `${this.name}: expected at most ${this.options.maxDuration ?? LONGEST} s of audio (maxDuration), got more`,
      );
  }

  /** Closes what was opened when the pieces have come to their end, and types what ends them. */
  private async *ended(pieces: AsyncIterable<Float32Array>): AsyncGenerator<Float32Array, void, undefined> {
    try {
      yield* pieces;
    } catch (error) {
      throw this.typed(error);
    } finally {
      this.options.signal?.removeEventListener('abort', this.interrupt);
      this.ending.abort();
      await this.source.close();
    }
  }
}

async function* resampled(
  pieces: AsyncIterable<Float32Array>,
  from: number,
  to: number,
): AsyncGenerator<Float32Array, void, undefined> {
  const resampler = new Resampler(resamplingStream(), from, to);
  for await (const piece of pieces) {
    const ready = await resampler.push(piece);
    if (ready.length > 0) yield ready;
  }
  const ready = await resampler.end();
  if (ready.length > 0) yield ready;
}

/** The error of audio that was closed on the way. */
export const disposed = (name: string): DistilWhisperError =>
  new DistilWhisperError('ERR_DISPOSED', `${name}: the audio was closed before its end`);

export const interrupted = (name: string): DistilWhisperError =>
  new DistilWhisperError('ERR_INTERRUPTED', `${name}: interrupted`);
