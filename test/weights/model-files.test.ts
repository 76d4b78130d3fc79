import { existsSync, readdirSync } from 'node:fs';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import test from 'ava';
import { isDistilWhisperError } from '../../lib/errors/index.js';
import {
  checkWeights,
  DTYPE_BYTES,
  expertFileName,
  expertTensorNames,
  fromFloat32,
  type HostTensor,
  importTorchCheckpoint,
  openModelFolder,
  openSafetensors,
  parseWhisperConfig,
  readExpert,
  splitClsrCheckpoint,
  toFloat32,
  weightEntries,
  whisperPreset,
  whisperTensorShapes,
  writeExpert,
  writeModelFolder,
  writeSafetensors,
} from '../../lib/weights/index.js';

import { generator, randomTensors, refused, scratch, small } from '../support/weights.js';

const shared = new URL('../../../shared/', import.meta.url).pathname;

// ---- config ------------------------------------------------------------------------------------------------------

test('a config of the published sizes is accepted as it is, and counts the parameters that OpenAI published', (t) => {
  const millions = {
    tiny: 37.76,
    base: 72.59,
    small: 241.73,
    medium: 763.86,
    'large-v2': 1543.3,
    'large-v3': 1543.49,
    'large-v3-turbo': 808.88,
  };
  for (const [size, expected] of Object.entries(millions)) {
    const preset = whisperPreset(size as 'tiny');
    t.deepEqual(parseWhisperConfig(JSON.parse(JSON.stringify(preset)), 'config.json'), preset);
    let count = 0;
    for (const shape of whisperTensorShapes(preset).values()) count += shape.reduce((product, n) => product * n, 1);
    t.is(Math.round(count / 1e4) / 100, expected, size);
  }
  t.is(whisperPreset('large-v2').suppress_tokens?.at(-1), 50362);
  t.is(whisperPreset('large-v3').suppress_tokens?.at(-1), 50363);
  t.is(whisperPreset('tiny').suppress_tokens?.length, 88);
  t.throws(() => whisperPreset('huge' as 'tiny'), { code: 'ERR_ARGUMENT', message: /huge/ });
});

test('a config field that is missing, mistyped or impossible is ERR_CONFIG that names the file and the field', async (t) => {
  const cases: [string, unknown][] = [
    ['vocab_size', 0],
    ['vocab_size', 51865.5],
    ['d_model', '384'],
    ['d_model', undefined],
    ['d_model', 10],
    ['d_model', 1e300],
    ['encoder_layers', -1],
    ['encoder_attention_heads', 5],
    ['decoder_attention_heads', 16],
    ['decoder_ffn_dim', null],
    ['num_mel_bins', [80]],
    ['max_target_positions', true],
    ['decoder_start_token_id', 30],
    ['pad_token_id', -1],
    ['eos_token_id', undefined],
    ['suppress_tokens', [1, 30]],
    ['suppress_tokens', 5],
    ['begin_suppress_tokens', ['1']],
    ['dropout', 1],
    ['attention_dropout', -0.1],
    ['init_std', 0],
    ['scale_embedding', 0],
    ['activation_function', 'gelu_new'],
    ['model_type', 'bart'],
  ];
  for (const [field, value] of cases) {
    await refused(t, 'ERR_CONFIG', new RegExp(`^here/config\\.json: .*${field}`), () =>
      parseWhisperConfig({ ...small, [field]: value }, 'here/config.json'),
    );
  }
  for (const value of [null, [], 'x', 3])
    await refused(t, 'ERR_CONFIG', /c\.json/, () => parseWhisperConfig(value, 'c.json'));
});

