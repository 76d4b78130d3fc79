/** Training loops of one's own: the example as it is run, and the parts that they are made of. */
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';
import {
  AdamW,
  AudioBatches,
  BatchUploader,
  distillationLoss,
  embedded,
  gateNoise,
  learningRate,
  lossWeights,
  readManifest,
  Stream,
  skipDraws,
  softGates,
  Tape,
  type Tensor,
  type TrainBatch,
  Trainer,
  TrainingEngine,
  trainingOptions,
  type UpdateReport,
  Whisper,
  WhisperTokenizer,
} from '../../lib/index.js';
import { root } from '../support/cli.js';
import { relativeL2 } from '../support/kernels.js';
import { normalItems, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';

const program = join(root, 'examples', 'own-training-loop.js');

async function example(...args: string[]): Promise<UpdateReport[]> {
  const { stdout } = await promisify(execFile)(process.execPath, [program, ...args], { cwd: root });
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

test('the example with the paper’s losses has the numbers of a Trainer, update for update', async (t) => {
  const stream = new Stream({ threads: 2 });
  const paths = embedded();
  const [model, teacher] = [await Whisper.load(stream, paths.student), await Whisper.load(stream, paths.teacher)];
  await model.addExpert('catalan', { seed: 7 });
  const rows = readManifest(paths.manifest, { language: 'ca', split: 'train' }).slice(0, 16);
  const tokenizer = await WhisperTokenizer.fromFolder(paths.student);
  const reports: UpdateReport[] = [];
  await new Trainer({
    model,
    teacher,
    batches: new AudioBatches(rows, model.config, tokenizer, { batchSize: 8, seed: 7 }),
    options: { steps: 12, learningRate: 2e-3, seed: 7 },
    onUpdate: (report) => {
      reports.push(report);
    },
  }).run();
  stream.close();
  const own = await example('paper', '12');
  t.deepEqual(
    own,
    reports.map(({ learningRate: _, ...report }) => report),
  );
  falls(own.map(({ loss }) => loss));

  /** By epochs of two batches: the last is below the first. */
  function falls(losses: readonly number[]): void {
    const [first, last] = [losses[0]! + losses[1]!, losses.at(-2)! + losses.at(-1)!];
    t.true(last < 0.9 * first, losses.join(' '));
  }
});

test('the example with a loss of its own: it goes down; with γ = 0 it is the cross-entropy', async (t) => {
  const focal = (await example('focal', '12')).map(({ loss }) => loss);
  t.is(focal.length, 12);
  t.true(focal[10]! + focal[11]! < 0.8 * (focal[0]! + focal[1]!), focal.join(' '));
  const [plain] = await example('focal', '1', '0');
  const stream = new Stream({ threads: 2 });
  const paths = embedded();
  const model = await Whisper.load(stream, paths.student);
  await model.addExpert('catalan', { seed: 7 });
  const rows = readManifest(paths.manifest, { language: 'ca', split: 'train' }).slice(0, 16);
  const tokenizer = await WhisperTokenizer.fromFolder(paths.student);
  const batches = new AudioBatches(rows, model.config, tokenizer, { batchSize: 8, seed: 7 });
  const engine = new TrainingEngine(model, null, trainingOptions({ steps: 1, seed: 7, labelSmoothing: 0 }));
  for await (const batch of batches.stream(0)) {
    const { loss, gradientNorm } = await engine.update(0, [batch]);
    t.true(Math.abs(plain!.loss / loss - 1) < 1e-5, `${plain!.loss} and ${loss}`);
    t.true(Math.abs(plain!.gradientNorm / gradientNorm - 1) < 1e-4);
    break;
  }
  stream.close();
});

test('logits on a tape: the gradients of the fused cross-entropy, in every parameter, the tied table too', async (t) => {
  const config = tinyConfig();
  const stream = new Stream({ threads: 1 });
  const batch: TrainBatch = {
    features: normalItems(2, config.num_mel_bins * 2 * config.max_source_positions, random(1)),
    labels: [
      [1, 2, 3],
      [4, 5],
    ],
    languages: [null, null],
  };
  type Loss = (model: Whisper, tape: Tape, hidden: Tensor, targets: Tensor) => Promise<number>;
  const gradients = async (loss: Loss) => {
    const model = await Whisper.create(stream, config, { seed: 2, trainable: () => true });
    const { features, ids, targets } = new BatchUploader(stream, config).upload(batch);
    const tape = new Tape(stream);
    const { hidden } = model.decode(ids, model.encode(features, { tape }).hidden, { tape });
    const value = await loss(model, tape, hidden, targets);
    tape.backward();
    const of = new Map<string, Float32Array>();
    for (const { name, gradient } of model.trainable()) of.set(name, (await gradient!.floats()).slice());
    return { value, of };
  };
  const options = trainingOptions({ steps: 1, labelSmoothing: 0 });
  const fused = await gradients(async (model, tape, hidden, targets) => {
    const stats = distillationLoss(tape, model, hidden, { targets, weights: lossWeights(options, false), options });
    return (await stats.floats())[0]!;
  });
  const whole = await gradients(async (model, tape, hidden) => {
    const logits = model.logits(hidden, { tape });
    const V = config.vocab_size;
    t.deepEqual(logits.shape, [2, 3, V]);
    t.deepEqual(await logits.floats(), await model.logits(hidden).floats());
    const values = await logits.floats();
    const gradient = new Float32Array(values.length);
    let sum = 0;
    for (const [b, own] of batch.labels.entries()) {
      for (const [position, label] of own.entries()) {
        const at = (b * 3 + position) * V;
        const e = values.subarray(at, at + V).map(Math.exp);
        const total = e.reduce((x, y) => x + y, 0);
        sum -= Math.log(e[label]! / total) / 5;
        for (let i = 0; i < V; i++) gradient[at + i] = (e[i]! / total - (i === label ? 1 : 0)) / 5;
      }
    }
    tape.set(logits, stream.tensor(gradient, logits.shape));
    return sum;
  });
  t.true(Math.abs(fused.value / whole.value - 1) < 1e-5);
  for (const [name, values] of fused.of) {
    const norm = Math.hypot(...values);
    if (norm < 1e-7) continue;
    t.true(relativeL2(whole.of.get(name)!, values) < 1e-4, name);
  }
  stream.close();
});

test('schedules, skips and the optimiser by themselves', async (t) => {
  const options = trainingOptions({ steps: 10, learningRate: 1, warmup: 0.2 });
  t.deepEqual(
    [0, 5, 9].map((k) => gateNoise(options, k)),
    [0, 2.5, 4.5],
  );
  t.is(learningRate(options, 2), 1);
  t.is(gateNoise({ ...options, compat: 'reference' }, 0), 5);
  const skips = Array.from({ length: 500 }, (_, micro) => skipDraws(3, micro, 4, 0.2));
  t.deepEqual(skipDraws(3, 17, 4, 0.2), skips[17]);
  const share = skips.flat().filter(Boolean).length / 2000;
  t.true(share > 0.17 && share < 0.23, String(share));
  const gates = softGates({ ...options, seed: 3 }, 4, 5, 17);
  t.deepEqual([gates.alpha, [0, 1, 2, 3].map(gates.skip)], [2.5, skips[17]]);
  t.deepEqual(lossWeights({ sigma: [1, 2] }, true), [0.5, 0.125]);
  const stream = new Stream({ threads: 1 });
  const model = await Whisper.create(stream, tinyConfig(), {
    seed: 1,
    trainable: (name) => name === 'model.encoder.layer_norm.bias',
  });
  const [bias] = model.trainable();
  const optimizer = new AdamW(stream, [bias!], options);
  bias!.accumulator()!.write(new Float32Array(16).fill(0.5));
  const { norm } = optimizer.update(0.1, 0);
  t.is(await norm.item(), 2);
  // The first step of AdamW is the rate, in the gradient's direction.
  for (const x of await bias!.value.floats()) t.true(Math.abs(x + 0.1) < 1e-6);
  stream.close();
});

test('what the page on training loops names is exported', async (t) => {
  const api = await import('../../lib/index.js');
  const page = readFileSync(join(root, 'docs', 'training-loops.md'), 'utf8');
  const [, imports = ''] = /```js\nimport \{([^}]+)\} from 'distilwhisper'/.exec(page) ?? [];
  const names = imports.split(',').flatMap((name) => name.trim() || []);
  t.true(names.length > 8);
  for (const name of [...names, ...[...page.matchAll(/^\| `(\w+)`/gm)].map(([, name]) => name!)])
    t.true(name in api, name);
  for (const file of readdirSync(join(root, 'examples'))) t.true(page.includes(`examples/${file}`), file);
});
