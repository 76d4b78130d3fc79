import ava from 'ava';
import { rawCall } from '../../lib/tensor/call.js';
import { type FloatType, kernels, type Tensor } from '../../lib/tensor/index.js';
import {
  centralDifference,
  close,
  cpus,
  type Described,
  fast,
  type Input,
  type Limit,
  normals,
  oracle,
  place,
  put,
  random,
  run,
  values,
} from '../support/kernels.js';

// Streams are shared: a step ends when its test ends.
const test = ava.serial;

interface Case {
  title: string;
  rows: number;
  width: number;
  inner: number;
  gate: number;
  ranges: [number, number][];
  skip?: boolean;
  alpha?: number;
  gateDropout?: number;
  expertDropout?: number;
  residual?: boolean;
  noise?: boolean;
  masks?: boolean;
  scale?: number;
  seed?: number;
  straight?: boolean;
}

const cases: Case[] = [
  { title: 'one language, nothing random', rows: 7, width: 16, inner: 64, gate: 8, ranges: [[0, 7]] },
  { title: 'one row', rows: 1, width: 5, inner: 13, gate: 3, ranges: [[0, 1]], residual: true },
  { title: 'one column', rows: 3, width: 1, inner: 4, gate: 1, ranges: [[0, 3]] },
  {
    title: 'two languages with rows of none between them, noise and masks given',
    rows: 23,
    width: 31,
    inner: 67,
    gate: 11,
    ranges: [
      [2, 9],
      [12, 22],
    ],
    alpha: 2.5,
    gateDropout: 0.1,
    expertDropout: 0.3,
    residual: true,
    noise: true,
    masks: true,
  },
  {
    title: 'noise and masks drawn, a language without rows',
    rows: 37,
    width: 24,
    inner: 50,
    gate: 64,
    ranges: [
      [0, 20],
      [20, 20],
      [20, 37],
    ],
    alpha: 5,
    gateDropout: 0.1,
    expertDropout: 0.3,
    seed: 123456789012,
  },
  {
    title: 'skipped',
    rows: 9,
    width: 12,
    inner: 20,
    gate: 5,
    ranges: [[1, 8]],
    skip: true,
    residual: true,
    alpha: 1,
    gateDropout: 0.1,
  },
  { title: 'no language', rows: 6, width: 8, inner: 16, gate: 4, ranges: [], residual: true },
  { title: 'no rows', rows: 0, width: 8, inner: 16, gate: 4, ranges: [[0, 0]] },
  { title: 'gates of no width', rows: 20, width: 8, inner: 16, gate: 0, ranges: [[2, 20]], gateDropout: 0.1 },
  { title: 'FFNs of no width', rows: 20, width: 8, inner: 0, gate: 4, ranges: [[2, 20]], alpha: 1, residual: true },
  { title: 'rows of no width', rows: 20, width: 0, inner: 16, gate: 4, ranges: [[2, 20]], expertDropout: 0.3 },
  { title: 'a few rows of no width', rows: 5, width: 0, inner: 16, gate: 4, ranges: [[0, 5]], alpha: 1 },
  { title: 'huge values', rows: 5, width: 8, inner: 16, gate: 4, ranges: [[0, 5]], scale: 1e12, alpha: 1 },
  {
    title: 'a whole tile and more',
    rows: 193,
    width: 130,
    inner: 520,
    gate: 64,
    ranges: [[0, 193]],
    alpha: 1,
    gateDropout: 0.1,
    expertDropout: 0.3,
  },
  {
    title: 'straight through hard gates',
    rows: 41,
    width: 24,
    inner: 50,
    gate: 16,
    ranges: [
      [1, 20],
      [24, 41],
    ],
    alpha: 2,
    gateDropout: 0.1,
    expertDropout: 0.3,
    residual: true,
    straight: true,
  },
  {
    title: 'a few rows of two languages',
    rows: 12,
    width: 16,
    inner: 40,
    gate: 8,
    ranges: [
      [0, 4],
      [5, 11],
    ],
    residual: true,
  },
  {
    title: 'rows of two languages and of none, in widths that tensor cores take',
    rows: 150,
    width: 72,
    inner: 264,
    gate: 16,
    ranges: [
      [3, 61],
      [61, 141],
    ],
    alpha: 1,
    gateDropout: 0.1,
    expertDropout: 0.3,
    residual: true,
  },
];

/** More languages than a launch on a GPU takes, by rows of many and of few. */
const crowds: Case[] = [43, 16].map((rows) => {
  const each = rows > 16 ? 2 : 1;
  const ranges = Array.from({ length: Math.min(20, rows) }, (_, i): [number, number] => [each * i, each * (i + 1)]);
  return { title: `${ranges.length} languages`, rows, width: 16, inner: 24, gate: 8, ranges, residual: true };
});

