import ava, { type ExecutionContext } from 'ava';
import type { DType } from '../lib/tensor/index.js';
import { cpus, fast, type Input, normals, number, oracle, put, random, run, values } from './support/kernels.js';

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

/** The weights of the shared FFN, then of every language: gate_in.w .b, gate_out.w, fc1.w .b, fc2.w .b. */
function weightsOf(c: Case, next: () => number, dtype: DType): Input[] {
  const w = (rows: number, cols: number): Input => ({
    data: normals(rows * cols, next, 1 / Math.sqrt(cols)),
    shape: [rows, cols],
    dtype,
  });
  const b = (n: number): Input => ({ data: normals(n, next, 0.3), shape: [n] });
  const ffn = () => [w(c.inner, c.width), b(c.inner), w(c.width, c.inner), b(c.width)];
  return [...ffn(), ...c.ranges.flatMap(() => [w(c.gate, c.width), b(c.gate), { ...w(1, c.gate) }, ...ffn()])];
}

function settings(c: Case, compute: DType, out: DType): number[] {
  return [
    c.ranges.length,
    ...c.ranges.flat(),
    c.skip ? 1 : 0,
    c.alpha ?? 0,
    c.gateDropout ?? 0,
    c.expertDropout ?? 0,
    c.seed ?? 7,
    3,
    40,
    number(compute),
    number(out),
  ];
}

interface Built {
  forward: (Input | null)[];
  numbers: number[];
  backward: (saved: Input[], dy: Input, dgate: Input | null, frozen?: boolean) => (Input | null)[];
}

function build(c: Case, dtype: DType, out = dtype): Built {
  const next = random(17 + c.rows);
  const x: Input = { data: normals(c.rows * c.width, next, c.scale ?? 1), shape: [c.rows, c.width], dtype };
  const weights = weightsOf(c, next, dtype);
  const residual: Input | null = c.residual ? { data: normals(c.rows * c.width, next), shape: x.shape, dtype } : null;
  const noise: Input | null = c.noise ? { data: normals(c.rows, next), shape: [c.rows] } : null;
  const mask = (p: number): Input | null =>
    c.masks
      ? { data: Float32Array.from({ length: c.rows * c.width }, () => (next() < p ? 0 : 1)), shape: x.shape }
      : null;
  const masks = [mask(0.1), mask(0.3)];
  return {
    forward: [x, residual, ...weights, noise, ...masks],
    numbers: settings(c, dtype, out),
    backward: (saved, dy, dgate, frozen = false) => [
      dy,
      dgate,
      x,
      ...weights,
      ...masks,
      ...saved,
      ...weights.slice(4).map((w, i) =>
        // Gradients add to what stands.
        frozen ? null : { data: Float32Array.from(w.data, () => 0.25 * ((i % 3) - 1)), shape: w.shape, inout: true },
      ),
    ],
  };
}

/**
 * The largest error of an element: `steps` roundings of the product's type, of a value as large as the output's largest.
 * Sums of n products in fp32 err by at most n·2⁻²⁴ of Σ|a·b|, and a chain of two products and a GELU keeps that
 * proportion; 64 covers n ≤ 520 as measured for a plain loop. In bf16 both factors of each product are rounded (2⁻⁹ each).
 */
