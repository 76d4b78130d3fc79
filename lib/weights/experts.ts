/**
 * Expert files: what one language adds to a Whisper, with the reference's names (the DistilWhisper of arXiv 2311.01070).
 * In layer N of a side, S = `model.{encoder,decoder}.layers.N.ffn_clsr`:
 *   S.gate_in.<language>.weight [64, D] .bias [64]   S.gate_out.<language>.weight [1, 64]
 *   S.proj.<language>.fc1.weight [F, D] .bias [F]    S.proj.<language>.fc2.weight [D, F] .bias [D]
 * The reference's whole checkpoints hold the backbone's own FFN as language "shared".
 */
import { DistilWhisperError, shown } from '../errors/index.js';
import {
  canonicalName,
  compareTensors,
  EMBEDDING,
  GATE_SIZE,
  MAX_LAYERS,
  PROJECTION,
  type Side,
  summarizeProblems,
  type TensorInfos,
  type WhisperConfig,
} from './config.js';
import type { HostTensor } from './host.js';
import { Renamed } from './renamed.js';
import { openSafetensors, type TensorSource, weightEntries, writeSafetensors } from './safetensors.js';
import { importTorchCheckpoint } from './torch.js';

const LANGUAGE = /^[a-z]+( [a-z]+)*$/;
const CLSR_NAME = /^model\.(encoder|decoder)\.layers\.(\d+)\.ffn_clsr\.(gate_in|gate_out|proj)\.([^.]+)\.(.+)$/;

function checkLanguage(language: string): void {
  if (typeof language !== 'string' || !LANGUAGE.test(language) || language === 'shared') {
    throw new DistilWhisperError(
      'ERR_LANGUAGE',
      `An expert's language is the lower-case English name of a language ("catalan"), got ${shown(language)}`,
    );
  }
}

/** The file name of a language's expert: `expert.catalan.safetensors`. Throws ERR_LANGUAGE. */
export function expertFileName(language: string): string {
  checkLanguage(language);
  return `expert.${language}.safetensors`;
}

/** Names of the tensors of one layer's expert and gate, by what they are. */
export interface ExpertLayerNames {
  readonly gateIn: string;
  readonly gateInBias: string;
  readonly gateOut: string;
  readonly fc1: string;
  readonly fc1Bias: string;
  readonly fc2: string;
  readonly fc2Bias: string;
}

/** The names of one layer's tensors: `side` 'encoder' or 'decoder', `layer` from 0. Throws ERR_LANGUAGE. */
export function expertLayerNames(side: Side, layer: number, language: string): ExpertLayerNames {
  checkLanguage(language);
  const clsr = `model.${side}.layers.${layer}.ffn_clsr`;
  return {
    gateIn: `${clsr}.gate_in.${language}.weight`,
    gateInBias: `${clsr}.gate_in.${language}.bias`,
    gateOut: `${clsr}.gate_out.${language}.weight`,
    fc1: `${clsr}.proj.${language}.fc1.weight`,
    fc1Bias: `${clsr}.proj.${language}.fc1.bias`,
    fc2: `${clsr}.proj.${language}.fc2.weight`,
    fc2Bias: `${clsr}.proj.${language}.fc2.bias`,
  };
}

/** What of a configuration an expert depends on. */
export type ExpertSizes = Pick<
  WhisperConfig,
  'd_model' | 'encoder_layers' | 'encoder_ffn_dim' | 'decoder_layers' | 'decoder_ffn_dim'
>;

/** Every tensor of a language's expert for a model of this configuration, with its shape. Throws ERR_LANGUAGE. */
export function expertTensorNames(config: ExpertSizes, language: string): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>();
  const width = config.d_model;
  for (const side of ['encoder', 'decoder'] as const) {
    const inner = config[`${side}_ffn_dim`];
    for (let layer = 0; layer < config[`${side}_layers`]; layer++) {
      const names = expertLayerNames(side, layer, language);
      shapes
        .set(names.gateIn, [GATE_SIZE, width])
        .set(names.gateInBias, [GATE_SIZE])
        .set(names.gateOut, [1, GATE_SIZE]);
      shapes.set(names.fc1, [inner, width]).set(names.fc1Bias, [inner]);
      shapes.set(names.fc2, [width, inner]).set(names.fc2Bias, [width]);
    }
  }
  return shapes;
}

