/** Masks, speeds and noise by themselves. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import {
  type Augmentation,
  Augmenter,
  augmentationDefaults,
  augmentationOptions,
  DecodePool,
  encodeWav,
} from '../../lib/audio/index.js';
import { mixed, pink, whiteNoise } from '../../lib/audio/noise.js';
import { masked, maskStarts } from '../../lib/audio/spec-augment.js';
import { uniforms } from '../../lib/random/index.js';
import { Stream } from '../../lib/tensor/index.js';

const power = (samples: Float32Array): number => samples.reduce((sum, x) => sum + x * x, 0) / samples.length;

test('masks: as many as transformers draws, within what is heard, no two at one place', (t) => {
  const starts = (heard: number, positions: number, prob: number, length: number, minMasks: number, seed = 1) =>
    maskStarts(heard, positions, { prob, length, minMasks }, uniforms(seed, 0, 4, 0));
  const counts = (...of: Parameters<typeof starts>) => {
    const all = new Set<number>();
    for (let seed = 0; seed < 200; seed++) {
      const [heard, positions, prob, length, minMasks] = of;
      const at = starts(heard, positions, prob, length, minMasks, seed);
      t.is(new Set(at).size, at.length);
      t.true(at.every((start) => start >= 0 && start + length <= heard));
      all.add(at.length);
    }
    return [...all].sort((a, b) => a - b);
  };
  // int(prob · heard / length + ε), at least minMasks, at most what fits.
  t.deepEqual(counts(60, 60, 0.5, 1, 0), [30]);
  t.deepEqual(counts(60, 60, 0.5, 4, 0), [7, 8]);
  t.deepEqual(counts(1000, 3000, 0.05, 10, 2), [5]);
  t.deepEqual(counts(50, 3000, 0.05, 10, 2), [2]);
  t.deepEqual(counts(10, 3000, 0.05, 10, 2), [1], 'one place for it');
  t.deepEqual(counts(9, 3000, 0.05, 10, 2), [0], 'no room');
  t.deepEqual(counts(80, 80, 1, 30, 0), [2], 'not longer together than all');
  // Every place comes as often as another.
  const seen = new Int32Array(51);
  for (let seed = 0; seed < 4000; seed++) for (const at of starts(60, 60, 0.5, 10, 0, seed)) seen[at]!++;
  const mean = seen.reduce((a, b) => a + b, 0) / 51;
  const chi = seen.reduce((sum, n) => sum + (n - mean) ** 2 / mean, 0);
  t.true(chi < 87, `chi-square ${chi} of 50 degrees of freedom`);
});

test('masked features are a copy: frames for all bins, bins over what is heard, and nothing else', (t) => {
  const [mels, frames, heard] = [8, 40, 25];
  const features = Float32Array.from({ length: mels * frames }, (_, i) => i + 1);
  const before = features.slice();
  const result = masked(features, { mels, heard }, { starts: [3, 5], length: 4 }, { starts: [6], length: 2 });
  t.deepEqual(features, before);
  for (let mel = 0; mel < mels; mel++) {
    for (let frame = 0; frame < frames; frame++) {
      const hidden = (frame >= 3 && frame < 9) || (mel >= 6 && frame < heard);
      t.is(result[mel * frames + frame], hidden ? 0 : before[mel * frames + frame]);
    }
  }
});

test('noise: white is white, pink falls by 3 dB an octave, and speech stands so many dB above it', async (t) => {
  const stream = new Stream({ threads: 1 });
  const draw = { count: 1 << 16, seed: 5, step: 9, op: 2 ** 24 };
  const white = await whiteNoise(stream, draw);
  t.deepEqual(await whiteNoise(stream, draw), white);
  t.notDeepEqual(await whiteNoise(stream, { ...draw, op: draw.op + 1 }), white);
  t.true(Math.abs(power(white) - 1) < 0.03);
  /** Power around a frequency, by the sums of many short Fourier sums. */
  const at = (samples: Float32Array, frequency: number): number => {
    let sum = 0;
    const length = 1024;
    for (let from = 0; from + length <= samples.length; from += length) {
      let [re, im] = [0, 0];
      for (let i = 0; i < length; i++) {
        const window = 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / length);
        re += window * samples[from + i]! * Math.cos((2 * Math.PI * frequency * i) / 16000);
        im += window * samples[from + i]! * Math.sin((2 * Math.PI * frequency * i) / 16000);
      }
      sum += re * re + im * im;
    }
    return 10 * Math.log10(sum);
  };
  const around = (samples: Float32Array, frequency: number): number =>
    [0.9, 0.95, 1, 1.05, 1.1].reduce((sum, f) => sum + at(samples, f * frequency) / 5, 0);
  const flat = around(white, 250) - around(white, 4000);
  t.true(Math.abs(flat) < 1.5, `${flat} dB`);
  const pinkNoise = pink(white.slice());
  const fall = (around(pinkNoise, 250) - around(pinkNoise, 4000)) / 4;
  t.true(fall > 2.4 && fall < 3.4, `${fall} dB an octave`);
  const speech = Float32Array.from({ length: 1 << 16 }, (_, i) => 0.2 * Math.sin(i / 7));
  for (const snr of [-5, 0, 20]) {
    const heard = mixed(speech, pinkNoise, snr);
    const added = heard.map((x, i) => x - speech[i]!);
    t.true(Math.abs(10 * Math.log10(power(speech) / power(added)) - snr) < 0.01);
  }
  const silence = new Float32Array(10);
  t.deepEqual(mixed(silence, white, 10), silence);
  t.is(mixed(speech, new Float32Array(speech.length), 10), speech);
  stream.close();
});

