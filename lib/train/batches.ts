import { DecodePool, FeatureExtractor } from '../audio/index.js';
import { type Batch, EpochSampler, type ManifestEntry, PrefetchLoader, type SamplerOptions } from '../data/index.js';
import { DistilWhisperError } from '../errors/index.js';
import { resolveLanguage, type WhisperTokenizer } from '../text/index.js';
import type { WhisperConfig } from '../weights/index.js';
import type { TrainBatch } from './engine.js';
import type { BatchSource } from './trainer.js';

export interface AudioBatchOptions extends SamplerOptions {
  compat?: 'paper' | 'reference';
  /** Features kept in memory after their first use, in bytes: later epochs decode nothing. Default 1 GiB. */
  cacheBytes?: number;
}

/**
 * Labels of an utterance: what the decoder shall say behind the start token. Errors: ERR_LABEL_TOO_LONG, ERR_TOKENIZER.
 * 'reference': without the language token and with a second start token (REFERENCE section 5).
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

/** Micro-batches of a manifest's utterances: decoded, turned into features and labels ahead of the training step. */
export class AudioBatches implements BatchSource {
  readonly sampler: EpochSampler;
  private readonly labels: number[][];
  private readonly cache = new Map<number, Float32Array>();
  private cached = 0;

  /** Checks every label at once, so that a long run does not find out late. Errors: those of `labelsOf`, ERR_ARGUMENT. */
  constructor(
    private readonly entries: readonly ManifestEntry[],
    private readonly config: WhisperConfig,
    tokenizer: WhisperTokenizer,
    private readonly options: AudioBatchOptions,
  ) {
    this.labels = entries.map((entry) => labelsOf(entry, tokenizer, config, options.compat));
    this.sampler = new EpochSampler(entries, options);
  }

  /**
   * Decodes every utterance once, so that a bad file ends a run before anything is written, and keeps the features that fit
   * the cache. Errors: those of `decodeAudio` and `FeatureExtractor`, with the utterance's id and line; ERR_INTERRUPTED.
   */
  async check(
    options: { signal?: AbortSignal; onProgress?: (done: number, total: number) => unknown } = {},
  ): Promise<void> {
    const { entries } = this;
    let done = 0;
    const batches = Array.from({ length: Math.ceil(entries.length / CHECKED_AT_ONCE) }, (_, position) => ({
      epoch: 0,
      position,
      indices: Int32Array.from(
        { length: Math.min(CHECKED_AT_ONCE, entries.length - position * CHECKED_AT_ONCE) },
        (_, i) => position * CHECKED_AT_ONCE + i,
      ),
    }));
    for await (const count of this.load(batches, (items) => items.length)) {
      if (options.signal?.aborted) {
        throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted while the audio was checked; nothing was written');
      }
      done += count;
      await options.onProgress?.(done, entries.length);
    }
  }

  async *stream(from: number): AsyncGenerator<TrainBatch, void, undefined> {
    const { entries } = this;
    const perEpoch = this.sampler.batchesPerEpoch;
    const batches = this.sampler.iterate({ epoch: Math.floor(from / perEpoch), position: from % perEpoch });
    yield* this.load(batches, (features, { indices }) => ({
      features,
      labels: Array.from(indices, (i) => this.labels[i]!),
      languages: Array.from(indices, (i) => resolveLanguage(entries[i]!.language).name),
    }));
  }

  /** Features of the batches' utterances, loaded ahead by a pool of threads that lives as long as the iteration. */
  private async *load<T>(
    batches: Iterable<Batch>,
    collate: (items: Float32Array[], batch: Batch) => T,
  ): AsyncGenerator<T, void, undefined> {
    const { config, entries } = this;
    const pool = new DecodePool();
    const extractor = new FeatureExtractor({ mels: config.num_mel_bins, frames: 2 * config.max_source_positions });
    const loader = new PrefetchLoader<number, Float32Array, T>({
      examples: entries.map((_, i) => i),
      batches,
      load: (i) => this.features(i, pool, extractor),
      collate,
      describe: (i) => `${entries[i]!.id} (${entries[i]!.manifest} line ${entries[i]!.line})`,
      onClose: () => pool.close(),
    });
    try {
      for await (const { data } of loader) yield data;
    } finally {
      await loader.close();
      extractor.close();
    }
  }

  private async features(i: number, pool: DecodePool, extractor: FeatureExtractor): Promise<Float32Array> {
    const known = this.cache.get(i);
    if (known) return known;
    const features = await extractor.extract(await pool.decode(this.entries[i]!.audio));
    if (this.cached + features.byteLength <= (this.options.cacheBytes ?? 2 ** 30)) {
      this.cache.set(i, features);
      this.cached += features.byteLength;
    }
    return features;
  }
}
