/** A model folder, with a language's expert if there is one, as a folder of ONNX that other runtimes load. */
import { lstat, mkdir } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { checkOptions, DistilWhisperError, shown } from '../errors/index.js';
import { plainFields, preprocessorOf } from '../export/index.js';
import {
  encoderGraph,
  type Graph,
  mergedDecoderGraph,
  type OnnxDtype,
  type OnnxModel,
  type OnnxWeights,
} from '../export/onnx/index.js';
import {
  copySynced,
  ifThere,
  isJsonObject,
  type JsonObject,
  readJsonObject,
  writeFolderAtomic,
  writeSynced,
} from '../files/index.js';
import { type HubOptions, resolveExperts, resolveModel } from '../hub/index.js';
import { resolveLanguage, WhisperTokenizer } from '../text/index.js';
import { decodingOf } from '../transcribe/index.js';
import {
  type ModelFolder,
  openExpert,
  openModelFolder,
  type TensorSource,
  toFloat32,
  whisperConfigJson,
} from '../weights/index.js';

export interface OnnxExportOptions {
  /** A model folder, or a name. */
  model: string;
  /** The folder that is made: it must not be there. */
  output: string;
  /** A language's expert: a file, a folder or a name. A graph takes no language: it holds one expert, whose gates see every row. */
  expert?: string | undefined;
  /** Of a model folder that has experts of several languages inside: whose. */
  language?: string | undefined;
  /** 'int8': matrices in int8 with a scale an output channel, rows quantised as they come. Default: ['fp32']. */
  dtypes?: readonly OnnxDtype[] | undefined;
  /** The decoder gives its last hidden rows too, as `last_hidden_state`: what it needs to teach (`train`, `teacher`). Default false. */
  hidden?: boolean | undefined;
  /** Bytes of a file above which its tensors lie in one beside it, `<name>_data`. Default: 2 GiB, which no reader takes. */
  maxFileBytes?: number | undefined;
  /** How names are looked up: see `resolveModel`. */
  hub?: HubOptions | undefined;
  signal?: AbortSignal | undefined;
  /** Bytes of tensors written, and in all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

const OPTIONS: Record<keyof OnnxExportOptions, true> = {
  model: true,
  output: true,
  expert: true,
  language: true,
  dtypes: true,
  hidden: true,
  maxFileBytes: true,
  hub: true,
  signal: true,
  onProgress: true,
};

export interface OnnxExport {
  output: string;
  /** Lower-case name of the language whose expert is inside; null: none. */
  expert: string | null;
  /** Paths of the files of ONNX, in the folder. */
  files: readonly string[];
}

/** What transformers.js and Optimum call the files of a type. */
const SUFFIX: Record<OnnxDtype, string> = { fp32: '', int8: '_quantized' };
/** What transformers.js calls the type. */
const THEIR_DTYPE: Record<OnnxDtype, string> = { fp32: 'fp32', int8: 'q8' };

/**
 * Writes a folder that onnxruntime, Optimum and transformers.js load: onnx/encoder_model.onnx and onnx/decoder_model_merged.onnx
 * (int8: with _quantized in front of .onnx), the configuration, the tokenizer and the feature extractor's settings; whole or not
 * at all, and one tensor at a time. With an expert every row runs the FFN that its gate chooses, as `transcribe` does in fp32 with that
 * expert. Errors: those of `resolveModel`, `openModelFolder`, `openExpert` and `WhisperTokenizer.fromFolder`; ERR_EXPERT (several experts and no
 * choice), ERR_LANGUAGE, ERR_ARGUMENT, ERR_FILE_WRITE, ERR_DISK_FULL, ERR_INTERRUPTED.
 */
