/** The methods of training: what each leaves behind, what it begins with, and what it refuses. */
import { copyFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { convert } from '../../lib/export/index.js';
import { type TrainRecipe, train } from '../../lib/recipes/index.js';
import { Transcriber } from '../../lib/transcribe/index.js';
import { openAdapter, openModelFolder, parseSafetensors } from '../../lib/weights/index.js';
import { corpusRows, type Row, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
const rows: Row[] = ['ca', 'cs'].flatMap((language) => corpusRows(language, 'validation', 'in', 6));
const audio = rows.map((row) => row.audio);

test.before(async () => {
  await writeTinyModel(at('student'), 1);
  await writeTinyModel(at('teacher'), 2, { d_model: 32, encoder_ffn_dim: 128, decoder_ffn_dim: 128 });
  writeRows(at('rows.jsonl'), rows);
});
test.after.always(remove);

const recipe = (output: string, more: Partial<TrainRecipe> = {}): TrainRecipe => ({
  model: at('student'),
  manifest: at('rows.jsonl'),
  output: at(output),
  split: 'validation',
  batchSize: 3,
  steps: 4,
  options: { learningRate: 0.01 },
  ...more,
});
const bytes = (...names: string[]): Buffer => readFileSync(at(...names));
const tensorsOf = (...names: string[]) => parseSafetensors(bytes(...names)).tensors;

test('lora leaves an adapter as PEFT writes it, which says the same merged into the weights, apart, and by request', async (t) => {
  const lora = { rank: 4, alpha: 8, targets: ['fc1', 'fc2', 'q_proj'], dropout: 0.1 };
  const run = recipe('lora', { method: 'lora', lora, teacher: at('teacher') });
  const { result, trainable, parameters, active, language } = await train(run);
  t.is(result, at('lora', 'adapter'));
  t.is(language, null);
  const folder = await openModelFolder(at('student'));
  const adapter = await openAdapter(result, folder.config);
  await folder.close();
  t.is(
    trainable,
    adapter.modules.reduce((sum, { rank, inputs, outputs }) => sum + rank * (inputs + outputs), 0),
  );
  t.is(parameters - trainable, active, 'merged it costs nothing');
  t.deepEqual(adapter.config, { rankPattern: {}, alphaPattern: {}, rsLora: false, ...lora });
  await adapter.close();
  const moved = tensorsOf('lora', 'adapter', 'adapter_model.safetensors');
  for (const [name, { data }] of moved)
    if (name.includes('lora_B'))
      t.true(
        data.some((byte) => byte !== 0),
        name,
      );

  const heard = async (options: object, request: object = {}, model = at('student')): Promise<string[]> => {
    const transcriber = await Transcriber.load(model, { compute: 'fp32', cache: 'compute', ...options });
    const texts = (await transcriber.transcribe(audio, { language: 'ca', ...request })).map(({ text }) => text);
    await transcriber.close();
    return texts;
  };
  const plain = await heard({});
  const merged = await heard({ adapter: result });
  t.notDeepEqual(merged, plain);
  const { notes } = await convert(at('student'), { to: at('merged'), adapter: result, dtype: 'fp32' });
  t.true(notes.some((note) => /adapter .* is merged/.test(note)));
  t.deepEqual(await heard({}, {}, at('merged')), merged);
  const apart = { adapters: { taught: result } };
  t.deepEqual(await heard(apart), plain);
  t.deepEqual(await heard(apart, { adapter: 'taught' }), merged);
  t.deepEqual(await heard(apart, { adapter: null }), plain);
  t.deepEqual(
    await heard(apart, { adapter: 'taught', beamSize: 3 }),
    await heard({ adapter: result }, { beamSize: 3 }),
  );
  await t.throwsAsync(heard(apart, { adapter: 'other' }), { code: 'ERR_ARGUMENT', message: /taught.*other/ });
  await t.throwsAsync(heard({ adapter: at('student') }), { code: 'ERR_ADAPTER', message: /adapter_config/ });
});

test('lora goes on where it was interrupted, with the same bits; other settings are another run', async (t) => {
  const settings = { method: 'lora', lora: { rank: 2 }, checkpointEvery: 1 } as const;
  await train(recipe('whole', settings));
  const broken = new AbortController();
  const run = recipe('broken', {
    ...settings,
    signal: broken.signal,
    onUpdate: ({ step }) => {
      if (step === 2) broken.abort();
    },
  });
  await t.throwsAsync(train(run), { code: 'ERR_INTERRUPTED' });
  const { updates } = await train(recipe('broken', settings));
  t.true(updates > 0 && updates < 4);
  const file = join('adapter', 'adapter_model.safetensors');
  t.deepEqual(bytes('broken', file), bytes('whole', file));
  await t.throwsAsync(train(recipe('whole', { ...settings, lora: { rank: 3 } })), { code: 'ERR_RUN', message: /lora/ });
});

test('several languages get an expert each, side by side in one batch; each hears only its own', async (t) => {
  const { result, language, taught, trainable } = await train(recipe('both', { languages: ['ca', 'Czech'] }));
  t.is(result, at('both'));
  t.is(language, null);
  t.deepEqual(taught, ['ca', 'cs']);
  const sizes = ['catalan', 'czech'].map((name) => {
    const tensors = [...tensorsOf('both', `expert.${name}.safetensors`).values()];
    return tensors.reduce((sum, { data }) => sum + data.byteLength / 4, 0);
  });
  t.is(trainable, sizes[0]! + sizes[1]!);
  t.notDeepEqual(bytes('both', 'expert.catalan.safetensors'), bytes('both', 'expert.czech.safetensors'));
  const transcriber = await Transcriber.load(at('student'), { experts: [result] });
  t.deepEqual([...transcriber.model.experts.keys()].sort(), ['catalan', 'czech']);
  await transcriber.close();

  // A row of one language moves nothing of the other's expert.
  writeRows(at('one.jsonl'), rows.slice(0, 6));
  await train(recipe('one', { manifest: at('one.jsonl'), languages: ['ca', 'cs'] }));
  const still = tensorsOf('one', 'expert.czech.safetensors');
  const fresh = tensorsOf('one', 'expert.catalan.safetensors');
  const moved = (name: string): boolean => {
    const of = still.get(name.replace('catalan', 'czech'))!;
    return Buffer.compare(of.data, fresh.get(name)!.data) !== 0;
  };
  t.true([...fresh.keys()].filter((name) => !name.includes('gate_in')).every(moved));
  const gate = 'model.encoder.layers.0.ffn_clsr.gate_out.czech.weight';
  t.true(
    still.get(gate)!.data.every((byte) => byte === 0),
    'nothing has trained it',
  );
});

test('a run continues from experts and from an adapter: without a learning rate they stay as they are', async (t) => {
  await train(recipe('expert', { language: 'ca' }));
  const still = { options: { learningRate: 0 }, steps: 1 };
  const start = at('expert', 'expert.catalan.safetensors');
  await train(recipe('expert-on', { ...still, language: 'ca', continueFrom: at('expert') }));
  t.deepEqual(
    [...tensorsOf('expert-on', 'expert.catalan.safetensors')],
    [...tensorsOf('expert', 'expert.catalan.safetensors')],
  );
  // One language goes on, another begins.
  await train(recipe('more', { ...still, languages: ['ca', 'cs'], continueFrom: [start] }));
  t.deepEqual(
    [...tensorsOf('more', 'expert.catalan.safetensors')],
    [...tensorsOf('expert', 'expert.catalan.safetensors')],
  );
  t.true(existsSync(at('more', 'expert.czech.safetensors')));

  await train(recipe('adapter', { method: 'lora', lora: { rank: 2, alpha: 6, targets: ['v_proj'] } }));
  const file = join('adapter', 'adapter_model.safetensors');
  const { trainable } = await train(
    recipe('adapter-on', { ...still, method: 'lora', continueFrom: at('adapter', 'adapter') }),
  );
  t.deepEqual(bytes('adapter-on', file), bytes('adapter', file));
  t.deepEqual(
    bytes('adapter-on', 'adapter', 'adapter_config.json'),
    bytes('adapter', 'adapter', 'adapter_config.json'),
  );
  t.true(trainable > 0);

  mkdirSync(at('copy'));
  copyFileSync(start, at('copy', 'expert.catalan.safetensors'));
  const again = await train(recipe('expert-on', { ...still, language: 'ca', continueFrom: at('copy') }));
  t.is(again.updates, 0, 'the same files, wherever they lie');
  await t.throwsAsync(train(recipe('expert-on', { ...still, language: 'ca' })), {
    code: 'ERR_RUN',
    message: /continued from/,
  });
});

test('distil is experts with a teacher that must be there; the run is the same', async (t) => {
  const teacher = at('teacher');
  await train(recipe('experts', { language: 'ca', teacher }));
  await train(recipe('distil', { language: 'ca', teacher, method: 'distil' }));
  const file = 'expert.catalan.safetensors';
  t.deepEqual(bytes('distil', file), bytes('experts', file));
});

test('what cannot be meant is refused before anything is written', async (t) => {
  await train(recipe('cs', { language: 'cs', steps: 1 }));
  const cases: [Partial<TrainRecipe>, RegExp, string?][] = [
    [{ method: 'distil', language: 'ca' }, /teacher: expected one with method 'distil'/],
    [
      { method: 'distil', language: 'ca', teacher: at('teacher'), options: { distillation: 'none' } },
      /distillation: .*'none'/,
    ],
    [{ method: 'experts' }, /language: expected/],
    [{ method: 'lora', fromScratch: true }, /fromScratch: .*'lora'/],
    [{ method: 'experts', language: 'ca', lora: { rank: 2 } }, /lora: expected with method 'lora'/],
    [{ method: 'full', lora: { rank: 2 } }, /lora: expected with method 'lora'/],
    [{ method: 'lora', lora: { rank: 0 } }, /lora.rank: expected a whole number from 1, got 0/],
    [{ method: 'lora', lora: { alpha: -1 } }, /lora.alpha/],
    [{ method: 'lora', lora: { dropout: 1 } }, /lora.dropout/],
    [{ method: 'lora', lora: { rnak: 4 } as object }, /rnak.*rank/],
    [{ method: 'lora', lora: { rankPattern: { '(': 4 } } }, /lora.rankPattern/],
    [{ method: 'lora', lora: { targets: ['fc9'] } }, /targets: .*fc9/],
    [{ method: 'full', continueFrom: at('cs') }, /continueFrom: expected with experts or 'lora'/],
    [{ method: 'lora', continueFrom: [at('cs'), at('cs')] }, /continueFrom: expected one adapter/],
    [{ method: 'lora', continueFrom: at('cs') }, /adapter_config/, 'ERR_ADAPTER'],
    [{ language: 'ca', continueFrom: at('cs') }, /continueFrom: expected experts for catalan, got one for czech/],
    [{ language: 'ca', languages: ['cs'] }, /either language or languages/],
    [
      { method: 'best' as 'lora', language: 'ca' },
      /method: expected 'experts' or 'distil' or 'lora' or 'full', got "best"/,
    ],
  ];
  for (const [more, message, code = 'ERR_ARGUMENT'] of cases) {
    await t.throwsAsync(train(recipe('refused', more)), { code, message }, JSON.stringify(more));
    t.false(existsSync(at('refused')), JSON.stringify(more));
  }
});
