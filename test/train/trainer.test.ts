/** The public Trainer against the reference's own, and against itself when it is interrupted. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { isDistilWhisperError } from '../../lib/errors/index.js';
import { LanguageExpert, Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import {
  type Exchange,
  learningRate,
  type Randomness,
  RunFolder,
  type Teacher,
  type TrainBatch,
  Trainer,
  TrainingEngine,
  trainingOptions,
  type UpdateReport,
} from '../../lib/train/index.js';
import { splitClsrCheckpoint } from '../../lib/weights/index.js';
import { configOf, floats, golden, goldenJson, goldenPath, ints, type Tensors } from '../support/golden.js';
import { emulatedPlugin, hasGpu, isaEnds, relativeL2, streamOn } from '../support/kernels.js';
import { normalItems, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';

const folder = (t: ExecutionContext): string => {
  const path = mkdtempSync(join(tmpdir(), 'trainer-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
};

/** Two CPU paths, a GPU, and the emulated one if asked for: there the two recorded runs take six minutes. */
function places(): { isa: string; open: () => Stream }[] {
  const plugin = process.env.DISTILWHISPER_EMULATE_ALL ? emulatedPlugin() : null;
  return [
    ...isaEnds.map((isa) => ({ isa, open: () => new Stream({ isa, threads: 2 }) })),
    ...(hasGpu() ? [{ isa: 'cuda', open: () => new Stream({ device: 'cuda' }) }] : []),
    ...(plugin ? [{ isa: 'cuda, emulated', open: () => streamOn(plugin) }] : []),
  ];
}

const LAYERS = ['encoder.0', 'encoder.1', 'decoder.0', 'decoder.1'];

/** Models, batches, options and recorded randomness of the reference's own run (golden case 7), on a stream. */
function recordedRun(stream: Stream) {
  const log = goldenJson('case7_trainer/log');
  const base = goldenJson('case1_d64/report').config;
  const data = golden('case7_trainer/data');
  const noise = golden('case7_trainer/noise');
  const features = floats(data, 'input_features');
  const labels = ints(data, 'labels_padded');
  const tensors = golden('case2_clsr/weights');
  const { backbone, experts } = splitClsrCheckpoint(tensors.keys());
  const pick = (names: Map<string, string>): Tensors =>
    new Map([...names].map(([to, from]) => [to, tensors.get(from)!]));
  const model = Whisper.fromTensors(stream, configOf(base), pick(backbone));
  for (const [name, names] of experts) {
    model.attach(
      LanguageExpert.load(stream, model.config, name, pick(names), { compute: 'fp32', trainable: () => true }),
    );
  }
  const teacherSizes = {
    d_model: 96,
    encoder_attention_heads: 6,
    decoder_attention_heads: 6,
    encoder_ffn_dim: 384,
    decoder_ffn_dim: 384,
  };
  const teacher = Whisper.fromTensors(
    stream,
    configOf({ ...base, ...teacherSizes }),
    golden('case2_clsr/teacher_weights'),
  );
  const batches: TrainBatch[] = log.micro.map((m: { sample_indices: number[]; lang: string[] }) => ({
    features: m.sample_indices.map((i) => features.subarray(i * 240000, (i + 1) * 240000)),
    labels: m.sample_indices.map((i) => [...labels.subarray(i * 13, (i + 1) * 13)].filter((id) => id !== -100)),
    languages: m.lang,
  }));
  const options = {
    steps: 4,
    accumulation: 2,
    learningRate: log.setup.lr_peak,
    warmup: log.setup.warmup_ratio,
    maxGradientNorm: log.setup.max_grad_norm,
    compat: 'reference',
  } as const;
  const randomness: Randomness = (micro) => ({
    gateDropout: 0,
    expertDropout: 0,
    skip: (layer) => log.micro[micro].skipped_calls.includes(layer),
    noise: (layer) => {
      const values = floats(noise, `micro${micro}.noise.${LAYERS[layer]}`);
      return stream.tensor(values, [values.length]);
    },
  });
  return { log, model, teacher, batches, options, randomness };
}

