/** A Hugging Face model folder, as transformers reads it; experts become files of their own beside the weights. */
import { elementType } from '../tensor/index.js';
import {
  expertFileName,
  type FolderFile,
  type WeightEntry,
  writeModelFolder,
  writeSafetensors,
} from '../weights/index.js';
import type { ModelSource } from './source.js';
import { type Reading, TensorReader, type WeightType } from './tensors.js';

/** The entries of a source, read when their turn comes; a gate decides by the sign of its sum, so it keeps its type. */
export function entriesOf(reader: TensorReader, names: readonly string[], type: WeightType | undefined): WeightEntry[] {
  return names.map((name) => {
    const kept = type === undefined || type === 'int8' || name.includes('.gate_');
    const dtype = kept ? reader.dtype(name) : elementType(type);
    return { name, dtype, shape: reader.shape(name), data: () => reader.bytes(name, dtype) };
  });
}

export async function writeHf(
  source: ModelSource,
  output: string,
  options: { type: WeightType | undefined; replace: boolean; maxShardBytes?: number | undefined; reading: Reading },
): Promise<void> {
  const { path, weights, config, configExtra, generation, preprocessor } = source;
  const { type, reading } = options;
  const files: Record<string, FolderFile> = { ...source.files };
  for (const [language, expert] of source.experts) {
    const entries = entriesOf(new TensorReader(path, expert, reading), expert.names(), type);
    const metadata = { format: 'pt', language };
    files[expertFileName(language)] = { write: (file) => writeSafetensors(file, entries, { metadata }) };
  }
  const tensors = entriesOf(new TensorReader(path, weights, reading), weights.names(), type);
  const content = {
    config,
    configExtra,
    generationConfig: generation,
    preprocessorConfig: preprocessor,
    files,
    tensors,
  };
  const { replace, maxShardBytes } = options;
  await writeModelFolder(output, content, { replace, maxShardBytes });
}
