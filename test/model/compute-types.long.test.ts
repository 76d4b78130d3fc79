/** Types of computation: what bf16 and int8 cost in accuracy on the embedded models and speech, and where int8 is refused. */
import { join } from 'node:path';
import test from 'ava';
import { decodeAudio, FeatureExtractor } from '../../lib/audio/index.js';
import { readManifest } from '../../lib/data/index.js';
import { type CacheType, type ComputeType, LanguageExpert, Whisper } from '../../lib/model/index.js';
import { elementType, type Stream } from '../../lib/tensor/index.js';
import { WhisperTokenizer } from '../../lib/text/index.js';
import { TrainingEngine, trainingOptions } from '../../lib/train/index.js';
import { Transcriber } from '../../lib/transcribe/index.js';
import type { WhisperConfig } from '../../lib/weights/index.js';
import { root } from '../support/cli.js';
import { randomExpertTensors } from '../support/experts.js';
import { cpus, devices, relativeL2 } from '../support/kernels.js';
import { tinyConfig } from '../support/tiny.js';

const models = ['pocket-student', 'pocket-teacher'].map((name) => join(root, 'models', name));
const heard = readManifest(join(root, 'corpus', 'manifest.jsonl'), { split: 'test', domain: 'in' });
const { stream } = cpus().at(-1)!;

interface Utterance {
  /** [1, mels, frames] */
  features: Float32Array;
  ids: number[];
}

/** Every twentieth utterance, as a model hears and says it: made once. */
const spoken = new Map<string, Promise<Utterance[]>>();
async function utterances(model: string, { num_mel_bins: mels, max_source_positions }: WhisperConfig) {
  const tokenizer = await WhisperTokenizer.fromFolder(model);
  const extractor = new FeatureExtractor({ mels, frames: 2 * max_source_positions });
  const all: Utterance[] = [];
  for (const { audio, text, language } of heard.filter((_, i) => i % 20 === 0))
    all.push({
      features: await extractor.extract(await decodeAudio(audio)),
      ids: [...tokenizer.prompt({ language }), ...tokenizer.encode(text)],
    });
  extractor.close();
  return all;
}

/** Logits of what 18 utterances say, by a model in a type; with a `cache` they are decoded token by token. */
async function logits(model: string, compute: ComputeType, on: Stream, cache?: CacheType): Promise<Float32Array> {
  const whisper = await Whisper.load(on, model, { compute });
  const { num_mel_bins: mels, max_source_positions } = whisper.config;
  if (!spoken.has(model)) spoken.set(model, utterances(model, whisper.config));
  const all: Float32Array[] = [];
  for (const { features, ids } of await spoken.get(model)!) {
    const { hidden: memory } = whisper.encode(on.tensor(features, [1, mels, 2 * max_source_positions]));
    const state = cache ? whisper.startDecoding(memory, { cache }) : null;
    for (const part of state ? ids.map((id) => [id]) : [ids]) {
      const tokens = on.tensor(Int32Array.from(part), [1, part.length], 'i32');
      const { hidden } = whisper.decode(tokens, state ? null : memory, state ? { state } : {});
      all.push(await whisper.logits(hidden).floats());
    }
    state?.dispose();
    on.endStep();
  }
  whisper.dispose();
  return Float32Array.from(all.flatMap((values) => [...values]));
}

/** Every instruction set for the small model; for the other that of this machine. */
const pathsOf = (model: string) => (model === models[0] ? cpus() : cpus().slice(-1));

test.serial('logits: bf16 within 1% of fp32, int8 within 2%', async (t) => {
  for (const model of models) {
    const exact = await logits(model, 'fp32', stream);
    for (const { isa, stream } of pathsOf(model)) {
      const errors: string[] = [];
      for (const [compute, bound] of [
        ['bf16', 0.01],
        ['int8', 0.02],
      ] as const) {
        const error = relativeL2(await logits(model, compute, stream), exact);
        errors.push(`${compute} ${error.toExponential(2)}`);
        t.true(error > 0 && error <= bound, `${isa} ${compute}: ${error}`);
      }
      t.log(`${model.split('/').at(-1)}, ${isa}: ${errors.join(', ')}`);
    }
  }
});

test.serial("logits of tokens that hear the encoder through a cache in int8 are within 1% of fp32's", async (t) => {
  for (const model of models) {
    const exact = await logits(model, 'fp32', stream, 'compute');
    for (const { isa, stream } of pathsOf(model)) {
      const errors: string[] = [];
      for (const compute of ['fp32', 'bf16'] as const) {
        const error = relativeL2(await logits(model, compute, stream, 'int8'), exact);
        errors.push(`${compute} ${error.toExponential(2)}`);
        t.true(error > 0 && error <= 0.01, `${isa} ${compute}: ${error}`);
      }
      t.log(`${model.split('/').at(-1)}, ${isa}: ${errors.join(', ')}`);
    }
  }
});