export async function exportOnnx(options: OnnxExportOptions): Promise<OnnxExport> {
  checkOptions('exportOnnx', options, OPTIONS);
  const { output, hidden = false, signal, onProgress } = options;
  const dtypes = [...new Set<OnnxDtype>(options.dtypes ?? ['fp32'])];
  const unknown = dtypes.find((dtype) => !Object.hasOwn(SUFFIX, dtype));
  if (unknown !== undefined || dtypes.length === 0) {
    const got = unknown === undefined ? 'none' : `'${String(unknown)}'`;
    throw new DistilWhisperError('ERR_ARGUMENT', `dtypes: expected some of 'fp32' and 'int8', got ${got}`);
  }
  for (const [name, value] of Object.entries({ model: options.model, output })) {
    if (typeof value !== 'string' || value === '')
      throw new DistilWhisperError('ERR_ARGUMENT', `${name}: expected a path, got ${shown(value)}`);
  }
  const { maxFileBytes } = options;
  if (maxFileBytes !== undefined && !(maxFileBytes > 0))
    throw new DistilWhisperError('ERR_ARGUMENT', `maxFileBytes: expected a number above 0, got ${shown(maxFileBytes)}`);
  if (await ifThere(lstat(output)))
    throw new DistilWhisperError('ERR_FILE_WRITE', `${output} exists already: name another folder`);
  const hub = { signal, ...options.hub };
  const path = await resolveModel(options.model, hub);
  const experts = options.expert === undefined ? [] : await resolveExperts(options.expert, hub);
  const folder = await openModelFolder(path);
  let chosen: ChosenExpert | null = null;
  try {
    const tokenizer = await WhisperTokenizer.fromFolder(path);
    chosen = await chooseExpert(folder, experts, options.language);
    const stop = (): void => {
      if (signal?.aborted) throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted; nothing was written');
    };
    const model: OnnxModel = {
      config: folder.config,
      weights: weightsOf(folder.weights, chosen?.weights ?? null, stop),
      expert: chosen?.language ?? null,
    };
    const graphs = dtypes.flatMap((dtype): [string, Graph][] => [
      [`encoder_model${SUFFIX[dtype]}`, encoderGraph(model, dtype)],
      [`decoder_model_merged${SUFFIX[dtype]}`, mergedDecoderGraph(model, dtype, { hidden })],
    ]);
    const total = graphs.reduce((sum, [, graph]) => sum + graph.byteLength, 0);
    let done = 0;
    const onWritten = (bytes: number): void => {
      stop();
      done = Math.min(total, done + bytes);
      onProgress?.(done, total);
    };
    const files: string[] = [];
    await writeFolderAtomic(output, async (temporary) => {
      await mkdir(join(temporary, 'onnx'));
      const external: Record<string, boolean> = {};
      for (const [name, graph] of graphs) {
        const path = join(temporary, 'onnx', `${name}.onnx`);
        const written = await graph.write(path, { maxBytes: maxFileBytes, onWritten });
        files.push(...written.map((file) => `onnx/${file}`));
        if (written.length > 1) external[`${name}.onnx`] = true;
      }
      await writeSettings(temporary, folder, tokenizer, { dtypes, external });
    });
    return { output, expert: model.expert, files };
  } finally {
    await chosen?.close();
    await folder.close();
  }
}

interface ChosenExpert {
  language: string;
  weights: TensorSource;
  close(): Promise<void>;
}

/** The one expert that the graphs hold, of files or of those inside the model folder. */
async function chooseExpert(
  { path, config, experts }: ModelFolder,
  files: readonly string[],
  language: string | undefined,
): Promise<ChosenExpert | null> {
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_EXPERT', what);
  };
  const wanted = language === undefined ? null : resolveLanguage(language).name;
  const inside = [...experts.keys()];
  if (wanted === null && files.length > 1) refuse(`expected one expert, or its language, got ${files.join(', ')}`);
  for (const path of files) {
    const file = await openExpert(path, config);
    if (wanted === null || wanted === file.language) return file;
    await file.close();
    if (path === files.at(-1)) return refuse(`${path}: expected an expert for ${wanted}, got one for ${file.language}`);
  }
  if (wanted === null && inside.length > 1) {
    refuse(`${path} has experts for ${inside.join(', ')}; an export holds one: expected its language, got none`);
  }
  const name = wanted ?? inside[0];
  if (name === undefined) return null;
  const weights = experts.get(name);
  if (!weights) return refuse(`${path}: expected an expert for ${name} in it, got ${inside.join(', ') || 'none'}`);
  return { language: name, weights, close: async () => {} };
}

