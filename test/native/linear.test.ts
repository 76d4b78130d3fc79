import test from 'ava';
import { rawCall } from '../../lib/tensor/call.js';
import { type DType, type FloatType, kernels } from '../../lib/tensor/index.js';
import {
  centralDifference,
  compare,
  cpus,
  type Described,
  devices,
  fast,
  type Input,
  normals,
  oracle,
  put,
  random,
  relativeL2,
  roundBf16,
  run,
} from '../support/kernels.js';

// Sound bounds: a sum of n products in fp32, in any order, errs by at most n·2⁻²⁴·Σ|a·b|; a bf16 output
// may fall on the other side of a tie and then adds one step, 2⁻⁷ of itself.
const eps = 2 ** -24;
const types: FloatType[] = ['f32', 'bf16'];
const shapes = [
  [1, 1, 1],
  [0, 3, 5],
  [1, 70, 97],
  [2, 130, 33],
  [3, 45, 70],
  [4, 66, 64],
  [5, 64, 129],
  [6, 37, 191],
  [7, 51, 320],
  [8, 31, 64],
  [9, 65, 47],
  [53, 67, 200],
  [97, 191, 1601],
  [33, 257, 1500],
];

const stored = (input: Input): Float64Array => {
  const round = input.dtype === 'bf16' ? roundBf16 : (x: number) => x;
  return Float64Array.from(input.data, round);
};
/** Of numbers that lie row by row, or column by column: the steps from one row, and one column, to the next. */
interface Matrix {
  values: Float64Array;
  steps: readonly [row: number, column: number];
}
const byRows = (values: Float64Array, columns: number): Matrix => ({ values, steps: [columns, 1] });
const byColumns = (values: Float64Array, rows: number): Matrix => ({ values, steps: [1, rows] });
/** Σ_p |a[i, p]|·|b[p, j]| for a [m, k] and b [k, n]. */
function magnitude(m: number, n: number, k: number, a: Matrix, b: Matrix): Float64Array {
  const out = new Float64Array(m * n);
  const [u, v] = [a.values.map(Math.abs), b.values.map(Math.abs)];
  const [ai, ap] = a.steps;
  const [bp, bj] = b.steps;
  for (let i = 0; i < m; i++)
    for (let j = 0; j < n; j++) {
      let s = 0;
      for (let p = 0; p < k; p++) s += u[i * ai + p * ap]! * v[p * bp + j * bj]!;
      out[i * n + j] = s;
    }
  return out;
}
const rounding = (out: DType, value: number): number =>
  out === 'bf16' ? Math.abs(value) / 128 : 4 * eps * Math.abs(value);

test('linear with a weight in q8 agrees with the oracle in every shape, with every epilogue', async (t) => {
  const next = random(11);
  for (const [m, n, k] of [...shapes, [31, 129, 768]] as [number, number, number][])
    for (const type of types) {
      const x: Input = { data: normals(m * k, next), shape: [m, k], dtype: type };
      const w: Input = { data: normals(n * k, next), shape: [n, k], dtype: 'q8' };
      const bias: Input | null = next() < 0.7 ? { data: normals(n, next), shape: [n] } : null;
      const residual: Input | null = next() < 0.5 ? { data: normals(m * n, next), shape: [m, n], dtype: type } : null;
      const vx = stored(x);
      // Half a step of the row's scale, at most 1/254 of its largest, may come to each weight.
      const largest = Float64Array.from(w.data).reduce((top, x) => Math.max(top, Math.abs(x)), 0) / 254;
      const weights = Float64Array.from(w.data, (v) => Math.abs(v) + largest);
      const sum = magnitude(m, n, k, byRows(vx, k), byColumns(weights, k));
      for (const compute of types)
        await compare(
          t,
          `linear ${m}x${n}x${k} of ${type} and q8 in ${compute}`,
          kernels.linear,
          { x, weight: w, bias, residual, gelu: next() < 0.5, savePre: true, compute, out: type },
          (_, i, expected) =>
            1.2 * (k + 4) * eps * (1.01 * sum[i]! + 4) + 4e-7 + 8 * eps * sum[i]! + rounding(type, expected),
        );
    }
});

