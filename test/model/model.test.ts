/** The model against the recorded reference: hidden states, logits, losses and gradients (golden cases 1 and 2). */
import test from 'ava';
import { LanguageExpert, type SoftGates, Whisper } from '../../lib/model/index.js';
import { kernels, Stream, Tape } from '../../lib/tensor/index.js';
import { splitClsrCheckpoint } from '../../lib/weights/index.js';
import { configOf, floats, golden, goldenJson, goldenPath, ints, type Tensors } from '../support/golden.js';
import { isaEnds, relativeL2 } from '../support/kernels.js';
import { step } from '../support/step.js';

const FORWARD = 1e-5;
const GRADIENT = 1e-4;
const GATE = 1e-5;

const when = (name: string) => (goldenPath(name) ? test.serial : test.serial.skip);
const streams = isaEnds.map((isa) => new Stream({ isa, threads: 2 }));

when('case1_d64/grads_f64.safetensors')(
  'a plain Whisper gives the recorded hidden states, logits, loss and gradients of every parameter',
  async (t) => {
    const config = configOf(goldenJson('case1_d64/report').config);
    const outputs = golden('case1_d64/outputs_f64');
    const gradients = golden('case1_d64/grads_f64');
    for (const stream of streams) {
      const model = Whisper.fromTensors(stream, config, golden('case1_d64/weights'), { trainable: () => true });
      const read = step(model, golden('case1_d64/inputs'), { tape: new Tape(stream) }, { smoothing: 0 });
      for (const [name, values] of [
        ['encoder_last_hidden_state', await read.memory],
        ['decoder_last_hidden_state', await read.hidden],
        ['logits', await read.logits],
      ] as const) {
        const error = relativeL2(values, floats(outputs, name));
        t.true(error <= FORWARD, `${stream.isa} ${name}: ${error}`);
      }
      t.true(Math.abs((await read.stats)[0]! / floats(outputs, 'loss')[0]! - 1) <= FORWARD);
      for (const [name, parameter] of model.parameters) {
        const error = relativeL2(await parameter.gradient!.floats(), floats(gradients, name));
        t.true(error <= GRADIENT, `${stream.isa} gradient of ${name}: ${error}`);
      }
      stream.endStep();
      model.dispose();
    }
  },
);

when('case1_d64/ce_variants.safetensors')(
  'label smoothing gives the recorded loss and gradient of the logits',
  async (t) => {
    const config = configOf(goldenJson('case1_d64/report').config);
    const V = config.vocab_size;
    const inputs = golden('case1_d64/inputs');
    const variants = golden('case1_d64/ce_variants');
    const logits = floats(golden('case1_d64/outputs_f64'), 'logits');
    // With the identity as output projection, hidden rows are logits.
    const identity = Float32Array.from({ length: V * V }, (_, i) => (i % (V + 1) === 0 ? 1 : 0));
    for (const stream of streams) {
      const model = Whisper.fromTensors(stream, config, golden('case1_d64/weights'));
      for (const smoothing of [0, 0.1]) {
        const key = `ls${smoothing.toFixed(1)}`;
        const read = step(model, inputs, {}, { smoothing });
        const expected = floats(variants, `loss_${key}`)[0]!;
        t.true(Math.abs((await read.stats)[0]! / expected - 1) <= FORWARD);
        const { dhidden } = kernels.distillLoss(stream, {
          hidden: stream.tensor(logits, [24, V]),
          weight: stream.tensor(identity, [V, V]),
          labels: stream.tensor(ints(inputs, 'labels'), [24], 'i32'),
          smoothing,
          temperature: 1,
          kind: 'none',
          crossEntropyWeight: 1,
          divergenceWeight: 0,
          allPositions: true,
          grad: true,
          compute: 'f32',
          workspace: 64 << 20,
        });
        const error = relativeL2(await dhidden.floats(), floats(variants, `dlogits_${key}`));
        t.true(error <= GRADIENT, `${stream.isa} ${key}: ${error}`);
        stream.endStep();
      }
      model.dispose();
    }
  },
);

