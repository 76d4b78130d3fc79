/**
 * CTranslate2's model folder (python/ctranslate2/specs there, binary version 6, WhisperSpec revision 3), as faster-whisper loads it:
 * model.bin, config.json, vocabulary.json, tokenizer.json, preprocessor_config.json. model.bin, little-endian: version, name of the
 * specification, revision, the variables in the order of their names (name, rank, sizes, type, bytes, data), aliases.
 */
import { join } from 'node:path';
import { DistilWhisperError } from '../errors/index.js';
import { type JsonObject, writeFileAtomic, writeFolderAtomic, writeSynced } from '../files/index.js';
import { elementType } from '../tensor/index.js';
import { suppressTokens, type WhisperTokenizer } from '../text/index.js';
import { DEFAULT_SUPPRESSION, DTYPE_BYTES, type FloatDtype, type Side, writeFolderFile } from '../weights/index.js';
import { type ModelSource, plainModel } from './source.js';
import { type Reading, TensorReader, type WeightType } from './tensors.js';

const BINARY_VERSION = 6;
const SPECIFICATION = 'WhisperSpec';
const REVISION = 3;
/** The DataType enum. */
const TYPES = { f32: 0, i8: 1, i16: 2, i32: 3, f16: 4, bf16: 5 } as const;
type VariableType = keyof typeof TYPES;
/** The Activation enum. */
const GELU = 3;
/** Sizes and bytes of a variable are 32-bit. */
const MOST_BYTES = 2 ** 32 - 1;

interface Variable {
  readonly name: string;
  readonly shape: readonly number[];
  readonly type: VariableType;
  /** Its data when its turn comes; what it learns for the next variable is kept there. */
  readonly data: () => Promise<Uint8Array> | Uint8Array;
}

/** A variable's parts, one above the other: tensors by their names, or that many zeros. */
type Part = string | { readonly zeros: number };

const unsigned = (...numbers: number[]): Uint8Array => new Uint8Array(Uint32Array.from(numbers).buffer);

/** A string with its length, both counting a zero at the end. */
function string(text: string): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  return Buffer.concat([new Uint8Array(Uint16Array.of(bytes.length + 1).buffer), bytes, Uint8Array.of(0)]);
}

/**
 * Writes a model as CTranslate2 reads it: all weights in one type, or with int8 the matrices and convolutions in it, each output
 * with a scale, and all else in fp32 (`int8_float32`). Without a type they keep theirs, f64 becoming fp32.
 */
export async function writeCTranslate2(
  source: ModelSource,
  output: string,
  { type, replace, reading }: { type: WeightType | undefined; replace: boolean; reading: Reading },
): Promise<void> {
  const tokenizer = plainModel(source, 'CTranslate2');
  const variables = variablesOf(source, type, reading);
  await writeFolderAtomic(
    output,
    async (folder) => {
      await writeSynced(folder, 'config.json', json(configOf(source, tokenizer)));
      await writeSynced(folder, 'vocabulary.json', json(tokensOf(tokenizer, source.config.vocab_size)));
      await writeFolderFile(folder, 'tokenizer.json', source.files['tokenizer.json']!);
      await writeSynced(folder, 'preprocessor_config.json', json(source.preprocessor));
      await writeFileAtomic(join(folder, 'model.bin'), async (sink) => {
        await sink.append(unsigned(BINARY_VERSION));
        await sink.append(string(SPECIFICATION));
        await sink.append(unsigned(REVISION, variables.length));
        for (const { name, shape, type, data } of variables) {
          const bytes = await data();
          const head = [string(name), Uint8Array.of(shape.length), unsigned(...shape), Uint8Array.of(TYPES[type])];
          await sink.append(Buffer.concat([...head, unsigned(bytes.byteLength)]));
          await sink.append(bytes);
        }
        await sink.append(unsigned(1));
        await sink.append(string('decoder/projection/weight'));
        await sink.append(string('decoder/embeddings/weight'));
      });
    },
    { replace },
  );
}

const json = (value: unknown): string => `${JSON.stringify(value, undefined, 2)}\n`;