test('quantize: each weight is within half a step of its row, zeros are zeros, and every path writes the same bytes', async (t) => {
  const next = random(12);
  for (const [n, k] of [
    [1, 1],
    [3, 97],
    [17, 64],
    [0, 5],
    [5, 0],
  ] as const)
    for (const type of types) {
      const data = normals(n * k, next).map((x, i) => (k > 0 && Math.floor(i / k) === 1 ? 0 : x * 10 ** (i % 7)));
      const input: Input = { data, shape: [n, k], dtype: type };
      const quantized = oracle.quantized(put(oracle, input));
      const bytes = await quantized.read();
      t.is(bytes.byteLength, n * (k + 4));
      const [exact, got] = [stored(input), await quantized.floats()];
      for (let i = 0; i < n; i++) {
        const row = exact.slice(i * k, (i + 1) * k);
        const step = Math.max(0, ...row.map(Math.abs)) / 127;
        for (const [p, value] of row.entries())
          t.true(
            Math.abs(got[i * k + p]! - value) <= 0.5001 * step,
            `${n}x${k} row ${i}: ${got[i * k + p]} for ${value}`,
          );
      }
      for (const { isa, stream } of cpus()) {
        t.deepEqual(await stream.quantized(put(stream, input)).read(), bytes, `${isa}, ${n}x${k} of ${type}`);
      }
    }
  for (const { isa, stream } of cpus()) {
    const broken = stream.tensor(Float32Array.of(1, Number.NaN, Number.POSITIVE_INFINITY, 2), [2, 2]);
    const [x, w] = [stream.tensor(Float32Array.of(1, 1), [1, 2]), stream.quantized(broken)];
    const { y } = kernels.linear(stream, { x, weight: w, compute: 'f32', out: 'f32' });
    t.deepEqual([...(await y.floats())].map(Number.isFinite), [false, false], isa);
  }
});

test('rows that meet q8 in bf16 are 16 bits of their largest: long, tiny, huge and zero ones; what is not finite gives NaN', async (t) => {
  const next = random(15);
  const n = 5;
  for (const k of [40, 8192, 8225]) {
    const data = Float32Array.from(normals(7 * k, next));
    const row = (i: number) => data.subarray(i * k, (i + 1) * k);
    for (let p = 0; p < k; p++) {
      row(1)[p]! *= 1e30;
      row(2)[p]! *= 1e-36;
    }
    row(3).fill(0);
    row(4)[k - 1] = Number.POSITIVE_INFINITY;
    row(5)[0] = Number.NaN;
    // The most that whole sums must hold: every element the largest.
    row(6).fill(-3);
    const wide = Float32Array.from({ length: n * k }, (_, i) => (i < k ? 1 : 2 * next() - 1));
    const x: Input = { data, shape: [7, k] };
    const weight: Input = { data: wide, shape: [n, k], dtype: 'q8' };
    const layer = { x, weight, compute: 'bf16', out: 'f32' } as const;
    const [expected] = await run(oracle, kernels.linear, layer);
    const whole = await oracle.quantized(put(oracle, { data: wide, shape: [n, k] })).floats();
    for (const { isa, stream } of cpus()) {
      const [y] = await run(stream, kernels.linear, layer);
      for (let i = 0; i < 7; i++) {
        const what = `${isa}, k = ${k}, row ${i}`;
        for (let j = 0; j < n; j++) {
          const got = y![i * n + j]!;
          if (i === 4 || i === 5) {
            t.true(Number.isNaN(got) && Number.isNaN(expected![i * n + j]!), what);
            continue;
          }
          let size = 0;
          let exact = 0;
          const largest = row(i).reduce((top, v) => Math.max(top, Math.abs(v)), 0);
          for (let p = 0; p < k; p++) {
            size += Math.abs(row(i)[p]! * whole[j * k + p]!);
            exact += row(i)[p]! * whole[j * k + p]!;
          }
          t.true(Math.abs(got - expected![i * n + j]!) <= 1.2 * (k + 4) * eps * size + 1e-44, `${what}: ${got}`);
          // Half a step of 1/32512 of the row's largest may come to each element; of the least rows all.
          const step = (largest < 2 ** -100 ? 2 : 1 / 32512) * (largest / 2);
          let weights = 0;
          for (let p = 0; p < k; p++) weights += Math.abs(whole[j * k + p]!);
          t.true(
            Math.abs(got - exact) <= 1.01 * step * weights + 1.2 * (k + 4) * eps * size + 1e-44,
            `${what}: ${got}`,
          );
        }
      }
    }
  }
});

