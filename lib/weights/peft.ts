/**
 * LoRA adapters (Hu et al. 2021) as PEFT's `save_pretrained` writes them: a folder of adapter_config.json and
 * adapter_model.safetensors, older ones adapter_model.bin, whose tensors of a linear layer `model.encoder.layers.0.fc1` are
 *   base_model.model.model.encoder.layers.0.fc1.lora_A.weight [r, in]   …lora_B.weight [out, r]
 * and with DoRA (Liu et al. 2024) …lora_magnitude_vector [out].
 */
import { join } from 'node:path';
import { DistilWhisperError, shown } from '../errors/index.js';
import {
  isFile,
  isJsonObject,
  type JsonObject,
  readJsonObject,
  writeFolderAtomic,
  writeSynced,
} from '../files/index.js';
import { canonicalName, compareTensors, summarizeProblems, type WhisperConfig, whisperTensorShapes } from './config.js';
import type { HostTensor } from './host.js';
import { Renamed } from './renamed.js';
import { openSafetensors, type TensorSource, weightEntries, writeSafetensors } from './safetensors.js';
import { importTorchCheckpoint } from './torch.js';

const CONFIG = 'adapter_config.json';
const WEIGHTS = 'adapter_model.safetensors';
const OLD_WEIGHTS = 'adapter_model.bin';
const TENSOR = /^(.+)\.lora_(A|B|magnitude_vector)(\.default)?(\.weight)?$/;

/** What an adapter is, by the words of PEFT's LoraConfig. */
export interface LoraConfig {
  readonly rank: number;
  readonly alpha: number;
  /** Which linear layers: the ends of their names, or one pattern that the whole name matches. */
  readonly targets: readonly string[] | string;
  /** Of layers that differ, by the end of their name, a pattern. */
  readonly rankPattern: Readonly<Record<string, number>>;
  readonly alphaPattern: Readonly<Record<string, number>>;
  /** Scaled by alpha / √rank instead of alpha / rank (Kalajdzievski 2023). */
  readonly rsLora: boolean;
  /** Of the layer's input, in training. */
  readonly dropout: number;
}

/** The adapter of one linear layer: y += scale · B·A·x. */
export interface LoraModule {
  /** Of the layer: "model.encoder.layers.0.fc1". */
  readonly module: string;
  readonly rank: number;
  readonly scale: number;
  readonly inputs: number;
  readonly outputs: number;
  /** Whether the layer's rows are scaled to a magnitude (DoRA). */
  readonly dora: boolean;
}

/** Names of a layer's tensors. */
export const loraTensorNames = (module: string): { a: string; b: string; magnitude: string } => ({
  a: `${module}.lora_A.weight`,
  b: `${module}.lora_B.weight`,
  magnitude: `${module}.lora_magnitude_vector`,
});

/** An open adapter; names and shapes have been checked against the model. Close it when done. */
export interface AdapterFolder {
  readonly path: string;
  readonly config: LoraConfig;
  readonly modules: readonly LoraModule[];
  /** Tensors under `loraTensorNames`. */
  readonly weights: TensorSource;
  close(): Promise<void>;
}

/** Every linear layer of a model by name, with its sizes; convolutions and the tied output projection are none. */
export function linearModules(config: WhisperConfig): Map<string, { inputs: number; outputs: number }> {
  const modules = new Map<string, { inputs: number; outputs: number }>();
  for (const [name, [outputs, inputs, ...others]] of whisperTensorShapes(config)) {
    const match = /^(.+\.(?:[qkv]_proj|out_proj|fc1|fc2))\.weight$/.exec(name);
    if (match && others.length === 0) modules.set(match[1]!, { inputs: inputs!, outputs: outputs! });
  }
  return modules;
}

/** Whether a layer's name ends with `key`, a pattern, at a dot: how PEFT looks layers up in its patterns. */
const endsWith = (module: string, key: string): boolean => new RegExp(`^(?:.*\\.)?(?:${key})$`).test(module);

/** Whether an adapter with these targets changes a layer: as PEFT chooses, by the ends of names, or one pattern of all of it. */
export function isTarget(module: string, targets: readonly string[] | string): boolean {
  if (typeof targets === 'string') return targets === 'all-linear' || new RegExp(`^(?:${targets})$`).test(module);
  return targets.some((end) => module === end || module.endsWith(`.${end}`));
}

/** Rank and scale of a layer's adapter. */
export function loraScale(config: LoraConfig, module: string): { rank: number; scale: number } {
  const of = (pattern: Readonly<Record<string, number>>, value: number): number =>
    Object.entries(pattern).find(([key]) => endsWith(module, key))?.[1] ?? value;
  const rank = of(config.rankPattern, config.rank);
  const alpha = of(config.alphaPattern, config.alpha);
  return { rank, scale: config.rsLora ? alpha / Math.sqrt(rank) : alpha / rank };
}