const whenRecorded = goldenPath('case7_trainer/log.json') ? test.serial : test.serial.skip;

whenRecorded(
  "the Trainer repeats four updates of the reference's Trainer: losses, gradient norms, parameters",
  async (t) => {
    for (const { isa, open } of places()) {
      const stream = open();
      const { log, model, batches, ...settings } = recordedRun(stream);
      const values = async () =>
        new Map(await Promise.all(model.trainable().map(async (p) => [p.name, await p.value.floats()] as const)));
      const start = await values();
      const after = new Map<number, Map<string, Float32Array>>();
      const reports: UpdateReport[] = [];
      const trainer = new Trainer({
        model,
        ...settings,
        batches: {
          async *stream(from) {
            yield* batches.slice(from);
          },
        },
        onUpdate: (report) => {
          reports.push(report);
        },
        // Nothing is queued behind the update while its parameters are validated.
        validateEvery: 1,
        validate: async (step) => {
          after.set(step, await values());
          return { score: -step };
        },
      });
      await trainer.run();
      for (const [i, report] of reports.entries()) {
        const [a, b] = [log.micro[2 * i], log.micro[2 * i + 1]];
        const mean = (key: string): number => (a[key] + b[key]) / 2;
        t.is(report.learningRate, log.update[i].lr_used);
        for (const [got, expected, what] of [
          [report.loss, mean('loss'), 'loss'],
          [report.crossEntropy, mean('ce_loss'), 'cross-entropy'],
          [report.distillation, mean('kd_loss'), 'divergence'],
          [report.gradientNorm, log.update[i].grad_norm_before_clip, 'gradient norm'],
        ] as const) {
          t.true(Math.abs(got / expected - 1) <= 1e-4, `${isa} update ${i} ${what}: expected ${expected}, got ${got}`);
        }
        t.true(Math.abs(report.gate - mean('gate_states')) <= 1e-5);
      }
      for (const update of [1, 2, 4]) {
        const expected = golden(`case7_trainer/params_after_update${update}`);
        t.is(expected.size, start.size);
        for (const [name, origin] of start) {
          const change = (values: Float32Array): Float32Array => values.map((x, j) => x - origin[j]!);
          const error = relativeL2(change(after.get(update)!.get(name)!), change(floats(expected, name)));
          t.true(error <= 1e-3, `${isa} change of ${name} after update ${update}: ${error}`);
        }
      }
      stream.close();
    }
  },
);

whenRecorded('the first update accumulates the recorded gradients of its two micro-batches', async (t) => {
  const expected = golden('case7_trainer/update0_grads_accumulated_before_clip');
  for (const { isa, open } of places()) {
    const stream = open();
    const { model, teacher, batches, options, randomness } = recordedRun(stream);
    const engine = new TrainingEngine(model, teacher, trainingOptions(options), { randomness });
    const { gradientNorm } = await engine.update(0, batches.slice(0, 2));
    const { tensors, steps } = engine.optimizer.state();
    // After one update the first moment is (1 - beta1) times the clipped gradient.
    const scale =
      (1 - trainingOptions(options).betas[0]) * Math.min(1, options.maxGradientNorm / (gradientNorm + 1e-6));
    let compared = 0;
    for (const [name, count] of Object.entries(steps)) {
      t.is(count > 0, expected.has(name), name);
      if (count === 0) continue;
      const gradient = (await tensors.get(`m.${name}`)!.floats()).map((m) => m / scale);
      const error = relativeL2(gradient, floats(expected, name));
      t.true(error <= 1e-4, `${isa} gradient of ${name}: ${error}`);
      compared++;
    }
    t.is(compared, expected.size);
    stream.close();
  }
});

