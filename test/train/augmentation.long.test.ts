/** Augmented micro-batches: the same whenever they come, made of what is clean, and whole to a teacher. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { type Augmentation, encodeWav } from '../../lib/audio/index.js';
import type { ManifestEntry } from '../../lib/data/index.js';
import { Whisper } from '../../lib/model/index.js';
import { type TrainRecipe, train } from '../../lib/recipes/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { WhisperTokenizer } from '../../lib/text/index.js';
import {
  AudioBatches,
  type Teacher,
  type TrainBatch,
  TrainingEngine,
  trainingOptions,
  type UpdateReport,
} from '../../lib/train/index.js';
import { cli, corpusRows, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';
import { normalItems, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
const rows = corpusRows('ca', 'train', 'in', 6);
let tokenizer: WhisperTokenizer;
let config: Awaited<ReturnType<typeof writeTinyModel>>;

test.before(async () => {
  config = await writeTinyModel(at('student'), 1);
  await writeTinyModel(at('teacher'), 2);
  tokenizer = await WhisperTokenizer.fromFolder(at('student'));
  writeRows(at('rows.jsonl'), rows);
  mkdirSync(at('noise'));
  const hum = Float32Array.from({ length: 9000 }, (_, i) => 0.3 * Math.sin(i / 9));
  writeFileSync(at('noise', 'hum.wav'), encodeWav(hum, 16000));
});
test.after.always(remove);

const entries = (): ManifestEntry[] => rows.map((row, i) => ({ ...row, manifest: 'rows', line: i + 1 }));
const make = (augmentation: Partial<Augmentation>, more = {}): AudioBatches =>
  new AudioBatches(entries(), config, tokenizer, { batchSize: 2, seed: 4, augmentation, ...more });

async function take(batches: AudioBatches, from: number, count: number): Promise<TrainBatch[]> {
  const taken: TrainBatch[] = [];
  for await (const batch of batches.stream(from)) if (taken.push(batch) === count) break;
  return taken;
}

const MASKS = { applySpecAugment: true, maskFeatureProb: 0.1 };
const SOUND = { speedFactors: [0.9, 1, 1.1], noise: ['white', 'pink'] as const, noiseProb: 0.5 };

for (const [name, options] of Object.entries({ MASKS, SOUND, both: { ...MASKS, ...SOUND } }))
  test(`${name}: a micro-batch is a function of its number, whether audio is kept or decoded again`, async (t) => {
    const whole = await take(make(options), 0, 7);
    t.deepEqual(await take(make(options), 4, 3), whole.slice(4), 'a run that goes on');
    t.deepEqual(await take(make(options, { cacheBytes: 0 }), 0, 7), whole, 'nothing kept');
    const checked = make(options);
    await checked.check();
    t.is(checked.cachedBytes, 0);
    t.deepEqual(await take(checked, 0, 7), whole, 'all kept by the check');
    // Another epoch, or another seed, hears other masks, speeds and noise.
    const heard = (batches: TrainBatch[], utterance: number) =>
      batches.flatMap(({ features, utterances }) => features.filter((_, i) => utterances![i] === utterance));
    const twice = heard(whole, 0);
    t.true(twice.length >= 2);
    t.notDeepEqual(twice[0], twice[1]);
    t.notDeepEqual(heard(await take(make(options, { seed: 5 }), 0, 3), 0)[0], twice[0]);
  });

test('masks are made of clean features, which the teacher hears', async (t) => {
  const plain = make({});
  const clean = new Map<number, Float32Array>();
  for (const { features, utterances, teacherFeatures } of await take(plain, 0, 3)) {
    t.is(teacherFeatures, undefined);
    for (const [i, u] of utterances!.entries()) clean.set(u, features[i]!);
  }
  const batches = make(MASKS);
  let zeros = 0;
  for (const { features, teacherFeatures, utterances, seconds, labels } of await take(batches, 0, 9)) {
    for (const [i, u] of utterances!.entries()) {
      t.deepEqual(teacherFeatures![i], clean.get(u), 'in the third epoch too');
      const [masked, whole] = [features[i]!, clean.get(u)!];
      zeros += masked.filter((x, j) => x === 0 && whole[j] !== 0).length;
      t.true(masked.every((x, j) => x === 0 || x === whole[j]));
      t.is(masked.at(-1), whole.at(-1), 'silence behind the audio is not masked');
    }
    t.true(seconds! > 1 && labels.length === 2);
  }
  t.true(zeros > 0);
  // What fills a teacher's cache hears utterances as they are.
  for await (const { features, utterances, teacherFeatures } of batches.of([0, 1, 2], 2)) {
    for (const [i, u] of utterances!.entries()) t.deepEqual(features[i], clean.get(u));
    if (teacherFeatures) t.deepEqual(teacherFeatures, features);
  }
});

test('the teacher of a step hears what it is given: in whole batches and in parts', async (t) => {
  const small = tinyConfig();
  const size = small.num_mel_bins * 2 * small.max_source_positions;
  const [masked, whole] = [normalItems(3, size, random(1)), normalItems(3, size, random(2))];
  const labels = [[1, 2, 3], [4, 5], [6]];
  const languages = [null, null, null];
  const stream = new Stream({ threads: 1 });
  const live = await Whisper.create(stream, small, { seed: 1 });
  const update = async (
    batch: TrainBatch,
    items?: number,
  ): Promise<{ report: UpdateReport; heard: Float32Array[] }> => {
    const model = await Whisper.create(stream, small, { seed: 2, trainable: () => true });
    const told: Promise<Float32Array>[] = [];
    const teacher: Teacher = {
      config: small,
      teach(features, ids) {
        told.push(features.floats().then((values) => values.slice()));
        const { hidden } = live.decode(ids, live.encode(features).hidden);
        return { rows: hidden.reshape([ids.size, small.d_model]), head: live.embeddingTable.value };
      },
    };
    const microBatch = items ? { items, parts: Math.ceil(3 / items) } : undefined;
    const engine = new TrainingEngine(model, teacher, trainingOptions({ steps: 2 }), { microBatch });
    const report = await engine.update(0, [batch]);
    return { report, heard: await Promise.all(told) };
  };
  const joined = (items: readonly Float32Array[]): number[] => items.flatMap((item) => [...item]);
  const both = { features: masked, teacherFeatures: whole, labels, languages };
  const apart = await update(both);
  t.deepEqual(joined(apart.heard), joined(whole));
  t.deepEqual(joined((await update(both, 2)).heard), joined(whole));
  const same = await update({ features: masked, labels, languages });
  t.deepEqual(joined(same.heard), joined(masked));
  t.is(apart.report.crossEntropy, same.report.crossEntropy, 'the student hears masks either way');
  t.not(apart.report.distillation, same.report.distillation);
  stream.close();
});

const recipe = (name: string, more: Partial<TrainRecipe> = {}): TrainRecipe => ({
  model: at('student'),
  manifest: at('rows.jsonl'),
  output: at(name),
  language: 'ca',
  batchSize: 2,
  steps: 4,
  checkpointEvery: 2,
  ...more,
});

test('a run with all of it, interrupted and resumed, has the numbers of one that was not', async (t) => {
  const augmentation = { ...MASKS, ...SOUND, noiseFolder: at('noise') };
  await train(recipe('whole', { augmentation, teacher: at('teacher') }));
  const abort = new AbortController();
  const own = recipe('broken', { augmentation, teacher: at('teacher') });
  const onUpdate = ({ step }: UpdateReport): void => {
    if (step === 2) abort.abort();
  };
  await t.throwsAsync(train({ ...own, onUpdate, signal: abort.signal }), { code: 'ERR_INTERRUPTED' });
  t.true((await train(own)).updates < 4);
  const read = (name: string, file: string): Buffer => readFileSync(at(name, file));
  t.deepEqual(read('broken', 'log.jsonl'), read('whole', 'log.jsonl'));
  t.deepEqual(read('broken', 'expert.catalan.safetensors'), read('whole', 'expert.catalan.safetensors'));
  await train(recipe('plain', { teacher: at('teacher') }));
  t.notDeepEqual(read('plain', 'log.jsonl'), read('whole', 'log.jsonl'));
  await t.throwsAsync(train(recipe('plain', { teacher: at('teacher'), augmentation: { applySpecAugment: true } })), {
    code: 'ERR_RUN',
    message: /augmentation/,
  });
});

test('a teacher cache goes with masks, and is refused with what changes the audio; noise that cannot be read is too', async (t) => {
  const cached = { teacher: at('teacher'), teacherCache: 'auto' };
  await train(recipe('cached', { ...cached, augmentation: MASKS }));
  await train(recipe('live', { teacher: at('teacher'), augmentation: MASKS }));
  const losses = (name: string): number[] =>
    readFileSync(at(name, 'log.jsonl'), 'utf8')
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).distillation);
  for (const [i, loss] of losses('cached').entries())
    t.true(Math.abs(loss / losses('live')[i]! - 1) < 1e-2, 'rows of the cache are those of whole features');
  for (const augmentation of [{ speedFactors: [0.9] }, { noise: ['white'] as const }, { noiseFolder: at('noise') }]) {
    const [name] = Object.keys(augmentation);
    await t.throwsAsync(train(recipe('refused', { ...cached, augmentation })), {
      code: 'ERR_ARGUMENT',
      message: new RegExp(`^teacherCache: expected without ${name}, which changes the audio`),
    });
  }
  mkdirSync(at('torn'));
  writeFileSync(at('torn', 'a.wav'), 'no sound');
  await t.throwsAsync(train(recipe('refused', { augmentation: { noiseFolder: at('torn') } })), {
    code: 'ERR_AUDIO_FORMAT',
    message: /a\.wav/,
  });
  t.false(existsSync(at('refused')));
});

test('from the command line', async (t) => {
  const args = ['train', '--model', at('student'), '--manifest', at('rows.jsonl'), '--language', 'ca'];
  const run = (...more: string[]) => cli([...args, '--steps', '1', '--output', at('line'), ...more]);
  const wrong = await run('--mask-time-prob', '0.1');
  t.regex(wrong.stderr, /ERR_ARGUMENT: maskTimeProb: expected with applySpecAugment/);
  t.is((await run('--noise', 'brown')).code, 2);
  const all = ['--apply-spec-augment', '--mask-feature-prob', '0.1', '--speed-perturb', '0.9,1,1.1', '--noise', 'pink'];
  const { code, stderr } = await run(...all, '--noise-snr', '-3,20', '--noise-prob', '1');
  t.is(code, 0, stderr);
  t.like(JSON.parse(readFileSync(at('line', 'run.json'), 'utf8')).augmentation, {
    applySpecAugment: true,
    maskTimeProb: 0.05,
    maskFeatureProb: 0.1,
    speedFactors: [0.9, 1, 1.1],
    noise: ['pink'],
    noiseSnr: [-3, 20],
    noiseProb: 1,
  });
});