test('checkWeights takes names with or without the prefix and lists what is missing, unexpected or mis-shaped', async (t) => {
  const tensors = randomTensors(whisperTensorShapes(small));
  const bare = new Map(Array.from(tensors, ([name, tensor]) => [name.replace(/^model\./, ''), tensor]));
  t.is(checkWeights(small, tensors).get('model.encoder.conv1.weight'), 'model.encoder.conv1.weight');
  t.is(checkWeights(small, bare).get('model.encoder.conv1.weight'), 'encoder.conv1.weight');
  t.is(checkWeights(small, bare).size, tensors.size);
  const name = 'model.decoder.layers.1.fc2.weight';
  const without = new Map(tensors);
  without.delete(name);
  await refused(t, 'ERR_MODEL', /missing model\.decoder\.layers\.1\.fc2\.weight \[8, 20\]$/, () =>
    checkWeights(small, without),
  );
  const extra = new Map(tensors).set('model.encoder.layers.1.fc1.bias', tensors.get(name)!);
  await refused(t, 'ERR_MODEL', /unexpected model\.encoder\.layers\.1\.fc1\.bias/, () => checkWeights(small, extra));
  const turned = new Map(tensors).set(name, { ...tensors.get(name)!, shape: [20, 8] });
  await refused(t, 'ERR_MODEL', /has shape \[20, 8\], expected \[8, 20\]/, () => checkWeights(small, turned));
  const integers = new Map(tensors).set(name, { ...tensors.get(name)!, dtype: 'i32' });
  await refused(t, 'ERR_MODEL', /is i32/, () => checkWeights(small, integers));
  const both = new Map(tensors).set(name.replace('model.', ''), tensors.get(name)!);
  await refused(t, 'ERR_MODEL', /are the same tensor/, () => checkWeights(small, both));
  await refused(t, 'ERR_MODEL', /and \d+ more$/, () => checkWeights({ ...small, encoder_layers: 4 }, tensors, 'm'));
  await refused(t, 'ERR_MODEL', /proj_out/, () =>
    checkWeights(small, new Map(tensors).set('proj_out.weight', tensors.get(name)!)),
  );
});

// ---- folders -----------------------------------------------------------------------------------------------------

test('a model folder comes back equal, as one file and as shards, and is replaced only if asked', async (t) => {
  const folder = await scratch(t);
  const tensors = randomTensors(whisperTensorShapes(small));
  const tokenizer = join(folder, 'tok.json');
  await writeFile(tokenizer, '{"version":"1.0"}');
  const content = {
    config: small,
    configExtra: { note: 'kept', d_model: 9999 },
    generationConfig: { max_length: 5 },
    preprocessorConfig: { feature_size: 4 },
    files: { 'tokenizer.json': { copyFrom: tokenizer }, 'tokenizer_config.json': '{}' },
    tensors: weightEntries(tensors),
  };
  for (const maxShardBytes of [5e9, 2000, 1]) {
    const path = join(folder, `model-${maxShardBytes}`);
    await writeModelFolder(path, content, { maxShardBytes });
    const model = await openModelFolder(path);
    t.deepEqual(model.config, small);
    t.is(model.configJson.note, 'kept');
    t.deepEqual(model.generationConfig, { max_length: 5 });
    t.deepEqual(model.preprocessorConfig, { feature_size: 4 });
    t.is(await readFile(model.tokenizerPath!, 'utf8'), '{"version":"1.0"}');
    t.truthy(model.tokenizerConfigPath);
    t.is(model.experts.size, 0);
    t.deepEqual(model.weights.names().sort(), [...tensors.keys()].sort());
    for (const [name, tensor] of tensors) t.deepEqual(await model.weights.read(name), tensor);
    await model.close();
    await refused(t, 'ERR_DISPOSED', /closed/, () => model.weights.read('model.encoder.conv1.bias'));
    const shards = (await readdir(path)).filter((name) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(name));
    t.is(shards.length, maxShardBytes === 5e9 ? 0 : maxShardBytes === 1 ? tensors.size : shards.length);
    t.true(maxShardBytes === 5e9 || shards.length > 1);
  }
  const path = join(folder, 'model-5000000000');
  await refused(t, 'ERR_FILE_WRITE', /exists already/, () => writeModelFolder(path, content));
  await writeModelFolder(path, { ...content, configExtra: { note: 'new' } }, { replace: true });
  const replaced = await openModelFolder(path);
  t.is(replaced.configJson.note, 'new');
  await replaced.close();
  t.deepEqual((await readdir(folder)).sort(), ['model-1', 'model-2000', 'model-5000000000', 'tok.json']);
});

