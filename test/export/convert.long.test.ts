/** Models in other programs' files: what is read, what is written, and what bad input meets. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  convert,
  expertTensorNames,
  fromFloat32,
  type HostTensor,
  openExpert,
  openModelFolder,
  parseSafetensors,
  serializeSafetensors,
  Transcriber,
  toFloat32,
  type WhisperConfig,
  whisperTensorShapes,
  writeExpert,
} from '../../lib/index.js';
import { openAiName } from '../../lib/weights/index.js';
import { archive, openAiDict, stateDict, type View } from '../support/archive.js';
import { cli, root } from '../support/cli.js';
import {
  ENGLISH,
  exportConfig,
  exportTensors,
  ids,
  MULTILINGUAL,
  pocket,
  pocketFolder,
  pocketTokenizer,
  ranks,
  rounded,
  same,
  stored,
} from '../support/exports.js';
import { randomTensors, refused, scratch, small } from '../support/weights.js';

const readJson = (path: string) => JSON.parse(readFileSync(path, 'utf8'));
const clip = { samples: Float32Array.from({ length: 16_000 }, (_, i) => Math.sin(i / 9) / 4), sampleRate: 16_000 };

/** Tensors as views of one storage each, under names that `as` gives. */
function pickled(tensors: Map<string, HostTensor>, as = (name: string) => name) {
  const views: Record<string, View> = {};
  const storages: Record<string, Uint8Array> = {};
  for (const [i, [name, { shape, data, dtype }]] of [...tensors].entries()) {
    const count = shape.reduce((product, size) => product * size, 1);
    const type = dtype === 'f16' ? 'HalfStorage' : 'FloatStorage';
    views[as(name)] = { key: `${i}`, storage: count, offset: 0, count, shape, type };
    storages[`${i}`] = data;
  }
  return { views, storages };
}

const nothing = (t: ExecutionContext, folder: string, ...kept: string[]): void => {
  t.deepEqual(readdirSync(folder).sort(), kept.sort());
};

// ---------------------------------------------------------------- what is read

