/**
 * The public Trainer on a CUDA device (the emulated one, and a GPU where there is one) against the same run on the
 * processor: noise, masks and skips are drawn, and must be the same on both.
 */
import test from 'ava';
import { drawTwin, placeTwin } from '../../bench/gpu/twins.js';
import { type FloatName, Stream } from '../../lib/tensor/index.js';
import { type TrainBatch, Trainer, type UpdateReport } from '../../lib/train/index.js';
import { devices, relativeL2 } from '../support/kernels.js';
import { normalItems, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';

const config = tinyConfig();

function batch(micro: number): TrainBatch {
  const next = random(micro);
  const frames = 2 * config.max_source_positions;
  const labels = Array.from({ length: 3 }, () =>
    Array.from({ length: 4 + Math.floor(8 * next()) }, () => Math.floor(next() * config.vocab_size)),
  );
  return {
    features: normalItems(3, config.num_mel_bins * frames, next),
    labels,
    languages: ['catalan', null, 'catalan'],
  };
}

const sizes = { d_model: 32, encoder_attention_heads: 2, decoder_attention_heads: 2 };
const twins = Promise.all([
  drawTwin({ ...config, ...sizes }, 1),
  drawTwin(config, 2, { language: 'catalan', seed: 3 }),
  drawTwin(config, 2),
]);

/** Three updates of two micro-batches each: what was reported, and what the trained parameters became. */
async function train(stream: Stream, what: 'experts' | 'everything', compute: FloatName) {
  const experts = what === 'experts';
  const [large, withExpert, plain] = await twins;
  const teacher = experts ? placeTwin(stream, large, { compute }) : undefined;
  const model = placeTwin(stream, experts ? withExpert : plain, { compute, trainable: () => !experts });
  const values = async () =>
    new Map(await Promise.all(model.trainable().map(async (p) => [p.name, await p.value.floats()] as const)));
  const start = await values();
  const reports: UpdateReport[] = [];
  await new Trainer({
    model,
    ...(teacher && { teacher }),
    batches: {
      async *stream(from) {
        for (let micro = from; ; micro++)
          yield experts ? batch(micro) : { ...batch(micro), languages: [null, null, null] };
      },
    },
    options: { steps: 3, accumulation: 2, learningRate: 1e-3, warmup: 0 },
    onUpdate: (report) => {
      reports.push(report);
    },
  }).run();
  const end = await values();
  const change = new Map([...end].map(([name, v]) => [name, v.map((x, i) => x - start.get(name)![i]!)]));
  return { reports, change };
}

/** All changes of a run in one line of numbers. */
const together = (change: Map<string, Float32Array>): number[] => [...change.values()].flatMap((v) => [...v]);

for (const what of ['experts', 'everything'] as const)
  for (const compute of ['fp32', 'bf16'] as const)
    test.serial(`${what}, ${compute}: losses, gradient norms and parameters are those of the processor`, async (t) => {
      if (devices().length === 0) {
        t.log('skipped: no GPU here, and no emulated device');
        return t.pass();
      }
      const cpu = new Stream({ threads: 1 });
      const expected = await train(cpu, what, compute);
      t.true(expected.change.size > 0);
      // In bf16 two devices may be as far from each other as one is from fp32, and a half more.
      const exact = compute === 'fp32' ? expected : await train(cpu, what, 'fp32');
      const spread = 1.5 * relativeL2(together(expected.change), together(exact.change));
      for (const { isa, stream } of devices()) {
        const got = await train(stream, what, compute);
        t.is(got.reports.length, 3);
        for (const [i, report] of got.reports.entries())
          for (const key of ['loss', 'crossEntropy', 'distillation', 'gradientNorm', 'gate'] as const) {
            const [a, b] = [report[key], expected.reports[i]![key]];
            const bound = compute === 'fp32' ? 1e-4 : 5e-3;
            t.true(Math.abs(a - b) <= bound * Math.abs(b), `${isa} update ${i}: ${key} ${a}, on the processor ${b}`);
          }
        const error = relativeL2(together(got.change), together(expected.change));
        t.log(
          `${isa}: ${error.toExponential(1)} of what three updates change${spread ? `, bf16 changes ${spread}` : ''}`,
        );
        t.true(error <= (compute === 'fp32' ? 1e-4 : spread));
      }
      cpu.close();
    });