test('q8 is refused where it cannot be: as rows, a view, a gradient, on a GPU', (t) => {
  const { stream } = cpus().at(-1)!;
  const make = (on: typeof stream) => on.quantized(on.tensor(new Float32Array(6), [2, 3]));
  const [w, x] = [make(stream), stream.tensor(new Float32Array(3), [1, 3])];
  for (const [body, code] of [
    [() => kernels.linear(stream, { x: w, weight: x, compute: 'f32', out: 'f32' }), 'ERR_DTYPE'],
    [() => kernels.linearBackwardInput(stream, { dy: x, weight: w, compute: 'f32', out: 'f32' }), 'ERR_DTYPE'],
    [() => kernels.quantize(stream, { weight: w, quantized: w }), 'ERR_DTYPE'],
    [() => kernels.quantize(stream, { weight: x, quantized: w }), 'ERR_SHAPE'],
    [() => w.reshape([3, 2]), 'ERR_DTYPE'],
    ...devices().map(({ stream }) => [() => make(stream), 'ERR_DTYPE'] as const),
  ] as const)
    t.is((t.throws(body) as { code?: string }).code, code);
  stream.endStep();
});

test('linear agrees with the oracle in every shape, storage type and computation, with every epilogue', async (t) => {
  const next = random(1);
  for (const [m, n, k] of shapes as [number, number, number][])
    for (const compute of types)
      for (const stores of types) {
        const out: FloatType = next() < 0.5 ? 'f32' : 'bf16';
        const x: Input = { data: normals(m * k, next), shape: [m, k], dtype: next() < 0.5 ? 'f32' : 'bf16' };
        const w: Input = { data: normals(n * k, next), shape: [n, k], dtype: stores };
        const bias: Input | null = next() < 0.7 ? { data: normals(n, next), shape: [n] } : null;
        const residual: Input | null =
          next() < 0.5 ? { data: normals(m * n, next), shape: [m, n], dtype: stores } : null;
        const gelu = next() < 0.5;
        const [vx, vw] = [stored(x), stored(w)];
        const sum = magnitude(m, n, k, byRows(vx, k), byColumns(vw, k));
        await compare(
          t,
          `linear ${m}x${n}x${k} ${compute} of ${x.dtype} and ${stores}`,
          kernels.linear,
          { x, weight: w, bias, residual, gelu, savePre: true, compute, out },
          (_, i, expected) =>
            1.2 * (k + 4) * eps * (1.01 * sum[i]! + 4) + 4e-7 + 8 * eps * sum[i]! + rounding(out, expected),
        );
      }
});

test('a few rows on a device: each gives, to the bit, what it gives alone, in every type', async (t) => {
  const next = random(15);
  for (const compute of types)
    for (const [n, k, x, w] of [
      [19, 97, 'bf16', 'bf16'],
      [5, 2600, 'bf16', 'bf16'],
      [33, 264, 'f32', 'bf16'],
      [9, 1544, 'f32', 'f32'],
    ] as [number, number, DType, DType][]) {
      const rows = normals(16 * k, next);
      const call = (m: number): Described<kernels.LinearArguments> => ({
        x: { data: rows.slice((16 - m) * k), shape: [m, k], dtype: x },
        weight: { data: normals(n * k, random(n)), shape: [n, k], dtype: w },
        bias: { data: normals(n, random(k)), shape: [n] },
        residual: { data: normals(16 * n, random(1)).slice((16 - m) * n), shape: [m, n] },
        gelu: true,
        savePre: true,
        compute,
        out: 'f32',
      });
      for (const { isa, stream } of devices()) {
        const alone = await run(stream, kernels.linear, call(1));
        const [want] = await run(oracle, kernels.linear, call(16));
        for (const m of [3, 16]) {
          const got = await run(stream, kernels.linear, call(m));
          for (const o of [0, 1]) t.deepEqual(got[o]!.slice(-n), alone[o], `${isa}, ${n}x${k}, ${m} rows`);
          if (m === 16) t.true(relativeL2(got[0]!, want!) <= 1e-6, `${isa}, ${n}x${k} ${compute}`);
        }
      }
    }
  t.pass();
});