test('writing a model folder that is wrong or fails half way leaves the earlier folder and nothing else', async (t) => {
  const folder = await scratch(t);
  const path = join(folder, 'model');
  const tensors = weightEntries(randomTensors(whisperTensorShapes(small)));
  await writeModelFolder(path, { config: small, tensors });
  const replace = { replace: true };
  await refused(t, 'ERR_CONFIG', /d_model/, () =>
    writeModelFolder(path, { config: { ...small, d_model: 9 }, tensors }, replace),
  );
  await refused(t, 'ERR_MODEL', /missing/, () =>
    writeModelFolder(path, { config: small, tensors: tensors.slice(1) }, replace),
  );
  await refused(t, 'ERR_ARGUMENT', /config\.json/, () =>
    writeModelFolder(path, { config: small, tensors, files: { 'config.json': '' } }, replace),
  );
  await refused(t, 'ERR_ARGUMENT', /\.\.\/x/, () =>
    writeModelFolder(path, { config: small, tensors, files: { '../x': '' } }, replace),
  );
  await refused(t, 'ERR_FILE_NOT_FOUND', /nowhere/, () =>
    writeModelFolder(
      path,
      { config: small, tensors, files: { 'tokenizer.json': { copyFrom: join(folder, 'nowhere') } } },
      replace,
    ),
  );
  const own = new Error('no data');
  const failing = tensors.map((entry, i) => (i === 20 ? { ...entry, data: () => Promise.reject(own) } : entry));
  t.is(await t.throwsAsync(writeModelFolder(path, { config: small, tensors: failing }, replace)), own);
  await (await openModelFolder(path)).close();
  t.deepEqual(await readdir(folder), ['model']);
  await refused(t, 'ERR_FILE_WRITE', /no folder/, () =>
    writeModelFolder(join(path, 'config.json'), { config: small, tensors }, replace),
  );
});

test('a model folder that lacks, contradicts or breaks something is a typed error that names the file', async (t) => {
  const folder = await scratch(t);
  const tensors = randomTensors(whisperTensorShapes(small));
  const path = join(folder, 'model');
  const at = (name: string) => join(path, name);
  const fresh = async (maxShardBytes = 5e9) => {
    await rm(path, { recursive: true, force: true });
    await writeModelFolder(path, { config: small, tensors: weightEntries(tensors) }, { maxShardBytes });
  };
  const json = async (name: string) => JSON.parse(await readFile(at(name), 'utf8'));
  await refused(t, 'ERR_FILE_NOT_FOUND', /no model folder/, () => openModelFolder(join(folder, 'none')));
  await fresh();
  await refused(t, 'ERR_MODEL', /is a file/, () => openModelFolder(at('config.json')));
  await writeFile(at('config.json'), JSON.stringify({ ...small, decoder_ffn_dim: 21 }));
  await refused(t, 'ERR_MODEL', /fc1\.weight has shape \[20, 8\], expected \[21, 8\]/, () => openModelFolder(path));
  await writeFile(at('config.json'), '{"d_model": 8,');
  await refused(t, 'ERR_CONFIG', /config\.json is not valid JSON/, () => openModelFolder(path));
  await writeFile(at('config.json'), '[]');
  await refused(t, 'ERR_CONFIG', /must hold a JSON object/, () => openModelFolder(path));
  await rm(at('config.json'));
  await refused(t, 'ERR_MODEL', /has no config\.json/, () => openModelFolder(path));
  await fresh();
  await writeFile(at('generation_config.json'), '');
  await refused(t, 'ERR_CONFIG', /generation_config\.json/, () => openModelFolder(path));
  await rm(at('generation_config.json'));
  await writeFile(at('model.safetensors'), (await readFile(at('model.safetensors'))).subarray(0, 3000));
  await refused(t, 'ERR_SAFETENSORS', /model\.safetensors/, () => openModelFolder(path));
  await rm(at('model.safetensors'));
  await refused(t, 'ERR_MODEL', /has neither/, () => openModelFolder(path));

  const index = 'model.safetensors.index.json';
  await fresh(2000);
  const sound = await json(index);
  const shard = sound.weight_map['model.encoder.conv1.weight'];
  const withMap = async (change: (map: Record<string, unknown>) => void) => {
    const copy = structuredClone(sound);
    change(copy.weight_map);
    await writeFile(at(index), JSON.stringify(copy));
  };
  await withMap((map) => delete map['model.encoder.conv1.weight']);
  await refused(t, 'ERR_MODEL', /holds model\.encoder\.conv1\.weight, but .* does not list it/, () =>
    openModelFolder(path),
  );
  await withMap((map) => Object.assign(map, { ghost: shard }));
  await refused(t, 'ERR_MODEL', /puts ghost in .* which does not hold it/, () => openModelFolder(path));
  await withMap((map) => Object.assign(map, { ghost: '../../etc/x.safetensors' }));
  await refused(t, 'ERR_MODEL', /no safetensors file name/, () => openModelFolder(path));
  await withMap((map) => Object.assign(map, { ghost: 7 }));
  await refused(t, 'ERR_MODEL', /no safetensors file name/, () => openModelFolder(path));
  const copy = 'copy.safetensors';
  await writeFile(at(copy), await readFile(at(shard)));
  await withMap((map) => Object.assign(map, { ghost: copy }));
  await refused(t, 'ERR_MODEL', /is in two shards/, () => openModelFolder(path));
  await writeFile(
    at(index),
    JSON.stringify(sound).replace('"weight_map":{', `"weight_map":{"model.encoder.conv1.weight":"${shard}",`),
  );
  await refused(t, 'ERR_MODEL', /twice/, () => openModelFolder(path));
  await writeFile(at(index), '{}');
  await refused(t, 'ERR_MODEL', /weight_map/, () => openModelFolder(path));
  await writeFile(at(index), JSON.stringify(sound));
  await rm(at(shard));
  await refused(t, 'ERR_MODEL', /names the shard .* which is missing/, () => openModelFolder(path));
});

