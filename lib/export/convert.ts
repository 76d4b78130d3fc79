/** Models from one program's files into another's. */
import { lstat } from 'node:fs/promises';
import { checkOptions, DistilWhisperError, shown } from '../errors/index.js';
import { ifThere, isFile } from '../files/index.js';
import { type HubOptions, resolveAdapter, resolveModel } from '../hub/index.js';
import { chosenType, Stream } from '../tensor/index.js';
import {
  type AdapterFolder,
  importTorchCheckpoint,
  openAdapter,
  openExpert,
  openSafetensors,
  type TensorSource,
  writeSafetensors,
} from '../weights/index.js';
import { writeCTranslate2 } from './ctranslate2.js';
import { GGML_TYPES, type GgmlType, writeGgml } from './ggml.js';
import { entriesOf, writeHf } from './hf.js';
import { MergedSource } from './merged.js';
import { openModelSource } from './source.js';
import { type Reading, TensorReader, type WeightType } from './tensors.js';

/** Whose files are written: Hugging Face's folder, whisper.cpp's file, CTranslate2's folder. */
export type ModelFormat = 'hf' | 'ggml' | 'ctranslate2';

/** Types that a format can have. */
export const FORMAT_TYPES: Readonly<Record<ModelFormat, readonly WeightType[]>> = {
  hf: ['fp32', 'bf16', 'fp16'],
  ggml: GGML_TYPES,
  ctranslate2: ['fp32', 'bf16', 'fp16', 'int8'],
};

export interface ConvertProgress {
  /** Bytes of weights that have been read, and those of all of them. */
  done: number;
  total: number;
}

export interface ConvertOptions {
  /** Where it is written: a folder, for ggml and an expert a file. */
  to: string;
  /** Default 'hf'. */
  format?: ModelFormat | undefined;
  /**
   * Type of the weights; default: as they are, for ggml fp16. int8 is ggml's q8_0 or CTranslate2's int8 with a scale for each
   * output. An expert's gates keep their type.
   */
  dtype?: WeightType | undefined;
  /**
   * The tokenizer, where the model has none or another is meant: a folder, a tokenizer.json, or ranks in tiktoken's format
   * (OpenAI's multilingual.tiktoken, of English-only models gpt2.tiktoken).
   */
  tokenizer?: string | undefined;
  /** A LoRA adapter's folder as PEFT writes it, or a name of the hub: merged into the model's weights. */
  adapter?: string | undefined;
  /** Replace what is there. Default false: it is an error. */
  replace?: boolean | undefined;
  /** hf: largest size of one weights file. Default 5e9. */
  maxShardBytes?: number | undefined;
  /** When aborted, the conversion ends with ERR_INTERRUPTED, and nothing is written. */
  signal?: AbortSignal | undefined;
  /** How names are looked up: see `resolveModel`. */
  hub?: HubOptions | undefined;
  onProgress?: ((progress: ConvertProgress) => unknown) | undefined;
}

const OPTIONS: Record<keyof ConvertOptions, true> = {
  to: true,
  format: true,
  dtype: true,
  tokenizer: true,
  adapter: true,
  replace: true,
  maxShardBytes: true,
  signal: true,
  hub: true,
  onProgress: true,
};

export interface Converted {
  readonly output: string;
  /** What it was: a model, or a language's expert. */
  readonly kind: 'model' | 'expert';
  /** What the output lacks or holds besides, a sentence each. */
  readonly notes: readonly string[];
}

/**
 * Writes a model in another program's layout or another type, one tensor in memory at a time, whole or not at all. `input` is a
 * name of the hub's, a model folder (safetensors or pytorch_model.bin, in shards or not; of Hugging Face, a trainer's checkpoint, or the reference's
 * with experts inside), a checkpoint of OpenAI's (small.pt), or an expert's file (safetensors, or the reference's pickle).
 * Errors, before anything is written: ERR_ARGUMENT, ERR_FILE_NOT_FOUND, ERR_FILE_WRITE (`to` exists), those of
 * `openModelFolder`, `importTorchCheckpoint`, `openAdapter` and of reading a tokenizer, ERR_VOCABULARY, ERR_TOKENIZER and ERR_EXPERT (what the
 * format has no place for); then ERR_MODEL (values that fp16 does not have), ERR_INTERRUPTED, ERR_DISK_FULL, ERR_FILE_WRITE.
 */
