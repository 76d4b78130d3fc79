/**
 * whisper.cpp's model file (models/convert-h5-to-ggml.py there), little-endian: magic, sizes, mel filters [mels, 201] in f32, the
 * bytes of all text tokens, then each tensor: dimensions, length of the name, type, sizes from the last axis, name, data.
 */
import { DistilWhisperError } from '../errors/index.js';
import { writeFileAtomic } from '../files/index.js';
import { kernels, Stream } from '../tensor/index.js';
import type { WhisperTokenizer } from '../text/index.js';
import { fromFloat32, openAiName, type WhisperConfig } from '../weights/index.js';
import { type ModelSource, plainModel } from './source.js';
import { type Reading, TensorReader } from './tensors.js';

const MAGIC = 0x67676d6c;
/** Types of tensors (ggml_type), and of whole files by their matrices (ggml_ftype). */
const F32 = 0;
const F16 = 1;
const Q8_0 = 8;
/** A file of blocks says which version of them in its thousands. */
const FILE_TYPES = { fp32: 0, fp16: 1, int8: 7 + 2000 } as const;
/** Values in a block of q8_0, which has one scale. */
const BLOCK = 32;
const FFT_BINS = 201;
/** whisper.cpp hears 30 s. */
const POSITIONS = 1500;

export type GgmlType = keyof typeof FILE_TYPES;
export const GGML_TYPES = Object.keys(FILE_TYPES) as GgmlType[];

const ints = (...numbers: number[]): Uint8Array => new Uint8Array(Int32Array.from(numbers).buffer);

/** Writes a model as whisper.cpp reads it: matrices of `type` (int8: q8_0), convolutions in fp16 at most, vectors and positions in fp32. */
export async function writeGgml(
  source: ModelSource,
  output: string,
  { type, reading }: { type: GgmlType; reading: Reading },
): Promise<void> {
  const { config, path, weights } = source;
  const tokenizer = plainModel(source, 'whisper.cpp');
  checkSizes(config, path, type);
  checkIds(config, tokenizer, path);
  const filters = await melFilters(config.num_mel_bins);
  const reader = new TensorReader(path, weights, reading);
  await writeFileAtomic(output, async (sink) => {
    await sink.append(header(config, type));
    await sink.append(ints(config.num_mel_bins, FFT_BINS));
    await sink.append(filters);
    await sink.append(vocabulary(tokenizer));
    for (const name of inOrder(weights.names())) {
      const { prefix, kind } = described(name, reader.shape(name), type);
      await sink.append(prefix);
      if (kind === Q8_0) await sink.append(blocks(await reader.values(name)));
      else await sink.append(await reader.bytes(name, kind === F16 ? 'f16' : 'f32'));
    }
  });
}

function header(config: WhisperConfig, type: GgmlType): Uint8Array {
  const { d_model: width } = config;
  const audio = [config.max_source_positions, width, config.encoder_attention_heads, config.encoder_layers];
  const text = [config.max_target_positions, width, config.decoder_attention_heads, config.decoder_layers];
  return ints(MAGIC, config.vocab_size, ...audio, ...text, config.num_mel_bins, FILE_TYPES[type]);
}

/** What whisper.cpp takes for granted. Throws ERR_MODEL. */
function checkSizes(config: WhisperConfig, path: string, type: GgmlType): void {
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_MODEL', `${path}: whisper.cpp expects ${what}`);
  };
  const { d_model: width, max_source_positions: positions } = config;
  if (positions !== POSITIONS) refuse(`${POSITIONS} encoder positions (30 s), got ${positions}`);
  for (const side of ['encoder', 'decoder'] as const) {
    const inner = config[`${side}_ffn_dim`];
    if (inner !== 4 * width) refuse(`a ${side}_ffn_dim of four times d_model (${4 * width}), got ${inner}`);
  }
  if (type === 'int8' && width % BLOCK !== 0)
    refuse(`a d_model that is a multiple of ${BLOCK} for int8 (q8_0), got ${width}`);
}

/** whisper.cpp knows special tokens by the size of the vocabulary alone. Throws ERR_VOCABULARY. */
function checkIds(config: WhisperConfig, tokenizer: WhisperTokenizer, path: string): void {
  const { vocab_size: size } = config;
  const multilingual = size >= 51_865;
  const shift = multilingual ? 1 : 0;
  const behind = 50_357 + (multilingual ? size - 51_864 : 0);
  const wanted: readonly (readonly [string, number])[] = [
    ['<|endoftext|>', 50_256 + shift],
    ['<|startoftranscript|>', 50_257 + shift],
    ['<|translate|>', behind],
    ['<|transcribe|>', behind + 1],
    ['<|startofprev|>', behind + 3],
    ['<|notimestamps|>', behind + 5],
  ];
  const refuse = (what: string): never => {
    throw new DistilWhisperError(
      'ERR_VOCABULARY',
      `${path}: whisper.cpp finds special tokens by the ${size} ids of the vocabulary: expected ${what}`,
    );
  };
  for (const [token, id] of wanted) {
    const got = tokenizer.has(token) ? `at ${tokenizer.id(token)}` : 'none';
    if (!tokenizer.has(token) || tokenizer.id(token) !== id) refuse(`${token} at ${id}, got ${got}`);
  }
  if (tokenizer.timestampBegin !== behind + 6)
    refuse(`<|0.00|> at ${behind + 6}, got it at ${tokenizer.timestampBegin}`);
}

