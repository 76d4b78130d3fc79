import { FeatureUploader } from '../model/index.js';
import type { Stream, Tensor } from '../tensor/index.js';
import type { WhisperConfig } from '../weights/index.js';

/** What a teacher has said of an item before. */
export interface Recalled {
  /** bf16 [labels, D]; null for every item of a batch: the teacher is asked. */
  rows: Uint16Array | null;
  /** Takes what the teacher was asked for instead. */
  keep(rows: Promise<Uint16Array>): void;
}

/** A micro-batch, ready to upload. */
export interface TrainBatch {
  /** f32 [mels, frames] of each item; read when the update is queued, never kept. */
  features: readonly Float32Array[];
  /** What a teacher hears of each item instead, where it is other: the features without masks. */
  teacherFeatures?: readonly Float32Array[] | undefined;
  /** What the decoder shall say, one list an item; its input is the same shifted right behind the start token. */
  labels: readonly (readonly number[])[];
  /** Lower-case language name of each item: whose expert it takes. null: none. */
  languages: readonly (string | null)[];
  /** What a teacher that runs beside the stream has said of each item: its last hidden rows f32 [T, D], T the most labels of an item. */
  taught?: readonly Float32Array[] | undefined;
  /** Number of each item in its source: equal numbers, equal items. Absent: the source does not tell. */
  utterances?: readonly number[] | undefined;
  /** Audio of all items together, in seconds; absent where the source does not tell. */
  seconds?: number | undefined;
  /** What a teacher has said of each item before; absent: nothing is kept of it. */
  recalled?: readonly Recalled[] | undefined;
}

/** A batch in parts of so many items, in order. */
export function partsOf(batch: TrainBatch, size: number): TrainBatch[] {
  const { features, teacherFeatures, labels, languages, recalled, taught } = batch;
  const count = labels.length;
  if (count <= size) return [batch];
  return Array.from({ length: Math.ceil(count / size) }, (_, i) => {
    const [begin, end] = [i * size, (i + 1) * size];
    return {
      features: features.slice(begin, end),
      teacherFeatures: teacherFeatures?.slice(begin, end),
      labels: labels.slice(begin, end),
      languages: languages.slice(begin, end),
      recalled: recalled?.slice(begin, end),
      taught: taught?.slice(begin, end),
    };
  });
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
}

const IGNORED = -100;

/** What the decoder hears of a batch: ids [B, T], the labels shifted right behind the start token, padded. */
export function decoderInputs({ labels }: TrainBatch, config: WhisperConfig): { ids: Int32Array; T: number } {
  const T = Math.max(...labels.map((row) => row.length));
  const ids = new Int32Array(labels.length * T).fill(config.pad_token_id);
  for (const [b, row] of labels.entries()) ids.set([config.decoder_start_token_id, ...row.slice(0, T - 1)], b * T);
  return { ids, T };
}

/** Puts micro-batches on a stream. */
export class BatchUploader {
  private readonly features: FeatureUploader;

  constructor(
    private readonly stream: Stream,
    private readonly config: WhisperConfig,
  ) {
    this.features = new FeatureUploader(stream, config);
  }

  /** Throws ERR_SHAPE for features that are not those of the model and the labels. */
  upload(batch: TrainBatch): UploadedBatch {
    const { stream, config } = this;
    const B = batch.labels.length;
    const { ids, T } = decoderInputs(batch, config);
    const labels = new Int32Array(B * T).fill(IGNORED);
    for (const [b, row] of batch.labels.entries()) labels.set(row, b * T);
    return {
      features: this.features.upload(batch.features, B),
      ids: stream.tensor(ids, [B, T], 'i32'),
      targets: stream.tensor(labels, [B * T], 'i32'),
    };
  }

  /** What a teacher hears, f32 [B, mels, frames], where it is other than the student; else null. Throws ERR_SHAPE. */
  uploadForTeacher({ teacherFeatures, labels }: TrainBatch): Tensor | null {
    return teacherFeatures ? this.features.upload(teacherFeatures, labels.length) : null;
  }
}
