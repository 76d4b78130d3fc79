import { existsSync } from 'node:fs';
import test from 'ava';
import { rawCall } from '../../lib/tensor/call.js';
import { kernels, Stream, type Tensor } from '../../lib/tensor/index.js';
import { fastest } from '../support/fastest.js';
import { compare, fast, normals, oracle, random, run } from '../support/kernels.js';
import { unlessBusy } from '../support/load.js';
import { readNpy } from '../support/npy.js';

const RATE = 16000;
const streams = () => [{ isa: 'oracle', stream: oracle }, ...fast()];
const here = (name: string) => new URL(`../golden/mel/${name}.npy`, import.meta.url);
const shared = (name: string) => new URL(`../shared/golden/case4_mel/${name}.npy`, new URL('../..', import.meta.url));
const sharedThere = existsSync(shared('jfk_pcm16'));

async function filtersOf(mels: number): Promise<Float32Array> {
  return Float32Array.from((await run(fast()[0]!.stream, kernels.melFilters, { mels }))[0]!);
}

async function logMel(stream: Stream, samples: Float32Array, mels: number, frames: number): Promise<Float64Array> {
  const filters = { data: await filtersOf(mels), shape: [mels, 201] };
  return (
    await run(stream, kernels.logMel, { samples: { data: samples, shape: [samples.length] }, filters, frames })
  )[0]!;
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let largest = 0;
  for (let i = 0; i < b.length; i++) {
    const d = Math.abs(a[i]! - b[i]!);
    if (!(d <= largest)) largest = d;
  }
  return largest;
}

const sine = (n: number, hz: number, rate: number, amplitude = 0.5) =>
  Float32Array.from({ length: n }, (_, i) => amplitude * Math.sin((2 * Math.PI * hz * i) / rate));

/** Power of `error` relative to a sine of amplitude 0.5, in dB, without `edge` samples at both ends. */
function decibels(error: (i: number) => number, n: number, edge: number): number {
  let sum = 0;
  for (let i = edge; i < n - edge; i++) sum += error(i) ** 2;
  return 10 * Math.log10(sum / (n - 2 * edge) / 0.125);
}

const fault = (run: () => Promise<unknown>) =>
  run().then(
    () => undefined,
    (error: { code?: string }) => error.code,
  );

test.serial(
  'log-mel of one second of noise is that of Whisper, 80 and 128 bins, on the oracle and every CPU path',
  async (t) => {
    const { data } = readNpy(here('noise1s_f32'));
    for (const mels of [80, 128]) {
      const expected = readNpy(here(`noise1s_mel${mels}_unpadded`));
      t.deepEqual(expected.shape, [mels, 100]);
      for (const { isa, stream } of streams()) {
        const got = await logMel(stream, data, mels, 100);
        t.true(largestDifference(got, expected.data) < 2e-5, `${isa} ${mels} bins`);
      }
    }
  },
);

test.serial('log-mel of speech and of silence is that of Whisper, padded to 30 s and unpadded', async (t) => {
  if (!sharedThere) {
    t.log('skipped: ../shared/golden is not here');
    t.pass();
    return;
  }
  const jfk = readNpy(shared('jfk_pcm16')).data;
  const cases = [
    ['jfk_mel80_unpadded', jfk],
    ['jfk_mel128_unpadded', jfk],
    ['jfk_mel80_hf_feature_extractor', jfk],
    ['zeros1s_mel80_unpadded', readNpy(shared('zeros1s_f32')).data],
  ] as const;
  for (const [name, samples] of cases) {
    const expected = readNpy(shared(name));
    for (const { isa, stream } of streams()) {
      const got = await logMel(stream, samples, expected.shape[0]!, expected.shape[1]!);
      const largest = largestDifference(got, expected.data);
      t.true(largest < 1e-4, `${name} ${isa}: ${largest}`);
      if (isa !== 'portable') t.log(name, isa, largest.toExponential(2));
    }
  }
});

