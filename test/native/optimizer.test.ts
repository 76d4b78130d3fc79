import test from 'ava';
import { rawCall } from '../../lib/tensor/call.js';
import { kernels, Stream, type Tensor } from '../../lib/tensor/index.js';
import { fastest } from '../support/fastest.js';
import {
  compare,
  cpus,
  type Described,
  fast,
  type Input,
  normals,
  oracle,
  random,
  run,
  values,
} from '../support/kernels.js';
import { unlessBusy } from '../support/load.js';

const streams = () => [{ isa: 'oracle', stream: oracle }, ...fast()];
const EPS = 2 ** -24;
const vector = (data: Float32Array): Input => ({ data, shape: [data.length] });

test.serial('the norm is that of all gradients together, scaled; the scale clips it as torch does', async (t) => {
  for (const { isa, stream } of streams()) {
    const gradients = [vector(Float32Array.of(3, 0)), { data: Float32Array.of(0, 4, 0, 0), shape: [2, 2] }];
    const check = async ([maxNorm, gradientScale]: [number, number], norm: number, scale: number) => {
      const [n, s] = await run(stream, kernels.globalNorm, { gradients, maxNorm, gradientScale });
      t.is(n![0], Math.fround(norm), isa);
      t.true(Math.abs(s![0]! - scale) <= scale * EPS, `${isa} ${s![0]} ${scale}`);
    };
    await check([0, 1], 5, 1);
    await check([0, 0.25], 1.25, 0.25);
    await check([10, 1], 5, 1);
    await check([1, 1], 5, 1 / (5 + 1e-6));
    await check([1, 0.5], 2.5, 0.5 / (2.5 + 1e-6));
    const [none, one] = await run(stream, kernels.globalNorm, { gradients: [], maxNorm: 1, gradientScale: 0.5 });
    t.deepEqual([none![0], one![0]], [0, 0.5]);
  }
});

test.serial(
  'the norm: every CPU path is the oracle for many shapes, also where fp32 squares overflow or vanish',
  async (t) => {
    const next = random(11);
    for (const scale of [1, 1e30, 1e-30]) {
      const gradients: Input[] = [1, 0, 17, 65536, 65537, 200003].map((n) => vector(normals(n, next, scale)));
      for (const [maxNorm, gradientScale] of [
        [0, 1],
        [1, 1 / 3],
        [scale, 1],
      ] as const) {
        const call = { gradients, maxNorm, gradientScale };
        await compare(t, `scale ${scale}`, kernels.globalNorm, call, (_, __, e) => 2 * EPS * Math.abs(e));
      }
    }
  },
);

test.serial('the norm does not depend on the number of threads', async (t) => {
  const gradients = [vector(normals(300007, random(12))), vector(normals(99991, random(13)))];
  const results: (number | undefined)[] = [];
  for (const threads of [1, 2, 3]) {
    const stream = new Stream({ threads });
    results.push((await run(stream, kernels.globalNorm, { gradients, maxNorm: 1 }))[0]![0]);
    stream.close();
  }
  t.is(results[1], results[0]);
  t.is(results[2], results[0]);
});

test.serial('a norm that is not finite is told as it is, with scale 0', async (t) => {
  for (const { stream } of streams())
    for (const [bad, told] of [
      [Number.NaN, Number.NaN],
      [Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY],
      [Number.NEGATIVE_INFINITY, Number.POSITIVE_INFINITY],
    ] as const) {
      const data = new Float32Array(1000).fill(1);
      data[777] = bad;
      for (const maxNorm of [0, 1]) {
        const [norm, scale] = await run(stream, kernels.globalNorm, { gradients: [vector(data)], maxNorm });
        t.is(norm![0], told);
        t.is(scale![0], 0);
      }
    }
});

interface Group {
  p: Float32Array;
  g: Float32Array;
  m: Float32Array;
  v: Float32Array;
  step: number;
}
type Settings = Pick<kernels.AdamWArguments, 'learningRate' | 'betas' | 'epsilon' | 'weightDecay' | 'compat'>;
const settings: Settings = {
  learningRate: 1e-3,
  betas: [0.9, 0.98],
  epsilon: 1e-8,
  weightDecay: 0.01,
  compat: 'paper',
};
/** The addon's mode 0 and mode 1. */
const MODES = ['paper', 'reference'] as const;

