/** What can be converted: a model folder, or a checkpoint of OpenAI's, with the tokenizer that belongs to it. */
import { basename, join } from 'node:path';
import { DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { isFile, type JsonObject, readJsonObject, readTextFile } from '../files/index.js';
import { TOKENIZER_FILES } from '../hub/index.js';
import { suppressAtBegin, suppressTokens, tokenizerFromTiktoken, WhisperTokenizer } from '../text/index.js';
import {
  type FolderFile,
  openModelFolder,
  openOpenAiModel,
  type TensorSource,
  type WhisperConfig,
} from '../weights/index.js';

/** A model as it is found, open for its tensors to be read one by one. Close it when done. */
export interface ModelSource {
  readonly path: string;
  readonly config: WhisperConfig;
  /** What else its config.json says. */
  readonly configExtra: JsonObject;
  readonly generation: JsonObject | undefined;
  readonly preprocessor: JsonObject;
  readonly weights: TensorSource;
  /** Experts inside the weights, by language. */
  readonly experts: ReadonlyMap<string, TensorSource>;
  readonly tokenizer: WhisperTokenizer | null;
  /** The tokenizer's and the processor's files, by name. */
  readonly files: Readonly<Record<string, FolderFile>>;
  close(): Promise<void>;
}

interface FoundTokenizer {
  tokenizer: WhisperTokenizer;
  files: Record<string, FolderFile>;
}

/** Fields of the reference's config.json that say nothing of a plain Whisper. */
const REFERENCE_FIELDS = /^(clsr_|skip_gate_prob$|use_gate_budget$|gate_budget$)/;

/** Of a config.json what other programs know. */
export const plainFields = (configJson: JsonObject): JsonObject =>
  Object.fromEntries(Object.entries(configJson).filter(([key]) => !REFERENCE_FIELDS.test(key)));

/**
 * Opens a model to be converted: a folder, or a file of OpenAI's. `tokenizer` is a folder with a tokenizer's files, a
 * tokenizer.json, or ranks in tiktoken's format (OpenAI's multilingual.tiktoken or gpt2.tiktoken); without it the tokenizer is the
 * folder's own, if it has one. Throws what `openModelFolder`, `openOpenAiModel` and `WhisperTokenizer.fromFolder` throw, and
 * ERR_VOCABULARY where tokenizer and model do not belong together.
 */
export async function openModelSource(path: string, tokenizer: string | undefined): Promise<ModelSource> {
  return (await isFile(path)) ? openCheckpoint(path, tokenizer) : openFolder(path, tokenizer);
}

async function openFolder(name: string, given: string | undefined): Promise<ModelSource> {
  const folder = await openModelFolder(name);
  try {
    const { path, config } = folder;
    const found = given === undefined ? await ownTokenizer(path) : await readTokenizer(given, config.vocab_size);
    checkVocabulary(found, config.vocab_size, path);
    const own = folder.processorFiles.map((file) => [basename(file), { copyFrom: file }] as const);
    const kept = given === undefined ? own : own.filter(([name]) => !TOKENIZER_FILES.includes(name));
    return {
      path,
      config,
      configExtra: plainFields(folder.configJson),
      generation: folder.generationConfig,
      preprocessor: folder.preprocessorConfig ?? preprocessorOf(config),
      weights: folder.weights,
      experts: folder.experts,
      tokenizer: found?.tokenizer ?? null,
      // The one file that other programs read of a tokenizer, where older tools left it as parts.
      files: { ...(found ? jsonFile(found.tokenizer) : {}), ...found?.files, ...Object.fromEntries(kept) },
      close: () => folder.close(),
    };
  } catch (error) {
    await folder.close();
    throw error;
  }
}

async function openCheckpoint(path: string, given: string | undefined): Promise<ModelSource> {
  let found: FoundTokenizer | null = null;
  const idsOf = async (vocabulary: number) => {
    found = await readTokenizer(given!, vocabulary);
    checkVocabulary(found, vocabulary, path);
    return { start: found.tokenizer.startOfTranscript, end: found.tokenizer.endOfText };
  };
  const model = await openOpenAiModel(path, given === undefined ? undefined : idsOf);
  const { config, weights } = model;
  const { tokenizer, files } = (found as FoundTokenizer | null) ?? { tokenizer: null, files: {} };
  let generation: JsonObject | undefined;
  try {
    generation = tokenizer ? generationOf(config, tokenizer) : undefined;
  } catch (error) {
    await model.close();
    throw error;
  }
  return {
    path,
    config,
    configExtra: {},
    generation,
    preprocessor: preprocessorOf(config),
    weights,
    experts: new Map(),
    tokenizer,
    files: tokenizer ? { ...jsonFile(tokenizer), ...files } : {},
    close: () => model.close(),
  };
}

/** The tokenizer of a model's own folder; null where it has none. */
async function ownTokenizer(folder: string): Promise<FoundTokenizer | null> {
  try {
    return { tokenizer: await WhisperTokenizer.fromFolder(folder), files: {} };
  } catch (error) {
    if (isDistilWhisperError(error) && error.code === 'ERR_FILE_NOT_FOUND') return null;
    throw error;
  }
}

/** A tokenizer that was named, for a model of `vocabulary` ids, and the files that it is made of. */
async function readTokenizer(path: string, vocabulary: number): Promise<FoundTokenizer> {
  if (!(await isFile(path))) {
    const tokenizer = await WhisperTokenizer.fromFolder(path);
    const files: Record<string, FolderFile> = {};
    for (const name of TOKENIZER_FILES)
      if (await isFile(join(path, name))) files[name] = { copyFrom: join(path, name) };
    return { tokenizer, files };
  }
  if (path.endsWith('.json')) {
    const tokenizer = WhisperTokenizer.fromJSON(await readJsonObject(path, 'ERR_TOKENIZER'));
    return { tokenizer, files: { ...configFile(), 'tokenizer.json': { copyFrom: path } } };
  }
  const ranks = await readTextFile(path, 'ERR_TOKENIZER');
  const count = ranks.split('\n').filter((line) => line.trim() !== '').length;
  const languages = languagesOf(count, vocabulary, path);
  return { tokenizer: WhisperTokenizer.fromJSON(tokenizerFromTiktoken(ranks, { languages })), files: configFile() };
}

/** Whisper's special tokens but for the languages, and its timestamps. */
const SPECIAL_TOKENS = 1509;
/** Languages of the published vocabularies, by their ids. */
const PUBLISHED_LANGUAGES: ReadonlyMap<number, number> = new Map([
  [51_864, 99],
  [51_865, 99],
  [51_866, 100],
]);

/** How many languages make a vocabulary of that size with so many ranks. Throws ERR_VOCABULARY. */
function languagesOf(ranks: number, vocabulary: number, path: string): number {
  const languages = vocabulary - SPECIAL_TOKENS - ranks;
  const published = PUBLISHED_LANGUAGES.get(vocabulary);
  if (published === undefined ? languages >= 0 && languages <= 100 : languages === published) return languages;
  const wanted =
    published === undefined ? `${vocabulary - SPECIAL_TOKENS} at most` : vocabulary - SPECIAL_TOKENS - published;
  throw new DistilWhisperError(
    'ERR_VOCABULARY',
    `${path}: expected the ranks of a vocabulary of ${vocabulary} ids (${wanted}; English-only models have gpt2.tiktoken, others multilingual.tiktoken), got ${ranks}`,
  );
}

function checkVocabulary(found: FoundTokenizer | null, vocabulary: number, path: string): void {
  if (found === null || found.tokenizer.vocabSize <= vocabulary) return;
  throw new DistilWhisperError(
    'ERR_VOCABULARY',
    `${path}: expected a tokenizer of at most ${vocabulary} ids, which the model has, got one of ${found.tokenizer.vocabSize}`,
  );
}

const jsonFile = (tokenizer: WhisperTokenizer): Record<string, FolderFile> => ({
  'tokenizer.json': JSON.stringify(tokenizer.toJSON()),
});

/** What transformers must be told beside a tokenizer.json. */
const configFile = (): Record<string, FolderFile> => {
  const end = '<|endoftext|>';
  const tokens = { bos_token: end, eos_token: end, pad_token: end, unk_token: end };
  const config = { tokenizer_class: 'WhisperTokenizer', processor_class: 'WhisperProcessor', ...tokens };
  return { 'tokenizer_config.json': `${JSON.stringify({ ...config, add_prefix_space: false }, undefined, 2)}\n` };
};

/** How features are made for a model, as Hugging Face's feature extractor says it. */
export function preprocessorOf({ num_mel_bins, max_source_positions }: WhisperConfig): JsonObject {
  const frames = 2 * max_source_positions;
  return {
    chunk_length: frames / 100,
    dither: 0,
    feature_extractor_type: 'WhisperFeatureExtractor',
    feature_size: num_mel_bins,
    hop_length: 160,
    n_fft: 400,
    n_samples: 160 * frames,
    nb_max_frames: frames,
    padding_side: 'right',
    padding_value: 0,
    processor_class: 'WhisperProcessor',
    return_attention_mask: false,
    sampling_rate: 16_000,
  };
}

/** What OpenAI's decoder does by default, as a generation_config.json. */
function generationOf(config: WhisperConfig, tokenizer: WhisperTokenizer): JsonObject {
  const { multilingual, languages } = tokenizer;
  const end = tokenizer.endOfText;
  const languageEntry = (language: string) => {
    const id = tokenizer.languageId(language);
    return [tokenizer.token(id), id] as const;
  };
  return {
    begin_suppress_tokens: suppressAtBegin(tokenizer),
    bos_token_id: end,
    decoder_start_token_id: tokenizer.startOfTranscript,
    eos_token_id: end,
    is_multilingual: multilingual,
    ...(multilingual && {
      lang_to_id: Object.fromEntries(languages.map(languageEntry)),
      task_to_id: { transcribe: tokenizer.transcribe, translate: tokenizer.translate },
    }),
    max_initial_timestamp_index: 50,
    max_length: config.max_target_positions,
    no_timestamps_token_id: tokenizer.noTimestamps,
    pad_token_id: end,
    return_timestamps: false,
    suppress_tokens: suppressTokens(tokenizer),
  };
}

/** Refuses a model for a format that has room for a plain Whisper only, or that needs what the model lacks. */
export function plainModel(source: ModelSource, program: string): WhisperTokenizer {
  const { path, experts, tokenizer } = source;
  if (experts.size > 0) {
    throw new DistilWhisperError(
      'ERR_EXPERT',
      `${path}: expected a plain model, ${program} has no place for language experts, got those for ${[...experts.keys()].join(', ')}`,
    );
  }
  if (tokenizer) return tokenizer;
  throw new DistilWhisperError(
    'ERR_TOKENIZER',
    `${path} has no tokenizer, which ${program} needs: name one with 'tokenizer' (a folder, a tokenizer.json, or ranks in tiktoken's format)`,
  );
}