/** A checkpoint's tensors, sorted out: canonical name → name in the file. */
export interface ClsrSplit {
  /** The backbone under plain Hugging Face names: `ffn_clsr.proj.shared.fc1` is `fc1`. */
  readonly backbone: Map<string, string>;
  /** The experts, by language. */
  readonly experts: Map<string, Map<string, string>>;
}

/**
 * Sorts the names of a checkpoint into backbone and experts; a checkpoint without experts is all backbone.
 * Throws ERR_MODEL where two names mean the same tensor or a language's name cannot be one.
 */
export function splitClsrCheckpoint(names: Iterable<string>, file = 'The checkpoint'): ClsrSplit {
  const backbone = new Map<string, string>();
  const experts = new Map<string, Map<string, string>>();
  const put = (into: Map<string, string>, canonical: string, name: string) => {
    const other = into.get(canonical);
    if (other !== undefined) {
      throw new DistilWhisperError('ERR_MODEL', `${file} holds the same tensor as ${other} and as ${name}`);
    }
    into.set(canonical, name);
  };
  for (const name of names) {
    const canonical = canonicalName(name);
    const match = CLSR_NAME.exec(canonical);
    if (match === null) {
      put(backbone, canonical, name);
      continue;
    }
    const [, side, layer, part, language, rest] = match;
    if (language === 'shared' && part === 'proj') {
      put(backbone, `model.${side}.layers.${layer}.${rest}`, name);
    } else if (language === 'shared' || !LANGUAGE.test(language!)) {
      throw new DistilWhisperError(
        'ERR_MODEL',
        `${file} holds ${name}, whose language ${shown(language)} is no language's name`,
      );
    } else {
      let expert = experts.get(language!);
      if (expert === undefined) {
        expert = new Map();
        experts.set(language!, expert);
      }
      put(expert, canonical, name);
    }
  }
  const projection = backbone.get(PROJECTION);
  if (projection !== undefined && !backbone.has(EMBEDDING)) {
    backbone.delete(PROJECTION);
    backbone.set(EMBEDDING, projection);
  }
  return { backbone, experts };
}

/**
 * Holds tensors against the exact list of a language's expert. Returns canonical name → name in the file.
 * Throws ERR_EXPERT with the first few problems; `file` names the expert.
 */
export function checkExpert(
  config: ExpertSizes,
  language: string,
  infos: TensorInfos,
  file: string,
): Map<string, string> {
  const { names, problems } = compareTensors(expertTensorNames(config, language), infos);
  if (problems.length > 0) {
    throw new DistilWhisperError(
      'ERR_EXPERT',
      `${file} is no ${language} expert for a model of width ${config.d_model} with ` +
        `${config.encoder_layers} + ${config.decoder_layers} layers: ${summarizeProblems(problems)}`,
    );
  }
  return names;
}