/** The bytes of every token of text, each behind its length. */
function vocabulary(tokenizer: WhisperTokenizer): Uint8Array {
  const parts: Uint8Array[] = [ints(tokenizer.endOfText)];
  for (let id = 0; id < tokenizer.endOfText; id++) {
    const bytes = tokenizer.tokenBytes(id);
    parts.push(ints(bytes.length), bytes);
  }
  return Buffer.concat(parts);
}

async function melFilters(mels: number): Promise<Uint8Array> {
  const stream = new Stream({ threads: 1 });
  try {
    const values = await kernels.melFilters(stream, { mels }).filters.floats();
    return new Uint8Array(values.slice().buffer);
  } finally {
    stream.close();
  }
}

/** Names in the order in which whisper.cpp's own scripts leave them: modules as transformers' classes list them. */
function inOrder(names: readonly string[]): string[] {
  const place = (name: string): number => PLACES.findIndex((part) => name.includes(part));
  const layer = (name: string): number => Number(/\.layers\.(\d+)\./.exec(name)?.[1] ?? Number.NaN);
  const side = (name: string): number => (name.includes('.encoder.') ? 0 : 1);
  const rank = (name: string): number[] => {
    const within = /\.layers\./.test(name);
    const outer = within ? 1 : name.endsWith('layer_norm.weight') || name.endsWith('layer_norm.bias') ? 2 : 0;
    return [side(name), outer, within ? layer(name) : 0, place(name), name.endsWith('.bias') ? 1 : 0];
  };
  const ranked = names.map((name) => ({ name, rank: rank(name) }));
  ranked.sort((a, b) => a.rank.map((value, i) => value - b.rank[i]!).find((difference) => difference !== 0) ?? 0);
  return ranked.map(({ name }) => name);
}

/** Parts of names in that order. */
const PLACES = [
  'conv1',
  'conv2',
  'embed_tokens',
  'embed_positions',
  'self_attn.k_proj',
  'self_attn.v_proj',
  'self_attn.q_proj',
  'self_attn.out_proj',
  'self_attn_layer_norm',
  'encoder_attn.k_proj',
  'encoder_attn.v_proj',
  'encoder_attn.q_proj',
  'encoder_attn.out_proj',
  'encoder_attn_layer_norm',
  'fc1',
  'fc2',
  'final_layer_norm',
  'layer_norm',
];

/** What stands before a tensor's data, and its type. */
function described(name: string, shape: readonly number[], type: GgmlType): { prefix: Uint8Array; kind: number } {
  // A convolution's bias is a column.
  const sizes = /conv\d\.bias$/.test(name) ? [...shape, 1] : shape;
  const whole = type === 'fp32' || shape.length < 2 || name.includes('embed_positions');
  const kind = whole ? F32 : type === 'int8' && shape.length === 2 ? Q8_0 : F16;
  const called = new TextEncoder().encode(openAiName(name));
  const numbers = ints(sizes.length, called.length, kind, ...[...sizes].reverse());
  return { prefix: Buffer.concat([numbers, called]), kind };
}

const BLOCK_BYTES = 2 + BLOCK;

/** Blocks of 32 values as ggml quantizes them: a scale in f16, the largest size over 127, and the values by it, rounded. */
function blocks(values: Float32Array): Uint8Array {
  const bytes = new Uint8Array((values.length / BLOCK) * BLOCK_BYTES);
  const scales = new Float32Array(values.length / BLOCK);
  for (let block = 0; block < scales.length; block++) {
    let largest = 0;
    for (let i = 0; i < BLOCK; i++) largest = Math.max(largest, Math.abs(values[block * BLOCK + i]!));
    scales[block] = largest / 127;
    // Of what f32 holds of it.
    const inverse = largest === 0 ? 0 : Math.fround(1 / scales[block]!);
    for (let i = 0; i < BLOCK; i++) {
      const value = Math.fround(values[block * BLOCK + i]! * inverse);
      // C's roundf: halves away from zero.
      bytes[block * BLOCK_BYTES + 2 + i] = Math.sign(value) * Math.floor(Math.abs(value) + 0.5);
    }
  }
  const halves = fromFloat32(scales, [scales.length], 'f16').data;
  for (let block = 0; block < scales.length; block++)
    bytes.set(halves.subarray(2 * block, 2 * block + 2), block * BLOCK_BYTES);
  return bytes;
}
