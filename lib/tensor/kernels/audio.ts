/** Audio. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';

/** Log-mel features as Whisper's. samples f32 [n] at 16 kHz, filters f32 [mels, 201] → features f32 [mels, frames], silence behind. */
export function logMel(stream: Stream, a: { samples: Tensor; filters: Tensor; frames: number }): { features: Tensor } {
  const [features] = call(stream, 'log_mel', [a.samples, a.filters], [a.frames]);
  return { features: features! };
}

/** The triangles that `logMel` sums frequencies by: filters f32 [mels, 201]. */
export function melFilters(stream: Stream, a: { mels: number }): { filters: Tensor } {
  const [filters] = call(stream, 'mel_filters', [], [a.mels]);
  return { filters: filters! };
}

/** samples f32 [n] at rate `from` → f32 [⌈n·to/from⌉] at `to`, in whole Hz: y[j] = Σ_i x[i]·h(i − j·from/to), h a windowed sinc. */
export function resample(stream: Stream, a: { samples: Tensor; from: number; to: number }): { resampled: Tensor } {
  const [resampled] = call(stream, 'resample', [a.samples], [a.from, a.to]);
  return { resampled: resampled! };
}