test('pytorch_model.bin, whole and in shards, opens as safetensors do, which come first', async (t) => {
  const folder = await scratch(t);
  const [plain, whole, shards] = ['plain', 'whole', 'shards'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  const tensors = await pocketFolder(plain);
  for (const path of [whole, shards]) {
    cpSync(plain, path, { recursive: true });
    rmSync(join(path, 'model.safetensors'));
  }
  const all = pickled(tensors);
  writeFileSync(join(whole, 'pytorch_model.bin'), archive(stateDict(all.views), all.storages));
  same(t, await stored(whole), tensors);
  const names = [...tensors.keys()];
  const half = new Map(names.map((name, i) => [name, `pytorch_model-0000${i % 2 ? 2 : 1}-of-00002.bin`]));
  for (const file of new Set(half.values())) {
    const part = pickled(new Map([...tensors].filter(([name]) => half.get(name) === file)));
    writeFileSync(join(shards, file), archive(stateDict(part.views), part.storages));
  }
  const index = (map: object) =>
    writeFileSync(join(shards, 'pytorch_model.bin.index.json'), JSON.stringify({ weight_map: map }));
  index(Object.fromEntries(half));
  same(t, await stored(shards), tensors);
  for (const [shard, pattern] of [
    ['../whole/pytorch_model.bin', /no bin file name/],
    ['model.safetensors', /no bin file name/],
    ['pytorch_model-00003-of-00003.bin', /which is missing/],
  ] as const) {
    index({ ...Object.fromEntries(half), [names[0]!]: shard });
    await refused(t, 'ERR_MODEL', pattern, () => openModelFolder(shards));
  }
  const other = randomTensors(whisperTensorShapes(pocket()), 2);
  writeFileSync(join(whole, 'model.safetensors'), serializeSafetensors(other));
  same(t, await stored(whole), other);
});

test('a file of a PyTorch before 1.6, and an archive whose pickle is cut short, are refused in words', async (t) => {
  const folder = await scratch(t);
  await pocketFolder(join(folder, 'model'));
  rmSync(join(folder, 'model', 'model.safetensors'));
  const bin = join(folder, 'model', 'pytorch_model.bin');
  writeFileSync(bin, Buffer.from('80028a0a6cfc9c46f9206aa850192e8002', 'hex'));
  await refused(t, 'ERR_MODEL', /before 1\.6/, () => openModelFolder(join(folder, 'model')));
  const { views, storages } = pickled(randomTensors(whisperTensorShapes(pocket())));
  const sound = archive(stateDict(views), storages);
  for (const bytes of [
    sound.subarray(0, sound.length / 2),
    Buffer.alloc(0),
    archive(stateDict(views).subarray(0, 900), storages),
  ]) {
    writeFileSync(bin, bytes);
    await refused(t, 'ERR_MODEL', /pytorch_model\.bin/, () => openModelFolder(join(folder, 'model')));
    await refused(t, 'ERR_MODEL', /pytorch_model\.bin/, () =>
      convert(join(folder, 'model'), { to: join(folder, 'out') }),
    );
  }
  nothing(t, folder, 'model');
});

test('a checkpoint of OpenAI that PyTorch saved becomes a folder that transcribes', async (t) => {
  const folder = await scratch(t);
  const file = join(root, 'test', 'fixtures', 'openai.pt');
  const [to, tokenizer] = [join(folder, 'out'), join(folder, 'tokenizer.json')];
  writeFileSync(tokenizer, JSON.stringify(pocketTokenizer()));
  await refused(t, 'ERR_VOCABULARY', /vocabulary of 270 ids.*a tokenizer must be given/, () => convert(file, { to }));
  const converted = await convert(file, { to, tokenizer });
  t.deepEqual(converted, { output: to, kind: 'model', notes: [] });
  const tensors = await stored(to);
  // As the script counts them up: the seed is the place in the dict, which begins with the encoder's positions.
  const ramp = (count: number, seed: number) =>
    Float32Array.from({ length: count }, (_, i) => (((i * 7 + seed * 13) % 257) - 128) / 64);
  const positions = tensors.get('model.encoder.embed_positions.weight')!;
  t.is(positions.dtype, 'f16');
  t.deepEqual(toFloat32(positions), ramp(48, 0));
  t.deepEqual(toFloat32(tensors.get('model.decoder.embed_tokens.weight')!), ramp(270 * 8, 6));
  t.deepEqual(toFloat32(tensors.get('model.encoder.layers.0.self_attn.q_proj.weight')!), ramp(64, 7));
  t.deepEqual(toFloat32(tensors.get('model.encoder.layers.0.self_attn.k_proj.weight')!), ramp(64, 9));
  const generation = readJson(join(to, 'generation_config.json'));
  t.is(generation.is_multilingual, true);
  t.deepEqual(Object.keys(generation.lang_to_id), ['<|en|>', '<|ca|>', '<|th|>']);
  t.is(readJson(join(to, 'preprocessor_config.json')).feature_size, 4);
  const { config, warnings, close } = await openModelFolder(to);
  await close();
  t.deepEqual(
    [config.encoder_layers, config.decoder_layers, config.encoder_ffn_dim, config.eos_token_id],
    [1, 2, 32, 258],
  );
  t.deepEqual(warnings, []);
});

/** OpenAI's dims of a configuration. */
const dimsOf = (config: WhisperConfig) => ({
  n_mels: config.num_mel_bins,
  n_audio_ctx: config.max_source_positions,
  n_audio_state: config.d_model,
  n_audio_head: config.encoder_attention_heads,
  n_audio_layer: config.encoder_layers,
  n_vocab: config.vocab_size,
  n_text_ctx: config.max_target_positions,
  n_text_state: config.d_model,
  n_text_head: config.decoder_attention_heads,
  n_text_layer: config.decoder_layers,
});

test('published vocabularies of OpenAI: special ids by their size, tokenizers by their ranks, English-only ones transcribe', async (t) => {
  const folder = await scratch(t);
  const at = (name: string) => join(folder, name);
  writeFileSync(at('multilingual.tiktoken'), ranks(MULTILINGUAL));
  writeFileSync(at('gpt2.tiktoken'), ranks(ENGLISH));
  const english = exportConfig({
    d_model: 8,
    encoder_ffn_dim: 32,
    decoder_ffn_dim: 32,
    vocab_size: 51_864,
    ...ids(50_256),
  });
  const { views, storages } = pickled(rounded(exportTensors(english), 'f16'), openAiName);
  writeFileSync(at('tiny.en.pt'), archive(openAiDict(dimsOf(english), views), storages));
  const bare = await convert(at('tiny.en.pt'), { to: at('bare') });
  t.regex(bare.notes.join(), /no tokenizer.*can teach, but not transcribe/);
  t.false(existsSync(join(at('bare'), 'tokenizer.json')));
  await refused(t, 'ERR_VOCABULARY', /51864 ids \(50256; .*gpt2/, () =>
    convert(at('tiny.en.pt'), { to: at('wrong'), tokenizer: at('multilingual.tiktoken') }),
  );
  await convert(at('tiny.en.pt'), { to: at('en'), tokenizer: at('gpt2.tiktoken') });
  same(t, await stored(at('en')), await stored(at('bare')));
  const asr = await Transcriber.load(at('en'));
  t.deepEqual([asr.tokenizer.prompt(), asr.languages], [[50_257, 50_362], ['en']]);
  await refused(t, 'ERR_LANGUAGE', /English-only/, () => asr.transcribe(clip, { language: 'ca' }));
  t.is((await asr.transcribe(clip, { maxTokens: 6 })).language, 'en');
  await asr.close();
  t.is(readJson(join(at('en'), 'generation_config.json')).lang_to_id, undefined);
  // The same files as a tokenizer for another.
  await convert(at('bare'), { to: at('again'), tokenizer: at('en') });
  t.is(
    readFileSync(join(at('again'), 'tokenizer.json'), 'utf8'),
    readFileSync(join(at('en'), 'tokenizer.json'), 'utf8'),
  );
  await refused(t, 'ERR_FILE_NOT_FOUND', /needs a tokenizer/, () =>
    convert(at('bare'), { to: at('x'), tokenizer: folder }),
  );
});

test('dims that do not fit, tensors that are missing, more or misshapen, and what no state dict needs are refused', async (t) => {
  const folder = await scratch(t);
  const [file, to, tokenizer] = ['x.pt', 'out', 'tokenizer.json'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  writeFileSync(tokenizer, JSON.stringify(pocketTokenizer()));
  const config = pocket({ encoder_ffn_dim: 32, decoder_ffn_dim: 32 });
  const dims = dimsOf(config);
  const tensors = randomTensors(whisperTensorShapes(config));
  const write = (sizes: Record<string, number>, change = (map: Map<string, HostTensor>) => map, more = {}) => {
    const { views, storages } = pickled(change(new Map(tensors)), openAiName);
    writeFileSync(file, archive(openAiDict(sizes, views, more), storages));
  };
  const run = () => convert(file, { to, tokenizer });
  const says = async (pattern: RegExp, code: 'ERR_MODEL' | 'ERR_CONFIG' | 'ERR_VOCABULARY' = 'ERR_MODEL') => {
    await refused(t, code, pattern, run);
    nothing(t, folder, 'x.pt', 'tokenizer.json');
  };
  const { n_mels: _, ...without } = dims;
  write(without);
  await says(/dims\.n_mels must be a whole number from 1, it is missing/);
  write({ ...dims, n_heads: 2 });
  await says(/unknown size "?'?n_heads/);
  for (const [name, value] of [
    ['n_text_layer', 0],
    ['n_audio_ctx', -3],
  ] as const) {
    write({ ...dims, [name]: value });
    await says(new RegExp(`dims\\.${name} must be`));
  }
  write({ ...dims, n_audio_layer: 1_000_000_000 });
  await says(/encoder_layers must be/, 'ERR_CONFIG');
  write({ ...dims, n_text_layer: 1000 });
  await says(/missing .*layers\.2\./);
  write({ ...dims, n_text_state: 16 });
  await says(/n_text_state must be n_audio_state \(8\)/);
  write({ ...dims, n_vocab: 200 });
  await says(/at most 200 ids/, 'ERR_VOCABULARY');
  const [first] = tensors.keys();
  write(dims, (map) => new Map([...map].slice(1)));
  await says(/missing model\.encoder\.conv1\.weight/);
  write(dims, (map) => map.set('extra', fromFloat32(new Float32Array(2), [2], 'f32')));
  await says(/unexpected extra \[2\]/);
  write(dims, (map) => map.set(first!, fromFloat32(new Float32Array(2), [2], 'f32')));
  await says(/has shape \[2\]/);
  write(dims, undefined, { optimizer: Buffer.from('N') });
  await says(/beside dims it holds .*optimizer/);
  write(dims, undefined, { hook: Buffer.from('cos\nsystem\n') });
  await says(/names .*os\.system/);
  const { views, storages } = pickled(tensors);
  writeFileSync(file, archive(stateDict(views), storages));
  await says(/holds a state dict without sizes/);
  writeFileSync(file, 'PK\x03\x04');
  await says(/x\.pt/);
});

// ---------------------------------------------------------------- Hugging Face

test('another type: every tensor as fromFloat32 rounds it, half the bytes, the config says so, files beside stay', async (t) => {
  const folder = await scratch(t);
  const input = join(folder, 'model');
  const tensors = await pocketFolder(input);
  const config = readJson(join(input, 'config.json'));
  writeFileSync(
    join(input, 'config.json'),
    JSON.stringify({ ...config, dtype: 'float32', transformers_version: '5.18.0' }),
  );
  const size = async (path: string) =>
    [...(await stored(path)).values()].reduce((sum, { data }) => sum + data.length, 0);
  for (const [dtype, as, called] of [
    ['fp16', 'f16', 'float16'],
    ['bf16', 'bf16', 'bfloat16'],
    ['fp32', 'f32', 'float32'],
  ] as const) {
    const to = join(folder, dtype);
    const seen: number[] = [];
    const converted = await convert(input, { to, dtype, onProgress: ({ done, total }) => seen.push(done / total) });
    t.deepEqual(converted, { output: to, kind: 'model', notes: [] });
    same(t, await stored(to), rounded(tensors, as));
    t.deepEqual([seen.length, seen.at(-1)], [tensors.size, 1]);
    const said = readJson(join(to, 'config.json'));
    t.deepEqual([said.dtype, said.transformers_version], [called, '5.18.0']);
    t.is(readFileSync(join(to, 'tokenizer.json'), 'utf8'), readFileSync(join(input, 'tokenizer.json'), 'utf8'));
    t.is(readJson(join(to, 'preprocessor_config.json')).nb_max_frames, 2 * small.max_source_positions);
  }
  t.is(await size(join(folder, 'bf16')), (await size(input)) / 2);
  await convert(join(folder, 'fp16'), { to: join(folder, 'shards'), maxShardBytes: 2000 });
  t.true(readdirSync(join(folder, 'shards')).filter((name) => /-of-/.test(name)).length > 2);
  same(t, await stored(join(folder, 'shards')), rounded(tensors, 'f16'));
});

test('a folder with the parts of an older tokenizer gets its tokenizer.json, and transcribes as before in fp16', async (t) => {
  const folder = await scratch(t);
  const student = join(folder, 'student');
  cpSync(join(root, 'models', 'pocket-student'), student, { recursive: true });
  const json = readJson(join(student, 'tokenizer.json'));
  const before = await Transcriber.load(student, { compute: 'fp32' });
  const said = await before.transcribe(clip, { language: 'en' });
  await before.close();
  const merges = json.model.merges.map((merge: string | string[]) => (Array.isArray(merge) ? merge.join(' ') : merge));
  writeFileSync(join(student, 'vocab.json'), JSON.stringify(json.model.vocab));
  writeFileSync(join(student, 'merges.txt'), `#version: 0.2\n${merges.join('\n')}\n`);
  const added = json.added_tokens.map(({ content, id }: { content: string; id: number }) => [content, id]);
  writeFileSync(join(student, 'added_tokens.json'), JSON.stringify(Object.fromEntries(added)));
  for (const name of ['tokenizer.json', 'preprocessor_config.json']) rmSync(join(student, name), { force: true });
  const to = join(folder, 'out');
  await convert(student, { to, dtype: 'fp16' });
  for (const name of ['vocab.json', 'merges.txt', 'tokenizer.json', 'preprocessor_config.json'])
    t.true(existsSync(join(to, name)), name);
  rmSync(join(to, 'vocab.json'));
  const after = await Transcriber.load(to, { compute: 'fp32' });
  t.deepEqual(await after.transcribe(clip, { language: 'en' }), said);
  await after.close();
});

test("the reference's checkpoint with experts inside becomes a plain folder and expert files; its pickles become safetensors", async (t) => {
  const folder = await scratch(t);
  const input = join(folder, 'clsr');
  const tensors = await pocketFolder(input);
  const catalan = randomTensors(expertTensorNames(pocket(), 'catalan'), 5);
  const own = new Map(
    Array.from(
      tensors,
      ([name, tensor]) => [name.replace(/\.(fc[12])\./, '.ffn_clsr.proj.shared.$1.'), tensor] as const,
    ),
  );
  writeFileSync(join(input, 'model.safetensors'), serializeSafetensors([...own, ...catalan]));
  const config = readJson(join(input, 'config.json'));
  const fields = {
    model_type: 'distilwhisper',
    clsr_langs: ['catalan', 'shared'],
    clsr_gate_dim: 64,
    skip_gate_prob: 0.2,
  };
  const said = (more: object) =>
    writeFileSync(join(input, 'config.json'), JSON.stringify({ ...config, ...fields, ...more }));
  said({ clsr_gate_dim: 32 });
  await refused(t, 'ERR_CONFIG', /clsr_gate_dim must be 64/, () => openModelFolder(input));
  said({});
  const to = join(folder, 'out');
  const { notes } = await convert(input, { to, dtype: 'bf16' });
  t.regex(notes.join(), /catalan expert is a file of its own/);
  same(t, await stored(to), rounded(tensors, 'bf16'));
  const written = readJson(join(to, 'config.json'));
  t.deepEqual([written.model_type, Object.keys(written).filter((key) => /clsr|gate/.test(key))], ['whisper', []]);
  const expert = await openExpert(join(to, 'expert.catalan.safetensors'), pocket());
  for (const name of expert.weights.names()) {
    const dtype = name.includes('gate_') ? 'f32' : 'bf16';
    t.is(expert.weights.info(name).dtype, dtype, name);
    const wanted = fromFloat32(toFloat32(catalan.get(name)!), catalan.get(name)!.shape, dtype);
    t.is(Buffer.compare((await expert.weights.read(name)).data, wanted.data), 0, name);
  }
  await expert.close();
  for (const format of ['ggml', 'ctranslate2'] as const) {
    await refused(t, 'ERR_EXPERT', /no place for language experts, got those for catalan/, () =>
      convert(input, { to: join(folder, 'other'), format }),
    );
  }
  const thai = join(root, 'test', 'fixtures', 'expert.thai.bin');
  const file = join(folder, 'expert.thai.safetensors');
  t.is((await convert(thai, { to: file })).kind, 'expert');
  const { tensors: read, metadata } = parseSafetensors(readFileSync(file));
  t.is(metadata.language, 'thai');
  t.deepEqual([...read.keys()], [...expertTensorNames(small, 'thai').keys()]);
  await refused(t, 'ERR_ARGUMENT', /ends in \.safetensors/, () => convert(thai, { to: join(folder, 'thai') }));
  await refused(t, 'ERR_EXPERT', /no place for experts/, () =>
    convert(thai, { to: join(folder, 'thai'), format: 'ggml' }),
  );
  await writeExpert(join(folder, 'far.safetensors'), small, 'thai', randomTensors(expertTensorNames(small, 'thai')));
  const far = parseSafetensors(readFileSync(join(folder, 'far.safetensors'))).tensors;
  const renamed = new Map(
    [...far].map(([name, tensor]) => [name.replace('decoder.layers.1', 'decoder.layers.99999999'), tensor]),
  );
  writeFileSync(join(folder, 'far.safetensors'), serializeSafetensors(renamed));
  await refused(t, 'ERR_EXPERT', /layers below 1024/, () =>
    convert(join(folder, 'far.safetensors'), { to: join(folder, 'y.safetensors') }),
  );
});

// ---------------------------------------------------------------- bad input

test('an output that exists, values that fp16 lacks, an interruption: typed errors, and nothing is written', async (t) => {
  const folder = await scratch(t);
  const at = (name: string) => join(folder, name);
  const tensors = await pocketFolder(at('model'));
  mkdirSync(at('there'));
  writeFileSync(join(at('there'), 'mine'), 'mine');
  for (const format of ['hf', 'ctranslate2', 'ggml'] as const) {
    await refused(t, 'ERR_FILE_WRITE', /exists already/, () => convert(at('model'), { to: at('there'), format }));
  }
  tensors.set('model.decoder.layer_norm.bias', fromFloat32(new Float32Array(8).fill(70_000), [8], 'f32'));
  writeFileSync(join(at('model'), 'model.safetensors'), serializeSafetensors(tensors));
  for (const format of ['hf', 'ctranslate2'] as const) {
    await refused(t, 'ERR_MODEL', /decoder\.layer_norm\.bias.*fp16.*70000/, () =>
      convert(at('model'), { to: at('half'), format, dtype: 'fp16' }),
    );
  }
  await convert(at('model'), { to: at('bf16'), dtype: 'bf16' });
  const abort = new AbortController();
  await refused(t, 'ERR_INTERRUPTED', /nothing was written/, () =>
    convert(at('model'), { to: at('half'), signal: abort.signal, onProgress: () => abort.abort() }),
  );
  nothing(t, folder, 'model', 'there', 'bf16');
  nothing(t, at('there'), 'mine');
  for (const [options, pattern] of [
    [{ to: '' }, /to: expected a path/],
    [{ to: at('x'), format: 'gguf' }, /format: expected hf, ggml, ctranslate2/],
    [{ to: at('x'), dtype: 'int8' }, /dtype for hf: expected 'fp32', 'bf16' or 'fp16'/],
    [{ to: at('x'), format: 'ggml', dtype: 'bf16' }, /dtype for ggml: expected 'fp32', 'fp16' or 'int8'/],
    [{ to: at('x'), types: 'fp16' }, /unknown option/],
  ] as const) {
    await refused(t, 'ERR_ARGUMENT', pattern, () => convert(at('model'), options as never));
  }
  await refused(t, 'ERR_FILE_NOT_FOUND', /nowhere/, () => convert(at('nowhere'), { to: at('x') }));
  writeFileSync(at('notes.txt'), 'x');
  await refused(t, 'ERR_MODEL', /a file of another name/, () => convert(at('notes.txt'), { to: at('x') }));
  await refused(t, 'ERR_MODEL', /without their sizes/, () =>
    convert(join(at('model'), 'model.safetensors'), { to: at('x') }),
  );
});

test('command line: converts with a word, refuses what is there, and says so as JSON', async (t) => {
  const folder = await scratch(t);
  const at = (name: string) => join(folder, name);
  await pocketFolder(at('model'));
  const done = await cli(['convert', at('model'), '--to', at('out'), '--dtype', 'bf16']);
  t.deepEqual([done.code, done.stdout], [0, `${at('out')}\n`], done.stderr);
  t.regex(done.stderr, /converting/);
  const again = await cli(['convert', at('model'), '--to', at('out'), '--json']);
  t.is(again.code, 1);
  t.is(JSON.parse(again.stdout).error.code, 'ERR_FILE_WRITE');
  const replaced = await cli(['convert', at('model'), '--to', at('out'), '--replace', '--json']);
  t.deepEqual(JSON.parse(replaced.stdout), { output: at('out'), kind: 'model', notes: [], format: 'hf' });
  t.is((await cli(['convert', at('model')])).code, 2);
  t.is((await cli(['convert', at('model'), '--to', at('y'), '--format', 'gguf'])).code, 2);
});
