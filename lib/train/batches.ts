import { type Augmentation, Augmenter, FRAMES_PER_SECOND } from '../audio/index.js';
import {
  type BadRow,
  BadRowsError,
  type Batch,
  badRow,
  blamesRow,
  Dataset,
  EpochSampler,
  type ManifestEntry,
  PrefetchLoader,
  type RowAudio,
  SAMPLER_OPTIONS,
  type SamplerOptions,
  type TextSegment,
} from '../data/index.js';
import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { resolveLanguage, TIMESTAMP_STEP, type TimestampTokens, type WhisperTokenizer } from '../text/index.js';
import type { WhisperConfig } from '../weights/index.js';
import type { BatchSource, TrainBatch } from './batch.js';
import { type Heard, Hearing } from './hearing.js';
import { LabelStore } from './label-store.js';
import { atSpeed, isTimed, timedText } from './timed-labels.js';

export interface AudioBatchOptions extends Omit<SamplerOptions, 'blocks' | 'sourceWeights'> {
  compat?: 'paper' | 'reference' | undefined;
  /**
   * Labels have timestamps before and behind the text, or each of its segments where rows have them, in place of `<|notimestamps|>`; of a share of the
   * utterances. Default: none.
   */
  timestampShare?: number | undefined;
  /** What is done to what is heard, in `stream` alone. Default: nothing. */
  augmentation?: Partial<Augmentation> | undefined;
  /**
   * Where the features of all utterances, or with an augmentation of the audio their samples, take at most so many bytes they are kept: later
   * epochs decode nothing. Default 1 GiB.
   */
  cacheBytes?: number | undefined;
  /** Takes the rows whose labels or, in `check`, audio are refused; they are left out then. Without it they are an error. */
  onBadRow?: ((row: BadRow) => void) | undefined;
  /** Refuse audio that is unusual or damaged but could be decoded, instead of warning of it. Default false. */
  strict?: boolean | undefined;
  /** In `check`: audio that is unusual but was decoded. */
  onWarning?: ((audio: string, warning: string) => void) | undefined;
}

// The data set says how it is dealt.
const { blocks: _, sourceWeights: __, ...SAMPLING } = SAMPLER_OPTIONS;

const OPTIONS: Record<keyof AudioBatchOptions, true> = {
  ...SAMPLING,
  compat: true,
  timestampShare: true,
  augmentation: true,
  cacheBytes: true,
  onBadRow: true,
  strict: true,
  onWarning: true,
};

/**
 * Labels of an utterance: what the decoder shall say behind the start token. Errors: ERR_LABEL_TOO_LONG, ERR_TOKENIZER.
 * With `segments`, which are the text, a timestamp stands before and behind each. 'reference': without the language token and with a second start token (docs/method.md, section 6).
 */
export function labelsOf(
  entry: Pick<ManifestEntry, 'text' | 'language' | 'task' | 'id'>,
  tokenizer: WhisperTokenizer,
  config: WhisperConfig,
  compat: 'paper' | 'reference' = 'paper',
  segments?: readonly TextSegment[],
): number[] {
  const { text, language, task = 'transcribe' } = entry;
  const all = tokenizer.labels(text, { language, task, compat, ...(segments && { segments }) });
  const labels = compat === 'reference' ? all : all.slice(1);
  if (labels.length > config.max_target_positions) {
    throw new DistilWhisperError(
      'ERR_LABEL_TOO_LONG',
      `${entry.id}: expected a text of at most ${config.max_target_positions} tokens (the decoder's positions), got ${labels.length}`,
    );
  }
  return labels;
}

/** Of features that are kept where nothing is said. */
const CACHE_BYTES = 2 ** 30;

/** Utterances in one batch of `check`. */
const CHECKED_AT_ONCE = 16;

/** Micro-batches of utterances: decoded, turned into features and labels ahead of the training step. */
export class AudioBatches implements BatchSource {
  private readonly all: Dataset;
  private readonly labels: LabelStore;
  /** Rows whose labels end with a timestamp that is not known until they are heard. */
  private readonly open = new Set<number>();
  /** Where timestamps are, and the last that a window has; null where labels have none. */
  private readonly stamps: (TimestampTokens & { last: number }) | null = null;
  private readonly augmenter: Augmenter;
  private readonly hearing: Hearing;
  /** Numbers of the utterances that are left. */
  private rows: number[] = [];
  private dealt: EpochSampler;