type Ffn = Described<kernels.FeedForwardTensors>;
type Expert = Described<kernels.ExpertTensors>;

function ffn(c: Case, next: () => number, dtype: FloatType): Ffn {
  return {
    fc1: matrix(c.inner, c.width, next, dtype),
    fc1Bias: vector(c.inner, next),
    fc2: matrix(c.width, c.inner, next, dtype),
    fc2Bias: vector(c.width, next),
  };
}

const matrix = (rows: number, cols: number, next: () => number, dtype: FloatType): Input => ({
  data: normals(rows * cols, next, 1 / Math.sqrt(cols)),
  shape: [rows, cols],
  dtype,
});
const vector = (n: number, next: () => number): Input => ({ data: normals(n, next, 0.3), shape: [n] });

const expert = (c: Case, next: () => number, dtype: FloatType): Expert => ({
  gateIn: matrix(c.gate, c.width, next, dtype),
  gateInBias: vector(c.gate, next),
  gateOut: matrix(1, c.gate, next, dtype),
  ...ffn(c, next, dtype),
});

/** Tensors of an expert by name, in the kernels' order. */
const EXPERT = ['gateIn', 'gateInBias', 'gateOut', 'fc1', 'fc1Bias', 'fc2', 'fc2Bias'] as const;
const ofExpert = <T>(make: (name: (typeof EXPERT)[number], i: number) => T) =>
  Object.fromEntries(EXPERT.map((name, i) => [name, make(name, i)])) as Record<(typeof EXPERT)[number], T>;

const settings = (c: Case, compute: FloatType | 'f64', out: FloatType | 'f64'): kernels.GatedFfnSettings => ({
  skip: c.skip ?? false,
  alpha: c.alpha ?? 0,
  gateDropout: c.gateDropout ?? 0,
  expertDropout: c.expertDropout ?? 0,
  seed: c.seed ?? 7,
  step: 3,
  op: 40,
  straight: c.straight,
  compute,
  out,
});

type Saved = Described<kernels.GatedFfnSaved>;
interface Built {
  forward: Described<kernels.GatedFfnArguments>;
  hard: Described<kernels.GatedFfnHardArguments>;
  backward: (
    saved: Saved,
    dy: Input,
    dgate: Input | null,
    frozen?: boolean,
  ) => Described<kernels.GatedFfnBackwardArguments>;
}

function build(c: Case, dtype: FloatType, out = dtype): Built {
  const next = random(17 + c.rows);
  const x: Input = { data: normals(c.rows * c.width, next, c.scale ?? 1), shape: [c.rows, c.width], dtype };
  const shared = ffn(c, next, dtype);
  const languages = c.ranges.map(([begin, end]) => ({ expert: expert(c, next, dtype), begin, end }));
  const residual: Input | null = c.residual ? { data: normals(c.rows * c.width, next), shape: x.shape, dtype } : null;
  const noise: Input | null = c.noise ? { data: normals(c.rows, next), shape: [c.rows] } : null;
  const mask = (p: number): Input | null =>
    c.masks
      ? { data: Float32Array.from({ length: c.rows * c.width }, () => (next() < p ? 0 : 1)), shape: x.shape }
      : null;
  const [gateMask, expertMask] = [mask(0.1), mask(0.3)];
  // Gradients add to what stands.
  const gradient = ({ data, shape }: Input, i: number): Input => ({
    data: Float32Array.from(data, () => 0.25 * ((i % 3) - 1)),
    shape,
    inout: true,
  });
  return {
    forward: { x, residual, shared, languages, noise, gateMask, expertMask, ...settings(c, dtype, out) },
    hard: { x, residual, shared, languages, compute: dtype, out: dtype },
    backward: (saved, dy, dgate, frozen = false) => ({
      dy,
      dgate,
      x,
      shared,
      gateMask,
      expertMask,
      ...saved,
      languages: languages.map((language, l) => ({
        ...language,
        gradients: frozen ? {} : ofExpert((name, i) => gradient(language.expert[name], EXPERT.length * l + i)),
      })),
      ...settings(c, dtype, out),
    }),
  };
}

