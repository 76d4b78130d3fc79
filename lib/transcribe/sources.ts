/** Audio of any kind as the model hears it: windows with their features, in order, made ahead of who takes them. */
import {
  type AudioStream,
  checkSampleRate,
  checkSamples,
  type DecodePool,
  type FeatureExtractor,
  SAMPLE_RATE,
} from '../audio/index.js';
import { throwIfAborted } from '../decode/index.js';
import { DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { type Cut, type Window, WindowCutter } from './windows.js';

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
  signal?: AbortSignal;
  /** Refuse audio that is unusual or damaged but could be decoded, instead of warning of it. Default false. */
  strict?: boolean;
  /** Refuse audio that lasts longer, in seconds. Default 86,400: a day. */
  maxDuration?: number;
}

/** One window, ready to be decoded. */
export interface Piece extends Window {
  source: number;
  sampleRate: number;
  /** What the source's last window tells of the whole: its seconds, and what was unusual; null for the others. */
  whole: { duration: number; warnings: readonly string[] } | null;
  features: Float32Array;
}

/** A source as it is decoded. */
type OpenAudio = Pick<AudioStream, 'sampleRate' | 'duration' | 'warnings' | 'close'> & {
  pieces: AsyncIterable<Float32Array> | Iterable<Float32Array>;
};

export class SourceWindows {
  constructor(
    private readonly pool: DecodePool,
    private readonly extractor: FeatureExtractor,
  ) {}

  /** The sources' windows in order, with files opened a few ahead; of what they hold a bounded part is decoded ahead. */
  async *windows(
    sources: readonly AudioSource[],
    options: SourceOptions,
    onError?: (source: number, error: DistilWhisperError) => unknown,
  ): AsyncGenerator<Piece, void, undefined> {
    const ahead: Promise<OpenAudio>[] = [];
    let started = 0;
    const fill = (): void => {
      while (started < sources.length && ahead.length <= this.pool.size) {
        const audio = this.open(sources[started]!, started++, options);
        audio.catch(() => {}); // Thrown when it is awaited, at its turn.
        ahead.push(audio);
      }
    };
    try {
      for (const source of sources.keys()) {
        throwIfAborted(options.signal);
        fill();
        const next = ahead.shift()!;
        try {
          const audio = await next;
          for await (const piece of this.cut(audio, nameOf(sources[source]!, source))) {
            throwIfAborted(options.signal);
            yield { source, ...piece };
          }
        } catch (error) {
          throwIfAborted(options.signal);
          if (!onError || !isDistilWhisperError(error)) throw error;
          await onError(source, error);
        } finally {
          await next.then((audio) => audio.close()).catch(() => {});
        }
      }
    } finally {
      for (const audio of ahead) void audio.then((audio) => audio.close()).catch(() => {});
    }
  }

  /** One source's windows with their features, as its samples come. */
  private async *cut(audio: OpenAudio, name: string): AsyncGenerator<Omit<Piece, 'source'>, void, undefined> {
    const { sampleRate } = audio;
    const cutter = new WindowCutter(sampleRate, this.extractor.seconds);
    const ready = async ({ begin, end, samples }: Cut, whole: Piece['whole']): Promise<Omit<Piece, 'source'>> => {
      const features = await this.features({ samples, sampleRate }, name);
      return { begin, end, sampleRate, whole, features };
    };
    for await (const samples of audio.pieces) for (const cut of cutter.push(samples)) yield await ready(cut, null);
    const last = cutter.end();
    yield await ready(last, { duration: audio.duration, warnings: audio.warnings });
  }

  private async features(audio: AudioSamples, name: string): Promise<Float32Array> {
    try {
      return await this.extractor.extract(audio);
    } catch (error) {
      if (!isDistilWhisperError(error)) throw error;
      throw new DistilWhisperError(error.code, `${name}: ${error.message}`, { cause: error });
    }
  }

  private async open(source: AudioSource, index: number, options: SourceOptions): Promise<OpenAudio> {
    if (typeof source === 'string' || source instanceof Uint8Array)
      return this.pool.open(source, { ...options, name: nameOf(source, index), sampleRate: SAMPLE_RATE });
    const { samples, sampleRate } = source ?? {};
    const name = nameOf(source, index);
    if (!(samples instanceof Float32Array)) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `${name}: expected a path, a file's bytes, or samples in a Float32Array with a sampleRate in whole Hz, got ${typeof (samples ?? source)}`,
      );
    }
    checkSampleRate(sampleRate, name, 'ERR_ARGUMENT');
    checkSamples(samples, name);
    return { sampleRate, pieces: [samples], duration: samples.length / sampleRate, warnings: [], async close() {} };
  }
}

const nameOf = (source: AudioSource, index: number): string =>
  typeof source !== 'string' ? `source ${index}` : source === '-' ? 'standard input' : source;
