/** OpenAI's checkpoints (whisper/model.py): one file with `dims` and a state dict under names of its own. */
import { DistilWhisperError, shown } from '../errors/index.js';
import { checkWeights, parseWhisperConfig, type WhisperConfig, whisperPreset, whisperTensorShapes } from './config.js';
import { Renamed } from './renamed.js';
import type { TensorSource } from './safetensors.js';
import { importTorchCheckpoint, type ModelDims, type TorchCheckpoint } from './torch.js';

/** From Hugging Face's names to OpenAI's, one after the other. */
const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^model\.(encoder|decoder)\.layers\./, '$1.blocks.'],
  [/^model\./, ''],
  [/\.self_attn_layer_norm\./, '.attn_ln.'],
  [/\.encoder_attn_layer_norm\./, '.cross_attn_ln.'],
  [/\.final_layer_norm\./, '.mlp_ln.'],
  [/\.self_attn\./, '.attn.'],
  [/\.encoder_attn\./, '.cross_attn.'],
  [/\.q_proj\./, '.query.'],
  [/\.k_proj\./, '.key.'],
  [/\.v_proj\./, '.value.'],
  [/\.out_proj\./, '.out.'],
  [/\.fc1\./, '.mlp.0.'],
  [/\.fc2\./, '.mlp.2.'],
  [/\.embed_positions\.weight$/, '.positional_embedding'],
  [/\.embed_tokens\./, '.token_embedding.'],
  [/^encoder\.layer_norm\./, 'encoder.ln_post.'],
  [/^decoder\.layer_norm\./, 'decoder.ln.'],
];

/** A tensor's name in OpenAI's checkpoints, and in whisper.cpp's files: `model.encoder.layers.0.fc1.bias` is `encoder.blocks.0.mlp.0.bias`. */
export const openAiName = (name: string): string => NAMES.reduce((all, [from, to]) => all.replace(from, to), name);

const DIMS = [
  'n_mels',
  'n_audio_ctx',
  'n_audio_state',
  'n_audio_head',
  'n_audio_layer',
  'n_vocab',
  'n_text_ctx',
  'n_text_state',
  'n_text_head',
  'n_text_layer',
] as const;

/** Ids that a config.json names. */
export interface SpecialIds {
  readonly start: number;
  readonly end: number;
}

/** Those of the published vocabularies, by their sizes: English-only, 99 and 100 languages. */
const PUBLISHED_IDS: ReadonlyMap<number, SpecialIds> = new Map([
  [51_864, { start: 50_257, end: 50_256 }],
  [51_865, { start: 50_258, end: 50_257 }],
  [51_866, { start: 50_258, end: 50_257 }],
]);

/** A model that a checkpoint of OpenAI's holds, under Hugging Face's names. Close it when done. */
export interface OpenAiModel {
  readonly config: WhisperConfig;
  readonly weights: TensorSource;
  close(): Promise<void>;
}

/**
 * Opens a checkpoint of OpenAI's, such as small.pt: dims and names are checked, and that the tensors are exactly those that the
 * dims imply. `idsOf` gives the special ids of a vocabulary of that size, which the file does not say; without
 * it they are those of the published one. Throws ERR_MODEL, ERR_CONFIG, ERR_VOCABULARY and what
 * `importTorchCheckpoint` throws.
 */
export async function openOpenAiModel(
  path: string,
  idsOf?: (vocabulary: number) => Promise<SpecialIds>,
): Promise<OpenAiModel> {
  const checkpoint = await importTorchCheckpoint(path);
  try {
    const config = await configOf(checkpoint, idsOf ?? (async (vocabulary) => publishedIds(vocabulary, path)));
    const names = new Map(Array.from(whisperTensorShapes(config).keys(), (name) => [openAiName(name), name]));
    const own = checkpoint.names().map((name) => [names.get(name) ?? name, name] as const);
    const infos = own.map(([canonical, name]) => [canonical, checkpoint.info(name)] as const);
    checkWeights(config, infos, path);
    return { config, weights: new Renamed(checkpoint, new Map(own)), close: () => checkpoint.close() };
  } catch (error) {
    await checkpoint.close();
    throw error;
  }
}

function publishedIds(vocabulary: number, path: string): SpecialIds {
  const ids = PUBLISHED_IDS.get(vocabulary);
  if (ids) return ids;
  throw new DistilWhisperError(
    'ERR_VOCABULARY',
    `${path} has a vocabulary of ${vocabulary} ids, which is none of the published ones (${[...PUBLISHED_IDS.keys()].join(', ')}): a tokenizer must be given`,
  );
}

async function configOf(
  { path, dims }: TorchCheckpoint,
  idsOf: (vocabulary: number) => Promise<SpecialIds>,
): Promise<WhisperConfig> {
  if (dims === null) {
    throw new DistilWhisperError(
      'ERR_MODEL',
      `${path} holds a state dict without sizes: expected OpenAI's dims beside it, or a folder with its config.json and this file as pytorch_model.bin`,
    );
  }
  const at = (name: (typeof DIMS)[number]): number => sizeOf(dims, name, path);
  const known = new Set<string>(DIMS);
  for (const name of dims.keys()) {
    if (!known.has(name))
      throw new DistilWhisperError('ERR_MODEL', `${path}: dims have the unknown size ${shown(name)}`);
  }
  const width = at('n_audio_state');
  if (at('n_text_state') !== width) {
    throw new DistilWhisperError(
      'ERR_MODEL',
      `${path}: dims.n_text_state must be n_audio_state (${width}), it is ${at('n_text_state')}`,
    );
  }
  const vocabulary = at('n_vocab');
  const { start, end } = await idsOf(vocabulary);
  return parseWhisperConfig(
    {
      ...whisperPreset('tiny'),
      vocab_size: vocabulary,
      num_mel_bins: at('n_mels'),
      d_model: width,
      encoder_layers: at('n_audio_layer'),
      encoder_attention_heads: at('n_audio_head'),
      encoder_ffn_dim: 4 * width,
      decoder_layers: at('n_text_layer'),
      decoder_attention_heads: at('n_text_head'),
      decoder_ffn_dim: 4 * width,
      max_source_positions: at('n_audio_ctx'),
      max_target_positions: at('n_text_ctx'),
      decoder_start_token_id: start,
      pad_token_id: end,
      bos_token_id: end,
      eos_token_id: end,
      suppress_tokens: null,
      begin_suppress_tokens: null,
    },
    `${path} (dims)`,
  );
}

function sizeOf(dims: ModelDims, name: string, path: string): number {
  const size = dims.get(name);
  if (size !== undefined && Number.isSafeInteger(size) && size >= 1) return size;
  const got = size === undefined ? 'it is missing' : `it is ${size}`;
  throw new DistilWhisperError('ERR_MODEL', `${path}: dims.${name} must be a whole number from 1, ${got}`);
}