test.serial(
  "'auto' keeps a cache in int8 where products run in bf16 on the processor, and as computed in fp32",
  async (t) => {
    const [model] = models;
    for (const [compute, as, other] of [
      ['fp32', 'compute', 'int8'],
      ['bf16', 'int8', 'compute'],
      ['int8', 'int8', 'compute'],
    ] as const) {
      const auto = await logits(model!, compute, stream, 'auto');
      t.deepEqual(auto, await logits(model!, compute, stream, as), compute);
      t.notDeepEqual(auto, await logits(model!, compute, stream, other), compute);
    }
  },
);

test("'auto' is bf16 where the processor has instructions for it; int8 computes the rest like it", async (t) => {
  for (const { isa, stream } of cpus()) {
    const expected = isa === 'amx' || isa === 'avx512bf16' ? 'bf16' : 'fp32';
    for (const compute of ['auto', 'int8'] as const) {
      const model = await Whisper.create(stream, tinyConfig(), { compute });
      t.is(model.compute, expected, `${isa} ${compute}`);
      const types = new Map([...model.parameters].map(([name, p]) => [name, p.value.dtype]));
      const matrix = elementType(expected);
      const decoder = compute === 'int8' ? 'q8' : matrix;
      t.is(types.get('model.decoder.layers.0.fc1.weight'), decoder);
      t.is(types.get('model.decoder.layers.0.self_attn.k_proj.weight'), decoder);
      t.is(types.get('model.decoder.layers.0.encoder_attn.k_proj.weight'), matrix);
      t.is(types.get('model.encoder.layers.0.fc1.weight'), matrix);
      t.is(types.get('model.decoder.layers.0.fc1.bias'), 'f32');
      model.dispose();
    }
  }
});

test("'f32', as fp32 was called, is taken for it by whoever takes a type", async (t) => {
  const before = 'f32' as unknown as 'fp32';
  const model = await Whisper.create(stream, tinyConfig(), { compute: before });
  t.is(model.compute, 'fp32');
  const tensors = randomExpertTensors(model.config, 'catalan', 3);
  const expert = LanguageExpert.load(stream, model.config, 'catalan', tensors, { compute: before });
  t.is(expert.decoder[0]!.fc1.value.dtype, 'f32');
  for (const of of [expert, model]) of.dispose();
  const transcriber = await Transcriber.load(models[0]!, { stream, compute: before });
  t.is(transcriber.model.compute, 'fp32');
  await transcriber.close();
  await t.throwsAsync(Whisper.create(stream, tinyConfig(), { compute: 'fp8' as 'fp32' }), {
    code: 'ERR_ARGUMENT',
    message: /^compute: expected 'auto', 'fp32', 'bf16' or 'int8', got 'fp8'$/,
  });
});

test('experts are held in int8 in the decoder, and their gates are not', async (t) => {
  const model = await Whisper.create(stream, tinyConfig(), { compute: 'int8' });
  const tensors = randomExpertTensors(model.config, 'catalan', 3);
  model.attach(
    LanguageExpert.load(stream, model.config, 'catalan', tensors, { compute: model.compute, quantizes: true }),
  );
  const { encoder, decoder } = model.experts.get('catalan')!;
  t.is(decoder[0]!.fc1.value.dtype, 'q8');
  t.is(decoder[0]!.gateIn.value.dtype, 'f32');
  t.is(encoder[0]!.fc1.value.dtype, elementType(model.compute));
  const ids = stream.tensor(Int32Array.of(1, 2, 3), [1, 3], 'i32');
  const size = model.config.num_mel_bins * 2 * model.config.max_source_positions;
  const features = stream.tensor(new Float32Array(size), [
    1,
    model.config.num_mel_bins,
    2 * model.config.max_source_positions,
  ]);
  const pass = { languages: ['catalan'] };
  const { hidden } = model.decode(ids, model.encode(features, pass).hidden, pass);
  const values = await model.logits(hidden).floats();
  t.true(values.every(Number.isFinite));
  model.dispose();
});

test('a model in int8 does not train; it and a cache in int8 do not go to a GPU', async (t) => {
  const refusal = { code: 'ERR_ARGUMENT' };
  await t.throwsAsync(Whisper.create(stream, tinyConfig(), { compute: 'int8', trainable: () => true }), {
    ...refusal,
    message: /^compute: expected fp32 or bf16 for a model that trains, got int8$/,
  });
  const model = await Whisper.create(stream, tinyConfig(), { compute: 'int8' });
  await t.throwsAsync(model.addExpert('catalan'), { ...refusal, message: /^model: .*got one in int8$/ });
  t.throws(() => new TrainingEngine(model, null, trainingOptions({ steps: 1 })), refusal);
  for (const { stream } of devices())
    await t.throwsAsync(Whisper.create(stream, tinyConfig(), { compute: 'int8' }), {
      ...refusal,
      message: /^compute: int8 runs on the processor, got a model on cuda:0$/,
    });
  for (const { stream } of devices())
    await t.throwsAsync(Whisper.create(stream, tinyConfig(), { cache: 'int8' }), {
      ...refusal,
      message: /^cache: int8 runs on the processor, got a model on cuda:0$/,
    });
  await t.throwsAsync(Transcriber.load(models[0]!, { stream, cache: 'fp4' as CacheType }), {
    ...refusal,
    message: /^cache: expected 'auto', 'compute' or 'int8', got 'fp4'$/,
  });
  model.dispose();
});