/** The layers that a new adapter changes. Throws ERR_ARGUMENT where its targets are none, or a pattern is no pattern. */
export function loraModules(model: WhisperConfig, config: LoraConfig): LoraModule[] {
  const linears = linearModules(model);
  const { targets } = config;
  let chosen: LoraModule[];
  try {
    chosen = [...linears]
      .filter(([module]) => isTarget(module, targets))
      .map(([module, sizes]) => ({ module, ...sizes, ...loraScale(config, module), dora: false }));
  } catch (cause) {
    throw new DistilWhisperError('ERR_ARGUMENT', `targets: expected patterns, got ${shown(targets)}`, { cause });
  }
  const idle =
    typeof targets === 'string' ? [] : targets.filter((end) => ![...linears.keys()].some((m) => isTarget(m, [end])));
  if (chosen.length > 0 && idle.length === 0) return chosen;
  throw new DistilWhisperError(
    'ERR_ARGUMENT',
    `targets: expected the ends of names of linear layers (q_proj, k_proj, v_proj, out_proj, fc1, fc2, or more of the name as in ` +
      `encoder_attn.q_proj), or a pattern of whole names, got ${shown(idle.length > 0 ? idle : targets)}, which is none`,
  );
}

/**
 * Opens an adapter's folder and holds it against a model. Errors: ERR_ADAPTER for what is none, does not fit, or is done in a way
 * that is not followed here, which it names; ERR_FILE_NOT_FOUND; those of `openSafetensors` and `importTorchCheckpoint`.
 */