/** Whose variables they are in Hugging Face's names, without `.weight` and `.bias`. */
function linears(side: Side, layers: number): Map<string, string[]> {
  const found = new Map<string, string[]>();
  for (let i = 0; i < layers; i++) {
    const [to, from] = [`${side}/layer_${i}`, `model.${side}.layers.${i}`];
    const attention = (name: string, own: string, inputs: readonly (readonly string[])[]): void => {
      for (const [n, parts] of inputs.entries()) {
        found.set(
          `${to}/${name}/linear_${n}`,
          parts.map((part) => `${from}.${own}.${part}_proj`),
        );
      }
    };
    attention('self_attention', 'self_attn', [['q', 'k', 'v'], ['out']]);
    if (side === 'decoder') attention('attention', 'encoder_attn', [['q'], ['k', 'v'], ['out']]);
    found.set(`${to}/ffn/linear_0`, [`${from}.fc1`]).set(`${to}/ffn/linear_1`, [`${from}.fc2`]);
  }
  return found;
}

function norms(side: Side, layers: number): Map<string, string> {
  const found = new Map([[`${side}/layer_norm`, `model.${side}.layer_norm`]]);
  for (let i = 0; i < layers; i++) {
    const [to, from] = [`${side}/layer_${i}`, `model.${side}.layers.${i}`];
    found.set(`${to}/self_attention/layer_norm`, `${from}.self_attn_layer_norm`);
    if (side === 'decoder') found.set(`${to}/attention/layer_norm`, `${from}.encoder_attn_layer_norm`);
    found.set(`${to}/ffn/layer_norm`, `${from}.final_layer_norm`);
  }
  return found;
}

/** Every variable of a Whisper, in the order of the file. */
function variablesOf(
  { path, config, weights }: ModelSource,
  type: WeightType | undefined,
  reading: Reading,
): Variable[] {
  const reader = new TensorReader(path, weights, reading);
  const variables: Variable[] = [];
  const dtypeFor = (name: string): Exclude<FloatDtype, 'f64'> => {
    const dtype = type === 'int8' ? 'f32' : type === undefined ? reader.dtype(name) : elementType(type);
    return dtype === 'f64' ? 'f32' : dtype;
  };
  const plain = (name: string, parts: readonly Part[]): void => {
    const tensors = parts.filter((part) => typeof part === 'string');
    const dtype = dtypeFor(tensors[0]!);
    const rows = parts.reduce((sum, part) => sum + (typeof part === 'string' ? reader.shape(part)[0]! : part.zeros), 0);
    const bytesOf = (part: Part) =>
      typeof part === 'string' ? reader.bytes(part, dtype) : new Uint8Array(part.zeros * DTYPE_BYTES[dtype]);
    const shape = [rows, ...reader.shape(tensors[0]!).slice(1)];
    variables.push({ name, shape, type: dtype, data: async () => joined(parts, bytesOf) });
  };
  /** A matrix or a convolution, in int8 where it is asked for. */
  const quantizable = (name: string, parts: readonly string[]): void => {
    if (type !== 'int8') {
      plain(name, parts);
      return;
    }
    const shapes = parts.map((part) => reader.shape(part));
    const rows = shapes.reduce((sum, [outputs]) => sum + outputs!, 0);
    const scales: Float32Array[] = [];
    const bytesOf = async (part: string): Promise<Uint8Array> => {
      const { values, scale } = quantized(await reader.values(part), reader.shape(part)[0]!);
      scales.push(scale);
      return values;
    };
    variables.push({
      name,
      shape: [rows, ...shapes[0]!.slice(1)],
      type: 'i8',
      data: async () => joined(parts, bytesOf),
    });
    const scaleData = () => Buffer.concat(scales.map(({ buffer }) => new Uint8Array(buffer)));
    variables.push({ name: `${name}_scale`, shape: [rows], type: 'f32', data: scaleData });
  };
  const scalar = (name: string, type: 'i8' | 'i16', value: number): void => {
    const data = type === 'i8' ? Uint8Array.of(value) : new Uint8Array(Int16Array.of(value).buffer);
    variables.push({ name, shape: [], type, data: () => data });
  };

  for (const side of ['encoder', 'decoder'] as const) {
    const layers = config[`${side}_layers`];
    scalar(`${side}/num_heads`, 'i16', config[`${side}_attention_heads`]);
    plain(`${side}/position_encodings/encodings`, [`model.${side}.embed_positions.weight`]);
    for (const [to, from] of norms(side, layers)) {
      plain(`${to}/gamma`, [`${from}.weight`]);
      plain(`${to}/beta`, [`${from}.bias`]);
    }
    for (const [to, from] of linears(side, layers)) {
      quantizable(
        `${to}/weight`,
        from.map((part) => `${part}.weight`),
      );
      // Keys have no bias: in what they are joined with they have one of zeros.
      plain(
        `${to}/bias`,
        from.map((part) => (weights.has(`${part}.bias`) ? `${part}.bias` : { zeros: config.d_model })),
      );
    }
  }
  for (const conv of ['conv1', 'conv2']) {
    quantizable(`encoder/${conv}/weight`, [`model.encoder.${conv}.weight`]);
    plain(`encoder/${conv}/bias`, [`model.encoder.${conv}.bias`]);
  }
  quantizable('decoder/embeddings/weight', ['model.decoder.embed_tokens.weight']);
  scalar('decoder/activation', 'i8', GELU);
  scalar('decoder/alignment_heads', 'i16', 1);
  scalar('decoder/alignment_layer', 'i16', -1);
  scalar('decoder/pre_norm', 'i8', 1);
  for (const off of [
    'alibi',
    'alibi_use_positive_positions',
    'scale_alibi',
    'scale_embeddings',
    'start_from_zero_embedding',
  ])
    scalar(`decoder/${off}`, 'i8', 0);

  for (const { name, shape, type } of variables) {
    const bytes = shape.reduce((product, size) => product * size, DTYPE_BYTES[type]);
    if (bytes > MOST_BYTES) {
      throw new DistilWhisperError(
        'ERR_MODEL',
        `${path}: CTranslate2 has room for 4 GiB a tensor, ${name} has ${bytes} bytes`,
      );
    }
  }
  // By code points; a weight stands right before its scale.
  return variables.sort((a, b) => (a.name < b.name ? -1 : 1));
}