test('a stored output projection is accepted where it equals the embedding and refused where it does not', async (t) => {
  const path = join(await scratch(t), 'model');
  const tensors = randomTensors(whisperTensorShapes(small));
  tensors.set('proj_out.weight', tensors.get('model.decoder.embed_tokens.weight')!);
  await writeModelFolder(path, { config: small, tensors: weightEntries(tensors) });
  const model = await openModelFolder(path);
  t.false(model.weights.has('proj_out.weight'));
  await model.close();
  const other = new Map(tensors).set('proj_out.weight', fromFloat32(new Float32Array(240), [30, 8], 'f32'));
  await writeSafetensors(join(path, 'model.safetensors'), weightEntries(other));
  await refused(t, 'ERR_MODEL', /differs from the token embedding/, () => openModelFolder(path));
});

// ---- experts -----------------------------------------------------------------------------------------------------

test('an expert file has the names, shapes and size of the reference and comes back equal', async (t) => {
  const shapes = expertTensorNames(whisperPreset('small'), 'catalan');
  let count = 0;
  for (const shape of shapes.values()) count += shape.reduce((product, n) => product * n, 1);
  t.is(count, 114_521_088); // the reference's trainable parameters for whisper-small
  t.deepEqual(shapes.get('model.encoder.layers.0.ffn_clsr.proj.catalan.fc1.weight'), [3072, 768]);
  t.deepEqual(shapes.get('model.decoder.layers.11.ffn_clsr.gate_out.catalan.weight'), [1, 64]);
  t.false(shapes.has('model.decoder.layers.11.ffn_clsr.gate_out.catalan.bias'));

  const folder = await scratch(t);
  const path = join(folder, expertFileName('haitian creole'));
  const tensors = randomTensors(expertTensorNames(small, 'haitian creole'));
  await writeExpert(path, small, 'haitian creole', tensors, { steps: '10' });
  const expert = await readExpert(path, small);
  t.is(expert.language, 'haitian creole');
  t.is(expert.metadata.steps, '10');
  t.deepEqual(expert.tensors, tensors);
});