function callOf(groups: Group[], scale: number, s: Settings): Described<kernels.AdamWArguments> {
  return {
    scale: vector(Float32Array.of(scale)),
    groups: groups.map(({ p, g, m, v, step }) => ({
      step,
      value: { ...vector(p), inout: true },
      gradient: vector(g),
      m: { ...vector(m), inout: true },
      v: { ...vector(v), inout: true },
    })),
    ...s,
  };
}

function someGroup(n: number, next: () => number, step: number): Group {
  return {
    p: normals(n, next, 0.05),
    g: normals(n, next),
    m: normals(n, next, 0.1),
    v: normals(n, next, 0.1).map((x) => x * x),
    step,
  };
}

test.serial('AdamW from zero state moves by lr·sign(g), after decay in mode 0, before it in mode 1', async (t) => {
  for (const { isa, stream } of streams())
    for (const [mode, compat] of MODES.entries()) {
      const p = Float32Array.of(1, -2, 0, 0.5);
      const g = Float32Array.of(1e-3, -5, 100, 0);
      const zero = () => new Float32Array(4);
      const group: Group = { p, g, m: zero(), v: zero(), step: 1 };
      const s: Settings = { ...settings, learningRate: 0.1, weightDecay: 0.5, compat };
      const [q, m, v] = await run(stream, kernels.adamw, callOf([group], 1, s));
      for (let i = 0; i < 4; i++) {
        const moved = 0.1 * Math.sign(g[i]!);
        const expected = mode === 0 ? p[i]! * 0.95 - moved : (p[i]! - moved) * 0.95;
        t.true(Math.abs(q![i]! - expected) < 2e-5, `${isa} mode ${mode} element ${i}: ${q![i]} for ${expected}`);
        t.true(Math.abs(m![i]! - 0.1 * g[i]!) <= 1e-6 * Math.abs(g[i]!));
        t.true(Math.abs(v![i]! - 0.02 * g[i]! ** 2) <= 1e-6 * g[i]! ** 2);
      }
    }
});

test.serial('the two modes differ in where epsilon stands: outside the bias correction, or inside', async (t) => {
  const group: Group = {
    p: Float32Array.of(0),
    g: Float32Array.of(1),
    m: new Float32Array(1),
    v: new Float32Array(1),
    step: 1,
  };
  const s = { ...settings, learningRate: 1, epsilon: 1, weightDecay: 0 };
  for (const { stream } of streams()) {
    const [torch] = await run(stream, kernels.adamw, callOf([group], 1, { ...s, compat: 'paper' }));
    const [hf] = await run(stream, kernels.adamw, callOf([group], 1, { ...s, compat: 'reference' }));
    // m = 0.1 and v = 0.02: 1/(1 + 1) against √0.02/0.1 · 0.1/(√0.02 + 1).
    t.true(Math.abs(torch![0]! + 0.5) < 1e-6);
    t.true(Math.abs(hf![0]! + Math.sqrt(0.02) / (Math.sqrt(0.02) + 1)) < 1e-6);
  }
});

test.serial('AdamW: every CPU path is the oracle over groups of odd sizes, each at its own step', async (t) => {
  const next = random(14);
  const groups = [1, 0, 15, 17, 4099, 10007, 3].map((n, i) => someGroup(n, next, [1, 1, 2, 0, 100, 1e6, 7][i]!));
  for (const [mode, compat] of MODES.entries())
    for (const scale of [1, 0.037]) {
      const call = callOf(groups, scale, { ...settings, compat });
      // p, m and v each take at most eight roundings of terms no larger than these.
      const size = groups.flatMap((g) => [
        (i: number) => Math.abs(g.p[i]!) + 0.2,
        (i: number) => Math.abs(g.m[i]!) + Math.abs(g.g[i]!),
        (i: number) => g.v[i]! + g.g[i]! ** 2,
      ]);
      await compare(t, `mode ${mode} scale ${scale}`, kernels.adamw, call, (o, i) => 8 * EPS * size[o]!(i));
    }
});