test.serial("mel filters are librosa's to 1e-7", async (t) => {
  if (!sharedThere) {
    t.log('skipped: ../shared/golden is not here');
    t.pass();
    return;
  }
  for (const mels of [80, 128]) {
    const expected = readNpy(shared(`mel_filters_${mels}`)).data;
    for (const { stream } of streams()) {
      const [got] = await run(stream, kernels.melFilters, { mels });
      t.is(got!.length, mels * 201);
      t.true(largestDifference(got!, expected) <= 1e-7);
    }
  }
});

test.serial(
  'mel filters: each is one triangle, non-negative, rising in frequency; any number from 1 to 201',
  async (t) => {
    for (const mels of [1, 7, 80, 128, 201]) {
      const f = await filtersOf(mels);
      let last = -1;
      for (let m = 0; m < mels; m++) {
        const row = f.subarray(m * 201, m * 201 + 201);
        t.true(row.every((x) => x >= 0 && Number.isFinite(x)));
        const peak = row.indexOf(Math.max(...row));
        if (row[peak]! > 0) {
          t.true(peak >= last);
          last = peak;
        }
        t.true(row.subarray(0, peak).every((x, i) => i === 0 || x >= row[i - 1]!));
        t.true(row.subarray(peak).every((x, i) => i === 0 || x <= row[peak + i - 1]!));
      }
    }
    for (const bad of [0, 202, 1.5, Number.NaN]) {
      t.throws(() => kernels.melFilters(fast()[0]!.stream, { mels: bad }), { code: 'ERR_ARGUMENT' });
    }
  },
);

test.serial(
  'log-mel: every CPU path is the plain DFT in double, at odd lengths, at the mirrored ends, padded and cut',
  async (t) => {
    const next = random(1);
    const mel80 = { data: await filtersOf(80), shape: [80, 201] };
    const dense = { data: Float32Array.from({ length: 3 * 201 }, () => next()), shape: [3, 201] };
    const holes = {
      data: Float32Array.from({ length: 5 * 201 }, (_, i) => (i >= 201 && i % 3 ? next() : 0)),
      shape: [5, 201],
    };
    for (const frames of [0, 2, 3, 16, 17, 33]) {
      const full = frames * 160;
      for (const n of [0, 1, 159, full - 202, full - 201, full - 200, full - 1, full, full + 1, full + 999]) {
        if (n < 0) continue;
        const samples = { data: normals(n, next, 0.1), shape: [n] };
        for (const filters of [mel80, dense, holes])
          await compare(
            t,
            `${frames} frames of ${n} samples`,
            kernels.logMel,
            { samples, filters, frames },
            () => 2e-5,
          );
      }
    }
  },
);

test.serial('log-mel: loud, faint, constant and impulse signals', async (t) => {
  const next = random(2);
  const filters = { data: await filtersOf(80), shape: [80, 201] };
  const n = 20 * 160;
  const impulse = new Float32Array(n);
  impulse[1234] = 1;
  const signals: [string, Float32Array, number][] = [
    ['loud', normals(n, next, 1e10), 2e-5],
    ['faint', normals(n, next, 1e-6), 2e-5],
    ['impulse', impulse, 2e-5],
    // Most bins are 80 dB below one peak here, where fp32 transforms leave 1e-4 (torch's too: see the golden cases).
    ['constant', new Float32Array(n).fill(1), 1e-4],
    ['sine', sine(n, 440, RATE), 1e-4],
  ];
  for (const [name, data, limit] of signals)
    await compare(t, name, kernels.logMel, { samples: { data, shape: [n] }, filters, frames: 20 }, () => limit);
});

test.serial('log-mel: a padded signal is the same with its zeros spelt out', async (t) => {
  const samples = normals(5000, random(3), 0.1);
  const spelt = new Float32Array(480000);
  spelt.set(samples);
  for (const { stream } of fast())
    t.deepEqual(await logMel(stream, samples, 80, 3000), await logMel(stream, spelt, 80, 3000));
});

