/** Operations of a Whisper's products (a multiply and an add are two). B items, T decoder rows each. */
import type { WhisperConfig } from '../lib/weights/index.js';

export interface Flop {
  stem: number;
  /** Projections of the attention blocks. */
  projections: number;
  /** Scores and weighted sums. */
  attention: number;
  /** One FFN in every layer. */
  ffn: number;
}

export const sum = (flop: Flop): number => flop.stem + flop.projections + flop.attention + flop.ffn;

export function encoderFlop(config: WhisperConfig, batch: number): Flop {
  const { d_model: D, encoder_layers: layers, encoder_ffn_dim: F, num_mel_bins: mels } = config;
  const S = config.max_source_positions;
  const rows = batch * S;
  return {
    stem: 2 * rows * (2 * 3 * mels * D + 3 * D * D),
    projections: layers * 8 * rows * D * D,
    attention: layers * 4 * rows * S * D,
    ffn: layers * 4 * rows * D * F,
  };
}

/** T rows at once, as in training; the output projection is not among them. */
export function decoderFlop(config: WhisperConfig, batch: number, T: number): Flop {
  const { d_model: D, decoder_layers: layers, decoder_ffn_dim: F, max_source_positions: S } = config;
  const rows = batch * T;
  return {
    stem: 0,
    projections: layers * (12 * rows * D * D + 4 * batch * S * D * D),
    attention: layers * 4 * rows * (T / 2 + S) * D,
    ffn: layers * 4 * rows * D * F,
  };
}

/**
 * A training step of experts and gates: the teacher's forward, the student's with both FFNs, the way back through every
 * frozen product that has an expert before it, and the experts' weight gradients.
 */
export function stepFlop(student: WhisperConfig, teacher: WhisperConfig, batch: number, T: number): number {
  const head = (config: WhisperConfig): number => 2 * batch * T * config.vocab_size * config.d_model;
  const encoder = encoderFlop(student, batch);
  const decoder = decoderFlop(student, batch, T);
  const forward = sum(encoder) + encoder.ffn + sum(decoder) + decoder.ffn;
  // Before the encoder's first FFN nothing trains.
  const first = (encoder.projections + encoder.attention) / student.encoder_layers;
  const inputs = forward - encoder.stem - first;
  const scores = encoder.attention * (1 - 1 / student.encoder_layers) + decoder.attention;
  const weights = encoder.ffn + decoder.ffn;
  const teacherForward = sum(encoderFlop(teacher, batch)) + sum(decoderFlop(teacher, batch, T));
  return teacherForward + forward + inputs + scores + weights + head(teacher) + 2 * head(student);
}
