/** What is heard of utterances: their audio decoded, kept where there is room for it, made features, and augmented. */
import {
  type AudioInput,
  type AugmentedItem,
  type Augmenter,
  DecodePool,
  FeatureExtractor,
  FRAMES_PER_SECOND,
  resampled,
  SAMPLE_RATE,
} from '../audio/index.js';
import type { Dataset, RowAudio } from '../data/index.js';
import { DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { Stream } from '../tensor/index.js';

/** An utterance as a micro-batch has it. */
export interface Heard {
  /** f32 [mels, frames]; not to be written. */
  features: Float32Array;
  /** The same without masks. */
  whole: Float32Array;
  /** Of its audio, as it is heard. */
  seconds: number;
  /** How many times as fast as it was spoken. */
  speed: number;
}

type OnWarning = ((audio: string, warning: string) => void) | undefined;

/** Threads and kernels at work. */
export interface Ears {
  /** An utterance as it is. */
  hear(row: number, onWarning?: OnWarning): Promise<Heard>;
  /** An utterance as an item of a micro-batch hears it. */
  augmented(row: number, item: AugmentedItem): Promise<Heard>;
  /** Ends the threads: what is being decoded is rejected. */
  stop(): Promise<void>;
  /** When nothing is under way any more. */
  close(): void;
}

/** Hears the rows of a data set. Errors of all: those of `Dataset.audio`, `decodeAudio`, `FeatureExtractor` and `Augmenter`. */
export class Hearing {
  /** Seconds of each row's audio: decoded, or as its table tells, which who has read it says; NaN where neither. */
  readonly lengths: Float64Array;
  /** Of one utterance. */
  readonly featureBytes: number;
  /** Features, or where audio is augmented samples at 16 kHz: never what an augmentation made of them. */
  private readonly kept = new Map<number, Float32Array>();
  private keeps = false;

  constructor(
    private readonly data: Dataset,
    private readonly size: { mels: number; frames: number },
    private readonly augmenter: Augmenter,
    private readonly strict: boolean | undefined,
  ) {
    this.featureBytes = size.mels * size.frames * Float32Array.BYTES_PER_ELEMENT;
    this.lengths = new Float64Array(data.length).fill(Number.NaN);
  }

  /** Keeps what these rows have from now on where all of it takes at most so many bytes. */
  keep(rows: readonly number[], bytes: number): void {
    // Some of many would be kept for nothing: an epoch comes round to them when it has all been decoded again.
    this.keeps = rows.reduce((sum, row) => sum + this.bytesOf(row), 0) <= bytes;
    if (!this.keeps) this.kept.clear();
  }

  /** Bytes that are still to be kept of these rows. */
  missingBytes(rows: readonly number[]): number {
    if (!this.keeps) return 0;
    return rows.reduce((sum, row) => sum + (this.kept.has(row) ? 0 : this.bytesOf(row)), 0);
  }

  /** Of a row's samples: at most a window's. */
  private bytesOf(row: number): number {
    if (!this.augmenter.changesAudio) return this.featureBytes;
    const window = this.size.frames / FRAMES_PER_SECOND;
    return Math.ceil((this.lengths[row] || window) * SAMPLE_RATE) * Float32Array.BYTES_PER_ELEMENT;
  }

  /** Decodes the noise that may be added. */
  async checkNoise(signal?: AbortSignal): Promise<void> {
    const { noiseFiles } = this.augmenter;
    if (!noiseFiles) return;
    const pool = new DecodePool();
    try {
      await noiseFiles.check(pool, signal);
    } finally {
      await pool.close();
    }
  }

  open(): Ears {
    const pool = new DecodePool();
    const stream = new Stream({ threads: 1, label: 'features' });
    const extractor = new FeatureExtractor({ ...this.size, stream });
    const tools: Tools = { pool, stream, extractor };
    return {
      hear: (row, onWarning) => this.hear(row, tools, onWarning),
      augmented: (row, item) => this.augmented(row, tools, item),
      stop: () => pool.close(),
      close: () => stream.close(),
    };
  }

  private async hear(row: number, tools: Tools, onWarning: OnWarning): Promise<Heard> {
    let features: Float32Array;
    if (this.augmenter.changesAudio) {
      const samples = await this.samples(row, tools, onWarning);
      features = await this.named(row, () => {
        this.augmenter.speeds(samples.length);
        return tools.extractor.extract({ samples, sampleRate: SAMPLE_RATE });
      });
    } else features = await this.features(row, tools, onWarning);
    return { features, whole: features, seconds: this.lengths[row]!, speed: 1 };
  }

  private async augmented(row: number, tools: Tools, item: AugmentedItem): Promise<Heard> {
    const { augmenter } = this;
    let heard: Heard;
    if (augmenter.changesAudio) {
      const clean = await this.samples(row, tools);
      heard = await this.named(row, async () => {
        const { samples, speed } = await augmenter.audio(clean, item, tools);
        const features = await tools.extractor.extract({ samples, sampleRate: SAMPLE_RATE });
        return { features, whole: features, seconds: samples.length / SAMPLE_RATE, speed };
      });
    } else heard = await this.hear(row, tools, undefined);
    if (!augmenter.masks) return heard;
    return { ...heard, features: augmenter.mask(heard.whole, heard.seconds, item) };
  }

  /** Features of a row as it is. */
  private async features(row: number, tools: Tools, onWarning: OnWarning): Promise<Float32Array> {
    const known = this.kept.get(row);
    if (known) return known;
    const decoded = await this.decoded(row, tools, onWarning);
    const features = await this.named(row, () => tools.extractor.extract(decoded));
    if (this.keeps) this.kept.set(row, features);
    return features;
  }

  /** Samples of a row at 16 kHz. */
  private async samples(row: number, tools: Tools, onWarning?: OnWarning): Promise<Float32Array> {
    const known = this.kept.get(row);
    if (known) return known;
    const { samples: stored, sampleRate } = await this.decoded(row, tools, onWarning);
    const samples =
      sampleRate === SAMPLE_RATE ? stored : await resampled(tools.stream, stored, sampleRate, SAMPLE_RATE);
    if (this.keeps) this.kept.set(row, samples);
    return samples;
  }

  private async decoded(row: number, { pool }: Tools, onWarning: OnWarning): Promise<Samples> {
    const { audio: name } = this.data.entry(row);
    const audio = await this.data.audio(row);
    let decoded = audio as Samples;
    if (typeof audio === 'string' || audio instanceof Uint8Array) {
      const { warnings, ...heard } = await pool.decode(audio, { name, sampleRate: SAMPLE_RATE, strict: this.strict });
      for (const warning of warnings) onWarning?.(name, warning);
      decoded = heard;
    }
    this.lengths[row] = decoded.samples.length / decoded.sampleRate;
    return decoded;
  }

  /** What is wrong with the file is told with its name. */
  private async named<T>(row: number, work: () => T | Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      if (!isDistilWhisperError(error)) throw error;
      throw new DistilWhisperError(error.code, `${this.data.entry(row).audio}: ${error.message}`, { cause: error });
    }
  }
}

interface Tools {
  pool: DecodePool;
  stream: Stream;
  extractor: FeatureExtractor;
}

type Samples = Exclude<RowAudio, AudioInput>;