test('an item of a micro-batch hears what its numbers say: speed, kind of noise, place in a file', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'noise-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  mkdirSync(join(folder, 'far'));
  writeFileSync(join(folder, 'LICENCE.txt'), 'not audio');
  const tone = (n: number, rate: number) => Float32Array.from({ length: n }, (_, i) => 0.3 * Math.sin(i / rate));
  writeFileSync(join(folder, 'short.wav'), encodeWav(tone(700, 3), 16000));
  writeFileSync(join(folder, 'far', 'long.wav'), encodeWav(tone(90000, 11), 16000));
  const stream = new Stream({ threads: 1 });
  const pool = new DecodePool({ size: 1 });
  const make = (options: Partial<Augmentation>, seed = 3) => new Augmenter(options, seed, { mels: 80, frames: 500 });
  const speech = Float32Array.from({ length: 32000 }, (_, i) => 0.1 * Math.sin(i / 5));
  const before = speech.slice();
  const all = make({ speedFactors: [0.9, 1, 1.1], noise: ['white', 'pink'], noiseFolder: folder, noiseProb: 0.7 });
  const hear = (augmenter: Augmenter, micro: number, item: number) =>
    augmenter.audio(speech, { micro, item }, { stream, pool });
  const lengths = new Map<number, number>();
  for (let micro = 0; micro < 12; micro++) {
    const { samples, speed } = await hear(all, micro, 5);
    lengths.set(speed, samples.length);
    t.deepEqual(samples, (await hear(all, micro, 5)).samples, 'the same when it comes again');
    t.notDeepEqual(samples, (await hear(all, micro + 100, 6)).samples);
  }
  t.deepEqual(speech, before, 'what was given is as it was');
  t.deepEqual(
    [...lengths].sort(([a], [b]) => a - b),
    [
      [0.9, Math.ceil(32000 / 0.9)],
      [1, 32000],
      [1.1, Math.ceil(32000 / 1.1)],
    ],
  );
  t.deepEqual(
    all.noiseFiles!.files.map(([name]) => name),
    ['far/long.wav', 'short.wav'],
  );
  const never = make({ noise: ['white'], noiseProb: 0 });
  t.is((await hear(never, 1, 1)).samples, speech);
  // Speeds that would not fit the window of 5 s are not drawn.
  t.deepEqual(make({ speedFactors: [0.9, 1, 1.1] }).speeds(4.8 * 16000), [1, 1.1]);
  t.deepEqual(make({ speedFactors: [0.9, 1, 1.1] }).speeds(4.5 * 16000), [0.9, 1, 1.1]);
  t.throws(() => make({ speedFactors: [0.8] }).speeds(4.8 * 16000), {
    code: 'ERR_AUDIO_TOO_LONG',
    message: /0\.8, got 4\.80 s/,
  });
  await pool.close();
  stream.close();
});

test('options that mean nothing are refused by name', (t) => {
  t.deepEqual(augmentationOptions(), augmentationDefaults);
  t.false(new Augmenter({}, 1, { mels: 80, frames: 500 }).isOn);
  const cases: [object, RegExp][] = [
    [{ speedFactor: [1] }, /^augmentation: unknown option "speedFactor"; did you mean/],
    [{ applySpecAugment: 'yes' }, /^applySpecAugment: expected true or false, got yes$/],
    [{ applySpecAugment: true, maskTimeProb: 2 }, /^maskTimeProb: expected a share from 0 to 1, got 2$/],
    [{ applySpecAugment: true, maskTimeLength: 0 }, /^maskTimeLength: expected a whole number from 1/],
    [{ maskTimeProb: 0.1 }, /^maskTimeProb: expected with applySpecAugment, got it without$/],
    [{ speedFactors: [0.4] }, /^speedFactors: expected different factors from 0\.5 to 2, got \[0\.4\]$/],
    [{ speedFactors: [1, 1] }, /^speedFactors/],
    [{ speedFactors: 1 }, /^speedFactors/],
    [{ noise: ['brown'] }, /^noise: expected 'white', 'pink' or both, got \["brown"\]$/],
    [{ noise: ['white'], noiseSnr: [20, 5] }, /^noiseSnr: expected the lowest and the highest/],
    [{ noiseSnr: [5, 20] }, /^noiseSnr: expected with noise or a noiseFolder, got it without$/],
    [{ noiseFolder: '' }, /^noiseFolder/],
  ];
  for (const [options, message] of cases)
    t.throws(() => augmentationOptions(options as never), { code: 'ERR_ARGUMENT', message }, JSON.stringify(options));
  const make = (options: Partial<Augmentation>) => () => new Augmenter(options, 1, { mels: 80, frames: 500 });
  t.throws(make({ applySpecAugment: true, maskFeatureLength: 81 }), {
    code: 'ERR_ARGUMENT',
    message: /^maskFeatureLength: expected at most 80, as the model hears, got 81$/,
  });
  t.throws(make({ noiseFolder: join(tmpdir(), 'no-such-folder') }), { code: 'ERR_FILE_NOT_FOUND' });
  t.throws(make({ noiseFolder: 'lib' }), {
    code: 'ERR_ARGUMENT',
    message: /^noiseFolder: expected a folder with audio/,
  });
});
