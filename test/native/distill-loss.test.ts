import ava from 'ava';
import { DistilWhisperError } from '../../lib/errors/index.js';
import { type FloatType, kernels } from '../../lib/tensor/index.js';
import { floats, golden, ints } from '../support/golden.js';
import {
  centralDifference,
  close,
  type Described,
  fast,
  type Input,
  type Limit,
  normals,
  oracle,
  place,
  put,
  random,
  relativeL2,
  run,
} from '../support/kernels.js';

// Streams are shared: a step ends when its test ends.
const test = ava.serial;

type Loss = Described<kernels.DistillLossArguments>;

interface Case {
  title: string;
  rows: number;
  width: number;
  teacherWidth: number;
  vocabulary: number;
  kind: Loss['kind'];
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
  { title: 'cross-entropy alone', ...base, kind: 'none' },
  { title: 'JS', ...base, kind: 'js', epsilon: 1e-10, dweight: true },
  {
    title: 'JS at temperature 2, all positions',
    ...base,
    kind: 'js',
    temperature: 2,
    all: true,
    ignored: (r) => r % 3 === 0,
  },
  { title: 'JS at temperature 0.5', ...base, kind: 'js', temperature: 0.5, ignored: (r) => r < 4 },
  { title: 'KL', ...base, kind: 'kl', dweight: true, ignored: (r) => r % 2 === 1 },
  { title: 'KL at temperature 3, no smoothing', ...base, kind: 'kl', temperature: 3, smoothing: 0, all: true },
  { title: 'KL at temperature 0.01', ...base, kind: 'kl', temperature: 0.01, smoothing: 0 },
  { title: 'one row, one column, one token', rows: 1, width: 1, teacherWidth: 1, vocabulary: 1, kind: 'js' },
  { title: 'no rows', ...base, rows: 0, kind: 'js' },
  { title: 'no labelled row', ...base, kind: 'kl', ignored: () => true },
  { title: 'no labelled row, but all positions are distilled', ...base, kind: 'js', all: true, ignored: () => true },
  { title: 'without the gradient', ...base, kind: 'js', grad: false },
  {
    title: 'more tokens than a block, in the smallest workspace',
    rows: 70,
    width: 8,
    teacherWidth: 5,
    vocabulary: 5003,
    kind: 'js',
    workspace: 1 << 20,
    ignored: (r) => r % 7 === 2,
    dweight: true,
  },
  { title: 'logits of thousands', ...base, kind: 'js', scale: 2000 },
  { title: 'logits of thousands, KL', ...base, kind: 'kl', scale: 2000 },
];

function build(c: Case, dtype: FloatType): Loss {
  const next = random(31 + c.rows);
  const scale = (c.scale ?? 3) / Math.sqrt(c.width);
  const hidden: Input = { data: normals(c.rows * c.width, next), shape: [c.rows, c.width], dtype };
  const weight: Input = { data: normals(c.vocabulary * c.width, next, scale), shape: [c.vocabulary, c.width], dtype };
  const labels = Int32Array.from({ length: c.rows }, (_, r) =>
    c.ignored?.(r) ? -100 : Math.floor(next() * c.vocabulary),
  );
  const teach = c.kind !== 'none';
  return {
    hidden,
    weight,
    labels: { data: labels, shape: [c.rows] },
    teacherHidden: teach
      ? { data: normals(c.rows * c.teacherWidth, next), shape: [c.rows, c.teacherWidth], dtype }
      : null,
    teacherWeight: teach
      ? {
          data: normals(c.vocabulary * c.teacherWidth, next, (c.scale ?? 3) / Math.sqrt(c.teacherWidth)),
          shape: [c.vocabulary, c.teacherWidth],
          dtype,
        }
      : null,
    dweight: c.dweight
      ? { data: new Float32Array(c.vocabulary * c.width).fill(0.125), shape: weight.shape, inout: true }
      : null,
    ...settings(c, dtype),
  };
}

