import { DistilWhisperError } from '../errors/index.js';
import type { Stream, Tensor } from '../tensor/index.js';
import type { WhisperConfig } from '../weights/index.js';

/** A micro-batch, ready to upload. */
export interface TrainBatch {
  /** f32 [mels, frames] of each item; read when the update is queued, never kept. */
  features: readonly Float32Array[];
  /** What the decoder shall say, one list an item; its input is the same shifted right behind the start token. */
  labels: readonly (readonly number[])[];
  /** Lower-case language name of each item: whose expert it takes. null: none. */
  languages: readonly (string | null)[];
}

/** Micro-batches from number `from` of the whole run on, in an order that depends on nothing else. */
export interface BatchSource {
  stream(from: number): AsyncIterable<TrainBatch>;
}

/** A micro-batch of B items, labels padded to T, on a stream. */
export interface UploadedBatch {
  /** f32 [B, mels, frames]. */
  features: Tensor;
  /** What the decoder hears: i32 [B, T]. */
  ids: Tensor;
  /** What it shall say: i32 [B·T], padding ignored. */
  targets: Tensor;
  /** Labelled positions. */
  tokens: number;
}

const IGNORED = -100;

/** Puts micro-batches on a stream. */
export class BatchUploader {
  /** Where the features of a batch are put together: one buffer for the whole run, because garbage of this size fragments the heap. */
  private gathered = new Float32Array(0);

  constructor(
    private readonly stream: Stream,
    private readonly config: WhisperConfig,
  ) {}

  /** Throws ERR_SHAPE for features that are not those of the model and the labels. */
  upload(batch: TrainBatch): UploadedBatch {
    const { stream, config } = this;
    const B = batch.labels.length;
    const T = Math.max(...batch.labels.map((l) => l.length));
    const labels = new Int32Array(B * T).fill(IGNORED);
    const inputs = new Int32Array(B * T).fill(config.pad_token_id);
    for (const [b, row] of batch.labels.entries()) {
      labels.set(row, b * T);
      inputs.set([config.decoder_start_token_id, ...row.slice(0, T - 1)], b * T);
    }
    return {
      features: this.features(batch),
      ids: stream.tensor(inputs, [B, T], 'i32'),
      targets: stream.tensor(labels, [B * T], 'i32'),
      tokens: batch.labels.reduce((sum, row) => sum + row.length, 0),
    };
  }

  private features({ features, labels }: TrainBatch): Tensor {
    const { num_mel_bins: mels, max_source_positions } = this.config;
    const frames = 2 * max_source_positions;
    const size = mels * frames;
    const B = labels.length;
    if (features.length !== B) {
      throw new DistilWhisperError(
        'ERR_SHAPE',
        `features: expected those of each of ${B} items, f32 [${mels}, ${frames}], got a list of ${features.length}`,
      );
    }
    if (this.gathered.length < B * size) this.gathered = new Float32Array(B * size);
    for (const [b, item] of features.entries()) {
      if (item.length !== size) {
        throw new DistilWhisperError(
          'ERR_SHAPE',
          `features: expected ${size} numbers of item ${b}, f32 [${mels}, ${frames}], got ${item.length}`,
        );
      }
      this.gathered.set(item, b * size);
    }
    return this.stream.tensor(this.gathered.subarray(0, B * size), [B, mels, frames]);
  }
}
