/** Which files of a repository are needed. */
import type { Kind } from './names.js';

/** Files that a tokenizer is made of, of today (tokenizer.json) and of earlier. */
export const TOKENIZER_FILES: readonly string[] = [
  'tokenizer.json',
  'tokenizer_config.json',
  'vocab.json',
  'merges.txt',
  'added_tokens.json',
  'special_tokens_map.json',
  'normalizer.json',
];

/** What says how a model is built and how text and audio go in and come out; of these what there is. */
const SETTINGS: readonly string[] = [
  'config.json',
  'generation_config.json',
  'preprocessor_config.json',
  'processor_config.json',
  ...TOKENIZER_FILES,
];

/** Weights, the first that there are: of one repository never two of them. An index names the files of its shards. */
const WEIGHTS: readonly string[] = [
  'model.safetensors',
  'model.safetensors.index.json',
  'pytorch_model.bin',
  'pytorch_model.bin.index.json',
];

/** Experts as they are written here, and as the reference's authors published theirs. */
const EXPERTS: readonly RegExp[] = [/^expert\.[^/]+\.safetensors$/, /^expert\.[^/]+\.bin$/];

/** Of PEFT's adapters: today's name, and that of earlier versions. */
const ADAPTER_WEIGHTS: readonly string[] = ['adapter_model.safetensors', 'adapter_model.bin'];

export interface Choice {
  readonly files: readonly string[];
  /** Of `files` the one that names further ones, the shards. */
  readonly index: string | undefined;
}

export const isParquetFile = (name: string): boolean => name.endsWith('.parquet');

export const isExpertFile = (name: string): boolean => EXPERTS.some((pattern) => pattern.test(name));

/**
 * The files that `kind` needs of those that there are, of a data set's what `keep` takes of them, or what is missing, in words.
 * Formats of other programs (TensorFlow, Flax, ONNX, GGML) are left where they are.
 */
export function choose(
  kind: Kind,
  names: readonly string[],
  keep: (paths: readonly string[]) => readonly string[] = (paths) => paths,
): Choice | { missing: string } {
  const has = new Set(names);
  if (kind === 'expert') {
    const files = EXPERTS.map((pattern) => names.filter((name) => pattern.test(name)));
    const found = files.find((list) => list.length > 0);
    return found ? { files: found, index: undefined } : { missing: 'expert.<language>.safetensors' };
  }
  if (kind === 'adapter') {
    const weights = ADAPTER_WEIGHTS.find((name) => has.has(name));
    if (!has.has('adapter_config.json')) return { missing: 'adapter_config.json' };
    if (weights === undefined) return { missing: ADAPTER_WEIGHTS.join(' or ') };
    return { files: ['adapter_config.json', weights], index: undefined };
  }
  if (kind === 'dataset') {
    const there = names.filter(isParquetFile);
    const files = there.length > 0 ? keep(there) : [];
    if (files.length > 0) return { files, index: undefined };
    return { missing: `a .parquet file${there.length > 0 ? ' of those that are wanted' : ''}` };
  }
  if (!has.has('config.json')) return { missing: 'config.json' };
  const weights = WEIGHTS.find((name) => has.has(name));
  if (weights === undefined) return { missing: `weights (${WEIGHTS.join(', ')})` };
  return {
    files: [...SETTINGS.filter((name) => has.has(name)), weights],
    index: weights.endsWith('.index.json') ? weights : undefined,
  };
}