const settings = (c: Case, compute: FloatType | 'f64') => ({
  smoothing: c.smoothing ?? 0.1,
  temperature: c.temperature ?? 1,
  kind: c.kind,
  crossEntropyWeight: 0.25,
  divergenceWeight: 0.5,
  allPositions: c.all,
  grad: c.grad !== false,
  compute,
  workspace: c.workspace ?? 64 << 20,
  epsilon: c.epsilon,
});

/**
 * fp32: a logit errs by about (D + 2)·2⁻²⁴ of its size, and a probability by that much of itself times 1/τ; the naive loop
 * in fp32 has the same. So the allowed error is that, of the largest value of the output, with the logits' size as factor.
 * bf16: the naive loop rounds its logits, so a probability errs by 2⁻⁹ of the logit's size; half of that is allowed. (What
 * the kernel keeps per token is e = exp(s − max), rounded to 2⁻⁹ of itself.)
 */
function bound(c: Case, dtype: FloatType): Limit {
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

for (const dtype of ['f32', 'bf16'] as const) {
  for (const c of cases) {
    test(`distill_loss agrees with the oracle on every CPU path: ${c.title}, ${dtype}`, async (t) => {
      const call = build(c, dtype);
      const want = await run(oracle, kernels.distillLoss, call);
      for (const output of want) t.true(output.every(Number.isFinite));
      for (const { isa, stream } of fast())
        close(t, isa, await run(stream, kernels.distillLoss, call), want, bound(c, dtype));
    });
  }
}

test('the workspace changes nothing but rounding, and threads nothing at all', async (t) => {
  const c: Case = { title: '', rows: 50, width: 16, teacherWidth: 8, vocabulary: 4100, kind: 'js' };
  const call = build(c, 'f32');
  for (const { stream } of fast()) {
    const wide = await run(stream, kernels.distillLoss, call);
    const again = await run(stream, kernels.distillLoss, call);
    const narrow = await run(stream, kernels.distillLoss, { ...call, workspace: 1 << 20 });
    t.deepEqual(again, wide);
    for (let o = 0; o < wide.length; o++) t.true(relativeL2(narrow[o]!, wide[o]!) < 1e-6);
  }
});

test('a student equal to its teacher has no divergence and no gradient from it', async (t) => {
  const c: Case = { title: '', rows: 9, width: 12, teacherWidth: 12, vocabulary: 777, kind: 'js' };
  const student = build(c, 'f32');
  const same = { ...student, teacherHidden: student.hidden, teacherWeight: student.weight, crossEntropyWeight: 0 };
  for (const kind of ['js', 'kl'] as const) {
    for (const { stream } of fast()) {
      const [stats, , rows, d] = await run(stream, kernels.distillLoss, { ...same, kind });
      t.true(Math.abs(stats![1]!) < 1e-6 && rows!.every((v) => Math.abs(v) < 2e-6));
      t.true(d!.every((v) => Math.abs(v) < 1e-6));
    }
  }
});

for (const c of [...cases.slice(1, 6), { ...cases[0]!, dweight: true }]) {
  test(`the gradient of distill_loss is its derivative by central differences in double: ${c.title}`, async (t) => {
    const call = { ...build(c, 'f32'), ...settings(c, 'f64') };
    const double = (input: Input): Input => ({ ...input, dtype: 'f64' });
    const dweights = { data: new Float32Array(c.vocabulary * c.width), shape: call.weight.shape, inout: true };
    const [, , , dhidden, dweight] = await run(oracle, kernels.distillLoss, {
      ...call,
      hidden: double(call.hidden),
      weight: double(call.weight),
      teacherHidden: call.teacherHidden && double(call.teacherHidden),
      teacherWeight: call.teacherWeight && double(call.teacherWeight),
      dweight: double(dweights),
    });
    const next = random(3);
    const forward = { ...call, dweight: null, grad: false };
    for (const [which, gradient] of [
      ['hidden', dhidden!],
      ['weight', dweight!],
    ] as const) {
      const direction = Float64Array.from(normals(gradient.length, next));
      const total = [Float64Array.of(0, 0, 1, 0)];
      const numeric = await centralDifference(kernels.distillLoss, forward, call[which], direction, total);
      const along = gradient.reduce((s, g, i) => s + g * direction[i]!, 0);
      t.true(
        Math.abs(numeric - along) < 1e-6 * Math.max(1, Math.abs(along)),
        `input ${which}: ${along}, numeric ${numeric}`,
      );
    }
  });
}

test('bad arguments are refused by name', async (t) => {
  const call = build(cases[1]!, 'f32');
  const refuse = (change: Partial<Loss>, message: RegExp) => {
    const placed = place<kernels.DistillLossArguments>({ ...call, ...change }, (input) => put(oracle, input));
    t.throws(() => kernels.distillLoss(oracle, placed), { message });
  };
  refuse({ labels: { data: new Int32Array(12), shape: [12] } }, /'labels'/);
  refuse({ labels: { data: new Float32Array(13), shape: [13] } }, /'labels'/);
  refuse({ teacherWeight: null }, /teacher/);
  refuse({ teacherWeight: { data: new Float32Array(300 * 37), shape: [300, 37] } }, /teacher_weight/);
  refuse({ kind: 'none' }, /teacher/);
  refuse({ temperature: 0 }, /temperature/);
  refuse({ workspace: 1000 }, /workspace/);
  refuse({ smoothing: 1.5 }, /smoothing/);
  refuse({ grad: false }, /dweight/);
  oracle.endStep();
  // A label that is no token is found when the call runs, and spoils nothing else.
  for (const { stream } of [...fast(), { stream: oracle }]) {
    const labels = { data: Int32Array.from({ length: 13 }, (_, r) => (r === 5 ? 301 : 1)), shape: [13] };
    const error = await t.throwsAsync(run(stream, kernels.distillLoss, { ...call, labels }), {
      instanceOf: DistilWhisperError,
    });
    t.regex(error!.message, /301 in row 5/);
    stream.endStep();
    t.true(Number.isFinite((await run(stream, kernels.distillLoss, call))[0]![0]!));
  }
});

{
  const recorded = golden('case3_losses/random_2x7x200');
  const tensor = (name: string): Float32Array => floats(recorded, name);
  const labels = ints(recorded, 'labels');
  const eye = Float32Array.from({ length: 200 * 200 }, (_, i) => (i % 201 === 0 ? 1 : 0));
  const inputs = {
    hidden: { data: tensor('student_logits'), shape: [14, 200] },
    weight: { data: eye, shape: [200, 200] },
    labels: { data: labels, shape: [14] },
    teacherHidden: { data: tensor('teacher_logits'), shape: [14, 200] },
    teacherWeight: { data: eye, shape: [200, 200] },
  };
  for (const [name, kind] of [
    ['JS5', 'js'],
    ['KL', 'kl'],
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
        epsilon: kind === 'js' ? 1e-10 : 0,
      };
      test(`${name} at temperature ${temperature} reproduces the reference's recorded losses and gradients`, async (t) => {
        for (const { stream } of [...fast(), { stream: oracle }]) {
          const key = `${name}.T${temperature}`;
          for (const all of [true, false]) {
            const prefix = all ? '' : 'masked_NOT_reference.';
            const weights = { crossEntropyWeight: 0, divergenceWeight: 1 };
            const call = { ...inputs, ...settings({ ...shape, all }, 'f32'), ...weights };
            const [stats, , , d] = await run(stream, kernels.distillLoss, call);
            const kd = tensor(`${prefix}${key}.kd_loss`)[0]!;
            t.true(Math.abs(stats![1]! - kd) < 1e-6 * Math.max(1, kd));
            t.true(relativeL2(d!, tensor(`${prefix}${key}.dkd_dstudent${all ? '_f64' : ''}`)) < 1e-5);
          }
          for (const [sigma, s1, s2] of [
            ['s1.41_1.0', 1.41, 1],
            ['s1.0_1.0', 1, 1],
            ['s1.0_3.1416', 1, Math.PI],
          ] as const) {
            const weights = { crossEntropyWeight: 0.5 / s1 ** 2, divergenceWeight: 0.5 / s2 ** 2 };
            const call = { ...inputs, ...settings({ ...shape, all: true }, 'f32'), ...weights };
            const [stats, , , d] = await run(stream, kernels.distillLoss, call);
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
