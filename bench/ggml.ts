/** A Whisper as a ggml file for whisper.cpp (models/convert-h5-to-ggml.py there): matrices in f16, vectors in f32. */
import { closeSync, openSync, writeSync } from 'node:fs';
import type { Values } from '../lib/export/onnx/index.js';
import type { WhisperConfig } from '../lib/weights/index.js';

const MAGIC = 0x67676d6c;
const F16 = 1;
const FFT_BINS = 201;
/** Tokens that whisper.cpp looks up by their text. */
const WORDS = [' ', ' -', " '"];
/** Tokens with a text of their own; whisper.cpp names the others. */
const TEXT_TOKENS = 50257;

const NAMES: readonly (readonly [RegExp, string])[] = [
  [/^model\.(encoder|decoder)\.layers\./, '$1.blocks.'],
  [/^model\./, ''],
  [/self_attn_layer_norm/, 'attn_ln'],
  [/encoder_attn_layer_norm/, 'cross_attn_ln'],
  [/final_layer_norm/, 'mlp_ln'],
  [/self_attn\./, 'attn.'],
  [/encoder_attn\./, 'cross_attn.'],
  [/q_proj/, 'query'],
  [/k_proj/, 'key'],
  [/v_proj/, 'value'],
  [/out_proj/, 'out'],
  [/fc1/, 'mlp.0'],
  [/fc2/, 'mlp.2'],
  [/embed_positions\.weight/, 'positional_embedding'],
  [/embed_tokens/, 'token_embedding'],
  [/^encoder\.layer_norm/, 'encoder.ln_post'],
  [/^decoder\.layer_norm/, 'decoder.ln'],
];

const ggmlName = (name: string): string => NAMES.reduce((all, [from, to]) => all.replace(from, to), name);

/** Writes the file. Mel filters are zeros and the vocabulary has no words: it is for timing. */
export function writeGgml(path: string, config: WhisperConfig, values: Values): void {
  const file = openSync(path, 'w');
  const put = (data: NodeJS.ArrayBufferView): void => {
    for (let done = 0; done < data.byteLength; ) done += writeSync(file, data, done, data.byteLength - done);
  };
  const ints = (...numbers: number[]): void => put(Int32Array.from(numbers));
  try {
    const { d_model: D, num_mel_bins: mels } = config;
    ints(MAGIC, config.vocab_size, config.max_source_positions);
    ints(D, config.encoder_attention_heads, config.encoder_layers, config.max_target_positions);
    ints(D, config.decoder_attention_heads, config.decoder_layers, mels, F16);
    ints(mels, FFT_BINS);
    put(new Float32Array(mels * FFT_BINS));
    ints(TEXT_TOKENS);
    for (let id = 0; id < TEXT_TOKENS; id++) {
      const text = Buffer.from(WORDS[id] ?? ` ${id}`);
      ints(text.length);
      put(text);
    }
    for (const [name, { shape, values: numbers }] of values) {
      const called = Buffer.from(ggmlName(name));
      const half = shape.length > 1 && !name.includes('embed_positions');
      // A convolution's bias is a column.
      const sizes = /conv\d\.bias/.test(name) ? [...shape, 1] : shape;
      ints(sizes.length, called.length, half ? F16 : 0, ...[...sizes].reverse());
      put(called);
      put(half ? toHalf(numbers) : numbers);
    }
  } finally {
    closeSync(file);
  }
}

/** f32 to f16, to nearest; values of weights, far from f16's largest. */
function toHalf(numbers: Float32Array): Uint16Array {
  const bits = new Uint32Array(numbers.buffer, numbers.byteOffset, numbers.length);
  const half = new Uint16Array(numbers.length);
  for (let i = 0; i < half.length; i++) {
    const sign = (bits[i]! >>> 16) & 0x8000;
    const size = Math.abs(numbers[i]!);
    // Below the smallest normal number f16 has steps of 2⁻²⁴.
    half[i] = sign | (size < 2 ** -14 ? Math.round(size * 2 ** 24) : ((bits[i]! & 0x7fffffff) - 0x37fff001) >>> 13);
  }
  return half;
}