test('a row among up to eight gives, to the bit, what it gives alone', async (t) => {
  const next = random(14);
  for (const [type, compute] of [
    ['f32', 'f32'],
    ['bf16', 'bf16'],
    ['q8', 'f32'],
    ['q8', 'bf16'],
  ] as const)
    for (const [n, k] of [
      [67, 97],
      [5, 768],
    ] as const) {
      const x = normals(8 * k, next);
      const weight: Input = { data: normals(n * k, next), shape: [n, k], dtype: type };
      for (const { isa, stream } of cpus()) {
        const y = async (first: number, rows: number) => {
          const data = x.slice(first * k, (first + rows) * k);
          const layer = { x: { data, shape: [rows, k] }, weight, compute, out: 'f32' } as const;
          return (await run(stream, kernels.linear, layer))[0]!;
        };
        const alone: Float64Array[] = [];
        for (let i = 0; i < 8; i++) alone.push(await y(i, 1));
        for (let m = 2; m <= 8; m++) {
          const together = await y(8 - m, m);
          for (let i = 0; i < m; i++)
            t.deepEqual(
              together.slice(i * n, (i + 1) * n),
              alone[8 - m + i],
              `${isa}, ${type} in ${compute}, row ${i} of ${m}`,
            );
        }
      }
    }
});

test('the gradient of the input agrees with the oracle, with gelu and a residual', async (t) => {
  const next = random(2);
  for (const [m, n, k] of shapes as [number, number, number][])
    for (const compute of types) {
      const out: FloatType = next() < 0.5 ? 'f32' : 'bf16';
      const dy: Input = { data: normals(m * k, next), shape: [m, k], dtype: next() < 0.5 ? 'f32' : 'bf16' };
      const w: Input = { data: normals(k * n, next), shape: [k, n], dtype: next() < 0.5 ? 'f32' : 'bf16' };
      const of: Input | null = next() < 0.5 ? { data: normals(m * n, next, 2), shape: [m, n], dtype: compute } : null;
      const residual: Input | null = next() < 0.5 ? { data: normals(m * n, next), shape: [m, n] } : null;
      const [vy, vw] = [stored(dy), stored(w)];
      const sum = magnitude(m, n, k, byRows(vy, k), byRows(vw, n));
      await compare(
        t,
        `backward input ${m}x${n}x${k} ${compute}`,
        kernels.linearBackwardInput,
        { dy, weight: w, geluOf: of, residual, compute, out },
        (_, i, expected) => 1.2 * (k + 12) * eps * (1.01 * sum[i]! + 4) + rounding(out, expected),
      );
    }
});

test('the gradients of weight and bias are added to what is there', async (t) => {
  const next = random(3);
  for (const [n, k, rows] of shapes as [number, number, number][])
    for (const compute of types)
      for (const gelu of [false, true]) {
        if (n === 0) continue;
        const dy: Input = { data: normals(rows * n, next), shape: [rows, n], dtype: next() < 0.5 ? 'f32' : 'bf16' };
        const x: Input = { data: normals(rows * k, next), shape: [rows, k], dtype: next() < 0.5 ? 'f32' : 'bf16' };
        const dw: Input = { data: normals(n * k, next), shape: [n, k], inout: true };
        const db: Input | null = next() < 0.7 ? { data: normals(n, next), shape: [n], inout: true } : null;
        const [vy, vx] = [stored(dy), stored(x)];
        const sum = magnitude(n, k, rows, byColumns(vy, n), byRows(vx, k));
        const column = magnitude(n, 1, rows, byColumns(vy, n), byRows(new Float64Array(rows).fill(1), 1));
        // gelu(x) in fp32 may round to the other bf16 neighbour than gelu(x) in double does.
        const step = gelu && compute === 'bf16' ? 2 ** -10 : 0;
        await compare(
          t,
          `backward weight ${n}x${k}, ${rows} rows, ${compute}, gelu ${gelu}`,
          kernels.linearBackwardWeight,
          { dy, x, dweight: dw, dbias: db, gelu, compute },
          (o, i, expected) =>
            ((rows + 8) * eps + step) * ((o === 0 ? sum : column)[i]! + 4) + 4 * eps * Math.abs(expected),
        );
      }
});

test('huge values, infinities and NaN come through a linear layer as they do in the oracle', async (t) => {
  for (const m of [2, 12, 40]) {
    const x = new Float32Array(m * 40).fill(1);
    x[3] = 1e30;
    if (m === 40) x[7 * 40] = -3.4e38;
    x[45] = Number.POSITIVE_INFINITY;
    if (m > 2) {
      x[85] = Number.NEGATIVE_INFINITY;
      x[125] = Number.NaN;
    }
    const w = normals(70 * 40, random(4), m === 40 ? 0.2 : 1);
    // Rounded to bf16 the largest floats are infinite.
    for (const compute of m === 40 ? (['f32'] as const) : types)
      await compare(
        t,
        `extremes ${m} ${compute}`,
        kernels.linear,
        { x: { data: x, shape: [m, 40] }, weight: { data: w, shape: [70, 40] }, compute, out: 'f32' },
        (_, __, e) => 1e-4 * Math.abs(e) + 1e-3,
      );
  }
});