function bound(dtype: DType): (o: number, i: number, e: number, all: Float64Array) => number {
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

function close(
  t: ExecutionContext,
  title: string,
  got: Float64Array[],
  want: Float64Array[],
  limit: ReturnType<typeof bound>,
): void {
  t.is(got.length, want.length, title);
  for (let o = 0; o < want.length; o++) {
    t.is(got[o]!.length, want[o]!.length, `${title}: size of output ${o}`);
    for (let i = 0; i < want[o]!.length; i++) {
      const error = Math.abs(got[o]![i]! - want[o]![i]!);
      const allowed = limit(o, i, want[o]![i]!, want[o]!);
      if (!(error <= allowed)) {
        t.fail(`${title}: output ${o}[${i}]: expected ${want[o]![i]}, got ${got[o]![i]}, allowed ${allowed}`);
        return;
      }
    }
  }
}

// The last is how a model trains: the residual stream is in f32, and what the backward reads in bf16.
for (const [dtype, out, some] of [
  ['f32', 'f32', cases],
  ['bf16', 'bf16', cases],
  ['bf16', 'f32', cases.filter(({ ranges }) => ranges.length === 2)],
] as const) {
  for (const c of some) {
    test(`gated_ffn and its backward agree with the oracle: ${c.title}, ${dtype} to ${out}`, async (t) => {
      const { forward, numbers, backward } = build(c, dtype, out);
      const want = await run(oracle, 'gated_ffn', forward, numbers);
      for (const { isa, stream } of fast) {
        close(t, `forward ${isa}`, await run(stream, 'gated_ffn', forward, numbers), want, bound(dtype));
      }
      const covered = c.ranges.reduce((n, [a, b]) => n + b - a, 0);
      const experts = c.skip ? 0 : covered;
      const shapes = [
        [c.rows],
        [covered, c.ranges.length ? c.gate : 0],
        [c.rows, c.inner],
        [experts, c.inner],
        [experts, c.width],
      ];
      const saved = want
        .slice(1)
        .map((data, i): Input => ({ data: Float32Array.from(data), shape: shapes[i]!, dtype: i < 2 ? 'f32' : dtype }));
      const next = random(5);
      const dy: Input = { data: normals(c.rows * c.width, next), shape: [c.rows, c.width], dtype };
      for (const [dgate, frozen] of [
        [{ data: Float32Array.of(-0.7), shape: [1] }, false],
        [null, true],
      ] as const) {
        const inputs = backward(saved, dy, dgate as Input | null, frozen);
        const gradients = await run(oracle, 'gated_ffn_backward', inputs, numbers);
        for (const { isa, stream } of fast) {
          const got = await run(stream, 'gated_ffn_backward', inputs, numbers);
          close(t, `backward ${isa}${frozen ? ' frozen' : ''}`, got, gradients, bound(dtype));
        }
      }
      t.pass();
    });
  }
}

for (const c of [cases[3]!, cases[4]!, cases[5]!, { ...cases[0]!, alpha: 3 }]) {
  test(`gated_ffn_backward is the derivative of gated_ffn by central differences in double: ${c.title}`, async (t) => {
    const { forward, backward } = build(c, 'f32');
    const numbers = settings(c, 'f64', 'f64');
    const asDouble = (inputs: (Input | null)[], keep: (i: number) => boolean) =>
      inputs.map((input, i) => (input === null || keep(i) ? input : { ...input, dtype: 'f64' as const }));
    const experts = 6 + 7 * c.ranges.length;
    const masks = (i: number) => i > experts;
    const doubles = asDouble(forward, masks);
    // The scalar: Σ v·y + budget·Σ g.
    const next = random(99);
    const v = Float64Array.from(normals(c.rows * c.width, next));
    const budget = -0.37;
    const weights = [v, new Float64Array(c.rows).fill(budget), null, null, null, null];
    const tensors = doubles.map((input) => put(oracle, input));
    const saved = oracle.call('gated_ffn', tensors, numbers).slice(1);
    const inputs = asDouble(
      backward([], { data: Float32Array.from(v), shape: [c.rows, c.width] }, { data: Float32Array.of(0), shape: [1] }),
      (i) => i === experts + 1 || i === experts + 2,
    );
    const placed = inputs.map((input) =>
      input?.inout ? { ...input, data: input.data.map(() => 0) as Float32Array } : input,
    );
    const bt = placed.map((input) => put(oracle, input));
    bt[1] = oracle.tensor(Float64Array.of(budget), [1], 'f64');
    const before = 3 + 4 + 7 * c.ranges.length + 2;
    const dx = oracle.call('gated_ffn_backward', [...bt.slice(0, before), ...saved, ...bt.slice(before)], numbers)[0]!;
    const analytic = new Map<number, Float64Array>([[0, await values(dx)]]);
    for (let i = 6; i < experts; i++) analytic.set(i, await values(bt[before + i - 6]!));
    oracle.endStep();
    for (const [which, gradient] of analytic) {
      const direction = Float64Array.from(normals(gradient.length, next));
      // Masks must stay fp32: only the others become double here.
      const numeric = await differenceWithMasks(forward, experts, numbers, which, direction, weights);
      const along = gradient.reduce((s, g, i) => s + g * direction[i]!, 0);
      const size = Math.sqrt(gradient.reduce((s, g) => s + g * g, 0)) + 1e-6;
      t.true(
        Math.abs(numeric - along) <= 1e-6 * size * Math.sqrt(gradient.length) + 1e-8,
        `input ${which}: ${along}, numeric ${numeric}`,
      );
    }
  });
}

async function differenceWithMasks(
  forward: (Input | null)[],
  experts: number,
  numbers: number[],
  which: number,
  direction: Float64Array,
  weights: (Float64Array | null)[],
): Promise<number> {
  const h = 1e-5;
  const at = async (sign: number): Promise<number> => {
    const tensors = forward.map((input, i) => {
      if (input === null || i > experts) return put(oracle, input);
      const data = Float64Array.from(input.data);
      if (i === which) for (let j = 0; j < data.length; j++) data[j]! += sign * h * direction[j]!;
      return oracle.tensor(data, input.shape, 'f64');
    });
    const outputs = await Promise.all(oracle.call('gated_ffn', tensors, numbers).map(values));
    oracle.endStep();
    return weights.reduce((s, w, o) => s + (w ? w.reduce((a, wi, i) => a + wi * outputs[o]![i]!, 0) : 0), 0);
  };
  return ((await at(1)) - (await at(-1))) / (2 * h);
}

for (const dtype of ['f32', 'bf16'] as const) {
  for (const c of [...cases, ...crowds]) {
    test(`gated_ffn_hard sends each row through one FFN, as the oracle does: ${c.title}, ${dtype}`, async (t) => {
      const { forward } = build(c, dtype);
      const inputs = forward.slice(0, 6 + 7 * c.ranges.length);
      const numbers = [c.ranges.length, ...c.ranges.flat(), number(dtype), number(dtype)];
      const want = await run(oracle, 'gated_ffn_hard', inputs, numbers);
      for (const { isa, stream } of fast) {
        const got = await run(stream, 'gated_ffn_hard', inputs, numbers);
        t.deepEqual(got[1], want[1], `gates ${isa}`);
        close(t, `hard ${isa}`, got, want, bound(dtype));
      }
    });
  }
}

for (const c of cases) {
  test(`gated_ffn_hard with matrices in q8: ${c.title}`, async (t) => {
    const { forward } = build(c, 'f32');
    // fc1 and fc2 of the shared FFN and of each expert; the gates stay in f32.
    const inputs = forward.slice(0, 6 + 7 * c.ranges.length).map((input, i) => {
      const matrix = i === 2 || i === 4 || (i >= 6 && [3, 5].includes((i - 6) % 7));
      return input && matrix ? { ...input, dtype: 'q8' as const } : input;
    });
    for (const compute of ['f32', 'bf16'] as const) {
      const numbers = [c.ranges.length, ...c.ranges.flat(), number(compute), number('f32')];
      const want = await run(oracle, 'gated_ffn_hard', inputs, numbers);
      for (const { isa, stream } of cpus) {
        const got = await run(stream, 'gated_ffn_hard', inputs, numbers);
        t.deepEqual(got[1], want[1], `gates ${isa}`);
        close(t, `hard in ${compute}, ${isa}`, got, want, bound(compute));
      }
    }
  });
}

test('a hard gate of exactly 0 takes the expert', async (t) => {
  const c: Case = { title: '', rows: 4, width: 6, inner: 8, gate: 3, ranges: [[1, 3]] };
  const inputs = build(c, 'f32').forward.slice(0, 13);
  inputs[8] = { data: new Float32Array(3), shape: [1, 3] };
  for (const { stream } of [...fast, { stream: oracle }]) {
    const [, g] = await run(stream, 'gated_ffn_hard', inputs, [1, 1, 3, 0, 0]);
    t.deepEqual([...g!], [0, 1, 1, 0]);
  }
});

test('a hard gate is computed in fp32 even where products are bf16', async (t) => {
  const c: Case = { title: '', rows: 64, width: 96, inner: 32, gate: 64, ranges: [[0, 64]] };
  const [x, ...rest] = build(c, 'f32').forward.slice(0, 13);
  for (const dtype of ['f32', 'bf16'] as const) {
    const inputs = [{ ...x!, dtype }, ...rest];
    const want = (await run(oracle, 'gated_ffn_hard', inputs, [1, 0, 64, 0, 0]))[1]!;
    t.true(want.includes(0) && want.includes(1));
    for (const { stream } of fast) {
      t.deepEqual((await run(stream, 'gated_ffn_hard', inputs, [1, 0, 64, number('bf16'), number('bf16')]))[1], want);
    }
  }
});

test('frozen weights give the same result call after call', async (t) => {
  const c: Case = { title: '', rows: 40, width: 48, inner: 96, gate: 16, ranges: [[0, 40]] };
  const inputs = build(c, 'f32').forward.slice(0, 13);
  const numbers = [1, 0, 40, 0, 0];
  for (const { stream } of fast) {
    const fresh = await run(stream, 'gated_ffn_hard', inputs, numbers);
    const frozen = inputs.map((input, i) =>
      input === null ? null : i < 2 ? put(stream, input) : stream.persistent(input.data, input.shape),
    );
    for (let call = 0; call < 2; call++) {
      const x = put(stream, inputs[0]!);
      const [y] = stream.call('gated_ffn_hard', [x, null, ...frozen.slice(2)], numbers);
      t.deepEqual(await values(y!), fresh[0]);
      stream.endStep();
    }
    for (const w of frozen.slice(2)) w?.dispose();
  }
});

test('the gate budget is the mean over all layers, its distance from the budget and a constant gradient', async (t) => {
  const g1: Input = { data: Float32Array.of(0.1, 0.2, 0.3), shape: [3] };
  const g2: Input = { data: Float32Array.of(1), shape: [1] };
  for (const { stream } of [...fast, { stream: oracle }]) {
    const [mean, loss, dgate] = await run(stream, 'gate_budget', [g1, g2], [0.5, 2, 0]);
    t.true(Math.abs(mean![0]! - 0.4) < 1e-7);
    t.true(Math.abs(loss![0]! - 0.1) < 1e-7);
    t.true(Math.abs(dgate![0]! - -0.5) < 1e-7);
    const [counted, , up] = await run(stream, 'gate_budget', [g1, g2], [0.5, 2, 2]);
    t.true(Math.abs(counted![0]! - 0.8) < 1e-7 && Math.abs(up![0]! - 1) < 1e-7);
    t.deepEqual(
      (await run(stream, 'gate_budget', [], [0.5, 1, 0])).map((v) => v[0]),
      [0, 0, 0],
    );
  }
});

test('what does not fit is refused by name', async (t) => {
  const c = cases[3]!;
  const { forward, numbers } = build(c, 'f32');
  const refuse = (inputs: (Input | null)[], nums: number[], op: string, pattern: RegExp) => {
    const tensors = inputs.map((input) => put(oracle, input));
    t.throws(() => oracle.call(op, tensors, nums), { message: pattern });
  };
  const change = (i: number, input: Input | null) => forward.map((old, j) => (j === i ? input : old));
  refuse(change(0, null), numbers, 'gated_ffn', /'x'/);
  refuse(change(2, { data: new Float32Array(67 * 30), shape: [67, 30] }), numbers, 'gated_ffn', /fc1\.weight/);
  refuse(change(20, { data: new Float32Array(3), shape: [3] }), numbers, 'gated_ffn', /noise/);
  const ranges = (...r: number[]) => [2, ...r, ...numbers.slice(5)];
  refuse(forward, ranges(2, 9, 8, 22), 'gated_ffn', /row_begin/);
  refuse(forward, ranges(2, 9, 12, 24), 'gated_ffn', /row_end/);
  refuse(forward, [...numbers.slice(0, 7), 1, ...numbers.slice(8)], 'gated_ffn', /gate_dropout/);
  refuse(forward.slice(0, -1), numbers, 'gated_ffn', /expert_mask/);
  oracle.endStep();
});
