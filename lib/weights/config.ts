/** What a Whisper is made of: its config.json (Hugging Face names) and the exact list of tensors that it implies. */
import { DistilWhisperError, shown } from '../errors/index.js';
import { isJsonObject } from '../files/index.js';
import { formatShape, type HostDtype, sameShape } from './host.js';

/** Width of every gate, whatever the model's size (`clsr_gate_dim` of the reference). */
export const GATE_SIZE = 64;

/** Sizes and settings of a Whisper, by their names in config.json. */
export interface WhisperConfig {
  readonly vocab_size: number;
  readonly num_mel_bins: number;
  readonly d_model: number;
  readonly encoder_layers: number;
  readonly encoder_attention_heads: number;
  readonly encoder_ffn_dim: number;
  readonly decoder_layers: number;
  readonly decoder_attention_heads: number;
  readonly decoder_ffn_dim: number;
  /** Encoder positions after the stride of conv2: 1500 for 30 s. */
  readonly max_source_positions: number;
  readonly max_target_positions: number;
  readonly decoder_start_token_id: number;
  readonly pad_token_id: number;
  readonly bos_token_id: number;
  readonly eos_token_id: number;
  readonly suppress_tokens: readonly number[] | null;
  readonly begin_suppress_tokens: readonly number[] | null;
  readonly scale_embedding: boolean;
  /** The exact (erf) GELU; nothing else is published or accepted. */
  readonly activation_function: 'gelu';
  readonly dropout: number;
  readonly attention_dropout: number;
  readonly activation_dropout: number;
  readonly encoder_layerdrop: number;
  readonly decoder_layerdrop: number;
  readonly init_std: number;
}

const SIZES = [
  'vocab_size',
  'num_mel_bins',
  'd_model',
  'encoder_layers',
  'encoder_attention_heads',
  'encoder_ffn_dim',
  'decoder_layers',
  'decoder_attention_heads',
  'decoder_ffn_dim',
  'max_source_positions',
  'max_target_positions',
] as const;
const TOKEN_IDS = ['decoder_start_token_id', 'pad_token_id', 'bos_token_id', 'eos_token_id'] as const;
/** What an id that is null is taken from. */
const INSTEAD = {
  decoder_start_token_id: [],
  pad_token_id: ['eos_token_id', 'bos_token_id'],
  bos_token_id: ['eos_token_id', 'pad_token_id'],
  eos_token_id: ['pad_token_id', 'bos_token_id'],
} as const;
const TOKEN_LISTS = ['suppress_tokens', 'begin_suppress_tokens'] as const;
/** In a list of `suppress_tokens`: what openai/whisper suppresses where nothing is said. */
export const DEFAULT_SUPPRESSION = -1;
/** transformers writes its default into the config of any model, whatever its vocabulary. */
const DEFAULT_BEGIN_SUPPRESSION = [220, 50256];
const RATES = ['dropout', 'attention_dropout', 'activation_dropout', 'encoder_layerdrop', 'decoder_layerdrop'] as const;
/** Above this a size is a mistake, and products of sizes would leave the whole numbers. */
const MAX_SIZE = 2 ** 24;
/** Large models have 32 layers; the names of a million would take minutes to list. */
export const MAX_LAYERS = 1024;

/**
 * Checks the content of a config.json and returns the fields that a Whisper needs; others are ignored. Sizes and token
 * ids must be there; suppression lists default to null, rates to 0, `init_std` to 0.02, as in Hugging Face's class.
 * Throws ERR_CONFIG that names the file (`file`) and the field.
 */