test.serial(
  'the first recorded utterance alone gives the recorded hidden rows and logits (kept in this repository)',
  async (t) => {
    const inputs = golden('case1_d64/first_inputs');
    const outputs = golden('case1_d64/first_outputs');
    for (const stream of streams) {
      const model = Whisper.fromTensors(
        stream,
        configOf(goldenJson('case1_d64/report').config),
        golden('case1_d64/weights'),
      );
      const { hidden: memory } = model.encode(stream.tensor(floats(inputs, 'input_features'), [1, 80, 3000]));
      const { hidden } = model.decode(stream.tensor(ints(inputs, 'decoder_input_ids'), [1, 12], 'i32'), memory);
      for (const [name, tensor] of [
        ['encoder_last_hidden_state', memory],
        ['decoder_last_hidden_state', hidden],
        ['logits', model.logits(hidden)],
      ] as const) {
        const error = relativeL2(
          (await tensor.floats()).subarray(0, floats(outputs, name).length),
          floats(outputs, name),
        );
        t.true(error <= FORWARD, `${stream.isa} ${name}: ${error}`);
      }
      stream.endStep();
      model.dispose();
    }
  },
);

function clsrModel(stream: Stream, language: string | null): Whisper {
  const tensors = golden('case2_clsr/weights');
  const { backbone, experts } = splitClsrCheckpoint(tensors.keys());
  const pick = (names: Map<string, string>): Tensors =>
    new Map([...names].map(([to, from]) => [to, tensors.get(from)!]));
  const model = Whisper.fromTensors(stream, configOf(goldenJson('case1_d64/report').config), pick(backbone));
  for (const [name, names] of experts) {
    model.attach(
      LanguageExpert.load(stream, model.config, name, pick(names), {
        compute: 'fp32',
        trainable: () => name === language,
      }),
    );
  }
  return model;
}

const LAYERS = ['encoder.0', 'encoder.1', 'decoder.0', 'decoder.1'];

function recordedGates(
  stream: Stream,
  random: Tensors,
  alpha: number,
  dropout: boolean,
  skips: readonly string[],
): SoftGates {
  const rows = (layer: number): number => (layer < 2 ? 3000 : 24);
  const mask = (kind: string) => (layer: number) =>
    dropout ? stream.tensor(floats(random, `keep.${LAYERS[layer]}.${kind}`), [rows(layer), 64]) : null;
  return {
    alpha,
    gateDropout: dropout ? 0.1 : 0,
    expertDropout: dropout ? 0.3 : 0,
    seed: 0,
    step: 0,
    skip: (layer) => skips.includes(LAYERS[layer]!),
    noise: (layer) => {
      const name = `noise.${LAYERS[layer]}`;
      return random.has(name) ? stream.tensor(floats(random, name), [rows(layer)]) : null;
    },
    gateMask: mask('gate_input_p0.1'),
    expertMask: mask('expert_output_p0.3'),
  };
}

const VARIANTS = [
  { name: 'train_noise0_catalan', alpha: 0 },
  { name: 'train_noise_p0.3_catalan', alpha: 1.5 },
  { name: 'train_noise_dropout_p0.7_catalan', alpha: 3.5, dropout: true },
];

for (const { name, alpha, dropout = false } of VARIANTS) {
  when(`case2_clsr/${name}/outputs.safetensors`)(
    `soft gates (${name}) give the recorded gates, logits, losses and gradients`,
    async (t) => {
      const outputs = golden(`case2_clsr/${name}/outputs`);
      const random = golden(`case2_clsr/${name}/random`);
      const gradients = golden(`case2_clsr/${name}/grads_trainable_f64`);
      for (const stream of streams) {
        const model = clsrModel(stream, 'catalan');
        const read = step(
          model,
          golden('case2_clsr/inputs'),
          {
            tape: new Tape(stream),
            languages: ['catalan', 'catalan'],
            gates: recordedGates(stream, random, alpha, dropout, []),
          },
          { smoothing: 0.1 },
        );
        const error = relativeL2(await read.logits, floats(outputs, 'logits'));
        t.true(error <= FORWARD, `${stream.isa} logits: ${error}`);
        for (const [i, gate] of (await Promise.all(read.gates)).entries()) {
          const expected = floats(outputs, `gate.${LAYERS[i]}`);
          t.true(
            gate.every((g, j) => Math.abs(g - expected[j]!) <= GATE),
            `${stream.isa} gate ${LAYERS[i]}`,
          );
        }
        const [mean, distance] = await Promise.all(read.budget);
        t.true(Math.abs(mean![0]! - floats(outputs, 'gate_mean')[0]!) <= GATE);
        t.true(Math.abs(distance![0]! - floats(outputs, 'gate_loss')[0]!) <= GATE);
        const ce = (await read.stats)[0]!;
        t.true(Math.abs(ce / floats(outputs, 'ce_loss_ls0.1')[0]! - 1) <= FORWARD);
        t.true(Math.abs((ce + distance![0]!) / floats(outputs, 'total_loss')[0]! - 1) <= FORWARD);
        t.is(model.trainable().length, gradients.size);
        for (const p of model.trainable()) {
          const e = relativeL2(await p.gradient!.floats(), floats(gradients, p.name));
          t.true(e <= GRADIENT, `${stream.isa} gradient of ${p.name}: ${e}`);
        }
        stream.endStep();
        model.dispose();
      }
    },
  );
}