/** What `gatedFfn` gave, as its backward takes it. */
function savedOf(c: Case, [, g, gateHidden, preShared, preExpert, delta]: Float64Array[], dtype: FloatType): Saved {
  const covered = c.ranges.reduce((n, [a, b]) => n + b - a, 0);
  const experts = c.skip ? 0 : covered;
  const input = (data: Float64Array | undefined, shape: number[], dtype: FloatType): Input => ({
    data: Float32Array.from(data!),
    shape,
    dtype,
  });
  return {
    g: input(g, [c.rows], 'f32'),
    gateHidden: input(gateHidden, [covered, c.ranges.length ? c.gate : 0], 'f32'),
    preShared: input(preShared, [c.rows, c.inner], dtype),
    preExpert: input(preExpert, [experts, c.inner], dtype),
    delta: input(delta, [experts, c.width], dtype),
  };
}

/**
 * The largest error of an element: `steps` roundings of the product's type, of a value as large as the output's largest.
 * Sums of n products in fp32 err by at most n·2⁻²⁴ of Σ|a·b|, and a chain of two products and a GELU keeps that
 * proportion; 64 covers n ≤ 520 as measured for a plain loop. In bf16 both factors of each product are rounded (2⁻⁹ each).
 */
function bound(dtype: FloatType): Limit {
  const unit = dtype === 'bf16' ? 2 ** -9 * 6 : 2 ** -24 * 64;
  const largest = new Map<Float64Array, number>();
  return (_o, _i, _e, all) => {
    if (!largest.has(all))
      largest.set(
        all,
        all.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-3),
      );
    return unit * largest.get(all)!;
  };
}

// The last is how a model trains: the residual stream is in f32, and what the backward reads in bf16.
for (const [dtype, out, some] of [
  ['f32', 'f32', cases],
  ['bf16', 'bf16', cases],
  ['bf16', 'f32', cases.filter(({ ranges }) => ranges.length === 2)],
] as const) {
  for (const c of some) {
    test(`gated_ffn and its backward agree with the oracle: ${c.title}, ${dtype} to ${out}`, async (t) => {
      const { forward, backward } = build(c, dtype, out);
      const want = await run(oracle, kernels.gatedFfn, forward);
      for (const { isa, stream } of fast()) {
        const got = await run(stream, kernels.gatedFfn, forward);
        close(t, `forward ${isa}`, got.slice(0, 6), want.slice(0, 6), bound(dtype));
        // A sum next to 0 may fall on its other side where a device's products are in bf16.
        const others = got[6]!.filter((chosen, r) => chosen !== want[6]![r]).length;
        t.true(
          others <= (dtype === 'bf16' && isa.startsWith('cuda') ? 0.05 * c.rows : 0),
          `${isa}: ${others} rows choose otherwise`,
        );
      }
      const saved = savedOf(c, want, dtype);
      const next = random(5);
      const dy: Input = { data: normals(c.rows * c.width, next), shape: [c.rows, c.width], dtype };
      for (const [dgate, frozen] of [
        [{ data: Float32Array.of(-0.7), shape: [1] }, false],
        [null, true],
      ] as const) {
        const call = backward(saved, dy, dgate, frozen);
        const gradients = await run(oracle, kernels.gatedFfnBackward, call);
        for (const { isa, stream } of fast()) {
          const got = await run(stream, kernels.gatedFfnBackward, call);
          close(t, `backward ${isa}${frozen ? ' frozen' : ''}`, got, gradients, bound(dtype));
        }
      }
      t.pass();
    });
  }
}

for (const c of [cases[3]!, cases[4]!, cases[5]!, { ...cases[0]!, alpha: 3 }]) {
  test(`gated_ffn_backward is the derivative of gated_ffn by central differences in double: ${c.title}`, async (t) => {
    const { x, residual, shared, languages, noise, gateMask, expertMask } = build(c, 'f32').forward;
    const masks = [gateMask, expertMask];
    const call = { x, residual, shared, languages, noise, gateMask, expertMask, ...settings(c, 'f64', 'f64') };
    // Masks stay fp32.
    const double = (input: Input): Tensor => put(oracle, masks.includes(input) ? input : { ...input, dtype: 'f64' });
    // The scalar: Σ v·y + budget·Σ g.
    const next = random(99);
    const v = Float64Array.from(normals(c.rows * c.width, next));
    const budget = -0.37;
    const weights = [v, new Float64Array(c.rows).fill(budget), null, null, null, null, null];
    const placed = place<kernels.GatedFfnArguments>(call, double);
    const saved = kernels.gatedFfn(oracle, placed);
    const zeros = ({ shape }: Tensor): Tensor =>
      oracle.tensor(new Float64Array(shape.reduce((a, b) => a * b, 1)), shape, 'f64');
    const trained = placed.languages.map((language) => ({
      ...language,
      gradients: ofExpert((name) => zeros(language.expert[name])),
    }));
    const { dx } = kernels.gatedFfnBackward(oracle, {
      ...placed,
      ...saved,
      languages: trained,
      dy: oracle.tensor(v, [c.rows, c.width], 'f64'),
      dgate: oracle.tensor(Float64Array.of(budget), [1], 'f64'),
    });
    const analytic: [string, Input, Float64Array][] = [['x', x, await values(dx)]];
    for (const [l, { gradients }] of trained.entries())
      for (const name of EXPERT)
        analytic.push([`${name} of language ${l}`, languages[l]!.expert[name], await values(gradients[name])]);
    oracle.endStep();
    for (const [what, which, gradient] of analytic) {
      const direction = Float64Array.from(normals(gradient.length, next));
      const numeric = await centralDifference(kernels.gatedFfn, call, which, direction, weights, masks);
      const along = gradient.reduce((s, g, i) => s + g * direction[i]!, 0);
      const size = Math.sqrt(gradient.reduce((s, g) => s + g * g, 0)) + 1e-6;
      t.true(
        Math.abs(numeric - along) <= 1e-6 * size * Math.sqrt(gradient.length) + 1e-8,
        `${what}: ${along}, numeric ${numeric}`,
      );
    }
  });
}

