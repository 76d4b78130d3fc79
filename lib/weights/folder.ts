/** Model folders in Hugging Face's layout: config.json, weights (one file or shards), tokenizer and settings beside. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DistilWhisperError, fileReadError, shown } from '../errors/index.js';
import {
  copySynced,
  isFile,
  isJsonObject,
  type JsonObject,
  readJsonObject,
  writeFolderAtomic,
  writeSynced,
} from '../files/index.js';
import { type HubOptions, resolveModel, TOKENIZER_FILES } from '../hub/index.js';
import {
  checkWeights,
  EMBEDDING,
  PROJECTION,
  parseWhisperConfig,
  type WhisperConfig,
  whisperConfigJson,
} from './config.js';
import { checkExpert, splitClsrCheckpoint } from './experts.js';
import { unfollowedSettings } from './generation.js';
import { Renamed } from './renamed.js';
import { entryBytes, type TensorSource, type WeightEntry, writeSafetensors } from './safetensors.js';
import { indexOf, LAYOUTS, openWeights } from './shards.js';

const [{ single: SINGLE }] = LAYOUTS;
const INDEX = indexOf(SINGLE);
/** Hugging Face's default, "5GB". */
const MAX_SHARD_BYTES = 5e9;

/** An open model folder; everything but the tensors' data has been read and checked. Close it when done. */
export interface ModelFolder {
  readonly path: string;
  readonly config: WhisperConfig;
  /** All of config.json, with the fields that `config` leaves out. */
  readonly configJson: JsonObject;
  readonly generationConfig?: JsonObject | undefined;
  /** preprocessor_config.json, or the feature extractor's part of processor_config.json. */
  readonly preprocessorConfig?: JsonObject | undefined;
  /** Where tokenizer.json and tokenizer_config.json lie, if they do. */
  readonly tokenizerPath?: string | undefined;
  readonly tokenizerConfigPath?: string | undefined;
  /** What of the tokenizer's and the processor's files lies in the folder, by path: a copy of the model needs all of them. */
  readonly processorFiles: readonly string[];
  /** What the folder asks for and is not followed, a sentence each. */
  readonly warnings: readonly string[];
  /** The backbone's tensors under plain Hugging Face names, exactly those that the config implies. */
  readonly weights: TensorSource;
  /** Experts inside the weights (the reference's whole checkpoints), by language; usually empty. */
  readonly experts: ReadonlyMap<string, TensorSource>;
  close(): Promise<void>;
}

/** Files that say how text and audio go in and come out. */
const PROCESSOR_FILES = [...TOKENIZER_FILES, 'processor_config.json'];

/** An untied output projection would be another model; where one is stored it must equal the embedding. */
async function checkTied(weights: TensorSource, folder: string): Promise<void> {
  const embedding = await weights.read(EMBEDDING);
  const projection = await weights.read(PROJECTION);
  if (embedding.dtype !== projection.dtype || Buffer.compare(embedding.data, projection.data) !== 0) {
    throw new DistilWhisperError(
      'ERR_MODEL',
      `${folder}: proj_out.weight differs from the token embedding, to which Whisper ties it`,
    );
  }
}

/** What of the feature extractor's settings is not how features are made here, a sentence each. */
function unfollowedFeatures(settings: JsonObject, config: WhisperConfig, folder: string): string[] {
  const followed = { feature_size: config.num_mel_bins, sampling_rate: 16_000, hop_length: 160, n_fft: 400, dither: 0 };
  return Object.entries({ ...followed, do_normalize: false })
    .filter(([name, value]) => settings[name] !== undefined && settings[name] !== null && settings[name] !== value)
    .map(
      ([name, value]) =>
        `${folder}: the preprocessor's ${name} ${shown(settings[name])} is not followed, it is ${value}`,
    );
}

/**
 * Opens a model folder, by its path or by a name (`resolveModel`): reads and checks its JSON files, the headers of its weights and that they are exactly the
 * tensors that config.json implies. Whole checkpoints of the reference (`ffn_clsr` names) open as backbone and experts.
 * Throws ERR_FILE_NOT_FOUND, ERR_MODEL, ERR_CONFIG, ERR_EXPERT, ERR_SAFETENSORS or ERR_FILE_READ, and for a name what `resolveModel` throws.
 */
