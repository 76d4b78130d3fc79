import { LanguageExpert, type Whisper } from '../../lib/model/index.js';
import { expertTensorNames, fromFloat32, type HostTensor } from '../../lib/weights/index.js';
import { normals, random } from './random.js';

/** Tensors of an expert with random weights: its gates open for about half of the rows, its FFN is unlike the shared one. */
export function randomExpertTensors(
  config: Whisper['config'],
  language: string,
  seed: number,
  scale = 0.3,
): Map<string, HostTensor> {
  const next = random(seed);
  const tensors = new Map<string, HostTensor>();
  for (const [name, shape] of expertTensorNames(config, language)) {
    const size = shape.reduce((a, b) => a * b, 1);
    tensors.set(name, fromFloat32(normals(size, next, scale), shape, 'f32'));
  }
  return tensors;
}

/** Attaches such an expert. */
export function attachRandomExpert(model: Whisper, language: string, seed: number): void {
  const tensors = randomExpertTensors(model.config, language, seed);
  model.attach(LanguageExpert.load(model.stream, model.config, language, tensors, { compute: model.compute }));
}