test('the learning rate warms up and decays as transformers schedules it', (t) => {
  const options = trainingOptions({ steps: 100, learningRate: 1, warmup: 0.1 });
  t.is(learningRate(options, 0), 0);
  t.is(learningRate(options, 5), 0.5);
  t.is(learningRate(options, 10), 1);
  t.is(learningRate(options, 55), 0.5);
  t.true(learningRate(options, 99) > 0);
  // As get_cosine_schedule_with_warmup: half a turn over the 90 updates behind the warm-up.
  const cosine = { ...options, schedule: 'cosine' } as const;
  t.deepEqual(
    [0, 5, 10, 55].map((k) => learningRate(cosine, k)),
    [0, 0.5, 1, 0.5],
  );
  t.true(Math.abs(learningRate(cosine, 40) - 0.5 * (1 + Math.cos(Math.PI / 3))) < 1e-12);
  t.deepEqual(
    [5, 10, 99].map((k) => learningRate({ ...options, schedule: 'constant' }, k)),
    [0.5, 1, 1],
  );
});

test('gates learn at a rate of their own: at 0 they stay, at 1 nothing changes', async (t) => {
  const stream = new Stream({ threads: 1 });
  const after = async (gateRate?: number): Promise<Map<string, Float32Array>> => {
    const { model, batch } = await lesson(stream);
    const engine = new TrainingEngine(
      model,
      null,
      trainingOptions({ steps: 4, warmup: 0, skipGate: 0, ...(gateRate === undefined ? {} : { gateRate }) }),
    );
    const before = new Map(model.trainable().map((p) => [p.name, p.value.floats()]));
    for (const k of [0, 1]) await engine.update(k, [batch(k)]);
    const moved = new Map<string, Float32Array>();
    for (const { name, value } of model.trainable()) {
      const [old, now] = [await before.get(name)!, await value.floats()];
      moved.set(
        name,
        now.map((x, i) => x - old[i]!),
      );
    }
    return moved;
  };
  const [plain, one, none, half] = [await after(), await after(1), await after(0), await after(0.5)];
  t.deepEqual(one, plain);
  const largest = (values: Float32Array): number => values.reduce((top, x) => Math.max(top, Math.abs(x)), 0);
  let gates = 0;
  for (const [name, moved] of plain) {
    if (!name.includes('.gate_')) continue;
    gates++;
    t.is(largest(none.get(name)!), 0, name);
    if (largest(moved) > 0) t.true(largest(half.get(name)!) < 0.8 * largest(moved), name);
  }
  t.true(gates > 0);
  t.true([...none].some(([name, moved]) => !name.includes('.gate_') && largest(moved) > 0));
  stream.close();
});

test('options out of range are refused by name', (t) => {
  for (const [name, value] of [
    ['steps', 0],
    ['accumulation', 1.5],
    ['learningRate', Number.NaN],
    ['temperature', 0],
    ['labelSmoothing', 1],
    ['sigma', [0, 1]],
    ['betas', [0.9, 1]],
    ['workspace', 1024],
  ] as const) {
    const error = t.throws(() => trainingOptions({ steps: 10, [name]: value }))!;
    t.true(isDistilWhisperError(error) && error.code === 'ERR_ARGUMENT');
    t.regex(error.message, new RegExp(`^${name}: expected`));
  }
});

test('an update whose gradient is not finite is refused: parameters, moments and counts stay as they were', async (t) => {
  const stream = new Stream({ threads: 1 });
  const config = tinyConfig();
  const size = config.num_mel_bins * 2 * config.max_source_positions;
  const batch = (seed: number): TrainBatch => ({
    features: [...normalItems(1, size, random(seed)), ...normalItems(1, size, random(seed + 1))],
    labels: [
      [1, 2, 3],
      [4, 5],
    ],
    languages: [null, null],
  });
  const make = async (): Promise<TrainingEngine> =>
    new TrainingEngine(
      await Whisper.create(stream, config, { seed: 2, trainable: () => true }),
      null,
      trainingOptions({ steps: 10, learningRate: 1e-3, warmup: 0 }),
    );
  const state = async (engine: TrainingEngine) => {
    const { tensors, steps } = engine.optimizer.state();
    const values: Record<string, Float32Array> = {};
    for (const p of engine.optimizer.parameters) values[p.name] = await p.value.floats();
    for (const [name, tensor] of tensors) values[name] = await tensor.floats();
    return { values, steps };
  };
  const engine = await make();
  const undisturbed = await make();
  for (const e of [engine, undisturbed]) for (const k of [0, 1]) await e.update(k, [batch(10 * k)]);
  const before = await state(engine);
  t.true(Object.values(before.steps).every((n) => n === 2));

  const bad = batch(50);
  bad.features[1]!.fill(Number.NaN, 7, 9);
  const error = await t.throwsAsync(engine.update(2, [bad]));
  t.true(isDistilWhisperError(error) && error.code === 'ERR_RUN');
  t.regex(error!.message, /update 3: the loss is NaN and the gradient norm NaN/);
  t.deepEqual(await state(engine), before);

  for (const e of [engine, undisturbed]) await e.update(2, [batch(20)]);
  t.deepEqual(await state(engine), await state(undisturbed));
  t.notDeepEqual((await state(engine)).values, before.values);
  stream.close();
});

