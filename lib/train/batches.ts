import { DecodePool, FeatureExtractor, SAMPLE_RATE } from '../audio/index.js';
import {
  type BadRow,
  BadRowsError,
  type Batch,
  badRow,
  blamesRow,
  EpochSampler,
  type ManifestEntry,
  PrefetchLoader,
  SAMPLER_OPTIONS,
  type SamplerOptions,
} from '../data/index.js';
import { checkOptions, DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { resolveLanguage, type WhisperTokenizer } from '../text/index.js';
import type { WhisperConfig } from '../weights/index.js';
import type { BatchSource, TrainBatch } from './batch.js';

export interface AudioBatchOptions extends SamplerOptions {
  compat?: 'paper' | 'reference' | undefined;
  /** Features kept in memory after their first use, in bytes: later epochs decode nothing. Default 1 GiB. */
  cacheBytes?: number | undefined;
  /** Takes the rows whose labels or, in `check`, audio are refused; they are left out then. Without it they are an error. */
  onBadRow?: ((row: BadRow) => void) | undefined;
  /** Refuse audio that is unusual or damaged but could be decoded, instead of warning of it. Default false. */
  strict?: boolean | undefined;
  /** In `check`: audio that is unusual but was decoded. */
  onWarning?: ((audio: string, warning: string) => void) | undefined;
}

const OPTIONS: Record<keyof AudioBatchOptions, true> = {
  ...SAMPLER_OPTIONS,
  compat: true,
  cacheBytes: true,
  onBadRow: true,
  strict: true,
  onWarning: true,
};

/**
 * Labels of an utterance: what the decoder shall say behind the start token. Errors: ERR_LABEL_TOO_LONG, ERR_TOKENIZER.
 * 'reference': without the language token and with a second start token (docs/method.md, section 6).
 */
export function labelsOf(
  entry: Pick<ManifestEntry, 'text' | 'language' | 'task' | 'id'>,
  tokenizer: WhisperTokenizer,
  config: WhisperConfig,
  compat: 'paper' | 'reference' = 'paper',
): number[] {
  const all = tokenizer.labels(entry.text, { language: entry.language, task: entry.task ?? 'transcribe', compat });
  const labels = compat === 'reference' ? all : all.slice(1);
  if (labels.length > config.max_target_positions) {
    throw new DistilWhisperError(
      'ERR_LABEL_TOO_LONG',
      `${entry.id}: expected a text of at most ${config.max_target_positions} tokens (the decoder's positions), got ${labels.length}`,
    );
  }
  return labels;
}

/** Utterances in one batch of `check`. */
const CHECKED_AT_ONCE = 16;

/** An utterance with what the decoder shall say, and its features where they are kept. */
interface Example {
  entry: ManifestEntry;
  labels: number[];
  features?: Float32Array;
}

/** Micro-batches of a manifest's utterances: decoded, turned into features and labels ahead of the training step. */
export class AudioBatches implements BatchSource {
  private examples: Example[] = [];
  private dealt: EpochSampler;
  private cached = 0;

  /**
   * Checks every label at once, so that a long run does not find out late. Errors: BadRowsError with those of `labelsOf`,
   * ERR_LANGUAGE (no such token); ERR_ARGUMENT.
   */
  constructor(
    entries: readonly ManifestEntry[],
    private readonly config: WhisperConfig,
    tokenizer: WhisperTokenizer,
    private readonly options: AudioBatchOptions,
  ) {
    checkOptions('AudioBatches', options, OPTIONS);
    const bad: BadRow[] = [];
    for (const entry of entries) {
      try {
        this.examples.push({ entry, labels: labelsOf(entry, tokenizer, config, options.compat) });
      } catch (error) {
        if (!blamesRow(error)) throw error;
        bad.push(badRow(entry, error));
      }
    }
    this.dealt = this.without(bad, new Set());
  }

  /** Deals the utterances that are left into batches. */
  get sampler(): EpochSampler {
    return this.dealt;
  }

  /** Utterances that are left. */
  get length(): number {
    return this.examples.length;
  }

  /**
   * Decodes every utterance once, so that a bad file ends a run before anything is written, and keeps the features that fit
   * the cache. Errors: BadRowsError with those of `decodeAudio` and `FeatureExtractor`; ERR_INTERRUPTED.
   */
  async check(
    options: {
      signal?: AbortSignal | undefined;
      onProgress?: ((done: number, total: number) => unknown) | undefined;
    } = {},
  ): Promise<void> {
    const total = this.length;
    const bad = new Map<Example, BadRow>();
    let done = 0;
    const batches = Array.from({ length: Math.ceil(total / CHECKED_AT_ONCE) }, (_, position) => ({
      epoch: 0,
      position,
      indices: Int32Array.from(
        { length: Math.min(CHECKED_AT_ONCE, total - position * CHECKED_AT_ONCE) },
        (_, i) => position * CHECKED_AT_ONCE + i,
      ),
    }));
    const refused = (example: Example, error: DistilWhisperError): void => {
      bad.set(example, badRow(example.entry, error));
    };
    for await (const count of this.load(batches, (items) => items.length, refused)) {
      if (options.signal?.aborted) {
        throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted while the audio was checked; nothing was written');
      }
      done += count;
      await options.onProgress?.(done, total);
    }
    if (bad.size === 0) return;
    const inOrder = this.examples.flatMap((example) => bad.get(example) ?? []);
    this.dealt = this.without(inOrder, new Set(bad.keys()));
  }

  /** The rows that are left. */
  get entries(): readonly ManifestEntry[] {
    return this.examples.map(({ entry }) => entry);
  }

  /** Tells of bad rows or throws them, and deals the examples that are left. */
  private without(bad: readonly BadRow[], refused: ReadonlySet<Example>): EpochSampler {
    const { onBadRow } = this.options;
    for (const row of bad) onBadRow?.(row);
    this.examples = this.examples.filter((example) => !refused.has(example));
    if (bad.length > 0 && (!onBadRow || this.length === 0)) throw new BadRowsError(bad);
    const { compat: _, cacheBytes: __, onBadRow: ___, strict: ____, onWarning: _____, ...sampling } = this.options;
    const entries = this.examples.map(({ entry }) => entry);
    return new EpochSampler(entries, sampling);
  }

  async *stream(from: number): AsyncGenerator<TrainBatch, void, undefined> {
    const { examples } = this;
    const perEpoch = this.sampler.batchesPerEpoch;
    const batches = this.sampler.iterate({ epoch: Math.floor(from / perEpoch), position: from % perEpoch });
    yield* this.load(batches, (features, { indices }) => ({
      features: features as Float32Array[],
      labels: Array.from(indices, (i) => examples[i]!.labels),
      languages: Array.from(indices, (i) => resolveLanguage(examples[i]!.entry.language).name),
    }));
  }

  /**
   * Features of the batches' utterances, loaded ahead by a pool of threads that lives as long as the iteration. With `refused`
   * an utterance at fault is handed to it, and null stands in its place.
   */
  private async *load<T>(
    batches: Iterable<Batch>,
    collate: (items: (Float32Array | null)[], batch: Batch) => T,
    refused?: (example: Example, error: DistilWhisperError) => void,
  ): AsyncGenerator<T, void, undefined> {
    const { config } = this;
    const pool = new DecodePool();
    const extractor = new FeatureExtractor({ mels: config.num_mel_bins, frames: 2 * config.max_source_positions });
    const loader = new PrefetchLoader<Example, Float32Array | null, T>({
      examples: this.examples,
      batches,
      load: async (example) => {
        try {
          return await this.features(example, pool, extractor, refused && this.options.onWarning);
        } catch (error) {
          if (!refused || !blamesRow(error)) throw error;
          refused(example, error);
          return null;
        }
      },
      collate,
      describe: ({ entry }) => `${entry.id} (${entry.manifest} line ${entry.line})`,
      onClose: () => pool.close(),
    });
    try {
      for await (const { data } of loader) yield data;
    } finally {
      await loader.close();
      extractor.close();
    }
  }

  private async features(
    example: Example,
    pool: DecodePool,
    extractor: FeatureExtractor,
    onWarning: AudioBatchOptions['onWarning'],
  ): Promise<Float32Array> {
    if (example.features) return example.features;
    const { audio } = example.entry;
    const decoded = await pool.decode(audio, { sampleRate: SAMPLE_RATE, strict: this.options.strict });
    for (const warning of decoded.warnings) onWarning?.(audio, warning);
    let features: Float32Array;
    try {
      features = await extractor.extract(decoded);
    } catch (error) {
      // What is wrong with the file is told with its name.
      throw isDistilWhisperError(error)
        ? new DistilWhisperError(error.code, `${audio}: ${error.message}`, { cause: error })
        : error;
    }
    if (this.cached + features.byteLength <= (this.options.cacheBytes ?? 2 ** 30)) {
      example.features = features;
      this.cached += features.byteLength;
    }
    return features;
  }
}