async function joined<P>(
  parts: readonly P[],
  bytesOf: (part: P) => Promise<Uint8Array> | Uint8Array,
): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  for (const part of parts) pieces.push(await bytesOf(part));
  return pieces.length === 1 ? pieces[0]! : Buffer.concat(pieces);
}

/** Rows of values in int8, each by a scale: 127 over its largest size; to nearest, ties to even, all in f32 as NumPy does it. */
function quantized(values: Float32Array, rows: number): { values: Uint8Array; scale: Float32Array } {
  const columns = values.length / rows;
  const scale = new Float32Array(rows);
  const out = new Int8Array(values.length);
  for (let row = 0; row < rows; row++) {
    let largest = 0;
    for (let i = row * columns; i < (row + 1) * columns; i++) largest = Math.max(largest, Math.abs(values[i]!));
    scale[row] = largest === 0 ? 1 : 127 / largest;
    for (let i = row * columns; i < (row + 1) * columns; i++) out[i] = toEven(Math.fround(values[i]! * scale[row]!));
  }
  return { values: new Uint8Array(out.buffer), scale };
}

function toEven(value: number): number {
  const below = Math.floor(value);
  const rest = value - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/** Decoding settings, by CTranslate2's names; the alignment heads are the upper half of the layers where nothing is known of them. */
function configOf({ config, generation }: ModelSource, tokenizer: WhisperTokenizer): JsonObject {
  const { suppress_tokens, begin_suppress_tokens } = { ...config, ...generation };
  const { decoder_layers: layers, decoder_attention_heads: heads } = config;
  const upper = Array.from({ length: layers - Math.floor(layers / 2) }, (_, i) => i + Math.floor(layers / 2));
  const pairs = upper.flatMap((layer) => Array.from({ length: heads }, (_, head) => [layer, head]));
  const suppressed = Array.isArray(suppress_tokens) ? (suppress_tokens as number[]) : [];
  const all = suppressed.includes(DEFAULT_SUPPRESSION)
    ? [...suppressed.filter((id) => id !== DEFAULT_SUPPRESSION), ...suppressTokens(tokenizer)]
    : suppressed;
  const { multilingual, languages } = tokenizer;
  return {
    alignment_heads: generation?.alignment_heads ?? pairs,
    lang_ids: multilingual ? languages.map((language) => tokenizer.languageId(language)) : [],
    suppress_ids: all,
    suppress_ids_begin: begin_suppress_tokens ?? [],
  };
}

/** The spelling of every id of the model; those that the tokenizer does not list are timestamps. */
function tokensOf(tokenizer: WhisperTokenizer, size: number): string[] {
  const listed = tokenizer.vocabSize;
  return Array.from({ length: size }, (_, id) =>
    id < listed ? tokenizer.token(id) : `<|${((id - listed) * 0.02).toFixed(2)}|>`,
  );
}