export function parseWhisperConfig(json: unknown, file: string): WhisperConfig {
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_CONFIG', `${file}: ${what}`);
  };
  if (!isJsonObject(json)) return refuse(`expected an object with a Whisper's sizes, got ${shown(json)}`);
  const got = (field: string) => (json[field] === undefined ? 'it is missing' : `it is ${shown(json[field])}`);
  // The reference's class has a name of its own, and a gate width that is said but never changed.
  if (![undefined, 'whisper', 'distilwhisper'].includes(json.model_type as string | undefined))
    refuse(`model_type must be "whisper" or the reference's "distilwhisper", ${got('model_type')}`);
  if (json.clsr_gate_dim !== undefined && json.clsr_gate_dim !== GATE_SIZE)
    refuse(`clsr_gate_dim must be ${GATE_SIZE}, ${got('clsr_gate_dim')}`);

  const numbers: Partial<Record<(typeof SIZES | typeof TOKEN_IDS | typeof RATES)[number] | 'init_std', number>> = {};
  for (const field of SIZES) {
    const value = json[field];
    if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > MAX_SIZE) {
      return refuse(`${field} must be a positive whole number up to 2^24, ${got(field)}`);
    }
    if (field.endsWith('_layers') && value > MAX_LAYERS)
      return refuse(`${field} must be ${MAX_LAYERS} at most, ${got(field)}`);
    numbers[field] = value;
  }
  const vocabulary = numbers.vocab_size!;
  const isToken = (value: unknown): value is number =>
    typeof value === 'number' && Number.isInteger(value) && value >= 0 && value < vocabulary;
  // A list names more than one end; the first is the model's own.
  const idOf = (field: (typeof TOKEN_IDS)[number]): unknown =>
    Array.isArray(json[field]) && json[field].every(isToken) ? json[field][0] : json[field];
  for (const field of TOKEN_IDS) {
    const value = idOf(field) ?? (json[field] === null ? INSTEAD[field].map(idOf).find(isToken) : undefined);
    if (!isToken(value)) return refuse(`${field} must be a token id below vocab_size (${vocabulary}), ${got(field)}`);
    numbers[field] = value;
  }
  const lists: Partial<Record<(typeof TOKEN_LISTS)[number], number[] | null>> = {};
  for (const field of TOKEN_LISTS) {
    const value = json[field] ?? null;
    const list = value === null ? null : suppressionList(field, value, vocabulary);
    if (list === undefined) {
      return refuse(`${field} must be null or a list of token ids below vocab_size (${vocabulary}), ${got(field)}`);
    }
    lists[field] = list;
  }
  for (const field of RATES) {
    const value = json[field] ?? 0;
    if (typeof value !== 'number' || !(value >= 0 && value < 1))
      return refuse(`${field} must be in [0, 1), ${got(field)}`);
    numbers[field] = value;
  }
  const initStd = json.init_std ?? 0.02;
  if (typeof initStd !== 'number' || !(initStd > 0))
    return refuse(`init_std must be a positive number, ${got('init_std')}`);
  numbers.init_std = initStd;
  for (const heads of ['encoder_attention_heads', 'decoder_attention_heads'] as const) {
    if (numbers.d_model! % numbers[heads]! !== 0) {
      refuse(`d_model (${numbers.d_model}) must be a multiple of ${heads} (${numbers[heads]})`);
    }
  }
  const scale = json.scale_embedding ?? false;
  if (typeof scale !== 'boolean') return refuse(`scale_embedding must be true or false, ${got('scale_embedding')}`);
  const activation = json.activation_function ?? 'gelu';
  if (activation !== 'gelu') refuse(`activation_function must be "gelu", ${got('activation_function')}`);
  return { ...numbers, ...lists, scale_embedding: scale, activation_function: 'gelu' } as WhisperConfig;
}

/**
 * A list of suppressed ids of a config or generation config, checked: `suppress_tokens` may hold -1 (`DEFAULT_SUPPRESSION`), and
 * of transformers' default for the beginning only what a small vocabulary has is kept. Undefined for anything else.
 */
export function suppressionList(
  name: (typeof TOKEN_LISTS)[number],
  value: unknown,
  vocabulary: number,
): number[] | undefined {
  const isToken = (id: unknown): id is number =>
    typeof id === 'number' && Number.isInteger(id) && id >= 0 && id < vocabulary;
  if (!Array.isArray(value)) return undefined;
  const list: unknown[] = value;
  const isDefault =
    list.length === DEFAULT_BEGIN_SUPPRESSION.length && DEFAULT_BEGIN_SUPPRESSION.every((id, i) => list[i] === id);
  if (name === 'begin_suppress_tokens' && isDefault) return DEFAULT_BEGIN_SUPPRESSION.filter(isToken);
  const allowed = (id: unknown): id is number =>
    isToken(id) || (name === 'suppress_tokens' && id === DEFAULT_SUPPRESSION);
  return list.every(allowed) ? list : undefined;
}

export type WhisperSize = 'tiny' | 'base' | 'small' | 'medium' | 'large-v2' | 'large-v3' | 'large-v3-turbo';

/** Width, layers (of each side, or of the encoder and the decoder) and heads of the published sizes; the FFN is four times the width. */
const PUBLISHED: Record<WhisperSize, readonly [width: number, layers: number, heads: number, decoder?: number]> = {
  tiny: [384, 4, 6],
  base: [512, 6, 8],
  small: [768, 12, 12],
  medium: [1024, 24, 16],
  'large-v2': [1280, 32, 20],
  'large-v3': [1280, 32, 20],
  'large-v3-turbo': [1280, 32, 20, 4],
};

