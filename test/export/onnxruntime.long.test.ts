/** What is exported, run by onnxruntime: the numbers and the tokens are ours. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { decodeAudio, FeatureExtractor, SAMPLE_RATE } from '../../lib/audio/index.js';
import { greedy } from '../../lib/decode/index.js';
import { Whisper } from '../../lib/model/index.js';
import { exportOnnx } from '../../lib/recipes/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { writeExpert } from '../../lib/weights/index.js';
import { corpusRows, root } from '../support/cli.js';
import { randomExpertTensors } from '../support/experts.js';
import { OnnxWhisper } from '../support/onnx.js';
import { normalItems, random } from '../support/random.js';
import { generation, tokenizer, writeTalker } from '../support/talker.js';

const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-onnx-'));
const at = (name: string): string => join(scratch, name);
// A step's tensors go with its end: tests follow one another.
const stream = new Stream({ threads: 1 });
const config = await writeTalker(at('talker'));
test.after.always(() => {
  stream.close();
  rmSync(scratch, { recursive: true, force: true });
});

const features = normalItems(3, config.num_mel_bins * 2 * config.max_source_positions, random(7));
const prompts = features.map(() => tokenizer.prompt({ language: 'ca' }));
const search = {
  prompts,
  suppress: generation.suppress_tokens as number[],
  suppressAtBegin: generation.begin_suppress_tokens as number[],
  endOfText: tokenizer.endOfText,
  maxTokens: 20,
};

/** Relative L2 of each row. */
function rowErrors(values: Float32Array, expected: Float32Array, width: number): number[] {
  if (values.length !== expected.length) return [Number.POSITIVE_INFINITY];
  return Array.from({ length: expected.length / width }, (_, row) => {
    let [error, norm] = [0, 0];
    for (let i = row * width; i < (row + 1) * width; i++) {
      error += (values[i]! - expected[i]!) ** 2;
      norm += expected[i]! ** 2;
    }
    return Math.sqrt(error / norm);
  });
}

/** Writes an expert whose last gate weights are `w_out`; null: random ones, which open for about half of the rows. */
async function expertFile(name: string, wOut: number | null): Promise<string> {
  const tensors = randomExpertTensors(config, 'catalan', 3);
  for (const [tensor, { data }] of tensors) {
    if (wOut === null || !/gate_(in|out)/.test(tensor)) continue;
    // The hidden row of the gate is 1, so that G is 64·w_out.
    new Float32Array(data.buffer).fill(tensor.includes('gate_out') ? wOut : tensor.endsWith('bias') ? 1 : 0);
  }
  await writeExpert(at(name), config, 'catalan', tensors);
  return at(name);
}

/** Encoder rows and logits of the export, and what both decode, against ours in fp32. */
async function compared(t: ExecutionContext, folder: string, expert: string | null, suffix: string) {
  const model = await Whisper.load(stream, at('talker'));
  if (expert) await model.loadExpert(expert);
  const languages = features.map(() => (expert ? 'catalan' : null));
  const theirs = await OnnxWhisper.open(folder, suffix);
  const upload = () =>
    stream.tensor(Float32Array.from(features.flatMap((item) => [...item])), [
      features.length,
      config.num_mel_bins,
      2 * config.max_source_positions,
    ]);
  const heard = model.encode(upload(), { languages });
  const ids = features.map((_, i) => [...prompts[i]!, ...tokenizer.encode(['ab', 'ka', 'om'][i]!)]);
  const T = ids[0]!.length;
  const said = model.decode(stream.tensor(Int32Array.from(ids.flat()), [ids.length, T], 'i32'), heard.hidden, {
    languages,
  });
  const gates = await Promise.all([...heard.gates, ...said.gates].map((g) => g.floats()));
  const open =
    gates.length === 0
      ? 0
      : gates.flatMap((g) => [...g]).reduce((a, b) => a + b, 0) / gates.reduce((n, g) => n + g.length, 0);
  const rows = await heard.hidden.floats();
  const logits = await model.logits(said.hidden.reshape([ids.length * T, config.d_model])).floats();
  stream.endStep();
  const memory = await theirs.encode(features);
  const whole = await theirs.decode(memory, ids, null);
  // The same in two calls: the tokens behind the first two by the caches.
  const first = await theirs.decode(
    memory,
    ids.map((list) => list.slice(0, 2)),
    null,
  );
  const rest = await theirs.decode(
    memory,
    ids.map((list) => list.slice(2)),
    first,
  );
  const tail = Float32Array.from(
    ids.flatMap((_, b) => [...logits.subarray((b * T + 2) * config.vocab_size, (b + 1) * T * config.vocab_size)]),
  );
  const errors = {
    rows: rowErrors(memory.data as Float32Array, rows, config.d_model),
    logits: rowErrors(whole.logits!.data as Float32Array, logits, config.vocab_size),
    cached: rowErrors(rest.logits!.data as Float32Array, tail, config.vocab_size),
  };
  const ours = (await greedy(model, upload(), { ...search, languages })).map(({ tokens }) => tokens);
  const tokens = await theirs.greedy(features, search);
  await theirs.close();
  model.dispose();
  t.log(
    suffix || 'fp32',
    expert ? `gates open ${open.toFixed(2)}` : 'plain',
    JSON.stringify({ worst: worst(errors.logits), middle: middle(errors.logits) }),
  );
  return { open, errors, ours, tokens };
}

