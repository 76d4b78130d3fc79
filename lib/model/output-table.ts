import type { FloatName, Parameter, Stream } from '../tensor/index.js';
import { type ModelFolder, whisperTensorShapes } from '../weights/index.js';
import { loadParameter } from './create.js';

/** Of the embedding of tokens, which is the output projection too. */
export const EMBEDDING = 'model.decoder.embed_tokens.weight';

/**
 * A model's output projection [V, D] alone, frozen: what turns its last hidden rows into logits. Nothing else of the folder is read.
 * Errors: those of `TensorSource.stored`.
 */
export async function loadOutputTable(
  stream: Stream,
  { config, weights }: ModelFolder,
  { compute, copyWeights }: { compute: FloatName; copyWeights?: boolean | undefined },
): Promise<Parameter> {
  const shape = whisperTensorShapes(config).get(EMBEDDING)!;
  const table = loadParameter(stream, EMBEDDING, await weights.stored(EMBEDDING, copyWeights), shape, { compute });
  await stream.sync();
  return table;
}