/** Ids that spell symbols rather than speech in the multilingual vocabulary (OpenAI's `non_speech_tokens`). */
// biome-ignore format: a table of numbers
const NON_SPEECH_TOKENS = [
  1, 2, 7, 8, 9, 10, 14, 25, 26, 27, 28, 29, 31, 58, 59, 60, 61, 62, 63, 90, 91, 92, 93, 359, 503, 522, 542, 873, 893, 902,
  918, 922, 931, 1350, 1853, 1982, 2460, 2627, 3246, 3253, 3268, 3536, 3846, 3961, 4183, 4667, 6585, 6647, 7273, 9061, 9383,
  10428, 10929, 11938, 12033, 12331, 12562, 13793, 14157, 14635, 15265, 15618, 16553, 16604, 18362, 18956, 20075, 21675,
  22520, 26130, 26161, 26435, 28279, 29464, 31650, 32302, 32470, 36865, 42863, 47425, 49870, 50254,
];

/** The configuration of a published multilingual Whisper. Throws ERR_ARGUMENT for another name. */
export function whisperPreset(size: WhisperSize): WhisperConfig {
  if (!Object.hasOwn(PUBLISHED, size)) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `whisperPreset knows ${Object.keys(PUBLISHED).join(', ')}; it was asked for ${shown(size)}`,
    );
  }
  const [width, layers, heads, decoder = layers] = PUBLISHED[size];
  // large-v3 has one language more (Cantonese), so every id behind the languages is one higher, and 128 mel bins.
  const v3 = size.startsWith('large-v3');
  const translate = v3 ? 50359 : 50358;
  return {
    vocab_size: v3 ? 51866 : 51865,
    num_mel_bins: v3 ? 128 : 80,
    d_model: width,
    encoder_layers: layers,
    encoder_attention_heads: heads,
    encoder_ffn_dim: 4 * width,
    decoder_layers: decoder,
    decoder_attention_heads: heads,
    decoder_ffn_dim: 4 * width,
    max_source_positions: 1500,
    max_target_positions: 448,
    decoder_start_token_id: 50258,
    pad_token_id: v3 ? 50256 : 50257,
    bos_token_id: 50257,
    eos_token_id: 50257,
    // Start of transcript, translate, transcribe, start of LM, previous, no speech.
    suppress_tokens: [...NON_SPEECH_TOKENS, 50258, ...Array.from({ length: 5 }, (_, i) => translate + i)],
    begin_suppress_tokens: [220, 50257],
    scale_embedding: false,
    activation_function: 'gelu',
    dropout: 0,
    attention_dropout: 0,
    activation_dropout: 0,
    encoder_layerdrop: 0,
    decoder_layerdrop: 0,
    init_std: 0.02,
  };
}

/** The object that a config.json of this configuration holds, readable by Hugging Face's transformers. */
export function whisperConfigJson(config: WhisperConfig): Record<string, unknown> {
  return {
    architectures: ['WhisperForConditionalGeneration'],
    model_type: 'whisper',
    is_encoder_decoder: true,
    ...config,
    num_hidden_layers: config.encoder_layers,
    max_length: config.max_target_positions,
  };
}

export type Side = 'encoder' | 'decoder';

/** Every tensor of a Whisper of this configuration, by its Hugging Face name, with its shape; `proj_out` is tied and absent. */
export function whisperTensorShapes(config: WhisperConfig): Map<string, readonly number[]> {
  const shapes = new Map<string, readonly number[]>();
  const width = config.d_model;
  const linear = (name: string, outputs: number, inputs: number, bias = true) => {
    shapes.set(`${name}.weight`, [outputs, inputs]);
    if (bias) shapes.set(`${name}.bias`, [outputs]);
  };
  const norm = (name: string) => shapes.set(`${name}.weight`, [width]).set(`${name}.bias`, [width]);
  const attention = (name: string) => {
    linear(`${name}.q_proj`, width, width);
    linear(`${name}.k_proj`, width, width, false);
    linear(`${name}.v_proj`, width, width);
    linear(`${name}.out_proj`, width, width);
  };
  const layers = (side: Side, count: number, inner: number) => {
    for (let layer = 0; layer < count; layer++) {
      const name = `model.${side}.layers.${layer}`;
      attention(`${name}.self_attn`);
      norm(`${name}.self_attn_layer_norm`);
      if (side === 'decoder') {
        attention(`${name}.encoder_attn`);
        norm(`${name}.encoder_attn_layer_norm`);
      }
      linear(`${name}.fc1`, inner, width);
      linear(`${name}.fc2`, width, inner);
      norm(`${name}.final_layer_norm`);
    }
    norm(`model.${side}.layer_norm`);
  };
  shapes.set('model.encoder.conv1.weight', [width, config.num_mel_bins, 3]).set('model.encoder.conv1.bias', [width]);
  shapes.set('model.encoder.conv2.weight', [width, width, 3]).set('model.encoder.conv2.bias', [width]);
  shapes.set('model.encoder.embed_positions.weight', [config.max_source_positions, width]);
  layers('encoder', config.encoder_layers, config.encoder_ffn_dim);
  shapes.set('model.decoder.embed_tokens.weight', [config.vocab_size, width]);
  shapes.set('model.decoder.embed_positions.weight', [config.max_target_positions, width]);
  layers('decoder', config.decoder_layers, config.decoder_ffn_dim);
  return shapes;
}