for (const dtype of ['f32', 'bf16'] as const) {
  for (const c of [...cases, ...crowds]) {
    test(`gated_ffn_hard sends each row through one FFN, as the oracle does: ${c.title}, ${dtype}`, async (t) => {
      const { hard } = build(c, dtype);
      const want = await run(oracle, kernels.gatedFfnHard, hard);
      for (const { isa, stream } of fast()) {
        const got = await run(stream, kernels.gatedFfnHard, hard);
        t.deepEqual(got[1], want[1], `gates ${isa}`);
        close(t, `hard ${isa}`, got, want, bound(dtype));
      }
    });
  }
}

for (const c of cases) {
  test(`gated_ffn_hard with matrices in q8: ${c.title}`, async (t) => {
    const { hard } = build(c, 'f32');
    // fc1 and fc2 of the shared FFN and of each expert; the gates stay in f32.
    const quantized = <F extends Ffn>(of: F): F => ({
      ...of,
      fc1: { ...of.fc1, dtype: 'q8' },
      fc2: { ...of.fc2, dtype: 'q8' },
    });
    const shared = quantized(hard.shared);
    const languages = hard.languages.map((language) => ({ ...language, expert: quantized(language.expert) }));
    for (const compute of ['f32', 'bf16'] as const) {
      const call = { ...hard, shared, languages, compute };
      const want = await run(oracle, kernels.gatedFfnHard, call);
      for (const { isa, stream } of cpus()) {
        const got = await run(stream, kernels.gatedFfnHard, call);
        t.deepEqual(got[1], want[1], `gates ${isa}`);
        close(t, `hard in ${compute}, ${isa}`, got, want, bound(compute));
      }
    }
  });
}

test('straight gates mix as inference does, and training says what inference would choose', async (t) => {
  const c = cases.find(({ straight }) => straight)!;
  const { forward, hard } = build({ ...c, alpha: 0, gateDropout: 0, expertDropout: 0 }, 'f32');
  for (const { isa, stream } of fast()) {
    const [y, , , , , , chosen] = await run(stream, kernels.gatedFfn, forward);
    const want = await run(stream, kernels.gatedFfnHard, { ...hard, residual: forward.residual });
    close(t, isa, [y!, chosen!], want, bound('f32'));
    t.true(chosen!.includes(1) && chosen!.includes(0));
    // Noise moves the gates, and not what inference would choose.
    const [noisy, g, , , , , same] = await run(stream, kernels.gatedFfn, { ...forward, alpha: 5 });
    t.deepEqual(same, chosen);
    t.notDeepEqual(noisy, y);
    t.true(g!.some((gate, r) => gate >= 0.5 !== (chosen![r] === 1)));
  }
});

test('a hard gate of exactly 0 takes the expert', async (t) => {
  const c: Case = { title: '', rows: 4, width: 6, inner: 8, gate: 3, ranges: [[1, 3]] };
  const { hard } = build(c, 'f32');
  const [language] = hard.languages;
  const gateOut: Input = { data: new Float32Array(3), shape: [1, 3] };
  const call = { ...hard, languages: [{ ...language!, expert: { ...language!.expert, gateOut } }] };
  for (const { stream } of [...fast(), { stream: oracle }]) {
    const [, g] = await run(stream, kernels.gatedFfnHard, call);
    t.deepEqual([...g!], [0, 1, 1, 0]);
  }
});