test('an expert that does not fit, mixes languages or contradicts its metadata is ERR_EXPERT', async (t) => {
  const folder = await scratch(t);
  const path = join(folder, 'e.safetensors');
  const tensors = randomTensors(expertTensorNames(small, 'thai'));
  const write = (entries: Iterable<readonly [string, HostTensor]>, metadata = {}) =>
    writeSafetensors(path, weightEntries(entries), { metadata });
  await write(tensors);
  t.is((await readExpert(path, small)).language, 'thai');
  await refused(t, 'ERR_EXPERT', /thai expert for a model of width 16/, () =>
    readExpert(path, { ...small, d_model: 16 }),
  );
  await refused(t, 'ERR_EXPERT', /unexpected model\.decoder\.layers\.1/, () =>
    readExpert(path, { ...small, decoder_layers: 1 }),
  );
  await write(tensors, { language: 'catalan' });
  await refused(t, 'ERR_EXPERT', /metadata says "catalan"/, () => readExpert(path, small));
  await write([...tensors].slice(1));
  await refused(t, 'ERR_EXPERT', /missing model\.encoder\.layers\.0\.ffn_clsr\.gate_in\.thai\.weight/, () =>
    readExpert(path, small),
  );
  await write([...tensors, ...randomTensors(expertTensorNames(small, 'catalan'))]);
  await refused(t, 'ERR_EXPERT', /mixes thai, catalan/, () => readExpert(path, small));
  await write([...tensors, ['model.encoder.conv1.bias', fromFloat32(new Float32Array(8), [8], 'f32')]]);
  await refused(t, 'ERR_EXPERT', /"model\.encoder\.conv1\.bias", which belongs to no expert/, () =>
    readExpert(path, small),
  );
  await write([]);
  await refused(t, 'ERR_EXPERT', /holds no tensors/, () => readExpert(path, small));
  await write(Array.from(tensors, ([name, tensor]) => [name.replace('.thai.', '.shared.'), tensor] as const));
  await refused(t, 'ERR_EXPERT', /"shared" is no language/, () => readExpert(path, small));
  await rm(path);
  for (const language of ['shared', 'ca/t', 'Thai', '', '../x'])
    t.throws(() => expertFileName(language), { code: 'ERR_LANGUAGE' });
  await refused(t, 'ERR_LANGUAGE', /SHOUT/, () => writeExpert(path, small, 'SHOUT', tensors));
  await refused(t, 'ERR_EXPERT', /missing/, () => writeExpert(path, small, 'thai', new Map()));
  t.deepEqual(await readdir(folder), []);
});

test('splitting a checkpoint refuses two names for one tensor and names that are no language', async (t) => {
  const layer = 'model.encoder.layers.0';
  const split = splitClsrCheckpoint([
    `${layer}.ffn_clsr.proj.shared.fc1.weight`,
    'encoder.conv1.bias',
    `${layer}.ffn_clsr.gate_in.thai.bias`,
  ]);
  t.deepEqual(
    [...split.backbone],
    [
      [`${layer}.fc1.weight`, `${layer}.ffn_clsr.proj.shared.fc1.weight`],
      ['model.encoder.conv1.bias', 'encoder.conv1.bias'],
    ],
  );
  t.deepEqual([...split.experts.keys()], ['thai']);
  await refused(t, 'ERR_MODEL', /same tensor/, () =>
    splitClsrCheckpoint([`${layer}.fc1.bias`, `${layer}.ffn_clsr.proj.shared.fc1.bias`]),
  );
  await refused(t, 'ERR_MODEL', /"shared"/, () => splitClsrCheckpoint([`${layer}.ffn_clsr.gate_in.shared.bias`]));
  await refused(t, 'ERR_MODEL', /"X1"/, () => splitClsrCheckpoint([`${layer}.ffn_clsr.proj.X1.fc1.bias`]));
});

// ---- recorded files ----------------------------------------------------------------------------------------------

const goldenFolder = join(shared, 'golden');

test('every recorded safetensors file opens and all of its tensors read', async (t) => {
  if (!existsSync(goldenFolder)) {
    t.log('the recorded files are absent: skipped');
    return t.pass();
  }
  const paths = readdirSync(goldenFolder, { recursive: true, encoding: 'utf8' }).filter((name) =>
    name.endsWith('.safetensors'),
  );
  t.true(paths.length >= 40);
  for (const name of paths) {
    const file = await openSafetensors(join(goldenFolder, name));
    for (const tensor of file.names()) {
      const { data } = await file.read(tensor);
      t.is(data.byteLength, file.info(tensor).byteLength);
    }
    await file.close();
  }
});