test.serial('log-mel: the result does not depend on the number of threads', async (t) => {
  const samples = normals(50000, random(4), 0.1);
  const results = [];
  for (const threads of [1, 2, 3]) {
    const stream = new Stream({ threads });
    results.push(await logMel(stream, samples, 128, 400));
    stream.close();
  }
  t.deepEqual(results[1], results[0]);
  t.deepEqual(results[2], results[0]);
});

test.serial('log-mel: bad samples, filters and frame counts are refused', async (t) => {
  const filters = { data: await filtersOf(80), shape: [80, 201] };
  for (const { stream } of streams()) {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, -1e20]) {
      const data = new Float32Array(3200);
      data[3000] = bad;
      const call = (frames: number) =>
        run(stream, kernels.logMel, { samples: { data, shape: [3200] }, filters, frames });
      t.is(await fault(() => call(20)), 'ERR_AUDIO_SAMPLES');
      // Beyond the cut nobody listens.
      t.is((await call(18))[0]!.length, 80 * 18);
    }
    const x = stream.tensor(new Float32Array(400), [400]);
    const f = stream.tensor(filters.data, [80, 201]);
    const refused = (samples: Tensor, filters: Tensor, frames: number, code: string) =>
      t.throws(() => kernels.logMel(stream, { samples, filters, frames }), { code });
    refused(x, f, 1, 'ERR_SHAPE');
    refused(x, f, -1, 'ERR_ARGUMENT');
    refused(x, f, 2.5, 'ERR_ARGUMENT');
    refused(x, x, 2, 'ERR_SHAPE');
    refused(f, f, 2, 'ERR_SHAPE');
    t.throws(() => rawCall(stream, 'log_mel', [x, null], [2]), { code: 'ERR_ARGUMENT' });
  }
});

test.serial('speed: log-mel runs at 500 times real time or more on one thread', async (t) => {
  const stream = new Stream({ threads: 1 });
  const x = stream.tensor(normals(480000, random(5), 0.1), [480000]);
  const f = stream.tensor(await filtersOf(80), [80, 201]);
  const measure = () =>
    fastest(8, async () => {
      kernels.logMel(stream, { samples: x, filters: f, frames: 3000 }).features.dispose();
      await stream.sync();
    });
  const say = (best: number) => `30 s in ${best.toFixed(2)} ms: ${(30000 / best).toFixed(0)} times real time`;
  await unlessBusy(t, measure, (best) => 30000 / best >= 500, say);
  stream.close();
});

const resample = async (stream: Stream, data: Float32Array, from: number, to: number) =>
  (await run(stream, kernels.resample, { samples: { data, shape: [data.length] }, from, to }))[0]!;

test.serial('resampling: every CPU path is the windowed sinc in double', async (t) => {
  const next = random(6);
  const pairs: [number, number][] = [
    [44100, 16000],
    [48000, 16000],
    [8000, 16000],
    [11025, 16000],
    [22050, 16000],
    [44101, 16000],
    [15999, 16000],
    [4001, 16000],
    [16000, 44100],
    [192000, 16000],
    [384000, 4000],
    [4000, 384000],
    [16000, 16000],
    // The ends of the range, and rates that have no divisor in common there.
    [768000, 16000],
    [767999, 16000],
    [1000, 16000],
    [1009, 16000],
    [768000, 1000],
    [767957, 1009],
    [1000, 768000],
    [1009, 767957],
  ];
  for (const [from, to] of pairs)
    for (const n of [0, 1, 2, 37, 1009]) {
      const data = normals(to > 100000 ? Math.min(n, 37) : n, next, 0.3);
      const call = { samples: { data, shape: [data.length] }, from, to };
      await compare(t, `${from} to ${to}, ${n} samples`, kernels.resample, call, () => 1e-5);
    }
});