export async function openModelFolder(name: string, hub: HubOptions = {}): Promise<ModelFolder> {
  const path = await resolveModel(name, hub);
  let isFolder: boolean;
  try {
    isFolder = (await stat(path)).isDirectory();
  } catch (error) {
    const typed = fileReadError(error, path);
    if (typed.code !== 'ERR_FILE_NOT_FOUND') throw typed;
    throw new DistilWhisperError('ERR_FILE_NOT_FOUND', `There is no model folder ${path}`, { cause: error });
  }
  if (!isFolder)
    throw new DistilWhisperError(
      'ERR_MODEL',
      `${path} is a file, expected a model folder (convert makes one of a checkpoint)`,
    );
  const at = (name: string) => join(path, name);
  if (!(await isFile(at('config.json'))))
    throw new DistilWhisperError('ERR_MODEL', `${path} is no model folder: it has no config.json`);
  const configJson = await readJsonObject(at('config.json'), 'ERR_CONFIG');
  const config = parseWhisperConfig(configJson, at('config.json'));
  const optionalJson = async (name: string) =>
    (await isFile(at(name))) ? readJsonObject(at(name), 'ERR_CONFIG') : undefined;
  const generationConfig = await optionalJson('generation_config.json');
  const processorConfig = await optionalJson('processor_config.json');
  const nested = processorConfig?.feature_extractor;
  const preprocessorConfig =
    (await optionalJson('preprocessor_config.json')) ?? (isJsonObject(nested) ? nested : undefined);
  const processorFiles: string[] = [];
  for (const name of PROCESSOR_FILES) if (await isFile(at(name))) processorFiles.push(at(name));
  const pathOf = (name: string) => processorFiles.find((file) => file === at(name));
  const tokenizerPath = pathOf('tokenizer.json');
  const tokenizerConfigPath = pathOf('tokenizer_config.json');
  const warnings = [
    ...unfollowedSettings(generationConfig ?? {}, at('generation_config.json')),
    ...unfollowedFeatures(preprocessorConfig ?? {}, config, path),
  ];

  const source = await openWeights(path);
  try {
    const { backbone, experts } = splitClsrCheckpoint(source.names(), path);
    const infosOf = (names: ReadonlyMap<string, string>) =>
      Array.from(names, ([canonical, name]) => [canonical, source.info(name)] as const);
    checkWeights(config, infosOf(backbone), path);
    if (backbone.has(PROJECTION)) {
      await checkTied(new Renamed(source, backbone), path);
      backbone.delete(PROJECTION);
    }
    for (const [language, names] of experts) checkExpert(config, language, infosOf(names), path);
    return {
      path,
      config,
      configJson,
      generationConfig,
      preprocessorConfig,
      tokenizerPath,
      tokenizerConfigPath,
      processorFiles,
      warnings,
      weights: new Renamed(source, backbone),
      experts: new Map(Array.from(experts, ([language, names]) => [language, new Renamed(source, names)])),
      close: () => source.close(),
    };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** A file to lie beside the weights: its content, the path of a file to copy, or what writes it where it is told. */
export type FolderFile =
  | string
  | Uint8Array
  | { readonly copyFrom: string }
  | { readonly write: (path: string) => Promise<void> };

export interface ModelFolderContent {
  readonly config: WhisperConfig;
  /** Further fields of config.json. */
  readonly configExtra?: JsonObject | undefined;
  readonly generationConfig?: JsonObject | undefined;
  readonly preprocessorConfig?: JsonObject | undefined;
  /** Other files by name: tokenizer.json, tokenizer_config.json, a README. */
  readonly files?: Readonly<Record<string, FolderFile>> | undefined;
  /** The tensors, exactly those that the config implies. */
  readonly tensors: readonly WeightEntry[];
}

export interface WriteFolderOptions {
  /** Replace an earlier folder; without it an earlier one is an error. */
  readonly replace?: boolean;
  /** Largest size of one weights file; above it they are sharded. 5e9 by default. */
  readonly maxShardBytes?: number | undefined;
}

/** Consecutive entries in shards of at most `limit` bytes; one that is larger alone gets a shard of its own. */
function planShards(entries: readonly WeightEntry[], limit: number): WeightEntry[][] {
  const shards: WeightEntry[][] = [[]];
  let filled = 0;
  for (const entry of entries) {
    const size = entryBytes(entry);
    if (filled > 0 && filled + size > limit) {
      shards.push([]);
      filled = 0;
    }
    shards[shards.length - 1]!.push(entry);
    filled += size;
  }
  return shards;
}

async function writeWeights(folder: string, entries: readonly WeightEntry[], limit: number): Promise<void> {
  const metadata = { format: 'pt' };
  const shards = planShards(entries, limit);
  if (shards.length === 1) return writeSafetensors(join(folder, SINGLE), entries, { metadata });
  const digits = (n: number) => String(n).padStart(5, '0');
  const weightMap: [string, string][] = [];
  for (const [i, shard] of shards.entries()) {
    const name = `model-${digits(i + 1)}-of-${digits(shards.length)}.safetensors`;
    await writeSafetensors(join(folder, name), shard, { metadata });
    for (const entry of shard) weightMap.push([entry.name, name]);
  }
  const total = entries.reduce((sum, entry) => sum + entryBytes(entry), 0);
  const index = { metadata: { total_size: total }, weight_map: Object.fromEntries(weightMap) };
  await writeSynced(folder, INDEX, formatJson(INDEX, index));
}

/** A file of JSON. Throws ERR_ARGUMENT, naming the file, for a value that JSON has no form for. */
function formatJson(name: string, value: unknown): string {
  try {
    return `${JSON.stringify(value, undefined, 2)}\n`;
  } catch (cause) {
    throw new DistilWhisperError('ERR_ARGUMENT', `writeModelFolder: ${name} would hold ${shown(value)}`, { cause });
  }
}

/** Names that this module writes itself; another file must not take them. */
const OWN_FILES = new Set(['config.json', 'generation_config.json', 'preprocessor_config.json', SINGLE, INDEX]);

/**
 * Writes a model folder whole or not at all: filled beside, synced, then renamed. Config and tensors are checked
 * against each other first. Throws ERR_CONFIG, ERR_MODEL, ERR_ARGUMENT, ERR_DISK_FULL or ERR_FILE_WRITE; what an
 * entry's function throws passes through.
 */
export async function writeModelFolder(
  path: string,
  content: ModelFolderContent,
  options: WriteFolderOptions = {},
): Promise<void> {
  const limit = options.maxShardBytes ?? MAX_SHARD_BYTES;
  if (!(limit > 0))
    throw new DistilWhisperError('ERR_ARGUMENT', `maxShardBytes must be a positive number of bytes, got ${limit}`);
  const config = parseWhisperConfig(content.config, 'writeModelFolder: config');
  checkWeights(
    config,
    content.tensors.map((entry) => [entry.name, entry] as const),
    'writeModelFolder: tensors',
  );
  const files = Object.entries(content.files ?? {});
  for (const [name] of files) {
    if (!/^\w[\w. -]*$/.test(name) || OWN_FILES.has(name) || /^model-.*\.safetensors$/.test(name)) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `writeModelFolder: ${shown(name)} cannot be the name of a file beside the weights`,
      );
    }
  }
  await writeFolderAtomic(
    path,
    async (folder) => {
      const config = { ...content.configExtra, ...storedType(content), ...whisperConfigJson(content.config) };
      await writeSynced(folder, 'config.json', formatJson('config.json', config));
      if (content.generationConfig)
        await writeSynced(
          folder,
          'generation_config.json',
          formatJson('generation_config.json', content.generationConfig),
        );
      if (content.preprocessorConfig)
        await writeSynced(
          folder,
          'preprocessor_config.json',
          formatJson('preprocessor_config.json', content.preprocessorConfig),
        );
      for (const [name, file] of files) {
        await writeFolderFile(folder, name, file);
      }
      await writeWeights(folder, content.tensors, limit);
    },
    { replace: options.replace ?? false },
  );
}

const TORCH_NAMES: Partial<Record<string, string>> = {
  f32: 'float32',
  f16: 'float16',
  bf16: 'bfloat16',
  f64: 'float64',
};

/** The type of the weights where the config says one: transformers loads them as that, whatever they are stored as. */
function storedType({ configExtra = {}, tensors }: ModelFolderContent): JsonObject {
  const [type, ...others] = new Set(tensors.map(({ dtype }) => TORCH_NAMES[dtype]));
  if (type === undefined || others.length > 0) return {};
  return Object.fromEntries(['dtype', 'torch_dtype'].filter((key) => key in configExtra).map((key) => [key, type]));
}

/** Writes a file into a folder that is itself still temporary. Throws what its writing throws. */
export async function writeFolderFile(folder: string, name: string, file: FolderFile): Promise<void> {
  if (typeof file === 'string' || file instanceof Uint8Array) return writeSynced(folder, name, file);
  if ('write' in file) return file.write(join(folder, name));
  return copySynced(file.copyFrom, join(folder, name));
}