test("the reference's whole checkpoint opens as backbone and two experts, with the recorded bytes", async (t) => {
  if (!existsSync(goldenFolder)) {
    t.log('the recorded files are absent: skipped');
    return t.pass();
  }
  const folder = await scratch(t);
  const source = join(goldenFolder, 'case2_clsr/weights.safetensors');
  const file = await openSafetensors(source);
  await writeFile(join(folder, 'config.json'), file.metadata.config!);
  await writeFile(join(folder, 'model.safetensors'), await readFile(source));
  const model = await openModelFolder(folder);
  t.is(model.config.d_model, 64);
  t.deepEqual([...model.experts.keys()].sort(), ['catalan', 'thai']);
  t.deepEqual(
    await model.weights.read('model.decoder.layers.1.fc2.weight'),
    await file.read('model.decoder.layers.1.ffn_clsr.proj.shared.fc2.weight'),
  );
  t.deepEqual(model.weights.names().sort(), [...whisperTensorShapes(model.config).keys()].sort());
  const catalan = model.experts.get('catalan')!;
  const tensors = new Map<string, HostTensor>();
  for (const name of catalan.names()) tensors.set(name, await catalan.read(name));
  const path = join(folder, expertFileName('catalan'));
  await writeExpert(path, model.config, 'catalan', tensors);
  t.deepEqual(
    new Map(await readExpert(path, model.config).then((expert) => [...expert.tensors].sort())),
    new Map([...tensors].sort()),
  );
  await model.close();
  await file.close();

  const encoderPath = join(shared, 'models/whisper-base-encoder/model-encoder-only.safetensors');
  if (!existsSync(encoderPath)) return;
  const encoder = await openSafetensors(encoderPath);
  const expected = whisperTensorShapes(whisperPreset('base'));
  for (const name of encoder.names()) t.deepEqual(encoder.info(name).shape, expected.get(name), name);
  await encoder.close();
});

// ---- PyTorch checkpoints -----------------------------------------------------------------------------------------

const fixtures = new URL('../fixtures/', import.meta.url).pathname;

/** The values that fixtures/make_torch_checkpoints.py puts in a tensor. */
const ramp = (count: number, seed: number) =>
  Float32Array.from({ length: count }, (_, i) => (((i * 7 + seed * 13) % 257) - 128) / 64);

test("an expert that PyTorch saved reads like an expert file, with the script's values", async (t) => {
  const expert = await readExpert(join(fixtures, 'expert.thai.bin'), small);
  t.is(expert.language, 'thai');
  t.is(expert.tensors.size, 21);
  let seed = 0;
  for (const [name, shape] of expertTensorNames(small, 'thai')) {
    const tensor = expert.tensors.get(name)!;
    t.deepEqual(tensor.shape, shape);
    t.deepEqual(toFloat32(tensor), ramp(toFloat32(tensor).length, seed++), name);
  }
});

test('a PyTorch state dict of every supported kind reads: types, transposes, slices, scalars, empty ones, parameters', async (t) => {
  const file = await importTorchCheckpoint(join(fixtures, 'kinds.pt'));
  const values = async (name: string) => [...toFloat32(await file.read(name))];
  const whole = ramp(24, 1);
  t.deepEqual(await values('weight'), [...ramp(6, 2)]);
  t.deepEqual(await values('bias'), [...ramp(2, 3)]);
  t.is(file.info('half').dtype, 'f16');
  t.deepEqual(await values('half'), [...ramp(5, 4)]);
  t.is(file.info('bfloat16').dtype, 'bf16');
  t.deepEqual(await values('bfloat16'), [...ramp(5, 5)]);
  const long = await file.read('long');
  t.deepEqual([...new BigInt64Array(long.data.buffer)], [1n, -2n, 2n ** 40n]);
  t.deepEqual(file.info('transposed').shape, [6, 4]);
  t.deepEqual(
    await values('transposed'),
    Array.from({ length: 24 }, (_, i) => whole[(i % 4) * 6 + Math.floor(i / 4)]!),
  );
  t.deepEqual(
    await values('slice'),
    [7, 9, 13, 15, 19, 21].map((i) => whole[i]!),
  );
  t.deepEqual(file.info('scalar').shape, []);
  t.deepEqual(await values('scalar'), [2.5]);
  t.deepEqual(file.info('empty'), { dtype: 'f32', shape: [3, 0], byteLength: 0 });
  t.deepEqual(await values('empty'), []);
  t.deepEqual(await values('parameter'), [...ramp(4, 6)]);
  await refused(t, 'ERR_MODEL', /no tensor "none"/, () => file.read('none'));
  await file.close();
  await refused(t, 'ERR_DISPOSED', /closed/, () => file.read('weight'));
});