test('fp32 on every path errs no more than twice as much as a sum of floats, one after the other', async (t) => {
  const next = random(9);
  for (const [m, n, k] of [
    [40, 64, 33],
    [40, 64, 768],
    [64, 256, 3072],
  ] as const) {
    const [x, w] = [normals(m * k, next), normals(n * k, next)];
    const layer = {
      x: { data: x, shape: [m, k] },
      weight: { data: w, shape: [n, k] },
      compute: 'f32',
      out: 'f32',
    } as const;
    const [expected] = await run(oracle, kernels.linear, layer);
    const naive = new Float64Array(m * n);
    for (let i = 0; i < m; i++)
      for (let j = 0; j < n; j++) {
        let sum = 0;
        for (let p = 0; p < k; p++) sum = Math.fround(sum + Math.fround(x[i * k + p]! * w[j * k + p]!));
        naive[i * n + j] = sum;
      }
    const bound = 2 * relativeL2(naive, expected!);
    for (const { isa, stream } of fast()) {
      const [got] = await run(stream, kernels.linear, layer);
      const error = relativeL2(got!, expected!);
      t.true(error <= bound, `${isa}, ${m}x${n}x${k}: ${error}, a plain sum ${bound / 2}`);
    }
  }
});

test('unfold and fold agree with the oracle for both strides and both layouts, and are adjoint', async (t) => {
  const next = random(5);
  for (const [b, length, c] of [
    [1, 1, 1],
    [2, 2, 3],
    [1, 37, 80],
    [3, 16, 5],
    [2, 0, 4],
    [1, 33, 64],
  ] as [number, number, number][])
    for (const stride of [1, 2])
      for (const type of types) {
        const rows = Math.ceil(length / stride);
        for (const channelsFirst of [false, true]) {
          const shape = channelsFirst ? [b, c, length] : [b, length, c];
          const x: Input = { data: normals(b * length * c, next), shape, dtype: type };
          const call = { x, stride, channelsFirst, out: type };
          await compare(t, `unfold ${b},${length},${c}`, kernels.unfold, call, () => 0);
        }
        const dy: Input = { data: normals(b * rows * c * 3, next), shape: [b, rows, 3 * c], dtype: type };
        const adjoint = { rows: dy, length, stride };
        await compare(t, `fold ${b},${length},${c}`, kernels.fold, adjoint, () => 1e-6);
        const x: Input = { data: normals(b * length * c, next), shape: [b, length, c] };
        const [y] = await run(oracle, kernels.unfold, { x, stride, out: 'f32' });
        const [dx] = await run(oracle, kernels.fold, adjoint);
        const values = stored(dy);
        const left = y!.reduce((s, v, i) => s + v * values[i]!, 0);
        const right = dx!.reduce((s, v, i) => s + v * x.data[i]!, 0);
        t.true(Math.abs(left - right) < 1e-3 * (1 + Math.sqrt(y!.length)), `adjoint ${left} ${right}`);
      }
});

test('a result of many rows and columns, which a GPU finishes in blocks of rows, is as the oracle has it', async (t) => {
  const next = random(7);
  const [m, n, k] = [131, 50001, 1];
  const x: Input = { data: normals(m * k, next), shape: [m, k] };
  const w: Input = { data: normals(n * k, next), shape: [n, k] };
  const bias: Input = { data: normals(n, next), shape: [n] };
  const residual: Input = { data: normals(m * n, next), shape: [m, n] };
  const layer = { x, weight: w, bias, residual, compute: 'f32', out: 'bf16' } as const;
  await compare(t, 'blocks', kernels.linear, layer, (_, __, e) => Math.abs(e) / 128 + 4e-6);
});