test.serial('more tensors than one launch of a GPU takes: their norm, and their update', async (t) => {
  const next = random(18);
  const gradients = Array.from({ length: 1501 }, (_, i) => vector(normals(i % 4, next)));
  const all = { gradients, maxNorm: 1 };
  await compare(t, '1501 gradients', kernels.globalNorm, all, (_, __, e) => 2 * EPS * Math.abs(e));
  const groups = Array.from({ length: 601 }, (_, i) => someGroup(1 + (i % 3), next, i % 5));
  await compare(t, '601 groups', kernels.adamw, callOf(groups, 0.5, settings), () => 1e-6);
});

test.serial(
  'step 0 leaves a group as it is and needs no gradient; scale 0 leaves all as they are, whatever the gradients',
  async (t) => {
    for (const { isa, stream } of streams()) {
      const a = someGroup(100, random(16), 0);
      const b = someGroup(50, random(17), 5);
      const call = callOf([a, b], 1, settings);
      const [first, second] = call.groups;
      const groups = [{ ...first!, gradient: null }, second!];
      const [ap, am, av, bp] = await run(stream, kernels.adamw, { ...call, groups });
      t.deepEqual(
        [ap, am, av],
        [a.p, a.m, a.v].map((x) => Float64Array.from(x)),
        isa,
      );
      t.notDeepEqual(bp, Float64Array.from(b.p));
      b.g.fill(Number.NaN, 3, 7);
      b.g[9] = Number.POSITIVE_INFINITY;
      const [p, m, v] = await run(stream, kernels.adamw, callOf([b], 0, settings));
      t.deepEqual(
        [p, m, v],
        [b.p, b.m, b.v].map((x) => Float64Array.from(x)),
        isa,
      );
    }
  },
);

test.serial('50 updates with clipping follow an independent AdamW in double on a quadratic', async (t) => {
  const n = 37;
  const next = random(18);
  const curve = Float64Array.from({ length: n }, () => 0.1 + 10 * next());
  const start = normals(n, next);
  for (const { isa, stream } of fast())
    for (const [mode, compat] of MODES.entries()) {
      const s: Settings = { ...settings, learningRate: 0.05, weightDecay: 0.1, compat };
      const { learningRate: lr, weightDecay: decay, epsilon: eps } = s;
      const [beta1, beta2] = s.betas;
      const p = stream.persistent(start, [n], 'f32');
      const m = stream.persistent(null, [n], 'f32');
      const v = stream.persistent(null, [n], 'f32');
      const e = Float64Array.from(start);
      const em = new Float64Array(n);
      const ev = new Float64Array(n);
      for (let step = 1; step <= 50; step++) {
        const g = Float32Array.from(await values(p), (x, i) => curve[i]! * x);
        const gradient = stream.tensor(g, [n]);
        const { scale } = kernels.globalNorm(stream, { gradients: [gradient], maxNorm: 1 });
        kernels.adamw(stream, { scale, groups: [{ step, value: p, gradient, m, v }], ...s });
        stream.endStep();
        const eg = e.map((x, i) => curve[i]! * x);
        const norm = Math.hypot(...eg);
        const clip = Math.min(1, 1 / (norm + 1e-6));
        for (let i = 0; i < n; i++) {
          const d = clip * eg[i]!;
          em[i] = beta1 * em[i]! + (1 - beta1) * d;
          ev[i] = beta2 * ev[i]! + (1 - beta2) * d * d;
          const c1 = 1 - beta1 ** step;
          const c2 = 1 - beta2 ** step;
          if (mode === 0) e[i]! -= lr * decay * e[i]! + (lr * (em[i]! / c1)) / (Math.sqrt(ev[i]! / c2) + eps);
          else {
            e[i]! -= (lr * (Math.sqrt(c2) / c1) * em[i]!) / (Math.sqrt(ev[i]!) + eps);
            e[i]! -= lr * decay * e[i]!;
          }
        }
      }
      const got = await values(p);
      for (let i = 0; i < n; i++)
        t.true(Math.abs(got[i]! - e[i]!) < 1e-4, `${isa} mode ${mode}: ${got[i]} for ${e[i]}`);
      t.true(Math.hypot(...got) < 0.7 * Math.hypot(...start), 'the quadratic went down');
      for (const x of [p, m, v]) x.dispose();
    }
});

