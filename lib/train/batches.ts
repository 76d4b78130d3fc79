import { availableParallelism } from 'node:os';
import { DecodePool, FeatureExtractor } from '../audio/index.js';
import { EpochSampler, type ManifestEntry, PrefetchLoader, type SamplerOptions } from '../data/index.js';
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

  async *stream(from: number): AsyncGenerator<TrainBatch, void, undefined> {
    const { config, entries } = this;
    const perEpoch = this.sampler.batchesPerEpoch;
    const frames = 2 * config.max_source_positions;
    const size = config.num_mel_bins * frames;
    const pool = new DecodePool({ size: Math.max(1, Math.min(4, availableParallelism() - 1)) });
    const extractor = new FeatureExtractor({ mels: config.num_mel_bins, frames });
    const loader = new PrefetchLoader<number, Float32Array, TrainBatch>({
      examples: entries.map((_, i) => i),
      batches: this.sampler.iterate({ epoch: Math.floor(from / perEpoch), position: from % perEpoch }),
      load: (i) => this.features(i, pool, extractor),
      collate: (items, { indices }) => {
        const features = new Float32Array(items.length * size);
        for (const [b, item] of items.entries()) features.set(item, b * size);
        return {
          features,
          labels: Array.from(indices, (i) => this.labels[i]!),
          languages: Array.from(indices, (i) => resolveLanguage(entries[i]!.language).name),
        };
      },
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
