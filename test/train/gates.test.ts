/** What a run tells of its gates, and the ways to train them that the paper does not have. */
import test from 'ava';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { type TrainBatch, TrainingEngine, type TrainingOptions, trainingOptions } from '../../lib/train/index.js';
import { normalItems, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';

const config = tinyConfig({ encoder_layers: 2 });
const LANGUAGE = 'catalan';
const stream = new Stream({ threads: 1 });

function batch(seed: number): TrainBatch {
  const next = random(seed);
  return {
    features: normalItems(3, config.num_mel_bins * 2 * config.max_source_positions, next),
    labels: [1, 2, 3].map((n) => Array.from({ length: n + 2 }, () => Math.floor(next() * config.vocab_size))),
    languages: [LANGUAGE, null, LANGUAGE],
  };
}

async function updates(count: number, options: Partial<TrainingOptions>, settings: object = {}) {
  const model = await Whisper.create(stream, config, { seed: 2 });
  await model.addExpert(LANGUAGE, { seed: 3, compat: 'reference' });
  const engine = new TrainingEngine(model, null, trainingOptions({ steps: 40, ...options }), settings);
  const reports = [];
  for (let k = 0; k < count; k++) reports.push(await engine.update(k, [batch(k)]));
  engine.dispose();
  model.dispose();
  return reports;
}

test.serial(
  'an update says what share inference would send to the expert, and a histogram says where its sums lie',
  async (t) => {
    for (const settings of [{}, { gradientCheckpointing: true }, { microBatch: { items: 1, parts: 3 } }]) {
      const reports = await updates(5, { gateNoise: 5 }, { gateHistograms: 2, ...settings });
      t.deepEqual(
        reports.map(({ gateHistogram }) => gateHistogram !== undefined),
        [true, true, false, true, false],
      );
      for (const { gateHistogram, gate, chosen, gateLoss } of reports) {
        t.true(Math.abs(gateLoss - Math.abs(gate - 0.5)) < 1e-6 || 'microBatch' in settings);
        t.true(chosen >= 0 && chosen <= 1);
        if (!gateHistogram) continue;
        const { layers, low, high } = gateHistogram;
        t.is(layers.length, 3);
        t.deepEqual([low, high], [-10, 10]);
        const sum = (all: number[]): number => all.reduce((a, b) => a + b, 0);
        // Two items of a language: encoder rows, and tokens padded to the longest of their micro-batch.
        t.deepEqual(layers.slice(0, 2).map(sum), [2 * config.max_source_positions, 2 * config.max_source_positions]);
        const above = sum(layers.map((counts) => sum(counts.slice(counts.length / 2))));
        if (!('microBatch' in settings)) t.true(Math.abs(above / sum(layers.map(sum)) - chosen) < 1e-6);
      }
    }
  },
);

test.serial('without a histogram the numbers are the same, and without experts there are none', async (t) => {
  const [with_, without] = [await updates(3, {}, { gateHistograms: 1 }), await updates(3, {})];
  t.deepEqual(
    with_.map(({ gateHistogram: _, ...rest }) => rest),
    without,
  );
});

test.serial('the budget can be held by the hard share: it pulls that to half', async (t) => {
  // Nothing else moves the gates: the experts are left out.
  const options = { learningRate: 0.02, warmup: 0, skipGate: 1, gateNoise: 0, schedule: 'constant' } as const;
  const [soft, hard] = [await updates(40, options), await updates(40, { ...options, gateBudgetOf: 'hard' })];
  for (const { gateLoss, chosen } of hard) t.true(Math.abs(gateLoss - Math.abs(chosen - 0.5)) < 1e-6);
  const off = (reports: typeof hard): number =>
    reports.slice(-10).reduce((sum, { chosen }) => sum + Math.abs(chosen - 0.5), 0) / 10;
  t.log(`hard share off by ${off(hard).toFixed(3)} with the hard budget, ${off(soft).toFixed(3)} with the soft one`);
  t.true(off(hard) < off(soft) / 2);
});

test.serial('hard gates on the way forward learn too, by the soft gates\u2019 gradient', async (t) => {
  const model = await Whisper.create(stream, config, { seed: 2 });
  const expert = await model.addExpert(LANGUAGE, { seed: 3, compat: 'reference' });
  const before = new Map<string, Float32Array>();
  for (const [name, { value }] of expert.parameters) before.set(name, (await value.floats()).slice());
  const options = trainingOptions({ steps: 40, learningRate: 1e-2, warmup: 0, gateForward: 'hard', skipGate: 0 });
  const engine = new TrainingEngine(model, null, options);
  const losses: number[] = [];
  for (let k = 0; k < 40; k++) losses.push((await engine.update(k, [batch(7)])).crossEntropy);
  t.true(losses.at(-1)! < losses[0]! - 0.05, `${losses[0]} to ${losses.at(-1)}`);
  for (const [name, { value }] of expert.parameters) t.notDeepEqual(await value.floats(), before.get(name), name);
  engine.dispose();
  model.dispose();
});

test.after.always(() => stream.close());