export async function convert(input: string, options: ConvertOptions): Promise<Converted> {
  checkOptions('convert', options, OPTIONS);
  const { to, format = 'hf', tokenizer, replace = false, maxShardBytes } = options;
  if (typeof input !== 'string' || input === '') refuse(`convert: expected a model's path, got ${shown(input)}`);
  if (typeof to !== 'string' || to === '') refuse(`to: expected a path, got ${shown(to)}`);
  if (!Object.hasOwn(FORMAT_TYPES, format)) {
    refuse(`format: expected ${Object.keys(FORMAT_TYPES).join(', ')}, got ${shown(format)}`);
  }
  const dtype =
    options.dtype === undefined ? undefined : chosenType(`dtype for ${format}`, options.dtype, FORMAT_TYPES[format]);
  if (maxShardBytes !== undefined && format !== 'hf') refuse(`maxShardBytes: expected none for ${format}`);
  if (!replace && (await ifThere(lstat(to))) !== null) {
    throw new DistilWhisperError('ERR_FILE_WRITE', `${to} exists already: ask for it to be replaced, or name another`);
  }
  const found = await resolveModel(input, { signal: options.signal, ...options.hub });
  const merges = options.adapter === undefined ? null : await resolveAdapter(options.adapter, options.hub);
  if (await isExpertFile(found)) return convertExpert(found, { ...options, dtype }, format);
  const plain = await openModelSource(found, tokenizer);
  const stream = new Stream();
  let adapter: AdapterFolder | undefined;
  try {
    adapter = merges === null ? undefined : await openAdapter(merges, plain.config);
    const merged = adapter && new MergedSource(stream, plain.weights, adapter, dtype !== undefined);
    const source = merged ? { ...plain, weights: merged } : plain;
    const { weights, experts, path } = source;
    const kept = format === 'hf' ? [weights, ...experts.values()] : [weights];
    const reading = readingOf(kept, options);
    if (format === 'ggml') await writeGgml(source, to, { type: (dtype ?? 'fp16') as GgmlType, reading });
    else if (format === 'ctranslate2') await writeCTranslate2(source, to, { type: dtype, replace, reading });
    else await writeHf(source, to, { type: dtype, replace, maxShardBytes, reading });
    const notes: string[] = [];
    if (source.tokenizer === null) {
      notes.push(`${path} has no tokenizer, and none was named: the output can teach, but not transcribe`);
    }
    for (const language of experts.keys()) notes.push(`the ${language} expert is a file of its own in ${to}`);
    if (adapter) notes.push(`the adapter ${adapter.path} is merged into the weights`);
    return { output: to, kind: 'model', notes };
  } finally {
    await adapter?.close();
    stream.close();
    await plain.close();
  }
}

function refuse(what: string): never {
  throw new DistilWhisperError('ERR_ARGUMENT', what);
}

/** Follows the bytes that are read of several sources. */
function readingOf(sources: readonly TensorSource[], { signal, onProgress }: ConvertOptions): Reading {
  const total = sources.reduce(
    (sum, source) => source.names().reduce((bytes, name) => bytes + source.info(name).byteLength, sum),
    0,
  );
  let done = 0;
  return {
    begin: () => {
      if (!signal?.aborted) return;
      throw new DistilWhisperError('ERR_INTERRUPTED', 'the conversion was interrupted, nothing was written', {
        cause: signal.reason,
      });
    },
    done: (bytes) => {
      done += bytes;
      onProgress?.({ done, total });
    },
  };
}

const isPickle = (path: string): boolean => /\.(bin|pt|pth)$/.test(path);

/** Whether a file holds an expert, by the names of its tensors. */
async function isExpertFile(path: string): Promise<boolean> {
  if (!(await isFile(path))) return false;
  if (!isPickle(path) && !path.endsWith('.safetensors')) {
    throw new DistilWhisperError(
      'ERR_MODEL',
      `${path}: expected a model folder, a checkpoint of OpenAI's (.pt) or an expert's file (.safetensors, .bin), got a file of another name`,
    );
  }
  const source = isPickle(path) ? await importTorchCheckpoint(path) : await openSafetensors(path);
  await source.close();
  const expert = source.names().some((name) => name.includes('.ffn_clsr.'));
  if (expert || isPickle(path)) return expert;
  throw new DistilWhisperError(
    'ERR_MODEL',
    `${path} holds weights without their sizes: expected the folder in which they lie with their config.json, or an expert's file`,
  );
}

async function convertExpert(input: string, options: ConvertOptions, format: ModelFormat): Promise<Converted> {
  const { to, dtype, tokenizer, adapter, maxShardBytes } = options;
  if (adapter !== undefined) refuse('adapter: expected none for an expert, got one: it is merged into a model');
  if (format !== 'hf') {
    throw new DistilWhisperError('ERR_EXPERT', `${input}: expected a plain model, ${format} has no place for experts`);
  }
  if (!to.endsWith('.safetensors'))
    refuse(`to: expected a name that ends in .safetensors for an expert, got ${shown(to)}`);
  if (tokenizer !== undefined)
    refuse('tokenizer: expected none for an expert, which is attached to a model that has one');
  if (maxShardBytes !== undefined) refuse('maxShardBytes: expected none for an expert, which is one file');
  const { weights, language, metadata, close } = await openExpert(input);
  try {
    const reader = new TensorReader(input, weights, readingOf([weights], options));
    const entries = entriesOf(reader, weights.names(), dtype);
    await writeSafetensors(to, entries, { metadata: { ...metadata, format: 'pt', language } });
    return { output: to, kind: 'expert', notes: [] };
  } finally {
    await close();
  }
}