/** Backbone and expert in f32, a tensor at a time. */
function weightsOf(backbone: TensorSource, expert: TensorSource | null, stop: () => void): OnnxWeights {
  const holder = (name: string): TensorSource => (expert?.has(name) ? expert : backbone);
  return {
    shape: (name) => holder(name).info(name).shape,
    values: async (name) => {
      stop();
      return toFloat32(await holder(name).read(name));
    },
  };
}

/** What stands beside the graphs. */
async function writeSettings(
  to: string,
  folder: ModelFolder,
  tokenizer: WhisperTokenizer,
  { dtypes, external }: { dtypes: readonly OnnxDtype[]; external: Record<string, boolean> },
): Promise<void> {
  const json = (name: string, value: unknown): Promise<void> =>
    writeSynced(to, name, `${JSON.stringify(value, null, 2)}\n`);
  // Without a choice they take fp32.
  const dtype = dtypes.includes('fp32') ? undefined : THEIR_DTYPE[dtypes[0]!];
  const beside = Object.keys(external).length > 0 ? external : undefined;
  // Types of the weights that are not those here.
  const { torch_dtype: _, dtype: __, ...configJson } = folder.configJson;
  await json('config.json', {
    ...plainFields(configJson),
    ...whisperConfigJson(folder.config),
    'transformers.js_config': dtype || beside ? { dtype, use_external_data_format: beside } : undefined,
  });
  await json('generation_config.json', generationConfig(folder, tokenizer));
  await json('preprocessor_config.json', { ...preprocessorOf(folder.config), ...folder.preprocessorConfig });
  await json('tokenizer_config.json', await tokenizerConfig(folder, tokenizer));
  if (folder.tokenizerPath === undefined) await json('tokenizer.json', tokenizer.toJSON());
  const made = ['tokenizer_config.json', 'processor_config.json'];
  for (const path of folder.processorFiles) {
    if (made.includes(basename(path))) continue;
    await copySynced(path, join(to, basename(path)));
  }
}

/** The folder's, with what runtimes look for and what decoding here follows. */
function generationConfig({ config, generationConfig = {} }: ModelFolder, tokenizer: WhisperTokenizer): JsonObject {
  const { suppress, suppressAtBegin, maxTokens } = decodingOf(config, generationConfig, tokenizer);
  const { multilingual, languages } = tokenizer;
  const idOf = (token: string): number | undefined => (tokenizer.has(token) ? tokenizer.id(token) : undefined);
  return {
    bos_token_id: config.bos_token_id,
    eos_token_id: config.eos_token_id,
    pad_token_id: config.pad_token_id,
    decoder_start_token_id: config.decoder_start_token_id,
    is_multilingual: multilingual,
    lang_to_id: multilingual
      ? Object.fromEntries(languages.map((code) => [`<|${code}|>`, tokenizer.languageId(code)]))
      : undefined,
    task_to_id: multilingual ? { transcribe: idOf('<|transcribe|>'), translate: idOf('<|translate|>') } : undefined,
    no_timestamps_token_id: idOf('<|notimestamps|>'),
    prev_sot_token_id: idOf('<|startofprev|>'),
    return_timestamps: false,
    max_length: maxTokens,
    ...generationConfig,
    suppress_tokens: suppress,
    begin_suppress_tokens: suppressAtBegin,
  };
}

/** The folder's; a class of a name that transformers.js does not know becomes Whisper's. */
async function tokenizerConfig(folder: ModelFolder, tokenizer: WhisperTokenizer): Promise<JsonObject> {
  const end = tokenizer.token(tokenizer.endOfText);
  const path = folder.tokenizerConfigPath;
  const given = path === undefined ? {} : await readJsonObject(path, 'ERR_TOKENIZER');
  const known = typeof given.tokenizer_class === 'string' && /^WhisperTokenizer(Fast)?$/.test(given.tokenizer_class);
  const tokens = Object.fromEntries(
    ['bos_token', 'eos_token', 'pad_token', 'unk_token'].map((name) => {
      const token = given[name];
      return [name, typeof token === 'string' || isJsonObject(token) ? token : end];
    }),
  );
  return {
    model_max_length: folder.config.max_target_positions,
    clean_up_tokenization_spaces: false,
    ...given,
    ...tokens,
    tokenizer_class: known ? given.tokenizer_class : 'WhisperTokenizer',
  };
}
