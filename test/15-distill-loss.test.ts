import ava, { type ExecutionContext } from 'ava';
import { DistilWhisperError } from '../lib/errors/index.js';
import type { DType } from '../lib/tensor/index.js';
import { floats, golden, ints } from './support/golden.js';
import {
  centralDifference,
  fast,
  type Input,
  normals,
  number,
  oracle,
  put,
  random,
  relativeL2,
  run,
} from './support/kernels.js';

// Streams are shared: a step ends when its test ends.
const test = ava.serial;

const NONE = 0;
const JS = 1;
const KL = 2;

interface Case {
  title: string;
  rows: number;
  width: number;
  teacherWidth: number;
  vocabulary: number;
  kind: number;
  temperature?: number;
  smoothing?: number;
  all?: boolean;
  epsilon?: number;
  scale?: number;
  ignored?: (row: number) => boolean;
  grad?: boolean;
  dweight?: boolean;
  workspace?: number;
}

const base = { rows: 13, width: 24, teacherWidth: 37, vocabulary: 301, smoothing: 0.1 };
const cases: Case[] = [
  { title: 'cross-entropy alone', ...base, kind: NONE },
  { title: 'JS', ...base, kind: JS, epsilon: 1e-10, dweight: true },
  {
    title: 'JS at temperature 2, all positions',
    ...base,
    kind: JS,
    temperature: 2,
    all: true,
    ignored: (r) => r % 3 === 0,
  },
  { title: 'JS at temperature 0.5', ...base, kind: JS, temperature: 0.5, ignored: (r) => r < 4 },
  { title: 'KL', ...base, kind: KL, dweight: true, ignored: (r) => r % 2 === 1 },
  { title: 'KL at temperature 3, no smoothing', ...base, kind: KL, temperature: 3, smoothing: 0, all: true },
  { title: 'KL at temperature 0.01', ...base, kind: KL, temperature: 0.01, smoothing: 0 },
  { title: 'one row, one column, one token', rows: 1, width: 1, teacherWidth: 1, vocabulary: 1, kind: JS },
  { title: 'no rows', ...base, rows: 0, kind: JS },
  { title: 'no labelled row', ...base, kind: KL, ignored: () => true },
  { title: 'no labelled row, but all positions are distilled', ...base, kind: JS, all: true, ignored: () => true },
  { title: 'without the gradient', ...base, kind: JS, grad: false },
  {
    title: 'more tokens than a block, in the smallest workspace',
    rows: 70,
    width: 8,
    teacherWidth: 5,
    vocabulary: 5003,
    kind: JS,
    workspace: 1 << 20,
    ignored: (r) => r % 7 === 2,
    dweight: true,
  },
  { title: 'logits of thousands', ...base, kind: JS, scale: 2000 },
  { title: 'logits of thousands, KL', ...base, kind: KL, scale: 2000 },
];

function build(c: Case, dtype: DType): { inputs: (Input | null)[]; numbers: number[] } {
  const next = random(31 + c.rows);
  const scale = (c.scale ?? 3) / Math.sqrt(c.width);
  const hidden: Input = { data: normals(c.rows * c.width, next), shape: [c.rows, c.width], dtype };
  const weight: Input = { data: normals(c.vocabulary * c.width, next, scale), shape: [c.vocabulary, c.width], dtype };
  const labels = Int32Array.from({ length: c.rows }, (_, r) =>
    c.ignored?.(r) ? -100 : Math.floor(next() * c.vocabulary),
  );
  const teach = c.kind !== NONE;
  return {
    inputs: [
      hidden,
      weight,
      { data: labels, shape: [c.rows] },
      teach ? { data: normals(c.rows * c.teacherWidth, next), shape: [c.rows, c.teacherWidth], dtype } : null,
      teach
        ? {
            data: normals(c.vocabulary * c.teacherWidth, next, (c.scale ?? 3) / Math.sqrt(c.teacherWidth)),
            shape: [c.vocabulary, c.teacherWidth],
            dtype,
          }
        : null,
      c.dweight
        ? { data: new Float32Array(c.vocabulary * c.width).fill(0.125), shape: weight.shape, inout: true }
        : null,
    ],
    numbers: settings(c, dtype),
  };
}

function settings(c: Case, compute: DType): number[] {
  return [
    c.smoothing ?? 0.1,
    c.temperature ?? 1,
    c.kind,
    0.25,
    0.5,
    c.all ? 1 : 0,
    c.grad === false ? 0 : 1,
    number(compute),
    c.workspace ?? 64 << 20,
    c.epsilon ?? 0,
  ];
}