test.serial('AdamW refuses a missing gradient, other shapes and types, frozen parameters and wrong counts', (t) => {
  for (const { stream } of streams()) {
    const x = (n: number, dtype: 'f32' | 'bf16' = 'f32') =>
      stream.tensor(dtype === 'f32' ? new Float32Array(n) : new Uint16Array(n), [n], dtype);
    const one = x(1);
    const group = (): kernels.AdamWArguments['groups'][number] => ({
      ...{ step: 1, value: x(8) },
      ...{ gradient: x(8), m: x(8), v: x(8) },
    });
    const call = (change: Partial<ReturnType<typeof group>>, rest: Partial<kernels.AdamWArguments> = {}) =>
      kernels.adamw(stream, { scale: one, groups: [{ ...group(), ...change }], ...settings, ...rest });
    t.notThrows(() => call({}));
    t.throws(() => call({ gradient: null }), { code: 'ERR_ARGUMENT', message: /gradient/ });
    t.throws(() => call({ gradient: x(7) }), { code: 'ERR_SHAPE', message: /gradient/ });
    t.throws(() => call({ v: x(9) }), { code: 'ERR_SHAPE', message: /'v'/ });
    t.throws(() => call({ m: x(8, 'bf16') }), { code: 'ERR_DTYPE', message: /'m'/ });
    t.throws(() => call({}, { scale: x(2) }), { code: 'ERR_SHAPE', message: /scale/ });
    t.throws(() => call({ step: -1 }), { code: 'ERR_ARGUMENT', message: /step/ });
    t.throws(() => call({}, { learningRate: Number.NaN }), { code: 'ERR_ARGUMENT', message: /lr/ });
    t.throws(() => call({}, { betas: [1.5, 0.98] }), { code: 'ERR_ARGUMENT', message: /beta1/ });
    const raw = (tensors: Tensor[], groups: number, ...steps: number[]) =>
      rawCall(stream, 'adamw', tensors, [groups, 1e-3, 0.9, 0.98, 1e-8, 0.01, 0, ...steps]);
    t.notThrows(() => raw([one, x(8), x(8), x(8), x(8)], 1, 1));
    t.throws(() => raw([one, x(8), x(8), x(8)], 1, 1), { code: 'ERR_ARGUMENT' });
    t.throws(() => raw([one, x(8), x(8), x(8), x(8), x(8)], 1, 1), { code: 'ERR_ARGUMENT' });
    t.throws(() => raw([one, x(8), x(8), x(8), x(8)], 2, 1, 1), { code: 'ERR_ARGUMENT' });
    const frozen = stream.persistent(new Float32Array(8), [8], 'f32');
    frozen.freeze();
    t.throws(() => call({ value: frozen }), { code: 'ERR_ARGUMENT', message: /frozen/ });
    frozen.dispose();
    const norm = (gradient: Tensor, maxNorm: number) => kernels.globalNorm(stream, { gradients: [gradient], maxNorm });
    t.throws(() => norm(x(8), -1), { code: 'ERR_ARGUMENT' });
    t.throws(() => norm(x(8, 'bf16'), 1), { code: 'ERR_DTYPE' });
    stream.endStep();
  }
});

test.serial('speed: AdamW reaches a fair share of memory bandwidth', async (t) => {
  const n = 1 << 22;
  const { stream } = cpus().at(-1)!;
  const [p, g, m, v] = [0, 1, 2, 3].map(() => stream.persistent(new Float32Array(n).fill(0.1), [n], 'f32'));
  let step = 0;
  const measure = async (): Promise<number> => {
    const best = await fastest(5, async () => {
      step += 1;
      const scale = stream.tensor(Float32Array.of(1), [1]);
      kernels.adamw(stream, { scale, groups: [{ step, value: p!, gradient: g!, m: m!, v: v! }], ...settings });
      await stream.sync();
    });
    stream.endStep();
    return (7 * 4 * n) / best / 1e6;
  };
  await unlessBusy(
    t,
    measure,
    (gigabytes) => gigabytes > 2,
    (gigabytes) => `${gigabytes.toFixed(1)} GB/s`,
  );
  for (const x of [p, g, m, v]) x!.dispose();
});