test('the gradients are the derivatives of the forward pass (central differences in double)', async (t) => {
  const next = random(6);
  const [m, n, k] = [4, 6, 5];
  const x: Input = { data: normals(m * k, next), shape: [m, k] };
  const w: Input = { data: normals(n * k, next), shape: [n, k] };
  const bias: Input = { data: normals(n, next), shape: [n] };
  const dy = normals(m * n, next);
  const layer = { x, weight: w, bias, compute: 'f64', out: 'f64' } as const;
  const slope = (which: Input, size: number) => {
    const direction = Float64Array.from(normals(size, next));
    return centralDifference(kernels.linear, layer, which, direction, [Float64Array.from(dy)]).then((value) => ({
      value,
      direction,
    }));
  };
  const dot = (a: Float64Array, b: Float64Array) => a.reduce((s, v, i) => s + v * b[i]!, 0);
  const g: Input = { data: dy, shape: [m, n] };
  const f32 = { compute: 'f32', out: 'f32' } as const;
  const [dx] = await run(oracle, kernels.linearBackwardInput, { dy: g, weight: w, ...f32 });
  const [dw, db] = await run(oracle, kernels.linearBackwardWeight, {
    dy: g,
    x,
    dweight: { data: new Float32Array(n * k), shape: [n, k], inout: true },
    dbias: { data: new Float32Array(n), shape: [n], inout: true },
    compute: 'f32',
  });
  for (const [which, gradient] of [dx!, dw!, db!].entries()) {
    const { value, direction } = await slope([x, w, bias][which]!, gradient.length);
    t.true(Math.abs(value - dot(gradient, direction)) < 1e-5 * (1 + Math.abs(value)), `input ${which}: ${value}`);
  }
  // Through gelu: x ↦ gelu(x), with the identity as the weight.
  const eye: Input = {
    data: Float32Array.from({ length: k * k }, (_, i) => (i % (k + 1) === 0 ? 1 : 0)),
    shape: [k, k],
  };
  const up: Input = { data: normals(m * k, next), shape: [m, k] };
  const direction = Float64Array.from(normals(m * k, next));
  const through = { x, weight: eye, gelu: true, compute: 'f64', out: 'f64' } as const;
  const value = await centralDifference(kernels.linear, through, x, direction, [Float64Array.from(up.data)]);
  const [back] = await run(oracle, kernels.linearBackwardInput, { dy: up, weight: eye, geluOf: x, ...f32 });
  t.true(Math.abs(value - dot(back!, direction)) < 1e-5 * (1 + Math.abs(value)));
});

test('products in f64 are refused where they would be in f32: off the oracle', (t) => {
  for (const { isa, stream } of fast()) {
    const square = () => stream.tensor(new Float32Array(9), [3, 3]);
    const refused = { code: 'ERR_DTYPE', message: /f64 is for the reference backend only/ };
    const [x, weight] = [square(), square()];
    t.throws(() => kernels.linear(stream, { x, weight, compute: 'f64', out: 'f32' }), refused, isa);
    t.throws(() => kernels.linearBackwardInput(stream, { dy: x, weight, compute: 'f64', out: 'f32' }), refused, isa);
    t.throws(() => kernels.linearBackwardWeight(stream, { dy: x, x: weight, compute: 'f64' }), refused, isa);
    stream.endStep();
  }
});

test('a linear layer refuses what does not fit and names the argument', (t) => {
  const x = oracle.tensor(new Float32Array(6), [2, 3], 'f32');
  const w = oracle.tensor(new Float32Array(8), [2, 4], 'f32');
  const good = oracle.tensor(new Float32Array(6), [2, 3], 'f32');
  const refused = (change: Partial<kernels.LinearArguments>, message: RegExp): void => {
    const layer = { x, weight: good, compute: 'f32', out: 'f32', ...change } as const;
    t.throws(() => kernels.linear(oracle, layer), { message, code: 'ERR_SHAPE' });
  };
  refused({ weight: w }, /'weight'/);
  refused({ bias: x }, /'bias'/);
  refused({ residual: w }, /'residual'/);
  t.throws(() => rawCall(oracle, 'linear', [x, good, null, null], [2, 0, 0, 0]), {
    message: /'gelu'/,
    code: 'ERR_ARGUMENT',
  });
  const long = oracle.tensor(new Float32Array(9), [3, 3], 'f32');
  t.throws(() => kernels.linearBackwardWeight(oracle, { dy: x, x: long, compute: 'f32' }), {
    message: /'x'/,
    code: 'ERR_SHAPE',
  });
  const cube = oracle.tensor(new Float32Array(6), [1, 2, 3], 'f32');
  t.throws(() => kernels.unfold(oracle, { x: cube, stride: 3, out: 'f32' }), { message: /'stride'/ });
  oracle.endStep();
});
