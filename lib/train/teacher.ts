import { DistilWhisperError } from '../errors/index.js';
import type { Whisper } from '../model/index.js';
import type { Tensor } from '../tensor/index.js';
import type { WhisperConfig } from '../weights/index.js';

/** What a teacher says of a micro-batch; its logits are rows·headᵀ. */
export interface Taught {
  /** Its last hidden rows f32 or bf16 [B·T, D]. */
  rows: Tensor;
  /** [V, D]. */
  head: Tensor;
}

/** Whose distribution over the vocabulary the student learns from. */
export interface Teacher {
  /** Sizes of its model; null: there is none, and the loss is cross-entropy with the gate budget alone. */
  readonly config: WhisperConfig | null;
  /** features f32 [B, mels, frames], ids i32 [B, T]: what the decoder hears. null: it has nothing to say. */
  teach(features: Tensor, ids: Tensor): Taught | null;
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
  if (config) checkTeacher(student, config);
  if (!('teach' in given) && given.stream !== student.stream) {
    throw new DistilWhisperError('ERR_STREAM', 'teacher: expected a model on the stream of the student');
  }
  if (distillation === 'none') return noTeacher(config);
  return 'teach' in given ? given : liveTeacher(given);
}

/** Whether a teacher of these sizes can teach the student. Throws ERR_VOCABULARY, ERR_MODEL. */
export function checkTeacher(student: Whisper, teacher: WhisperConfig): void {
  const { config } = student;
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