test('a hard gate is computed in fp32 even where products are bf16', async (t) => {
  const c: Case = { title: '', rows: 64, width: 96, inner: 32, gate: 64, ranges: [[0, 64]] };
  const { hard } = build(c, 'f32');
  for (const dtype of ['f32', 'bf16'] as const) {
    const call = { ...hard, x: { ...hard.x, dtype } };
    const want = (await run(oracle, kernels.gatedFfnHard, call))[1]!;
    t.true(want.includes(0) && want.includes(1));
    const narrow = { ...call, compute: 'bf16', out: 'bf16' } as const;
    for (const { stream } of fast()) t.deepEqual((await run(stream, kernels.gatedFfnHard, narrow))[1], want);
  }
});

test('frozen weights give the same result call after call', async (t) => {
  const c: Case = { title: '', rows: 40, width: 48, inner: 96, gate: 16, ranges: [[0, 40]] };
  const { hard } = build(c, 'f32');
  for (const { stream } of fast()) {
    const fresh = await run(stream, kernels.gatedFfnHard, hard);
    const weights: Tensor[] = [];
    const { shared, languages } = place<kernels.GatedFfnHardArguments>(hard, ({ data, shape }) => {
      const kept = stream.persistent(data, shape);
      weights.push(kept);
      return kept;
    });
    for (let call = 0; call < 2; call++) {
      const x = put(stream, hard.x);
      const { y } = kernels.gatedFfnHard(stream, { x, shared, languages, compute: 'f32', out: 'f32' });
      t.deepEqual(await values(y), fresh[0]);
      stream.endStep();
    }
    for (const w of weights) w.dispose();
  }
});

test('the gate budget is the mean over all layers, its distance from the budget and a constant gradient', async (t) => {
  const g1: Input = { data: Float32Array.of(0.1, 0.2, 0.3), shape: [3] };
  const g2: Input = { data: Float32Array.of(1), shape: [1] };
  const budget = { gates: [g1, g2], budget: 0.5, weight: 2, count: 0 };
  for (const { stream } of [...fast(), { stream: oracle }]) {
    const [mean, loss, dgate] = await run(stream, kernels.gateBudget, budget);
    t.true(Math.abs(mean![0]! - 0.4) < 1e-7);
    t.true(Math.abs(loss![0]! - 0.1) < 1e-7);
    t.true(Math.abs(dgate![0]! - -0.5) < 1e-7);
    const [counted, , up] = await run(stream, kernels.gateBudget, { ...budget, count: 2 });
    t.true(Math.abs(counted![0]! - 0.8) < 1e-7 && Math.abs(up![0]! - 1) < 1e-7);
    const none = { ...budget, gates: [], weight: 1 };
    t.deepEqual(
      (await run(stream, kernels.gateBudget, none)).map((v) => v[0]),
      [0, 0, 0],
    );
  }
});

test('what does not fit is refused by name', async (t) => {
  const { forward } = build(cases[3]!, 'f32');
  const refuse = (change: Partial<Described<kernels.GatedFfnArguments>>, message: RegExp) => {
    const call = place<kernels.GatedFfnArguments>({ ...forward, ...change }, (input) => put(oracle, input));
    t.throws(() => kernels.gatedFfn(oracle, call), { message });
  };
  const zeros = (...shape: number[]): Input => ({ data: new Float32Array(shape.reduce((a, b) => a * b, 1)), shape });
  refuse({ shared: { ...forward.shared, fc1: zeros(67, 30) } }, /fc1\.weight/);
  refuse({ noise: zeros(3) }, /noise/);
  const ranges = (...of: [number, number][]) => ({
    languages: of.map(([begin, end], l) => ({ ...forward.languages[l]!, begin, end })),
  });
  refuse(ranges([2, 9], [8, 22]), /row_begin/);
  refuse(ranges([2, 9], [12, 24]), /row_end/);
  refuse({ gateDropout: 1 }, /gate_dropout/);
  // Without languages: x, residual, the shared FFN's four, noise and masks.
  const x = put(oracle, zeros(4, 8));
  const shared = [zeros(6, 8), zeros(6), zeros(8, 6), zeros(8)].map((input) => put(oracle, input));
  const numbers = [0, 0, 0, 0, 0, 7, 3, 40, 0, 0, 0];
  const raw = (...tensors: (Tensor | null)[]) => rawCall(oracle, 'gated_ffn', tensors, numbers);
  t.notThrows(() => raw(x, null, ...shared, null, null, null));
  t.throws(() => raw(null, null, ...shared, null, null, null), { message: /'x'/ });
  t.throws(() => raw(x, null, ...shared, null, null), { message: /expert_mask/ });
  oracle.endStep();
});