  /**
   * Checks every label at once, so that a long run does not find out late. Of a data set the rows are read when they are needed; it stays the
   * caller's. Errors: BadRowsError with those of `labelsOf`, ERR_LANGUAGE (no such token); ERR_ARGUMENT;
   * those of `Augmenter`.
   */
  constructor(
    data: Dataset | readonly ManifestEntry[],
    config: WhisperConfig,
    tokenizer: WhisperTokenizer,
    private readonly options: AudioBatchOptions,
  ) {
    checkOptions('AudioBatches', options, OPTIONS);
    this.all = data instanceof Dataset ? data : Dataset.of(data);
    this.labels = new LabelStore(this.all.length);
    const { augmentation = {}, seed = 0, strict } = options;
    const features = { mels: config.num_mel_bins, frames: 2 * config.max_source_positions };
    this.augmenter = new Augmenter(augmentation, seed, features);
    this.hearing = new Hearing(this.all, features, this.augmenter, strict);
    const { timestampShare = 0 } = options;
    if (!(timestampShare >= 0 && timestampShare <= 1)) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `timestampShare: expected a share from 0 to 1, got ${String(timestampShare)}`,
      );
    }
    const window = features.frames / FRAMES_PER_SECOND;
    if (timestampShare > 0) {
      const tokens = tokenizer.requireTimestamps(config.vocab_size);
      this.stamps = { ...tokens, last: tokens.begin + config.max_source_positions };
    }
    const bad: BadRow[] = [];
    for (const row of this.all.numbers()) {
      const entry = this.all.entry(row);
      if (entry.duration !== undefined) this.hearing.lengths[row] = entry.duration;
      try {
        const timed = timestampShare > 0 && isTimed(entry.id, timestampShare);
        const segments = timed ? timedText(entry, window, 0) : undefined;
        this.labels.add(labelsOf(entry, tokenizer, config, options.compat, segments));
        if (timed && !entry.segments && entry.duration === undefined) this.open.add(row);
        this.rows.push(row);
      } catch (error) {
        if (!blamesRow(error)) throw error;
        this.labels.add([]);
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
    return this.rows.length;
  }

  /**
   * Decodes every utterance once, so that a bad file ends a run before anything is written, and keeps the features where all fit
   * the cache. Errors: BadRowsError with those of `decodeAudio` and `FeatureExtractor`; those of `decodeAudio` for noise;
   * ERR_INTERRUPTED.
   */
  async check(
    options: {
      signal?: AbortSignal | undefined;
      onProgress?: ((done: number, total: number) => unknown) | undefined;
    } = {},
  ): Promise<void> {
    const total = this.length;
    const bad = new Map<number, BadRow>();
    let done = 0;
    const batches = Array.from({ length: Math.ceil(total / CHECKED_AT_ONCE) }, (_, position) => ({
      epoch: 0,
      position,
      indices: Int32Array.from(
        { length: Math.min(CHECKED_AT_ONCE, total - position * CHECKED_AT_ONCE) },
        (_, i) => position * CHECKED_AT_ONCE + i,
      ),
    }));
    const refused = (row: number, error: DistilWhisperError): void => {
      bad.set(row, badRow(this.all.entry(row), error));
    };
    await this.hearing.checkNoise(options.signal);
    for await (const count of this.load(batches, (items) => items.length, { refused })) {
      if (options.signal?.aborted) {
        throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted while the audio was checked; nothing was written');
      }
      done += count;
      await options.onProgress?.(done, total);
    }
    if (bad.size === 0) return;
    const inOrder = this.rows.flatMap((row) => bad.get(row) ?? []);
    this.dealt = this.without(inOrder, new Set(bad.keys()));
  }

  /** The rows that are left. It shares the files of what the batches were made of. */
  get data(): Dataset {
    return this.all.select(this.rows);
  }

  /** Tells of bad rows or throws them, and deals the examples that are left. */
  private without(bad: readonly BadRow[], refused: ReadonlySet<number>): EpochSampler {
    const { onBadRow } = this.options;
    for (const row of bad) onBadRow?.(row);
    this.rows = this.rows.filter((row) => !refused.has(row));
    if (bad.length > 0 && (!onBadRow || this.length === 0)) throw new BadRowsError(bad);
    const {
      compat: _,
      augmentation: ______,
      timestampShare: _______,
      cacheBytes = CACHE_BYTES,
      onBadRow: ___,
      strict: ____,
      onWarning: _____,
      ...sampling
    } = this.options;
    // Some of many would be kept for nothing: an epoch comes round to them when it has all been decoded again.
    this.hearing.keep(this.rows, cacheBytes);
    const { items, blocks, sourceWeights } = this.data.sampling;
    return new EpochSampler(items, { ...sampling, blocks, sourceWeights });
  }

  /** What the table says of utterance `i` of those that are left. */
  entry(i: number): ManifestEntry {
    return this.all.entry(this.rows[i]!);
  }

  /** Its audio, to be decoded. Errors: those of `Dataset.audio`. */
  audio(i: number): Promise<RowAudio> {
    return this.all.audio(this.rows[i]!);
  }

  /** What the decoder shall say of it, behind the start token. */
  labelsOf(i: number): number[] {
    return this.labels.get(this.rows[i]!);
  }

  /** How many labels its decoder shall say. */
  labelCount(i: number): number {
    return this.labels.count(this.rows[i]!);
  }

  /** Seconds of all audio, as far as it was decoded or its table tells; null where neither. */
  get seconds(): number | null {
    const sum = this.rows.reduce((seconds, row) => seconds + this.hearing.lengths[row]!, 0);
    return Number.isNaN(sum) ? null : sum;
  }

  /** Whether labels lack timestamps until what they are of is heard: `check` hears all. */
  get isOpen(): boolean {
    return this.rows.some((row) => this.open.has(row));
  }

  /** Bytes of features, samples and noise that are still to be kept in memory. */
  get cachedBytes(): number {
    return this.hearing.missingBytes(this.rows) + (this.augmenter.noiseFiles?.missingBytes ?? 0);
  }

  /** Bytes of an utterance on its way to the stream. */
  get itemBytes(): number {
    return (this.augmenter.masks ? 2 : 1) * this.hearing.featureBytes;
  }

  /** What is done to what is heard, as a part of a run's identity; null: nothing. */
  get augmentation(): Record<string, unknown> | null {
    const { isOn, options, noiseFiles } = this.augmenter;
    // Known by what it is made of, not by its path.
    return isOn ? { ...options, noiseFolder: noiseFiles?.files ?? null } : null;
  }

  async *stream(from: number): AsyncGenerator<TrainBatch, void, undefined> {
    const perEpoch = this.sampler.batchesPerEpoch;
    const batches = this.sampler.iterate({ epoch: Math.floor(from / perEpoch), position: from % perEpoch });
    yield* this.load(batches, (items, { indices }) => this.collated(items as Heard[], indices), {
      microOf: ({ epoch, position }) => epoch * perEpoch + position,
    });
  }

  /** Some of the utterances, by their numbers, in batches of `size`, as they are. Errors: those of `stream`. */
  async *of(indices: readonly number[], size: number): AsyncGenerator<TrainBatch, void, undefined> {
    const batches = Array.from({ length: Math.ceil(indices.length / size) }, (_, position) => ({
      epoch: 0,
      position,
      indices: Int32Array.from(indices.slice(position * size, (position + 1) * size)),
    }));
    yield* this.load(batches, (items, batch) => this.collated(items as Heard[], batch.indices));
  }

  /** Ends the labels of a row that was heard. */
  private measured(row: number): void {
    if (!this.stamps || !this.open.delete(row)) return;
    const { begin, last } = this.stamps;
    this.labels.set(row, 2, Math.min(begin + Math.round(this.hearing.lengths[row]! / TIMESTAMP_STEP), last));
  }

  private collated(items: readonly Heard[], indices: Int32Array): TrainBatch {
    const { rows, all, labels, stamps } = this;
    return {
      features: items.map(({ features }) => features),
      teacherFeatures: this.augmenter.masks ? items.map(({ whole }) => whole) : undefined,
      labels: Array.from(indices, (i, at) => {
        const own = labels.get(rows[i]!);
        return stamps ? atSpeed(own, items[at]!.speed, stamps, stamps.last) : own;
      }),
      languages: Array.from(indices, (i) => resolveLanguage(all.entry(rows[i]!).language).name),
      utterances: Array.from(indices),
      seconds: items.reduce((sum, { seconds }) => sum + seconds, 0),
    };
  }

  /**
   * The batches' utterances, loaded ahead by a pool of threads that lives as long as the iteration; augmented where `microOf` says of a
   * batch which micro-batch it is. With `refused` an utterance at fault is handed to it, and null stands in its place.
   */
  private async *load<T>(
    batches: Iterable<Batch>,
    collate: (items: (Heard | null)[], batch: Batch) => T,
    {
      microOf,
      refused,
    }: { microOf?: (batch: Batch) => number; refused?: (row: number, error: DistilWhisperError) => void } = {},
  ): AsyncGenerator<T, void, undefined> {
    const ears = this.hearing.open();
    const augments = microOf && this.augmenter.isOn;
    const loader = new PrefetchLoader<number, Heard | null, T>({
      examples: this.rows,
      batches,
      load: async (row, _, { batch, at }) => {
        try {
          const heard = augments
            ? await ears.augmented(row, { micro: microOf(batch), item: at })
            : await ears.hear(row, refused && this.options.onWarning);
          this.measured(row);
          return heard;
        } catch (error) {
          if (!refused || !blamesRow(error)) throw error;
          refused(row, error);
          return null;
        }
      },
      collate,
      describe: (row) => {
        const { id, manifest, line } = this.all.entry(row);
        return `${id} (${manifest} line ${line})`;
      },
      onClose: () => ears.stop(),
    });
    try {
      for await (const { data } of loader) yield data;
    } finally {
      await loader.close();
      ears.close();
    }
  }
}
