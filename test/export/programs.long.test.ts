/** Models in whisper.cpp's and CTranslate2's files, held against what was loaded by them, and read back here. */
import { existsSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { convert, fromFloat32, toFloat32, tokenizerFromTiktoken } from '../../lib/index.js';
import { openAiName } from '../../lib/weights/index.js';
import {
  exportConfig,
  exportHashes,
  exportTensors,
  MULTILINGUAL,
  pocketFolder,
  RECORDED,
  ranks,
  writeExportModel,
} from '../support/exports.js';
import { goldenJson } from '../support/golden.js';
import { refused, scratch } from '../support/weights.js';

const readJson = (path: string) => JSON.parse(readFileSync(path, 'utf8'));

class Cursor {
  at = 0;

  constructor(private readonly bytes: Buffer) {}

  take(count: number): Buffer {
    this.at += count;
    return this.bytes.subarray(this.at - count, this.at);
  }
}

test('exports of the recorded model are the bytes that transformers, whisper.cpp and CTranslate2 loaded', async (t) => {
  const folder = await scratch(t);
  const model = join(folder, 'model');
  await writeExportModel(model);
  const { sha256 } = goldenJson('exports') as { sha256: Record<string, string> };
  for (const [format, dtype] of RECORDED) {
    const to = join(folder, `${format}-${dtype}`);
    await convert(model, { to, format, dtype });
    for (const [key, hash] of await exportHashes(to, format, dtype)) t.is(hash, sha256[key]!, key);
    rmSync(to, { recursive: true });
  }
});

test('ggml: sizes, filters, words and tensors are where whisper.cpp reads them; q8_0 is off by half a step', async (t) => {
  const folder = await scratch(t);
  const [model, file] = [join(folder, 'model'), join(folder, 'ggml.bin')];
  const config = exportConfig();
  await writeExportModel(model);
  const tensors = exportTensors(config);
  for (const dtype of ['fp32', 'fp16', 'int8'] as const) {
    await convert(model, { to: file, format: 'ggml', dtype, replace: true });
    const bytes = readFileSync(file);
    const read = new Cursor(bytes);
    const int = () => read.take(4).readInt32LE();
    const take = (count: number) => read.take(count);
    t.deepEqual(Array.from({ length: 12 }, int), [
      0x67676d6c,
      51_865,
      1500,
      32,
      2,
      3,
      448,
      32,
      2,
      2,
      80,
      { fp32: 0, fp16: 1, int8: 2007 }[dtype],
    ]);
    t.deepEqual([int(), int()], [80, 201]);
    const filters = new Float32Array(new Uint8Array(take(80 * 201 * 4)).buffer);
    t.true(filters.every((value) => value >= 0 && value < 0.1) && Math.max(...filters) > 0.01);
    const words = Array.from({ length: int() }, () => take(int()));
    t.is(words.length, 50_257);
    t.deepEqual([words[65]!.toString(), words[256 + 0x2041]!.toString(), words[50_256]!.length], ['A', ' A', 0]);
    const wanted = new Map([...tensors].map(([name, tensor]) => [openAiName(name), tensor]));
    while (read.at < bytes.length) {
      const [dimensions, length, type] = [int(), int(), int()];
      const shape = Array.from({ length: dimensions }, int).reverse();
      const name = take(length).toString();
      const tensor = wanted.get(name)!;
      t.true(wanted.delete(name), name);
      t.deepEqual(shape, /conv\d\.bias/.test(name) ? [...tensor.shape, 1] : tensor.shape, name);
      const values = toFloat32(tensor);
      const vector = tensor.shape.length < 2 || name.endsWith('positional_embedding') || dtype === 'fp32';
      t.is(type, vector ? 0 : dtype === 'int8' && shape.length === 2 ? 8 : 1, name);
      if (type === 8) {
        const blocks = take((values.length / 32) * 34);
        for (let i = 0; i < values.length; i++) {
          const block = blocks.subarray(34 * Math.floor(i / 32));
          const [step] = toFloat32({ dtype: 'f16', shape: [1], data: new Uint8Array(block.subarray(0, 2)) });
          if (Math.abs(block.readInt8(2 + (i % 32)) * step! - values[i]!) > 0.56 * step!) t.fail(`${name}, ${i}`);
        }
      } else {
        const as = type === 0 ? 'f32' : 'f16';
        t.is(
          Buffer.compare(take(values.length * (type === 0 ? 4 : 2)), fromFloat32(values, tensor.shape, as).data),
          0,
          name,
        );
      }
    }
    t.is(wanted.size, 0);
  }
});

interface Variable {
  shape: number[];
  type: number;
  data: Buffer;
}

/** CTranslate2's model.bin. */
function readVariables(path: string): {
  head: [number, string, number];
  variables: Map<string, Variable>;
  aliases: string[][];
} {
  const bytes = readFileSync(path);
  const read = new Cursor(bytes);
  const take = (count: number) => read.take(count);
  const int = () => take(4).readUInt32LE();
  const text = () => take(take(2).readUInt16LE()).toString().replace(/\0$/, '');
  const head: [number, string, number] = [int(), text(), int()];
  const variables = new Map<string, Variable>();
  for (let left = int(); left > 0; left--) {
    const name = text();
    const shape = Array.from({ length: take(1)[0]! }, int);
    const type = take(1)[0]!;
    variables.set(name, { shape, type, data: take(int()) });
  }
  const aliases = Array.from({ length: int() }, () => [text(), text()]);
  if (read.at !== bytes.length) throw new Error(`${bytes.length - read.at} bytes behind the aliases`);
  return { head, variables, aliases };
}

test('ctranslate2: variables in order with their types, joined projections with a bias of zeros for keys, int8 by rows', async (t) => {
  const folder = await scratch(t);
  const [model, to] = [join(folder, 'model'), join(folder, 'ct2')];
  await writeExportModel(model);
  const tensors = exportTensors(exportConfig());
  const values = (name: string) => toFloat32(tensors.get(`model.${name}`)!);
  const floats = ({ data }: Variable) => new Float32Array(new Uint8Array(data).buffer);
  await convert(model, { to, format: 'ctranslate2' });
  t.deepEqual(readdirSync(to).sort(), [
    'config.json',
    'model.bin',
    'preprocessor_config.json',
    'tokenizer.json',
    'vocabulary.json',
  ]);
  const { head, variables, aliases } = readVariables(join(to, 'model.bin'));
  t.deepEqual(head, [6, 'WhisperSpec', 3]);
  t.deepEqual(aliases, [['decoder/projection/weight', 'decoder/embeddings/weight']]);
  t.deepEqual([...variables.keys()], [...variables.keys()].sort());
  const fused = variables.get('decoder/layer_1/self_attention/linear_0/bias')!;
  const own = 'decoder.layers.1.self_attn';
  t.deepEqual(
    [...floats(fused)],
    [...values(`${own}.q_proj.bias`), ...new Float32Array(32), ...values(`${own}.v_proj.bias`)],
  );
  const cross = variables.get('decoder/layer_0/attention/linear_1/weight')!;
  t.deepEqual(cross.shape, [64, 32]);
  t.deepEqual([...floats(cross).subarray(32 * 32)], [...values('decoder.layers.0.encoder_attn.v_proj.weight')]);
  const scalar = (name: string) => [...variables.get(name)!.data];
  t.deepEqual(
    [scalar('encoder/num_heads'), scalar('decoder/alignment_layer')],
    [
      [2, 0],
      [255, 255],
    ],
  );
  t.deepEqual([scalar('decoder/activation'), scalar('decoder/pre_norm'), scalar('decoder/alibi')], [[3], [1], [0]]);
  const config = readJson(join(to, 'config.json'));
  t.deepEqual(config.alignment_heads, [
    [1, 0],
    [1, 1],
  ]);
  t.deepEqual([config.lang_ids.length, config.suppress_ids_begin], [99, [220, 50_257]]);
  const words = readJson(join(to, 'vocabulary.json'));
  t.deepEqual([words.length, words[50_258], words[51_864]], [51_865, '<|startoftranscript|>', '<|30.00|>']);

  await convert(model, { to, format: 'ctranslate2', dtype: 'int8', replace: true });
  const { variables: rows } = readVariables(join(to, 'model.bin'));
  const conv = rows.get('encoder/conv1/weight')!;
  t.deepEqual([conv.type, conv.shape, rows.get('encoder/conv1/weight_scale')!.shape], [1, [32, 80, 3], [32]]);
  const scales = floats(rows.get('encoder/conv1/weight_scale')!);
  for (const [i, value] of values('encoder.conv1.weight').entries()) {
    const scale = scales[Math.floor(i / 240)]!;
    if (Math.abs(conv.data.readInt8(i) - value * scale) > 0.5001) t.fail(`conv1, ${i}`);
  }
  t.is(rows.get('encoder/conv1/bias')!.type, 0);
});

test('what the other programs take for granted is refused where a model has it otherwise', async (t) => {
  const folder = await scratch(t);
  const at = (name: string) => join(folder, name);
  await pocketFolder(at('pocket'));
  await refused(t, 'ERR_MODEL', /1500 encoder positions/, () => convert(at('pocket'), { to: at('x'), format: 'ggml' }));
  const narrow = exportConfig({ d_model: 8, encoder_ffn_dim: 32, decoder_ffn_dim: 32 });
  await writeExportModel(at('narrow'), narrow);
  await refused(t, 'ERR_MODEL', /multiple of 32/, () =>
    convert(at('narrow'), { to: at('x'), format: 'ggml', dtype: 'int8' }),
  );
  const wide = exportConfig({ d_model: 8, encoder_ffn_dim: 32, decoder_ffn_dim: 40 });
  await writeExportModel(at('wide'), wide, null);
  await refused(t, 'ERR_TOKENIZER', /has no tokenizer, which whisper\.cpp needs/, () =>
    convert(at('wide'), { to: at('x'), format: 'ggml' }),
  );
  await refused(t, 'ERR_TOKENIZER', /which CTranslate2 needs/, () =>
    convert(at('wide'), { to: at('x'), format: 'ctranslate2' }),
  );
  writeFileSync(at('multilingual.tiktoken'), ranks(MULTILINGUAL));
  await refused(t, 'ERR_MODEL', /decoder_ffn_dim of four times/, () =>
    convert(at('wide'), { to: at('x'), format: 'ggml', tokenizer: at('multilingual.tiktoken') }),
  );
  writeFileSync(join(at('narrow'), 'tokenizer.json'), JSON.stringify(tokenizerFromTiktoken(ranks(50_000))));
  await refused(t, 'ERR_VOCABULARY', /expected <\|endoftext\|> at 50257, got at 50000/, () =>
    convert(at('narrow'), { to: at('x'), format: 'ggml' }),
  );
  t.false(existsSync(at('x')));
});
