import { DistilWhisperError } from '../errors/index.js';
import type { Whisper } from '../model/index.js';
import { kernels, type Parameter, type Tensor } from '../tensor/index.js';
import type { WhisperConfig } from '../weights/index.js';
import type { TrainBatch } from './batch.js';
import type { TeacherCache } from './teacher-cache.js';

/** What a teacher says of a micro-batch; its logits are rows·headᵀ. */
export interface Taught {
  /** Its last hidden rows f32 or bf16 [B·T, D]. Those behind an item's labels are never read, but with `compat: 'reference'`. */
  rows: Tensor;
  /** [V, D]. */
  head: Tensor;
}

/** Whose distribution over the vocabulary the student learns from. */
export interface Teacher {
  /** Sizes of its model; null: there is none, and the loss is cross-entropy with the gate budget alone. */
  readonly config: WhisperConfig | null;
  /** features f32 [B, mels, frames], ids i32 [B, T]: what the decoder hears, of `batch`. null: it has nothing to say. */
  teach(features: Tensor, ids: Tensor, batch: TrainBatch): Taught | null;
  /** Has on the disk what it keeps of what it said: before a checkpoint, whose run goes on with it. */
  settle?(): Promise<void>;
}

/** A model that runs beside the student. */
export function liveTeacher(model: Whisper): Teacher {
  const { stream, config } = model;
  return {
    config,
    teach: (features, ids) => ({
      rows: stream.tidy(() => {
        const { hidden } = model.decode(ids, model.encode(features).hidden);
        return hidden.reshape([ids.size, config.d_model]);
      }),
      head: model.embeddingTable.value,
    }),
  };
}

/**
 * A teacher whose rows come from a cache, by batches of `RecallingBatches`; `head` [V, D] is its output projection. What the cache
 * lacks `live` says, and it is added. Rows are rounded to bf16 either way, so that a run's numbers are the same before and after.
 */
export function cachedTeacher(
  cache: TeacherCache,
  config: WhisperConfig,
  head: Parameter,
  live: Whisper | null,
): Teacher {
  const width = config.d_model;
  const model = live ? liveTeacher(live) : null;
  const { stream } = head.value;
  return {
    config,
    teach: (features, ids, batch) => {
      const [B, T] = ids.shape as [number, number];
      const items = batch.recalled!;
      if (items.every(({ rows }) => rows !== null)) {
        const all = new Uint16Array(B * T * width);
        for (const [b, { rows }] of items.entries()) all.set(rows!, b * T * width);
        return { rows: stream.tensor(all, [B * T, width], 'bf16'), head: head.value };
      }
      if (!model)
        throw new DistilWhisperError('ERR_TEACHER_CACHE', `${cache.path}: expected the rows of all utterances`);
      const { rows } = model.teach(features, ids, batch)!;
      const rounded = rows.dtype === 'bf16' ? rows : kernels.cast(stream, { x: rows, out: 'bf16' }).y;
      const said = rounded.read() as Promise<Uint16Array>;
      said.catch(() => {});
      for (const [b, { keep }] of items.entries()) {
        const begin = b * T * width;
        keep(said.then((all) => all.slice(begin, begin + batch.labels[b]!.length * width)));
      }
      return { rows: rounded, head: head.value };
    },
    settle: () => cache.flush(),
  };
}

/** None. `config`: of one that is named but not learned from; the weights of the loss are those of a run with a teacher. */
export const noTeacher = (config: WhisperConfig | null = null): Teacher => ({ config, teach: () => null });

/**
 * The teacher of a student, of what a caller gave: a model is wrapped, and without distillation nobody is asked. Errors: those of
 * `checkTeacher`; ERR_STREAM.
 */
export function teacherOf(
  student: Whisper,
  given: Whisper | Teacher | null,
  distillation: 'js' | 'kl' | 'none',
): Teacher {
  if (!given) return noTeacher();
  const { config } = given;
  if (config) checkTeacher(student.config, config);
  if (!('teach' in given) && given.stream !== student.stream) {
    throw new DistilWhisperError('ERR_STREAM', 'teacher: expected a model on the stream of the student');
  }
  if (distillation === 'none') return noTeacher(config);
  return 'teach' in given ? given : liveTeacher(given);
}

/** Whether a teacher of these sizes can teach a student of those. Throws ERR_VOCABULARY, ERR_MODEL. */
export function checkTeacher(config: WhisperConfig, teacher: WhisperConfig): void {
  if (config.vocab_size !== teacher.vocab_size) {
    throw new DistilWhisperError(
      'ERR_VOCABULARY',
      `teacher: expected the student's vocabulary of ${config.vocab_size} tokens, got ${teacher.vocab_size}`,
    );
  }
  for (const name of ['num_mel_bins', 'max_source_positions'] as const) {
    if (config[name] !== teacher[name]) {
      throw new DistilWhisperError(
        'ERR_MODEL',
        `teacher: expected ${name} ${config[name]} as the student's, got ${teacher[name]}`,
      );
    }
  }
}