/** The bytes with every occurrence of `from` (there must be one) replaced by `to`, which is as long. */
function patched(bytes: Uint8Array, from: string | Uint8Array, to: string | Uint8Array): Uint8Array {
  const copy = Buffer.from(bytes);
  const search = Buffer.from(from as string);
  const replacement = Buffer.from(to as string);
  if (search.length !== replacement.length || !copy.includes(search)) throw new Error(`bad patch ${from} → ${to}`);
  for (let at = copy.indexOf(search); at >= 0; at = copy.indexOf(search, at + 1)) replacement.copy(copy, at);
  return copy;
}

test('a pickle that names or does anything that a state dict does not need is refused', async (t) => {
  const folder = await scratch(t);
  const path = join(folder, 'evil.pt');
  const good = new Uint8Array(await readFile(join(fixtures, 'kinds.pt')));
  const cases: [RegExp, Uint8Array][] = [
    [/names "subprocess\.check_output"/, patched(good, 'collections\nOrderedDict\n', 'subprocess\ncheck_output\n')],
    [/names "torch\._utils\._rebuild_tensor_v9"/, patched(good, '_rebuild_tensor_v2', '_rebuild_tensor_v9')],
    [/names "torch\.IntegStorage"/, patched(good, 'FloatStorage', 'IntegStorage')],
    [/is of protocol 5/, patched(good, Uint8Array.of(0x80, 2), Uint8Array.of(0x80, 5))],
    [/instruction 0x69/, patched(good, Uint8Array.of(0x80, 2, 0x63), Uint8Array.of(0x80, 2, 0x69))],
    [/no storage/, patched(good, 'X\x07\0\0\0storage', 'X\x07\0\0\0sturage')],
    [/not little-endian/, patched(good, 'little', 'bigger')],
    [/expected one data\.pkl/, patched(good, 'kinds/data.pkl', 'kinds/date.pkl')],
    [/the data of "transposed" \(5\) are missing/, patched(good, 'kinds/data/5', 'kinds/data/x')],
    [/no directory at its end/, good.subarray(0, good.length - 1)],
    [/has only 0 bytes/, new Uint8Array(0)],
    [/no directory at its end/, new TextEncoder().encode('a pickle of before 1.6, or any other text')],
  ];
  for (const [pattern, bytes] of cases) {
    await writeFile(path, bytes);
    await refused(t, 'ERR_MODEL', pattern, () => importTorchCheckpoint(path));
  }
  await refused(t, 'ERR_FILE_NOT_FOUND', /none/, () => importTorchCheckpoint(join(folder, 'none')));
  await refused(t, 'ERR_FILE_READ', /folder/, () => importTorchCheckpoint(folder));
});

test('any truncation or byte flip of a PyTorch checkpoint either reads as consistent tensors or throws a typed error', async (t) => {
  const path = join(await scratch(t), 'fuzz.pt');
  const good = new Uint8Array(await readFile(join(fixtures, 'kinds.pt')));
  const next = generator(77);
  const pickleEnd = 1100;
  let read = 0;
  let refusals = 0;
  for (let round = 0; round < 1500; round++) {
    let bytes = good.slice();
    if (round % 10 === 0) bytes = bytes.slice(0, next(bytes.length));
    for (let flips = next(3) + 1; flips > 0; flips--)
      bytes[next(round % 3 ? Math.min(pickleEnd, bytes.length) : bytes.length)] = next(256);
    await writeFile(path, bytes);
    let file: Awaited<ReturnType<typeof importTorchCheckpoint>> | undefined;
    try {
      file = await importTorchCheckpoint(path);
      for (const name of file.names()) {
        const { dtype, shape, data } = await file.read(name);
        t.is(
          data.byteLength,
          shape.reduce((product, size) => product * size, DTYPE_BYTES[dtype] as number),
        );
      }
      read++;
    } catch (error) {
      if (!isDistilWhisperError(error)) throw error;
      refusals++;
    } finally {
      await file?.close();
    }
  }
  t.true(read > 50 && refusals > 200, `${read} read, ${refusals} refused`);
});
