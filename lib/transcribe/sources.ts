/** What can be transcribed, and how it is opened. */
import {
  type AudioStream,
  checkSampleRate,
  checkSamples,
  type DecodePool,
  type FeatureExtractor,
  SAMPLE_RATE,
} from '../audio/index.js';
import { DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { SampleReader } from './sample-reader.js';
import type { Window, WindowChooser } from './windows.js';

/** Mono samples, nominally -1..1, at a whole number of Hz. */
export interface AudioSamples {
  samples: Float32Array;
  sampleRate: number;
}

/** An audio file ('-' is standard input), a file's bytes, or samples. */
export type AudioSource = string | Uint8Array | AudioSamples;

/** How sources are opened. */
export interface SourceOptions {
  /** When aborted, reading ends with ERR_INTERRUPTED. */
  signal?: AbortSignal | undefined;
  /** Refuse audio that is unusual or damaged but could be decoded, instead of warning of it. Default false. */
  strict?: boolean | undefined;
  /** Refuse audio that lasts longer, in seconds. Default 86,400: a day. */
  maxDuration?: number | undefined;
}

/** What sources are heard with. */
export interface Hearing {
  readonly pool: DecodePool;
  readonly extractor: FeatureExtractor;
  readonly chooser: WindowChooser;
}

/** One window, ready to be decoded. */
export interface HeardWindow extends Window {
  /** The source's number. */
  source: number;
  sampleRate: number;
  /** What the source's last window tells of the whole: its seconds, and what was unusual; null for the others. */
  whole: { duration: number; warnings: readonly string[] } | null;
  features: Float32Array;
}

/** A source as it is decoded. */
type OpenAudio = Pick<AudioStream, 'sampleRate' | 'duration' | 'warnings' | 'pieces' | 'close'>;

/** A source that is open: its windows, ready to be decoded, are asked for by where they begin. */
export class HeardSource {
  private readonly samples: SampleReader;

  private constructor(
    private readonly index: number,
    private readonly name: string,
    private readonly audio: OpenAudio,
    private readonly hearing: Hearing,
  ) {
    this.samples = new SampleReader(audio.pieces, audio.sampleRate);
  }

  /** Opens the source of number `index`. Errors: those of `decodeAudio`, with its name; ERR_ARGUMENT, ERR_DISPOSED. */
  static async open(
    source: AudioSource,
    index: number,
    hearing: Hearing,
    options: SourceOptions,
  ): Promise<HeardSource> {
    const name = nameOf(source, index);
    return new HeardSource(index, name, await open(source, name, hearing.pool, options), hearing);
  }

  /**
   * The window that is heard from the sample at `position` on. Positions may leave audio out and go back into the window before,
   * but not behind its begin. Errors: those of `decodeAudio` and `FeatureExtractor` (ERR_AUDIO_EMPTY behind the end), with the
   * source's name.
   */
  async window(position: number): Promise<HeardWindow> {
    const { audio, index: source } = this;
    const { chooser, extractor } = this.hearing;
    const { sampleRate } = audio;
    const { begin, end, samples, last } = await chooser.window(this.samples, position);
    try {
      const features = await extractor.extract({ samples, sampleRate });
      const whole = last ? { duration: audio.duration, warnings: audio.warnings } : null;
      return { source, begin, end, sampleRate, whole, features };
    } catch (error) {
      if (!isDistilWhisperError(error)) throw error;
      throw new DistilWhisperError(error.code, `${this.name}: ${error.message}`, { cause: error });
    }
  }

  async close(): Promise<void> {
    try {
      await this.samples.close();
    } finally {
      await this.audio.close();
    }
  }
}

async function open(source: AudioSource, name: string, pool: DecodePool, options: SourceOptions): Promise<OpenAudio> {
  if (typeof source === 'string' || source instanceof Uint8Array)
    return pool.open(source, { ...options, name, sampleRate: SAMPLE_RATE });
  const { samples, sampleRate } = source ?? {};
  if (!(samples instanceof Float32Array)) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `${name}: expected a path, a file's bytes, or samples in a Float32Array with a sampleRate in whole Hz, got ${typeof (samples ?? source)}`,
    );
  }
  checkSampleRate(sampleRate, name, 'ERR_ARGUMENT');
  checkSamples(samples, name);
  const pieces = (async function* () {
    yield samples;
  })();
  return { sampleRate, pieces, duration: samples.length / sampleRate, warnings: [], async close() {} };
}

const nameOf = (source: AudioSource, index: number): string =>
  typeof source !== 'string' ? `source ${index}` : source === '-' ? 'standard input' : source;
