import type { Whisper } from '../../lib/model/index.js';
import { normals, random } from './random.js';

/** Logits f32 of a few tokens on features that are always the same. */
export async function logitsOf(model: Whisper, language: string | null = null): Promise<Float32Array> {
  const { stream, config } = model;
  const shape = [1, config.num_mel_bins, 2 * config.max_source_positions];
  const features = normals(shape[1]! * shape[2]!, random(7));
  const pass = { languages: [language] };
  const { hidden: memory } = model.encode(stream.tensor(features, shape), pass);
  const { hidden } = model.decode(stream.tensor(Int32Array.of(3, 1, 4), [1, 3], 'i32'), memory, pass);
  const logits = model.logits(hidden);
  const values = await logits.floats();
  stream.endStep();
  return values;
}