when('case2_clsr/eval_catalan/outputs.safetensors')('hard gates route every row as recorded', async (t) => {
  const outputs = golden('case2_clsr/eval_catalan/outputs');
  for (const stream of streams) {
    const model = clsrModel(stream, null);
    const read = step(model, golden('case2_clsr/inputs'), { languages: ['catalan', 'catalan'] }, { smoothing: 0.1 });
    const gates = await Promise.all(read.gates);
    for (const [i, gate] of gates.entries()) {
      t.deepEqual(gate, floats(outputs, `gate.${LAYERS[i]}`), `${stream.isa} gate ${LAYERS[i]}`);
    }
    const all = gates.flatMap((gate) => [...gate]);
    const mean = all.reduce((a, b) => a + b, 0) / all.length;
    t.true(Math.abs(mean - floats(outputs, 'gate_mean')[0]!) <= 1e-7);
    t.true(Math.abs((await read.stats)[0]! / floats(outputs, 'ce_loss_ls0.1')[0]! - 1) <= FORWARD);
    t.true(relativeL2(await read.memory, floats(outputs, 'encoder_last_hidden_state')) <= FORWARD);
    t.true(relativeL2(await read.logits, floats(outputs, 'logits')) <= FORWARD);
    stream.endStep();
    model.dispose();
  }
});

for (const [kind, name] of [
  ['js', 'distill_js_T1_catalan'],
  ['kl', 'distill_kl_T1_catalan'],
] as const) {
  when(`case2_clsr/${name}/outputs.safetensors`)(
    `the whole objective with a teacher (${name}) gives the recorded losses and gradients`,
    async (t) => {
      const outputs = golden(`case2_clsr/${name}/outputs`);
      const gradients = golden(`case2_clsr/${name}/grads_trainable_f64`);
      const teacherTensors = golden('case2_clsr/teacher_weights');
      const base = goldenJson('case1_d64/report').config;
      const teacherConfig = configOf({
        ...base,
        d_model: 96,
        encoder_attention_heads: 6,
        decoder_attention_heads: 6,
        encoder_ffn_dim: 384,
        decoder_ffn_dim: 384,
      });
      for (const stream of streams) {
        const model = clsrModel(stream, 'catalan');
        const teacher = Whisper.fromTensors(stream, teacherConfig, teacherTensors);
        const inputs = golden('case2_clsr/inputs');
        const features = stream.tensor(floats(inputs, 'input_features'), [2, 80, 3000]);
        const ids = stream.tensor(ints(inputs, 'decoder_input_ids'), [2, 12], 'i32');
        const { hidden: rows } = teacher.decode(ids, teacher.encode(features).hidden);
        const teacherLogits = teacher.logits(rows).floats();
        const random = golden(`case2_clsr/${name}/random`);
        const [s0, s1] = [1.41, 1];
        const read = step(
          model,
          inputs,
          {
            tape: new Tape(stream),
            languages: ['catalan', 'catalan'],
            gates: recordedGates(stream, random, 1.5, false, []),
          },
          {
            smoothing: 0.1,
            kind,
            teacher: { rows: rows.reshape([24, 96]), table: teacher.embeddingTable.value },
            weights: [0.5 / s0 ** 2, 0.5 / s1 ** 2],
            gateWeight: 0.5 / s0 ** 2,
          },
        );
        t.true(relativeL2(await teacherLogits, floats(outputs, 'teacher_logits')) <= FORWARD);
        t.true(relativeL2(await read.logits, floats(outputs, 'student_logits')) <= FORWARD);
        const stats = await read.stats;
        const budget = (await read.budget[1]!)[0]!;
        for (const [value, key] of [
          [stats[0]!, 'loss.ce_loss'],
          [stats[1]!, 'loss.kd_loss'],
          [stats[2]! + (0.5 / s0 ** 2) * budget, 'loss.loss'],
        ] as const) {
          t.true(Math.abs(value / floats(outputs, key)[0]! - 1) <= FORWARD, `${stream.isa} ${key}: ${value}`);
        }
        for (const p of model.trainable()) {
          const e = relativeL2(await p.gradient!.floats(), floats(gradients, p.name));
          t.true(e <= GRADIENT, `${stream.isa} gradient of ${p.name}: ${e}`);
        }
        stream.endStep();
        model.dispose();
        teacher.dispose();
      }
    },
  );
}
