import test from 'ava';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { type TrainBatch, TrainingEngine, trainingOptions, type UpdateReport } from '../../lib/train/index.js';
import { normalItems, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';

const config = tinyConfig();
const next = random(5);
const ITEMS = 7;
const batch: TrainBatch = {
  features: normalItems(ITEMS, config.num_mel_bins * 2 * config.max_source_positions, next),
  labels: Array.from({ length: ITEMS }, (_, i) =>
    Array.from({ length: 2 + 3 * (i % 3) }, () => Math.floor(next() * 48)),
  ),
  languages: Array.from({ length: ITEMS }, () => 'catalan'),
};

/** Updates of a model whose steps draw nothing at random, with batches run in parts of so many items. */
async function updates(items: number, accumulation = 1): Promise<{ reports: UpdateReport[]; values: Float32Array }> {
  const stream = new Stream({ threads: 2 });
  const teacher = await Whisper.create(stream, config, { seed: 1 });
  const model = await Whisper.create(stream, config, { seed: 2, trainable: () => true });
  const options = trainingOptions({ steps: 4, learningRate: 1e-2, warmup: 0, accumulation });
  const parts = Math.ceil(ITEMS / items);
  const engine = new TrainingEngine(model, teacher, options, { ...(parts > 1 && { microBatch: { items, parts } }) });
  const reports: UpdateReport[] = [];
  for (let k = 0; k < 4; k++)
    reports.push(
      await engine.update(
        k,
        Array.from({ length: accumulation }, () => batch),
      ),
    );
  const values = await model.parameters.get('model.decoder.layers.0.fc1.weight')!.value.floats();
  stream.close();
  return { reports, values };
}

test('a batch in parts has the loss and the gradients of the whole: of all of its tokens', async (t) => {
  for (const accumulation of [1, 2]) {
    const whole = await updates(ITEMS, accumulation);
    for (const items of [1, 3, 4]) {
      const { reports, values } = await updates(items, accumulation);
      for (const [k, report] of reports.entries()) {
        for (const name of ['loss', 'crossEntropy', 'distillation', 'gradientNorm'] as const) {
          const expected = whole.reports[k]![name];
          t.true(
            Math.abs(report[name] / expected - 1) < 1e-4,
            `${items} of ${ITEMS}, ${name}: ${report[name]} and ${expected}`,
          );
        }
      }
      const norm = Math.hypot(...whole.values);
      t.true(Math.hypot(...values.map((v, i) => v - whole.values[i]!)) / norm < 1e-3);
    }
  }
});

test('a rehearsal leaves nothing behind', async (t) => {
  const run = async (rehearses: boolean) => {
    const stream = new Stream({ threads: 2 });
    const model = await Whisper.create(stream, config, { seed: 2 });
    await model.addExpert('catalan');
    const engine = new TrainingEngine(model, null, trainingOptions({ steps: 3, learningRate: 1e-2 }));
    if (rehearses) await engine.rehearse(0, [batch]);
    const reports = [await engine.update(0, [batch]), await engine.update(1, [batch])];
    stream.close();
    return reports;
  };
  t.deepEqual(await run(true), await run(false));
});