export async function openAdapter(path: string, model: WhisperConfig): Promise<AdapterFolder> {
  const file = join(path, CONFIG);
  if (!(await isFile(file)))
    throw new DistilWhisperError('ERR_ADAPTER', `${path} is no adapter's folder: it has no ${CONFIG}`);
  const json = await readJsonObject(file, 'ERR_ADAPTER');
  const config = parseLoraConfig(json, file);
  const safe = join(path, WEIGHTS);
  const old = join(path, OLD_WEIGHTS);
  const source =
    (await isFile(safe)) || !(await isFile(old)) ? await openSafetensors(safe) : await importTorchCheckpoint(old);
  try {
    const { modules, names } = sortTensors(source, config, model, path, json.use_dora === true);
    return { path, config, modules, weights: new Renamed(source, names), close: () => source.close() };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** The files of an adapter's folder that say what it is. */
export async function adapterFiles(path: string): Promise<string[]> {
  const safe = join(path, WEIGHTS);
  return [join(path, CONFIG), (await isFile(safe)) ? safe : join(path, OLD_WEIGHTS)];
}

/** Writes an adapter's folder, whole or not at all, for PEFT to load. `base`: what it was trained on, as it was named. */
export async function writeAdapter(
  path: string,
  { config, base, tensors }: { config: LoraConfig; base: string | null; tensors: ReadonlyMap<string, HostTensor> },
): Promise<void> {
  const { targets } = config;
  const json = {
    peft_type: 'LORA',
    task_type: null,
    auto_mapping: {
      base_model_class: 'WhisperForConditionalGeneration',
      parent_library: 'transformers.models.whisper.modeling_whisper',
    },
    base_model_name_or_path: base,
    revision: null,
    inference_mode: true,
    r: config.rank,
    lora_alpha: config.alpha,
    lora_dropout: config.dropout,
    target_modules: targets,
    rank_pattern: config.rankPattern,
    alpha_pattern: config.alphaPattern,
    use_rslora: config.rsLora,
    use_dora: false,
    bias: 'none',
    fan_in_fan_out: false,
    init_lora_weights: true,
    modules_to_save: null,
    layers_to_transform: null,
    layers_pattern: null,
  };
  const named = [...tensors].map(([name, tensor]) => [`base_model.model.${name}`, tensor] as const);
  await writeFolderAtomic(
    path,
    async (folder) => {
      await writeSynced(folder, CONFIG, `${JSON.stringify(json, null, 2)}\n`);
      await writeSafetensors(join(folder, WEIGHTS), weightEntries(named), { metadata: { format: 'pt' } });
    },
    { replace: true },
  );
}

/** What says nothing of how an adapter computes. */
const IDLE = new Set([
  ...[
    'peft_type',
    'task_type',
    'auto_mapping',
    'base_model_name_or_path',
    'revision',
    'inference_mode',
    'peft_version',
  ],
  ...['r', 'lora_alpha', 'lora_dropout', 'target_modules', 'rank_pattern', 'alpha_pattern', 'use_rslora', 'use_dora'],
  // Which layers there are, the tensors say.
  ...[
    'exclude_modules',
    'layers_to_transform',
    'layers_pattern',
    'megatron_core',
    'qalora_group_size',
    'runtime_config',
  ],
  'ensure_weight_tying',
]);
/** Ways of starting that leave the base model as it was. */
const STARTS: readonly unknown[] = [true, false, 'gaussian', 'eva', 'orthogonal'];

const isIdle = (value: unknown): boolean =>
  value === null ||
  value === undefined ||
  value === false ||
  (Array.isArray(value) && value.length === 0) ||
  (isJsonObject(value) && Object.keys(value).length === 0);

/** Throws ERR_ADAPTER that names the file and the field. */
function parseLoraConfig(json: JsonObject, file: string): LoraConfig {
  const refuse = (field: string, expected: string): never => {
    throw new DistilWhisperError('ERR_ADAPTER', `${file}: ${field}: expected ${expected}, got ${shown(json[field])}`);
  };
  if (json.peft_type !== 'LORA') refuse('peft_type', '"LORA"');
  for (const [field, value] of Object.entries(json)) {
    if (IDLE.has(field) || isIdle(value)) continue;
    if (field === 'bias' && value === 'none') continue;
    if (field === 'init_lora_weights' && STARTS.includes(value)) continue;
    if (field === 'init_lora_weights') refuse(field, 'a start that leaves the base model as it was');
    refuse(field, field === 'bias' ? '"none"' : 'nothing: it is not followed here');
  }
  const number = (field: string, fallback: number, ok: (value: number) => boolean, expected: string): number => {
    const value = json[field] ?? fallback;
    return typeof value === 'number' && ok(value) ? value : refuse(field, expected);
  };
  const isRank = (value: number): boolean => Number.isSafeInteger(value) && value >= 1;
  const pattern = (field: string, ok: (value: number) => boolean): Record<string, number> => {
    const value = json[field] ?? {};
    if (!isJsonObject(value)) return refuse(field, 'an object of numbers');
    for (const [key, of] of Object.entries(value)) {
      if (typeof of !== 'number' || !ok(of)) refuse(field, 'an object of numbers');
      try {
        endsWith('', key);
      } catch {
        refuse(field, 'patterns of names');
      }
    }
    return value as Record<string, number>;
  };
  const targets = json.target_modules ?? [];
  const isText = (value: unknown): value is string => typeof value === 'string';
  if (!isText(targets) && !(Array.isArray(targets) && targets.every(isText)))
    refuse('target_modules', 'names or a pattern');
  return {
    rank: number('r', 8, isRank, 'a whole number from 1'),
    alpha: number('lora_alpha', 8, Number.isFinite, 'a number'),
    targets: targets as string | string[],
    rankPattern: pattern('rank_pattern', isRank),
    alphaPattern: pattern('alpha_pattern', Number.isFinite),
    rsLora: json.use_rslora === true,
    dropout: number('lora_dropout', 0, (p) => p >= 0 && p < 1, 'a share from 0 to below 1'),
  };
}

/** The layers of an adapter's tensors, and their names here → in the file. Throws ERR_ADAPTER with the first few problems. */
function sortTensors(
  source: TensorSource,
  config: LoraConfig,
  model: WhisperConfig,
  path: string,
  dora: boolean,
): { modules: LoraModule[]; names: Map<string, string> } {
  const infos = source.names().map((name) => {
    const [, module, part] = TENSOR.exec(canonicalName(name)) ?? [];
    return { name, module, part, info: source.info(name) };
  });
  const modules: LoraModule[] = [];
  const expected = new Map<string, readonly number[]>();
  for (const [module, sizes] of linearModules(model)) {
    const parts = infos.filter((one) => one.module === module);
    if (parts.length === 0) continue;
    const { rank, scale } = loraScale(config, module);
    const scaled = dora || parts.some(({ part }) => part === 'magnitude_vector');
    const { a, b, magnitude } = loraTensorNames(module);
    expected.set(a, [rank, sizes.inputs]).set(b, [sizes.outputs, rank]);
    if (scaled) expected.set(magnitude, [sizes.outputs]);
    modules.push({ module, ...sizes, rank, scale, dora: scaled });
  }
  const files = new Map<string, string>();
  const named = infos.map(({ name, module, part, info }) => {
    // Earlier versions, and states that were not saved by PEFT, have the adapter's name and .weight where today's have not.
    const own = module === undefined ? name : `${module}.lora_${part}${part === 'magnitude_vector' ? '' : '.weight'}`;
    files.set(own, name);
    return [own, info] as const;
  });
  const { names, problems } = compareTensors(expected, named);
  if (infos.length === 0) problems.push('it holds no tensors');
  if (problems.length === 0)
    return { modules, names: new Map([...names].map(([ours, own]) => [ours, files.get(own)!])) };
  throw new DistilWhisperError(
    'ERR_ADAPTER',
    `${path} is no adapter for a model of width ${model.d_model} with ${model.encoder_layers} + ${model.decoder_layers} layers: ` +
      summarizeProblems(problems),
  );
}