/** The largest of the rows in fp32; in int8, where a gate near 0 may choose the other FFN, the middle one. */
const worst = (errors: readonly number[]): number => Math.max(...errors);
const middle = (errors: readonly number[]): number => errors.toSorted((a, b) => a - b)[errors.length >> 1]!;
const LIMITS = { '': [worst, 1e-5], _quantized: [middle, 0.1] } as const;

test.serial(
  'a plain model, and one with an expert whose gates are now open, now closed, or all of one kind',
  async (t) => {
    const cases: [name: string, expert: string | null, least: number, most: number][] = [
      ['plain', null, 0, 0],
      ['mixed', await expertFile('mixed.safetensors', null), 0.1, 0.9],
      ['open', await expertFile('open.safetensors', 0.1), 1, 1],
      // Σ of zeros: G = 0 opens the gate, as it does here.
      ['zero', await expertFile('zero.safetensors', 0), 1, 1],
      ['closed', await expertFile('closed.safetensors', -0.1), 0, 0],
    ];
    for (const [name, expert, least, most] of cases) {
      const { files, expert: language } = await exportOnnx({
        model: at('talker'),
        output: at(`${name}-onnx`),
        expert: expert ?? undefined,
        dtypes: ['fp32', 'int8'],
      });
      t.is(language, expert && 'catalan');
      t.deepEqual(files, [
        'onnx/encoder_model.onnx',
        'onnx/decoder_model_merged.onnx',
        'onnx/encoder_model_quantized.onnx',
        'onnx/decoder_model_merged_quantized.onnx',
      ]);
      for (const suffix of ['', '_quantized'] as const) {
        const { open, errors, ours, tokens } = await compared(t, at(`${name}-onnx`), expert, suffix);
        t.true(open >= least && open <= most, `${name}: ${open}`);
        const [of, limit] = LIMITS[suffix];
        for (const [what, all] of Object.entries(errors))
          t.true(of(all) <= limit, `${name}${suffix} ${what}: ${of(all)}`);
        if (suffix === '') t.deepEqual(tokens, ours, name);
      }
    }
  },
);

test.serial('tensors in a file beside the graph are found there', async (t) => {
  const { files } = await exportOnnx({ model: at('talker'), output: at('beside-onnx'), maxFileBytes: 10_000 });
  t.deepEqual(files, [
    'onnx/encoder_model.onnx',
    'onnx/encoder_model.onnx_data',
    'onnx/decoder_model_merged.onnx',
    'onnx/decoder_model_merged.onnx_data',
  ]);
  const settings = JSON.parse(readFileSync(join(at('beside-onnx'), 'config.json'), 'utf8'));
  t.deepEqual(settings['transformers.js_config'], {
    use_external_data_format: { 'encoder_model.onnx': true, 'decoder_model_merged.onnx': true },
  });
  const { errors, ours, tokens } = await compared(t, at('beside-onnx'), null, '');
  t.true(worst(errors.logits) <= 1e-5);
  t.deepEqual(tokens, ours);
});

test.serial(
  'the pocket model on speech: the tokens of transcribe in fp32, and nearly all of them in int8',
  async (t) => {
    const model = join(root, 'models', 'pocket-student');
    const folder = at('pocket-onnx');
    await exportOnnx({ model, output: folder, dtypes: ['fp32', 'int8'] });
    t.deepEqual(readdirSync(folder).toSorted(), [
      'config.json',
      'generation_config.json',
      'onnx',
      'preprocessor_config.json',
      'tokenizer.json',
      'tokenizer_config.json',
    ]);
    const student = await Whisper.load(stream, model);
    const frames = 2 * student.config.max_source_positions;
    const extractor = new FeatureExtractor({ mels: student.config.num_mel_bins, frames });
    const rows = ['ca', 'en', 'pl'].flatMap((language) => corpusRows(language, 'test', 'in', 3));
    const heard: Float32Array[] = [];
    for (const { audio } of rows)
      heard.push(await extractor.extract(await decodeAudio(audio, { sampleRate: SAMPLE_RATE })));
    extractor.close();
    const options = {
      prompts: rows.map(({ language }) => tokenizer.prompt({ language })),
      suppressAtBegin: [tokenizer.endOfText],
      endOfText: tokenizer.endOfText,
      maxTokens: student.config.max_target_positions,
    };
    const all = Float32Array.from(heard.flatMap((item) => [...item]));
    const input = stream.tensor(all, [rows.length, student.config.num_mel_bins, frames]);
    const ours = (await greedy(student, input, options)).map(({ tokens }) => tokens);
    const [fp32, int8] = [await OnnxWhisper.open(folder), await OnnxWhisper.open(folder, '_quantized')];
    t.deepEqual(await fp32.greedy(heard, options), ours);
    const quantised = await int8.greedy(heard, options);
    const same = quantised.filter((tokens, i) => tokens.join() === ours[i]!.join()).length;
    t.log(
      `int8: ${same} of ${ours.length} utterances with the same tokens; the first says ${tokenizer.decode(quantised[0]!)}`,
    );
    t.true(same >= ours.length - 1);
    await fp32.close();
    await int8.close();
    student.dispose();
  },
);
