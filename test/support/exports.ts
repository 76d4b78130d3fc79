/** What tests of `convert` share; and a small model of a published vocabulary, the same on every machine, that the recorded exports are of. */
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import {
  fromFloat32,
  type HostTensor,
  openModelFolder,
  type TokenizerJSON,
  toFloat32,
  tokenizerFromCharacters,
  tokenizerFromTiktoken,
  type WhisperConfig,
  weightEntries,
  whisperPreset,
  whisperTensorShapes,
  writeModelFolder,
} from '../../lib/index.js';
import { generator, randomTensors, small } from './weights.js';

/** Ranks like OpenAI's of that many tokens: all bytes, the first pairs of them, and in a multilingual vocabulary nothing at the end. */
export function ranks(count: number): string {
  const bytes = (i: number) => (i < 256 ? [i] : i < 256 + 50_000 ? [((i - 256) >> 8) & 255, (i - 256) & 255] : []);
  return Array.from({ length: count }, (_, i) => `${Buffer.from(bytes(i)).toString('base64') || '='} ${i}`).join('\n');
}

export const MULTILINGUAL = 50_257;
export const ENGLISH = 50_256;

/** 3 + 2 layers, as a distilled model has fewer behind than before; width 32, so that ggml's blocks fit. */
export const exportConfig = (changes: Partial<WhisperConfig> = {}): WhisperConfig => ({
  ...whisperPreset('tiny'),
  d_model: 32,
  encoder_layers: 3,
  encoder_attention_heads: 2,
  encoder_ffn_dim: 128,
  decoder_layers: 2,
  decoder_attention_heads: 2,
  decoder_ffn_dim: 128,
  ...changes,
});

/** Small weights, norms around one. */
export function exportTensors(config: WhisperConfig, seed = 1): Map<string, HostTensor> {
  const next = generator(seed);
  return new Map(
    Array.from(whisperTensorShapes(config), ([name, shape]) => {
      const count = shape.reduce((product, size) => product * size, 1);
      const [middle, width] = name.endsWith('norm.weight') ? [1, 0.1] : [0, 0.2];
      const values = Float32Array.from({ length: count }, () => middle + width * (next(2000) / 1000 - 1));
      return [name, fromFloat32(values, shape, 'f32')] as const;
    }),
  );
}

/** Writes it as a folder of Hugging Face's. */
export async function writeExportModel(
  path: string,
  config: WhisperConfig = exportConfig(),
  tokenizer: TokenizerJSON | null = tokenizerFromTiktoken(ranks(MULTILINGUAL)),
): Promise<void> {
  await writeModelFolder(path, { config, tensors: weightEntries(exportTensors(config)) });
  if (tokenizer) await writeFile(join(path, 'tokenizer.json'), JSON.stringify(tokenizer));
}

/** All tensors of a folder, as they are stored. */
export async function stored(path: string): Promise<Map<string, HostTensor>> {
  const folder = await openModelFolder(path);
  const tensors = new Map<string, HostTensor>();
  for (const name of folder.weights.names()) tensors.set(name, await folder.weights.read(name));
  await folder.close();
  return tensors;
}

/** Holds tensors against those wanted, bit for bit. */
export function same(t: ExecutionContext, got: Map<string, HostTensor>, wanted: Map<string, HostTensor>): void {
  t.deepEqual([...got.keys()].sort(), [...wanted.keys()].sort());
  for (const [name, { dtype, shape, data }] of wanted) {
    t.deepEqual([got.get(name)!.dtype, got.get(name)!.shape], [dtype, shape], name);
    t.is(Buffer.compare(got.get(name)!.data, data), 0, name);
  }
}

/** Tensors in another type. */
export const rounded = (tensors: Map<string, HostTensor>, dtype: 'f16' | 'bf16' | 'f32') =>
  new Map(
    Array.from(tensors, ([name, tensor]) => [name, fromFloat32(toFloat32(tensor), tensor.shape, dtype)] as const),
  );

export const pocketTokenizer = () => tokenizerFromCharacters(['aàé'], { languages: ['en', 'ca', 'th'] });
/** The small model with a vocabulary of characters, 270 ids. */
export const pocket = (changes: Partial<WhisperConfig> = {}): WhisperConfig => {
  const end = 258;
  return { ...small, vocab_size: 270, ...ids(end), begin_suppress_tokens: null, ...changes };
};
/** Special ids of a vocabulary whose text ends before `end`. */
export const ids = (end: number) => ({
  decoder_start_token_id: end + 1,
  pad_token_id: end,
  bos_token_id: end,
  eos_token_id: end,
});

/** Writes a folder of it. */
export async function pocketFolder(path: string, config = pocket()): Promise<Map<string, HostTensor>> {
  const tensors = randomTensors(whisperTensorShapes(config));
  const files = { 'tokenizer.json': JSON.stringify(pocketTokenizer()) };
  await writeModelFolder(path, { config, tensors: weightEntries(tensors), files });
  return tensors;
}

/** Exports whose hashes are recorded: of ggml's files without the mel filters, which are computed anew by each processor. */
export const RECORDED = [
  ['hf', 'fp32'],
  ['hf', 'bf16'],
  ['hf', 'fp16'],
  ['ggml', 'fp32'],
  ['ggml', 'fp16'],
  ['ggml', 'int8'],
  ['ctranslate2', 'fp32'],
  ['ctranslate2', 'bf16'],
  ['ctranslate2', 'fp16'],
  ['ctranslate2', 'int8'],
] as const;

const FILES = { hf: ['model.safetensors'], ggml: [''], ctranslate2: ['model.bin', 'config.json', 'vocabulary.json'] };
const FILTERS = { begin: 14 * 4, end: 14 * 4 + 80 * 201 * 4 };

/** SHA-256 of what an export holds, by format, type and file. */
export async function exportHashes(
  output: string,
  format: keyof typeof FILES,
  dtype: string,
): Promise<[string, string][]> {
  const hashes: [string, string][] = [];
  for (const file of FILES[format]) {
    const bytes = await readFile(join(output, file));
    if (format === 'ggml') bytes.fill(0, FILTERS.begin, FILTERS.end);
    const key = [format, dtype, file].filter((word) => word !== '').join('/');
    hashes.push([key, createHash('sha256').update(bytes).digest('hex')]);
  }
  return hashes;
}
