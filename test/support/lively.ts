import { Whisper } from '../../lib/model/index.js';
import type { Stream, Tensor } from '../../lib/tensor/index.js';
import type { WhisperConfig } from '../../lib/weights/index.js';
import { attachRandomExpert } from './experts.js';
import { normals, random } from './random.js';
import { tinyConfig } from './tiny.js';

/** Large weights, so that what is said depends on the audio and on what was said before; experts for Catalan and Thai. */
export async function lively(stream: Stream, changes: Partial<WhisperConfig> = {}): Promise<Whisper> {
  const config = tinyConfig({ init_std: 0.4, encoder_layers: 2, decoder_layers: 2, ...changes });
  const model = await Whisper.create(stream, config, { seed: 5 });
  for (const [i, language] of ['catalan', 'thai'].entries()) attachRandomExpert(model, language, 10 + i);
  return model;
}

/** What each item hears: f32 [mels, frames]. */
export function sounds(model: Whisper, count: number): Float32Array[] {
  const { num_mel_bins, max_source_positions } = model.config;
  return Array.from({ length: count }, (_, i) => normals(num_mel_bins * 2 * max_source_positions, random(100 + i)));
}

export function upload(model: Whisper, items: readonly Float32Array[]): Tensor {
  const { num_mel_bins, max_source_positions } = model.config;
  const all = Float32Array.from(items.flatMap((item) => [...item]));
  return model.stream.tensor(all, [items.length, num_mel_bins, 2 * max_source_positions]);
}

export const PROMPTS = [
  [48, 1, 7],
  [48, 2, 7],
  [48, 3, 8],
  [48, 1, 7],
  [48, 4, 7],
  [48, 3, 7],
];
/** Two with the same expert apart from each other, one with none, one whose language has none here. */
export const LANGUAGES = ['catalan', null, 'thai', 'catalan', 'czech', 'thai'];