test.serial(
  'resampling: a tone in the band keeps its phase and amplitude to 90 dB and aliases are rejected by 80 dB',
  async (t) => {
    for (const [from, to] of [
      [44100, 16000],
      [48000, 16000],
      [8000, 16000],
      [32000, 16000],
      [44101, 16000],
      [22051, 16000],
      [7919, 16000],
      [16000, 44100],
    ] as const)
      for (const { isa, stream } of fast()) {
        const n = from;
        const low = Math.min(from, to);
        const edge = Math.ceil((70 * to) / low);
        for (const hz of [100, 997, 0.3 * low, 0.44 * low]) {
          const y = await resample(stream, sine(n, hz, from), from, to);
          t.is(y.length, Math.ceil((n * to) / from));
          const noise = decibels((i) => y[i]! - 0.5 * Math.sin((2 * Math.PI * hz * i) / to), y.length, edge);
          t.true(noise < -90, `${isa} ${from} to ${to}, ${hz} Hz: ${noise} dB`);
        }
        // Above the new Nyquist frequency nothing may be left. (Upwards, an image would have shown as noise above.)
        for (const hz of to < from ? [0.505 * to, 0.6 * to, 0.49 * from] : []) {
          const y = await resample(stream, sine(n, hz, from), from, to);
          const left = decibels((i) => y[i]!, y.length, edge);
          t.true(left < -80, `${isa} ${from} to ${to}, ${hz} Hz: ${left} dB left`);
        }
      }
  },
);

test.serial('resampling: a constant stays exactly that constant away from the ends', async (t) => {
  for (const [from, to] of [
    [44100, 16000],
    [44101, 16000],
    [11025, 16000],
    [384000, 16000],
    [768000, 16000],
  ] as const)
    for (const { isa, stream } of fast()) {
      const y = await resample(stream, new Float32Array(from / 5).fill(0.7), from, to);
      const edge = Math.ceil((65 * to) / Math.min(from, to));
      const inner = y.subarray(edge, y.length - edge);
      t.true(inner.length > 1000 && inner.every((v) => Math.abs(v / Math.fround(0.7) - 1) < 1e-6), `${isa} ${from}`);
    }
});

test.serial('resampling to the same rate changes nothing; bad rates and samples are refused', async (t) => {
  const data = normals(1000, random(7));
  for (const { stream } of streams()) {
    t.deepEqual(await resample(stream, data, 16000, 16000), Float64Array.from(data));
    const x = stream.tensor(data, [1000]);
    for (const [from, to] of [
      [999, 16000],
      [16000, 768001],
      [16000.5, 16000],
      [Number.NaN, 16000],
      [0, 0],
    ])
      t.throws(() => kernels.resample(stream, { samples: x, from: from!, to: to! }), { code: 'ERR_ARGUMENT' });
    const matrix = stream.tensor(data, [10, 100]);
    t.throws(() => kernels.resample(stream, { samples: matrix, from: 8000, to: 16000 }), { code: 'ERR_SHAPE' });
    t.is(await fault(() => resample(stream, Float32Array.of(0, Number.NaN), 8000, 16000)), 'ERR_AUDIO_SAMPLES');
  }
});

test.serial('speed: resampling 11 s of 44.1 kHz takes milliseconds', async (t) => {
  const stream = new Stream({ threads: 1 });
  const x = stream.tensor(normals(485100, random(8), 0.1), [485100]);
  for (const from of [44100, 44101]) {
    const measure = () =>
      fastest(8, async () => {
        kernels.resample(stream, { samples: x, from, to: RATE }).resampled.dispose();
        await stream.sync();
      });
    await unlessBusy(
      t,
      measure,
      (best) => best < 50,
      (best) => `${from}: ${best.toFixed(2)} ms`,
    );
  }
  stream.close();
});