/**
 * fp32: a logit errs by about (D + 2)·2⁻²⁴ of its size, and a probability by that much of itself times 1/τ; the naive loop
 * in fp32 has the same. So the allowed error is that, of the largest value of the output, with the logits' size as factor.
 * bf16: the naive loop rounds its logits, so a probability errs by 2⁻⁹ of the logit's size; half of that is allowed. (What
 * the kernel keeps per token is e = exp(s − max), rounded to 2⁻⁹ of itself.)
 */
function bound(c: Case, dtype: DType): (o: number, i: number, e: number, all: Float64Array) => number {
  const logit = (c.scale ?? 3) * 6;
  const fp32 = 2 ** -24 * (c.width + c.teacherWidth) * Math.max(4, logit) * Math.max(1, 1 / (c.temperature ?? 1));
  const unit = fp32 + (dtype === 'bf16' ? (2 ** -9 * logit) / 2 : 0);
  const largest = new Map<Float64Array, number>();
  return (o, _i, _e, all) => {
    if (!largest.has(all))
      largest.set(
        all,
        all.reduce((a, b) => Math.max(a, Math.abs(b)), o < 3 ? 1 : 1e-6),
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

for (const dtype of ['f32', 'bf16'] as const) {
  for (const c of cases) {
    test(`distill_loss agrees with the oracle on every CPU path: ${c.title}, ${dtype}`, async (t) => {
      const { inputs, numbers } = build(c, dtype);
      const want = await run(oracle, 'distill_loss', inputs, numbers);
      for (const output of want) t.true(output.every(Number.isFinite));
      for (const { isa, stream } of fast)
        close(t, isa, await run(stream, 'distill_loss', inputs, numbers), want, bound(c, dtype));
    });
  }
}

test('the workspace changes nothing but rounding, and threads nothing at all', async (t) => {
  const c: Case = { title: '', rows: 50, width: 16, teacherWidth: 8, vocabulary: 4100, kind: JS };
  const { inputs, numbers } = build(c, 'f32');
  for (const { stream } of fast) {
    const wide = await run(stream, 'distill_loss', inputs, numbers);
    const again = await run(stream, 'distill_loss', inputs, numbers);
    const narrow = await run(stream, 'distill_loss', inputs, settings({ ...c, workspace: 1 << 20 }, 'f32'));
    t.deepEqual(again, wide);
    for (let o = 0; o < wide.length; o++) t.true(relativeL2(narrow[o]!, wide[o]!) < 1e-6);
  }
});

test('a student equal to its teacher has no divergence and no gradient from it', async (t) => {
  const c: Case = { title: '', rows: 9, width: 12, teacherWidth: 12, vocabulary: 777, kind: JS };
  const { inputs, numbers } = build(c, 'f32');
  inputs[3] = inputs[0]!;
  inputs[4] = inputs[1]!;
  numbers[3] = 0;
  for (const kind of [JS, KL]) {
    numbers[2] = kind;
    for (const { stream } of fast) {
      const [stats, , rows, d] = await run(stream, 'distill_loss', inputs, numbers);
      t.true(Math.abs(stats![1]!) < 1e-6 && rows!.every((v) => Math.abs(v) < 2e-6));
      t.true(d!.every((v) => Math.abs(v) < 1e-6));
    }
  }
});

for (const c of [...cases.slice(1, 6), { ...cases[0]!, dweight: true }]) {
  test(`the gradient of distill_loss is its derivative by central differences in double: ${c.title}`, async (t) => {
    const { inputs } = build({ ...c, dweight: true }, 'f32');
    const numbers = settings(c, 'f64');
    const doubles = inputs.map((input) =>
      input && !(input.data instanceof Int32Array) ? { ...input, dtype: 'f64' as const } : input,
    );
    doubles[5] = { ...doubles[5]!, data: new Float32Array(c.vocabulary * c.width) };
    const [, , , dhidden, dweight] = await run(oracle, 'distill_loss', doubles, numbers);
    const next = random(3);
    const forward = settings({ ...c, grad: false }, 'f64');
    for (const [which, gradient] of [
      [0, dhidden!],
      [1, dweight!],
    ] as const) {
      const direction = Float64Array.from(normals(gradient.length, next));
      const numeric = await centralDifference(
        'distill_loss',
        inputs.map((v, i) => (i === 5 ? null : v)),
        forward,
        which,
        direction,
        [Float64Array.of(0, 0, 1, 0)],
      );
      const along = gradient.reduce((s, g, i) => s + g * direction[i]!, 0);
      t.true(
        Math.abs(numeric - along) < 1e-6 * Math.max(1, Math.abs(along)),
        `input ${which}: ${along}, numeric ${numeric}`,
      );
    }
  });
}

test('bad arguments are refused by name', async (t) => {
  const { inputs, numbers } = build(cases[1]!, 'f32');
  const refuse = (which: number, input: Input | null, pattern: RegExp, nums = numbers) => {
    const tensors = inputs.map((old, i) => put(oracle, i === which ? input : old));
    t.throws(() => oracle.call('distill_loss', tensors, nums), { message: pattern });
  };
  const change = (i: number, v: number) => numbers.map((old, j) => (j === i ? v : old));
  refuse(2, { data: new Int32Array(12), shape: [12] }, /'labels'/);
  refuse(2, { data: new Float32Array(13), shape: [13] }, /'labels'/);
  refuse(4, null, /teacher/);
  refuse(4, { data: new Float32Array(300 * 37), shape: [300, 37] }, /teacher_weight/);
  refuse(-1, null, /teacher/, change(2, NONE));
  refuse(-1, null, /temperature/, change(1, 0));
  refuse(-1, null, /workspace/, change(8, 1000));
  refuse(-1, null, /smoothing/, change(0, 1.5));
  refuse(-1, null, /dweight/, change(6, 0));
  oracle.endStep();
  // A label that is no token is found when the call runs, and spoils nothing else.
  for (const { stream } of [...fast, { stream: oracle }]) {
    const wrong = inputs.map((input, i) =>
      i === 2 ? { data: Int32Array.from({ length: 13 }, (_, r) => (r === 5 ? 301 : 1)), shape: [13] } : input,
    );
    const error = await t.throwsAsync(run(stream, 'distill_loss', wrong, numbers), { instanceOf: DistilWhisperError });
    t.regex(error!.message, /301 in row 5/);
    stream.endStep();
    t.true(Number.isFinite((await run(stream, 'distill_loss', inputs, numbers))[0]![0]!));
  }
});

{
  const recorded = golden('case3_losses/random_2x7x200');
  const tensor = (name: string): Float32Array => floats(recorded, name);
  const labels = ints(recorded, 'labels');
  const eye = Float32Array.from({ length: 200 * 200 }, (_, i) => (i % 201 === 0 ? 1 : 0));
  const inputs: Input[] = [
    { data: tensor('student_logits'), shape: [14, 200] },
    { data: eye, shape: [200, 200] },
    { data: labels, shape: [14] },
    { data: tensor('teacher_logits'), shape: [14, 200] },
    { data: eye, shape: [200, 200] },
  ];
  for (const [name, kind] of [
    ['JS5', JS],
    ['KL', KL],
  ] as const) {
    for (const temperature of [1, 2]) {
      const shape = {
        title: '',
        rows: 14,
        width: 200,
        teacherWidth: 200,
        vocabulary: 200,
        kind,
        temperature,
        epsilon: kind === JS ? 1e-10 : 0,
      };
      test(`${name} at temperature ${temperature} reproduces the reference's recorded losses and gradients`, async (t) => {
        for (const { stream } of [...fast, { stream: oracle }]) {
          const key = `${name}.T${temperature}`;
          for (const all of [true, false]) {
            const numbers = settings({ ...shape, all }, 'f32');
            const prefix = all ? '' : 'masked_NOT_reference.';
            numbers[3] = 0;
            numbers[4] = 1;
            const [stats, , , d] = await run(stream, 'distill_loss', [...inputs, null as unknown as Input], numbers);
            const kd = tensor(`${prefix}${key}.kd_loss`)[0]!;
            t.true(Math.abs(stats![1]! - kd) < 1e-6 * Math.max(1, kd));
            t.true(relativeL2(d!, tensor(`${prefix}${key}.dkd_dstudent${all ? '_f64' : ''}`)) < 1e-5);
          }
          for (const [sigma, s1, s2] of [
            ['s1.41_1.0', 1.41, 1],
            ['s1.0_1.0', 1, 1],
            ['s1.0_3.1416', 1, Math.PI],
          ] as const) {
            const numbers = settings({ ...shape, all: true }, 'f32');
            numbers[3] = 0.5 / s1 ** 2;
            numbers[4] = 0.5 / s2 ** 2;
            const [stats, , , d] = await run(stream, 'distill_loss', [...inputs, null as unknown as Input], numbers);
            // The recorded total has a gate mean of 0.62 against a budget of 0.5.
            const loss = tensor(`${key}.${sigma}.loss`)[0]!;
            t.true(Math.abs(stats![2]! + (0.5 * 0.12) / s1 ** 2 - loss) < 1e-6 * loss);
            t.true(relativeL2(d!, tensor(`${key}.${sigma}.dloss_dstudent`)) < 1e-5);
          }
        }
      });
    }
  }
}