/** An expert in memory: its tensors by canonical name, in the order of `expertTensorNames`. */
export interface Expert {
  readonly language: string;
  readonly tensors: Map<string, HostTensor>;
  /** The strings stored with it; empty for a pickle. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** An open expert; its names and shapes have been checked. Close it when done. */
export interface ExpertFile {
  readonly language: string;
  /** Its tensors by canonical name, in the order of `expertTensorNames`. */
  readonly weights: TensorSource;
  readonly metadata: Readonly<Record<string, string>>;
  close(): Promise<void>;
}

/**
 * Opens a language's expert: safetensors, or the reference's pickle where the name ends in .bin, .pt or .pth. The
 * language comes from the names and must agree with the file's metadata. Throws ERR_EXPERT where it does not fit the
 * model of `config` (without one: where its tensors do not fit each other), and what `openSafetensors` and
 * `importTorchCheckpoint` throw.
 */
export async function openExpert(path: string, config?: ExpertSizes): Promise<ExpertFile> {
  const pickle = /\.(bin|pt|pth)$/.test(path);
  const source: TensorSource & { metadata?: Readonly<Record<string, string>> } = pickle
    ? await importTorchCheckpoint(path)
    : await openSafetensors(path);
  try {
    const metadata = source.metadata ?? {};
    const language = expertLanguage(source.names(), metadata, path);
    const infos = source.names().map((name) => [name, source.info(name)] as const);
    const sizes = config ?? ownSizes(source, path);
    const weights = new Renamed(source, checkExpert(sizes, language, infos, path));
    return { language, weights, metadata, close: () => source.close() };
  } catch (error) {
    await source.close();
    throw error;
  }
}

/** Reads a language's expert into memory. Throws what `openExpert` throws. */
export async function readExpert(path: string, config: WhisperConfig): Promise<Expert> {
  const { language, weights, metadata, close } = await openExpert(path, config);
  try {
    const tensors = new Map<string, HostTensor>();
    for (const name of weights.names()) tensors.set(name, await weights.read(name));
    return { language, tensors, metadata };
  } finally {
    await close();
  }
}

/** Sizes by the first layer's tensors and the highest numbers of layers. */
function ownSizes(source: TensorSource, path: string): ExpertSizes {
  const sizes = { d_model: 0, encoder_layers: 0, encoder_ffn_dim: 0, decoder_layers: 0, decoder_ffn_dim: 0 };
  for (const name of source.names()) {
    const [, side, layer, part, , rest] = CLSR_NAME.exec(canonicalName(name))!;
    const of = side as Side;
    if (Number(layer) >= MAX_LAYERS) {
      throw new DistilWhisperError('ERR_EXPERT', `${path}: expected layers below ${MAX_LAYERS}, got ${shown(name)}`);
    }
    sizes[`${of}_layers`] = Math.max(sizes[`${of}_layers`], Number(layer) + 1);
    if (part !== 'proj' || rest !== 'fc1.weight' || layer !== '0') continue;
    [sizes[`${of}_ffn_dim`] = 0, sizes.d_model = 0] = source.info(name).shape;
  }
  return sizes;
}

function expertLanguage(names: readonly string[], metadata: Readonly<Record<string, string>>, path: string): string {
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_EXPERT', `${path} is no expert file: ${what}`);
  };
  const languages = new Set<string>();
  for (const name of names) {
    const language = CLSR_NAME.exec(canonicalName(name))?.[4];
    if (language === undefined) return refuse(`it holds ${shown(name)}, which belongs to no expert`);
    languages.add(language);
  }
  if (languages.size !== 1) {
    return refuse(
      languages.size === 0 ? 'it holds no tensors' : `it mixes ${[...languages].join(', ')}, expected one language`,
    );
  }
  const language = [...languages][0]!;
  if (!LANGUAGE.test(language!) || language === 'shared') return refuse(`${shown(language)} is no language's name`);
  if (metadata.language !== undefined && metadata.language !== language) {
    return refuse(`its metadata says ${shown(metadata.language)}, its tensors are ${language}`);
  }
  return language;
}

/**
 * Writes a language's expert, atomically; `language` and `format` are added to the metadata. `config` is the model that
 * it belongs to: names and shapes are checked against it first. Throws ERR_EXPERT, ERR_LANGUAGE, and what
 * `writeSafetensors` throws.
 */
export async function writeExpert(
  path: string,
  config: WhisperConfig,
  language: string,
  tensors: ReadonlyMap<string, HostTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const names = checkExpert(config, language, tensors, `The expert for ${path}`);
  const ordered = Array.from(names, ([canonical, name]) => [canonical, tensors.get(name)!] as const);
  await writeSafetensors(path, weightEntries(ordered), { metadata: { ...metadata, format: 'pt', language } });
}