/** A student with an expert, and updates of it on random batches of two. */
async function lesson(stream: Stream) {
  const config = tinyConfig();
  const size = config.num_mel_bins * 2 * config.max_source_positions;
  const model = await Whisper.create(stream, config, { seed: 2 });
  await model.addExpert('catalan', { seed: 3 });
  const batch = (seed: number): TrainBatch => ({
    features: normalItems(2, size, random(seed)),
    labels: [
      [1, 2, 3],
      [4, 5],
    ],
    languages: ['catalan', null],
  });
  return { config, size, model, batch };
}

test('a teacher is whatever gives rows and a head; without distillation it is not asked', async (t) => {
  const stream = new Stream({ threads: 1 });
  const live = await Whisper.create(stream, { ...tinyConfig(), d_model: 32 }, { seed: 1 });
  let asked = 0;
  const recorded: Teacher = {
    config: live.config,
    teach(features, ids) {
      asked++;
      const { hidden } = live.decode(ids, live.encode(features).hidden);
      return { rows: hidden.reshape([ids.size, live.config.d_model]), head: live.embeddingTable.value };
    },
  };
  const reports = async (
    teacher: Whisper | Teacher | null,
    distillation: 'js' | 'none' = 'js',
  ): Promise<UpdateReport[]> => {
    const { model, batch } = await lesson(stream);
    const engine = new TrainingEngine(model, teacher, trainingOptions({ steps: 4, learningRate: 1e-2, distillation }));
    const done: UpdateReport[] = [];
    for (const k of [0, 1]) done.push(await engine.update(k, [batch(k)]));
    return done;
  };
  t.deepEqual(await reports(recorded), await reports(live));
  t.is(asked, 2);
  const silent = await reports(recorded, 'none');
  t.is(asked, 2);
  t.deepEqual(silent, await reports(live, 'none'));
  // The weights of a run with a teacher: 0.5/σ0², to the rounding of f32.
  const alone = await reports(null);
  t.is(silent[0]!.crossEntropy, alone[0]!.crossEntropy);
  t.true(Math.abs(silent[0]!.loss / alone[0]!.loss / (0.5 / 1.41 ** 2) - 1) < 1e-6);
  t.true([...silent, ...alone].every(({ distillation }) => distillation === 0));
  stream.close();
});

test('an exchange: gradients are of the share of the tokens that this rank has, and summed before they are clipped', async (t) => {
  const stream = new Stream({ threads: 1 });
  const update = async (exchange?: Exchange): Promise<UpdateReport> => {
    const { model, batch } = await lesson(stream);
    const engine = new TrainingEngine(model, null, trainingOptions({ steps: 4 }), exchange ? { exchange } : {});
    return engine.update(0, [batch(0), batch(1)]);
  };
  const alone = await update();
  const told: number[] = [];
  const summed: string[][] = [];
  const half = await update({
    share(tokens) {
      told.push(tokens);
      return 0.5;
    },
    sum: (parameters) => void summed.push(parameters.map(({ name }) => name)),
  });
  t.deepEqual(half, { ...alone, gradientNorm: alone.gradientNorm / 2 });
  t.deepEqual(told, [5, 5]);
  t.is(summed.length, 1);
  t.true(summed[0]!.length > 0 && summed[0]!.every((name) => name.includes('catalan')));
  stream.close();
});

