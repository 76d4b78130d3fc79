/** gelu and dropout: every path against the oracle, and what dropout promises. */
import test from 'ava';
import { type FloatType, kernels } from '../../lib/tensor/index.js';
import { compare, fast, type Input, normals, random, run } from '../support/kernels.js';

const types: FloatType[] = ['f32', 'bf16'];
const shapes = [[0], [1], [7], [3, 5], [16, 64], [33, 97], [4097], [2, 3, 1500]];
const step = (out: FloatType, value: number): number => (out === 'bf16' ? 2 ** -7 : 2 ** -22) * Math.abs(value) + 1e-7;

test('gelu agrees with the oracle in every shape and type, at the ends of its range too', async (t) => {
  const next = random(5);
  for (const shape of shapes)
    for (const dtype of types)
      for (const out of types) {
        const data = normals(
          shape.reduce((a, b) => a * b, 1),
          next,
          3,
        );
        for (const [i, value] of [0, -0, 40, -40, 1e30, -1e30, 5.5, -5.5].entries())
          if (i < data.length) data[i] = value;
        await compare(
          t,
          `gelu [${shape}] ${dtype} to ${out}`,
          kernels.gelu,
          { x: { data, shape, dtype }, out },
          (_, __, e) => step(out, e) + 4e-7,
        );
      }
});

test('dropout agrees with the oracle: the same elements are kept whatever the path, by a draw or a mask, and scaled', async (t) => {
  const next = random(6);
  for (const shape of shapes)
    for (const dtype of types)
      for (const out of types) {
        const size = shape.reduce((a, b) => a * b, 1);
        const x: Input = { data: normals(size, next), shape, dtype };
        const mask: Input = { data: Float32Array.from({ length: size }, () => Number(next() < 0.7)), shape };
        for (const [p, scale, given] of [
          [0, 1, null],
          [0, -2.5, null],
          [0.05, 1, null],
          [0.3, 2, mask],
          [0.9, 0.5, null],
        ] as const) {
          const draws = { seed: 2 ** 40 + 3, step: 7, op: 11 };
          const title = `drop ${p}·${scale} [${shape}] ${dtype} to ${out}${given ? ', by a mask' : ''}`;
          // p is rounded to f32.
          const factor = (2 ** -23 * p) / (1 - p);
          await compare(
            t,
            title,
            kernels.drop,
            { x, mask: given, p, scale, ...draws, out },
            (_, __, e) => step(out, e) + factor * Math.abs(e),
          );
        }
      }
});

test('what dropout drops is 0 even where it was no number; the share is that which was asked for; every draw is another', async (t) => {
  for (const { isa, stream } of fast()) {
    const n = 100_000;
    const x: Input = { data: new Float32Array(n).fill(1), shape: [n] };
    const drop = async (op: number, seed = 1, step = 2) => {
      const [y] = await run(stream, kernels.drop, { x, p: 0.2, seed, step, op, out: 'f32' as const });
      return y!;
    };
    const y = await drop(3);
    t.true(
      y.every((value) => value === 0 || Math.abs(value - 1.25) < 1e-6),
      isa,
    );
    t.true(Math.abs(y.filter((value) => value === 0).length / n - 0.2) < 0.006, isa);
    t.deepEqual(await drop(3), y);
    for (const other of [await drop(4), await drop(3, 2), await drop(3, 1, 3)]) t.notDeepEqual(other, y);
    const mask: Input = { data: Float32Array.of(0, 1, 0, 1), shape: [4] };
    const odd: Input = { data: Float32Array.of(Number.NaN, 1, Number.POSITIVE_INFINITY, 2), shape: [4] };
    const [kept] = await run(stream, kernels.drop, {
      x: odd,
      mask,
      p: 0.5,
      seed: 0,
      step: 0,
      op: 0,
      out: 'f32' as const,
    });
    t.deepEqual([...kept!], [0, 2, 0, 4]);
  }
});

test('gelu and dropout refuse what they cannot take', (t) => {
  for (const { stream } of fast()) {
    const x = stream.tensor(new Float32Array(6), [2, 3]);
    const draws = { seed: 0, step: 0, op: 0, out: 'f32' as const };
    const mask = stream.tensor(new Float32Array(6), [3, 2]);
    t.throws(() => kernels.drop(stream, { x, p: 1, ...draws }), { code: 'ERR_ARGUMENT', message: /'p'/ });
    t.throws(() => kernels.drop(stream, { x, p: 0.1, ...draws, seed: -1 }), { code: 'ERR_ARGUMENT', message: /seed/ });
    t.throws(() => kernels.drop(stream, { x, p: 0.1, scale: Number.NaN, ...draws }), { code: 'ERR_ARGUMENT' });
    t.throws(() => kernels.drop(stream, { x, mask, p: 0.1, ...draws }), { code: 'ERR_SHAPE', message: /mask/ });
    const ids = stream.tensor(new Int32Array(6), [2, 3], 'i32');
    t.throws(() => kernels.gelu(stream, { x: ids, out: 'f32' }), { code: 'ERR_DTYPE' });
    stream.endStep();
  }
});