/** What wraps a model puts its own name into those of the tensors: torch.compile and FSDP anywhere, others in front. */
const WRAPPERS = /(?<=^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\./g;
const WRAPPERS_IN_FRONT = /^(module\.|base_model\.model\.|_forward_module\.)+/;

/**
 * The name as `WhisperForConditionalGeneration` saves it: with `model.` in front (`WhisperModel` leaves it off), without what
 * torch.compile (`_orig_mod.`), DataParallel (`module.`), FSDP or PEFT (`base_model.model.`) put into it.
 */
export function canonicalName(name: string): string {
  const bare = name.replace(WRAPPERS, '').replace(WRAPPERS_IN_FRONT, '');
  return bare.startsWith('encoder.') || bare.startsWith('decoder.') ? `model.${bare}` : bare;
}

/** Where a checkpoint has only one of the two tied tensors, that one is the token embedding. */
export const EMBEDDING = 'model.decoder.embed_tokens.weight';
export const PROJECTION = 'proj_out.weight';

/** What `compareTensors` and `checkWeights` look at: each tensor's name, shape and dtype. */
export type TensorInfos = Iterable<readonly [name: string, info: { dtype: HostDtype; shape: readonly number[] }]>;

const FLOATS: ReadonlySet<HostDtype> = new Set(['f64', 'f32', 'f16', 'bf16']);
const PROBLEMS_SHOWN = 4;

/**
 * Holds tensors against the exact list expected. Returns the map from the expected (canonical) name to the name in
 * the file, in the order expected, and the list of problems as sentences: missing, unexpected, mis-shaped, not floats.
 */
export function compareTensors(
  expected: ReadonlyMap<string, readonly number[]>,
  infos: TensorInfos,
): { names: Map<string, string>; problems: string[] } {
  const found = new Map<string, string>();
  const problems: string[] = [];
  const present = Array.from(infos, ([name, info]) => [canonicalName(name), name, info] as const);
  const tied = !present.some(([canonical]) => canonical === EMBEDDING);
  for (const [given, name, { dtype, shape }] of present) {
    const canonical = tied && given === PROJECTION && expected.has(EMBEDDING) ? EMBEDDING : given;
    const wanted = expected.get(canonical);
    if (wanted === undefined) {
      problems.push(`unexpected ${name} ${formatShape(shape)}`);
    } else if (found.has(canonical)) {
      problems.push(`${found.get(canonical)} and ${name} are the same tensor`);
    } else {
      found.set(canonical, name);
      if (!sameShape(shape, wanted))
        problems.push(`${name} has shape ${formatShape(shape)}, expected ${formatShape(wanted)}`);
      if (!FLOATS.has(dtype)) problems.push(`${name} is ${dtype}, expected a float type`);
    }
  }
  const names = new Map<string, string>();
  for (const [canonical, shape] of expected) {
    const name = found.get(canonical);
    if (name === undefined) problems.push(`missing ${canonical} ${formatShape(shape)}`);
    else names.set(canonical, name);
  }
  return { names, problems };
}

/** One sentence with the first few of many problems. */
export function summarizeProblems(problems: readonly string[]): string {
  const rest = problems.length - PROBLEMS_SHOWN;
  return problems.slice(0, PROBLEMS_SHOWN).join('; ') + (rest > 0 ? `; and ${rest} more` : '');
}

/**
 * Holds the tensors of a model file against the exact list that the config implies; names may come with or without
 * `model.`, and `proj_out.weight` may be there (it is tied to the token embedding; comparing the two is for the caller
 * that reads data) or stand for the embedding. Returns the map from Hugging Face name to the name in the file.
 * Throws ERR_MODEL with the first few problems; `file` names the model.
 */
export function checkWeights(config: WhisperConfig, infos: TensorInfos, file = 'The model'): Map<string, string> {
  const expected = whisperTensorShapes(config);
  const present = [...infos];
  const names = new Set(present.map(([name]) => canonicalName(name)));
  if (names.has(PROJECTION) && names.has(EMBEDDING)) expected.set(PROJECTION, [config.vocab_size, config.d_model]);
  const { names: found, problems } = compareTensors(expected, present);
  if (problems.length > 0) {
    throw new DistilWhisperError(
      'ERR_MODEL',
      `${file} does not hold the weights that its config implies: ${summarizeProblems(problems)}`,
    );
  }
  return found;
}