test('features of other than the items, or of another size, are refused', async (t) => {
  const stream = new Stream({ threads: 1 });
  const { model, batch, size } = await lesson(stream);
  const engine = new TrainingEngine(model, null, trainingOptions({ steps: 4 }));
  const good = batch(0);
  const refused = (features: readonly Float32Array[], message: RegExp): void => {
    t.throws(() => engine.update(0, [{ ...good, features }]), { code: 'ERR_SHAPE', message });
  };
  refused(good.features.slice(1), /^features: expected those of each of 2 items, f32 \[80, 40\], got a list of 1$/);
  refused(new Float32Array(2 * size) as never, /expected those of each of 2 items/);
  refused([good.features[0]!, new Float32Array(size - 1)], /^features: expected 3200 numbers of item 1, .*got 3199$/);
  stream.close();
});

test('a validation that an interruption cut off or came before is made up for: log, best and parameters are the same', async (t) => {
  const stream = new Stream({ threads: 1 });
  const config = tinyConfig();
  const features = normalItems(2, config.num_mel_bins * 40, random(1));
  // The best is in the middle: a validation left out would change what is kept.
  const scores: Record<number, number> = { 2: 0.9, 4: 0.3, 6: 0.6 };
  const run = async (path: string, abortAt: { update?: number; validation?: number } = {}): Promise<unknown> => {
    const model = await Whisper.create(stream, config, { seed: 2, trainable: () => true });
    const abort = new AbortController();
    const trainer = new Trainer({
      model,
      batches: {
        async *stream() {
          for (;;) yield { features, labels: [[1, 2, 3], [4]], languages: [null, null] };
        },
      },
      options: { steps: 6, learningRate: 1e-2 },
      folder: path,
      checkpointEvery: 5,
      validateEvery: 2,
      validate: async (step) => {
        if (step === abortAt.validation) abort.abort();
        abort.signal.throwIfAborted();
        return { score: scores[step]! };
      },
      onUpdate: ({ step }) => {
        if (step === abortAt.update) abort.abort();
      },
      signal: abort.signal,
    });
    const { best } = await trainer.run();
    const values = await model.parameters.get('model.encoder.conv1.weight')!.value.floats();
    return { best, values, log: readFileSync(join(path, 'log.jsonl'), 'utf8') };
  };
  const parent = folder(t);
  const expected = await run(join(parent, 'whole'));
  t.like(expected, { best: { score: 0.3, step: 4 } });
  for (const [name, at] of Object.entries({
    inside: { validation: 4 },
    before: { update: 3 },
    last: { validation: 6 },
  })) {
    const path = join(parent, name);
    await t.throwsAsync(run(path, at), { code: 'ERR_INTERRUPTED' }, name);
    t.deepEqual(await run(path), expected, name);
  }
  stream.close();
});

test('a folder with another run, or with other files, is refused and left alone', async (t) => {
  const path = folder(t);
  writeFileSync(join(path, 'notes.txt'), 'mine');
  await t.throwsAsync(RunFolder.open(path, { a: 1 }), { message: /expected an empty folder or a run/ });
  t.deepEqual(readdirSync(path), ['notes.txt']);
  const run = join(path, 'run');
  await (await RunFolder.open(run, { a: 1, b: [2] })).close();
  await (await RunFolder.open(run, { a: 1, b: [2] })).close();
  const error = await t.throwsAsync(RunFolder.open(run, { a: 1, b: [3] }));
  t.true(isDistilWhisperError(error) && error.code === 'ERR_RUN');
  t.regex(error!.message, /b = \[2\], got \[3\]/);
});

/** A file system of its own of `size`, or null where mounting is not permitted. */
function smallDisk(t: ExecutionContext, size: string): string | null {
  const path = folder(t);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', path], { stdio: 'ignore' });
  } catch {
    return null;
  }
  t.teardown(() => execFileSync('umount', ['-l', path]));
  return path;
}

test.serial(
  'a disk that fills up while a checkpoint is written: a typed error, and the run goes on from the one before',
  async (t) => {
    const disk = smallDisk(t, '1m');
    if (disk === null) {
      t.log('skipped: mounting a small file system is not permitted here');
      t.pass();
      return;
    }
    const stream = new Stream({ threads: 1 });
    const config = tinyConfig();
    const features = normalItems(2, config.num_mel_bins * 40, random(1));
    const run = async (onUpdate: (step: number) => void): Promise<{ updates: number; start: number }> => {
      const model = await Whisper.create(stream, config, { seed: 2, trainable: () => true });
      let start = 0;
      const trainer = new Trainer({
        model,
        batches: {
          async *stream(from) {
            start = from;
            for (;;)
              yield {
                features,
                labels: [
                  [1, 2, 3],
                  [4, 5],
                ],
                languages: [null, null],
              };
          },
        },
        options: { steps: 6 },
        folder: join(disk, 'run'),
        checkpointEvery: 2,
        onUpdate: ({ step }) => onUpdate(step),
      });
      const { updates } = await trainer.run();
      return { updates, start };
    };
    const filler = join(disk, 'filler');
    await t.throwsAsync(
      run((step) => {
        // All but a few kilobytes: the next checkpoint begins, and does not fit.
        if (step === 3) t.throws(() => writeFileSync(filler, Buffer.alloc(2 << 20)), { code: 'ENOSPC' });
        if (step === 3) truncateSync(filler, statSync(filler).size - 32768);
      }),
      { code: 'ERR_DISK_FULL' },
    );
    t.deepEqual(readdirSync(join(disk, 'run', 'checkpoints')), ['step-00000002']);
    rmSync(filler);
    t.deepEqual(await run(() => {}), { updates: 4, start: 2 });
    stream.close();
  },
);

for (const what of ['experts', 'everything'] as const)
  for (const compute of ['fp32', 'bf16'] as const)
    test(`gradient checkpointing, ${what} in ${compute}: the same numbers bit for bit, in less memory`, async (t) => {
      const config = tinyConfig({ encoder_layers: 4, decoder_layers: 4 });
      const size = config.num_mel_bins * 2 * config.max_source_positions;
      const experts = what === 'experts';
      const run = async (gradientCheckpointing: boolean) => {
        const stream = new Stream({ threads: 2 });
        const teacher = await Whisper.create(stream, config, { seed: 1, compute });
        const model = await Whisper.create(stream, config, { seed: 2, compute, trainable: () => !experts });
        if (experts) await model.addExpert('catalan', { seed: 3 });
        await stream.sync();
        const reports: UpdateReport[] = [];
        await new Trainer({
          model,
          teacher,
          gradientCheckpointing,
          batches: {
            async *stream(from) {
              for (let micro = from; ; micro++) {
                yield {
                  features: normalItems(2, size, random(micro)),
                  labels: [
                    [1, 2, 3],
                    [4, 5],
                  ],
                  languages: experts ? ['catalan', null] : [null, null],
                };
              }
            },
          },
          options: { steps: 3, accumulation: 2, learningRate: 1e-3, warmup: 0 },
          onUpdate: (report) => {
            reports.push(report);
          },
        }).run();
        const parameters = await Promise.all(model.trainable().map(async (p) => [p.name, await p.value.floats()]));
        const { stepPeak } = stream.memory();
        stream.close();
        return { reports, parameters, stepPeak };
      };
      const [kept, again] = [await run(false), await run(true)];
      t.deepEqual(again.reports, kept.reports);
      t.deepEqual(again.parameters, kept.parameters);
      t.log(
        `${(kept.stepPeak / 2 ** 20).toFixed(2)} MiB of a step kept, ${(again.stepPeak / 2 ** 20).toFixed(2)} made again`,
      );
      t.true(again.stepPeak < 0.7 * kept.stepPeak);
    });
