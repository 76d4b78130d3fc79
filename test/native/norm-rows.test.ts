import test from 'ava';
import { rawCall } from '../../lib/tensor/call.js';
import { kernels, Stream, type Tensor } from '../../lib/tensor/index.js';
import {
  centralDifference,
  compare,
  cpus,
  fast,
  type Input,
  normals,
  oracle,
  place,
  random,
  roundBf16,
  run,
} from '../support/kernels.js';

const U = 2 ** -24; // half a unit in the last place of 1 in fp32
const STEP = 2 ** -7; // of bf16: a number close to a tie may be rounded the other way
const kinds = ['f32', 'bf16'] as const;
const outputs = [...kinds];

const max = (x: ArrayLike<number>) => Array.from(x).reduce((a, b) => Math.max(a, Math.abs(b)), 0);
/** Normal values that the type holds exactly, so that the bounds below speak of the same numbers. */
function make(
  shape: readonly number[],
  next: () => number,
  dtype: 'f32' | 'bf16' = 'f32',
  scale = 1,
  shift = 0,
): Input {
  const n = shape.reduce((a, b) => a * b, 1);
  const data = normals(n, next, scale).map((x) => (dtype === 'bf16' ? roundBf16(x + shift) : x + shift));
  return { data, shape, dtype };
}

test.serial('layer norm: odd shapes, far-off means, constant rows and huge values agree with the oracle', async (t) => {
  const next = random(1);
  const shapes: [number[], number, number][] = [
    [[1, 1], 1, 0],
    [[1, 384], 1, 0],
    [[2, 5, 17], 3, 1],
    [[0, 8], 1, 0],
    [[3, 1, 768], 1, 1000],
    [[301, 13], 1e-3, 0],
    [[67, 1280], 2, -5],
    [[4, 31], 0, 7],
    [[3, 40], 1e30, 0],
    [[3, 40], 1e37, 1e38],
  ];
  for (const [shape, scale, shift] of shapes)
    for (const dtype of kinds)
      for (const out of outputs) {
        const D = shape.at(-1)!;
        const x = make(shape, next, dtype, scale, shift);
        const weight = make([D], next);
        const bias = make([D], next);
        const call = { x, weight, bias, epsilon: 1e-5, out };
        const [, , rstd] = await run(oracle, kernels.layerNorm, call);
        // x − mean carries a rounding of the largest |x|; mean and rstd, computed in double and rounded, another each.
        const spreads = rstd!.map((r, row) => r * max(x.data.slice(row * D, (row + 1) * D)));
        const spread = (row: number) => spreads[row]!;
        await compare(t, `${shape} ${dtype} ${out} ${scale}+${shift}`, kernels.layerNorm, call, (o, i, y) => {
          if (o === 1) return (4 * U * spread(i)) / rstd![i]!;
          if (o === 2) return 8 * U * y * (1 + Math.sqrt(D) + spread(i));
          const xhat = spread(Math.floor(i / D));
          const w = Math.abs(weight.data[i % D]!);
          const error = 8 * U * (w * (1 + xhat) * (1 + Math.sqrt(D)) + Math.abs(bias.data[i % D]!));
          return error + (out === 'bf16' ? STEP * Math.abs(y) : 0);
        });
      }
});

test.serial(
  'layer norm backward: with and without residual and parameter gradients, agrees with the oracle',
  async (t) => {
    const next = random(2);
    for (const shape of [
      [1, 1],
      [1, 7],
      [2, 3, 16],
      [0, 9],
      [331, 24],
      [45, 768],
    ])
      for (const dtype of kinds)
        for (const [residual, parameters] of [
          [true, true],
          [false, false],
          [false, true],
        ]) {
          const D = shape.at(-1)!;
          const rows = shape.slice(0, -1).reduce((a, b) => a * b, 1);
          const x = make(shape, next, dtype, 2, 1);
          const dy = make(shape, next, dtype);
          const weight = make([D], next);
          const forward = { x, weight, bias: weight, epsilon: 1e-5, out: 'f32' } as const;
          const [, mean, rstd] = await run(oracle, kernels.layerNorm, forward);
          const saved = (data: Float64Array): Input => ({ data: Float32Array.from(data), shape: [rows] });
          const r = residual ? make(shape, next, dtype) : null;
          const [dweight, dbias] = parameters
            ? [make([D], next), make([D], next)].map((g) => ({ ...g, inout: true }))
            : [null, null];
          const call = {
            dy,
            x,
            weight,
            mean: saved(mean!),
            rstd: saved(rstd!),
            residual: r,
            dweight,
            dbias,
            out: dtype,
          };
          const biggest = max(dy.data) * Math.max(1, max(weight.data));
          const steepest = max(rstd!);
          const xhat = (max(x.data) + max(mean!)) * steepest;
          await compare(
            t,
            `${shape} ${dtype} ${residual} ${parameters}`,
            kernels.layerNormBackward,
            call,
            (o, _i, y) => {
              if (o > 0) return 2 * U * (rows + 8) * biggest * (1 + xhat);
              const error = 8 * U * steepest * biggest * (1 + xhat) * (1 + xhat) * (1 + Math.sqrt(D));
              return error + 2 * U * Math.abs(y) + (dtype === 'bf16' ? STEP * Math.abs(y) : 0);
            },
          );
        }
  },
);

test.serial('layer norm backward is the derivative of layer norm: central differences in double', async (t) => {
  const next = random(3);
  const shape = [5, 12];
  const [x, dy] = [make(shape, next), make(shape, next)];
  const [weight, bias] = [make([12], next), make([12], next)];
  const call = { x, weight, bias, epsilon: 1e-5, out: 'f64' } as const;
  const tensor = (i: Input) => oracle.tensor(Float64Array.from(i.data), i.shape, 'f64');
  const { mean, rstd } = kernels.layerNorm(oracle, place<kernels.LayerNormArguments>(call, tensor));
  const [dweight, dbias] = [12, 12].map((n) => oracle.tensor(new Float64Array(n), [n], 'f64'));
  const { dx } = kernels.layerNormBackward(oracle, {
    dy: tensor(dy),
    x: tensor(x),
    weight: tensor(weight),
    mean,
    rstd,
    dweight,
    dbias,
    out: 'f64',
  });
  const grads = await Promise.all([dx, dweight!, dbias!].map((g) => g.read()));
  oracle.endStep();
  for (const [which, input] of [x, weight, bias].entries()) {
    const direction = Float64Array.from(normals(input.data.length, next));
    const dys = [Float64Array.from(dy.data), null, null];
    const measured = await centralDifference(kernels.layerNorm, call, input, direction, dys);
    const stated = Array.from(grads[which]!).reduce((a, g, i) => a + g * direction[i]!, 0);
    t.true(Math.abs(measured - stated) < 1e-7 * (1 + Math.abs(stated)), `input ${which}: ${measured} ${stated}`);
  }
});

test.serial('parameter gradients of layer norm are the same bits on any number of threads', async (t) => {
  const next = random(4);
  const shape = [1500, 64];
  const saved = make([1500], next);
  const [dweight, dbias] = [make([64], next), make([64], next)].map((g) => ({ ...g, inout: true }));
  const call = {
    dy: make(shape, next),
    x: make(shape, next),
    weight: make([64], next),
    mean: saved,
    rstd: saved,
    dweight,
    dbias,
    out: 'f32',
  } as const;
  const first = await run(cpus().at(-1)!.stream, kernels.layerNormBackward, call);
  for (const threads of [1, 3]) {
    const stream = new Stream({ threads });
    t.deepEqual(await run(stream, kernels.layerNormBackward, call), first);
    stream.close();
  }
});

test.serial(
  'embedding and its backward agree with the oracle: repeated ids, an offset, padding, no rows',
  async (t) => {
    const next = random(5);
    for (const [B, T, D, V] of [
      [1, 1, 1, 1],
      [3, 7, 33, 11],
      [2, 40, 384, 60],
      [0, 4, 8, 5],
      [2, 0, 8, 5],
    ] as const)
      for (const dtype of kinds)
        for (const out of outputs) {
          const ids: Input = { data: Int32Array.from({ length: B * T }, () => Math.floor(next() * V)), shape: [B, T] };
          const table = make([V, D], next, dtype);
          const positions = make([T + 5, D], next, dtype);
          await compare(
            t,
            `embedding ${B} ${T} ${D}`,
            kernels.embedding,
            { ids, table, positions, offset: 3, out },
            (_o, _i, y) => (out === 'f32' ? 4 * U * Math.abs(y) + U * 1e-3 : STEP * Math.abs(y)),
          );
          const dy = make([B, T, D], next, dtype);
          const [dtable, dpositions] = [make([V, D], next), make([T + 5, D], next)].map((g) => ({ ...g, inout: true }));
          for (const padding of [-1, 0])
            for (const gradients of [{ dtable, dpositions }, { dtable }, { dpositions }])
              await compare(
                t,
                `embedding_backward ${B} ${T} ${D}`,
                kernels.embeddingBackward,
                { dy, ids, ...gradients, offset: 3, padding },
                () => U * (B * T + 2) ** 1.5 * 8,
              );
        }
  },
);

test.serial('an id out of range is refused when the embedding runs, and the stream goes on', async (t) => {
  for (const stream of [oracle, ...fast().map((f) => f.stream)])
    for (const id of [-1, 5, 2147483647]) {
      const call = () => ({
        ids: stream.tensor(Int32Array.of(0, id), [1, 2], 'i32'),
        table: stream.tensor(new Float32Array(10), [5, 2]),
        positions: stream.tensor(new Float32Array(4), [2, 2]),
        out: 'f32' as const,
      });
      const { y } = kernels.embedding(stream, call());
      const error = (await t.throwsAsync(y.read())) as Error & { code: string };
      t.is(error.code, 'ERR_ARGUMENT');
      t.regex(error.message, new RegExp(`'ids': expected ids from 0 to 4, got ${id} at element 1`));
      stream.endStep();
      const dy = stream.tensor(new Float32Array(4), [1, 2, 2]);
      const dtable = stream.tensor(new Float32Array(10), [5, 2]);
      kernels.embeddingBackward(stream, { dy, ids: call().ids, dtable });
      const late = (await t.throwsAsync(stream.sync())) as Error & { code: string };
      t.is(late.code, 'ERR_ARGUMENT');
      stream.endStep();
      // A table without rows has none in place of the one that is asked for.
      const table = stream.tensor(new Float32Array(0), [0, 2]);
      const { y: none } = kernels.embedding(stream, { ...call(), table });
      await t.throwsAsync(none.read(), { code: 'ERR_ARGUMENT', message: /'ids'/ });
      stream.endStep();
      const fine = { x: { data: Float32Array.of(1, 2), shape: [2] }, out: 'f32' } as const;
      t.deepEqual(await run(stream, kernels.cast, fine), [Float64Array.of(1, 2)]);
    }
});

test.serial(
  'add: all types, repeated rows, one number, infinities and no elements agree with the oracle',
  async (t) => {
    const next = random(6);
    const shapes: [number[], number[]][] = [
      [[1], [1]],
      [
        [2, 3, 5],
        [2, 3, 5],
      ],
      [
        [3, 7, 11],
        [7, 11],
      ],
      [[4, 9], [9]],
      [[2, 8], [16]],
      [
        [300, 257],
        [300, 257],
      ],
      [[0, 4], [4]],
      [[5, 6], []],
    ];
    for (const [left, right] of shapes)
      for (const ta of kinds)
        for (const tb of kinds)
          for (const out of outputs) {
            const [a, b] = [make(left, next, ta), make(right, next, tb)];
            if (a.data.length > 2) a.data[1] = Number.NEGATIVE_INFINITY;
            const bound = (i: number) =>
              4 * U * (2.5 * Math.abs(a.data[i]!) + 0.5 * Math.abs(b.data[i % b.data.length]!));
            await compare(
              t,
              `${left} + ${right} ${ta} ${tb} ${out}`,
              kernels.add,
              { a, b, alpha: 2.5, beta: -0.5, out },
              (_o, i, y) => bound(i) + (out === 'bf16' ? STEP * Math.abs(y) : 0),
            );
          }
  },
);

test.serial('add_backward_rows sums over the batch into what is there', async (t) => {
  const next = random(7);
  for (const [B, T, D] of [
    [1, 1, 1],
    [5, 3, 7],
    [0, 3, 4],
    [3, 150, 96],
  ])
    for (const dtype of kinds)
      await compare(
        t,
        `${B} ${T} ${D} ${dtype}`,
        kernels.addBackwardRows,
        { dy: make([B!, T!, D!], next, dtype), dpositions: { ...make([T!, D!], next), inout: true } },
        () => 8 * U * (B! + 2) * 5,
      );
});

const exact = () => 0;

test.serial('cast is exact to fp32 and rounds to nearest even to bf16, with infinities, NaN and ties', async (t) => {
  const data = Float32Array.from([
    0,
    1,
    1 + 2 ** -8,
    1 + 3 * 2 ** -8,
    1 + 2 ** -8 + 2 ** -20,
    -3.3e38,
    3.4e38,
    1e-40,
    Infinity,
    -Infinity,
    ...normals(1000, random(8)),
  ]);
  for (const out of outputs) {
    const rounded: Input = { data: data.map(roundBf16), shape: [data.length], dtype: 'bf16' };
    await compare(t, out, kernels.cast, { x: { data, shape: [data.length] }, out }, exact);
    await compare(t, `bf16 ${out}`, kernels.cast, { x: rounded, out }, exact);
    await compare(t, 'empty', kernels.cast, { x: { data: new Float32Array(0), shape: [0, 3] }, out }, exact);
    for (const { stream } of fast()) {
      const x = { data: Float32Array.of(Number.NaN, 1 + 2 ** -8), shape: [2] };
      const [got] = await run(stream, kernels.cast, { x, out });
      t.true(Number.isNaN(got![0]));
      t.is(got![1], out === 'f32' ? 1 + 2 ** -8 : 1);
    }
  }
});

test.serial('fill and cache_write touch what they should and nothing else', async (t) => {
  const next = random(9);
  for (const dtype of kinds)
    for (const value of [0, -1.5, Number.NEGATIVE_INFINITY])
      await compare(
        t,
        `fill ${dtype} ${value}`,
        kernels.fill,
        { x: { ...make([3, 11], next, dtype), inout: true }, value },
        exact,
      );
  const ids = { data: new Int32Array(5), shape: [5], inout: true };
  await compare(t, 'fill ids', kernels.fill, { x: ids, value: -100 }, exact);
  for (const from of kinds)
    for (const to of kinds)
      for (const [B, rows, P, offset] of [
        [2, 3, 8, 0],
        [1, 1, 448, 447],
        [3, 2, 9, 4],
        [2, 0, 4, 4],
      ])
        await compare(
          t,
          `cache ${from} ${to} ${offset}`,
          kernels.cacheWrite,
          {
            x: make([B!, rows!, 17], next, from),
            cache: { ...make([B!, P!, 17], next, to), inout: true },
            offset: offset!,
          },
          exact,
        );
});

test('bad calls of the row kernels are refused with the argument named', async (t) => {
  const stream = fast()[0]!.stream;
  const z = (...shape: number[]) => stream.tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
  const ids = stream.tensor(new Int32Array(6), [2, 3], 'i32');
  const refused = (call: () => unknown, code: string, text: RegExp) => {
    const error = t.throws(call) as Error & { code: string };
    t.is(error.code, code);
    t.regex(error.message, text);
  };
  const norm = (change: Partial<kernels.LayerNormArguments>) => () =>
    kernels.layerNorm(stream, { x: z(2, 4), weight: z(4), bias: z(4), epsilon: 1e-5, out: 'f32', ...change });
  refused(norm({ weight: z(3) }), 'ERR_SHAPE', /layer_norm: argument 'weight': expected \[4\], got f32\[3\]/);
  refused(norm({ epsilon: -1 }), 'ERR_ARGUMENT', /'eps'/);
  refused(norm({ x: z(2, 0), weight: z(0), bias: z(0) }), 'ERR_SHAPE', /'x'/);
  refused(norm({ x: ids, weight: z(3), bias: z(3) }), 'ERR_DTYPE', /'x'/);
  const backward = (change: Partial<kernels.LayerNormBackwardArguments>) => () =>
    kernels.layerNormBackward(stream, {
      dy: z(2, 4),
      x: z(2, 4),
      weight: z(4),
      mean: z(2),
      rstd: z(2),
      out: 'f32',
      ...change,
    });
  refused(backward({ x: z(4, 2), weight: z(2), mean: z(4), rstd: z(4) }), 'ERR_SHAPE', /'x'/);
  refused(backward({ residual: z(8) }), 'ERR_SHAPE', /'residual'/);
  const embed = (change: Partial<kernels.EmbeddingArguments>) => () =>
    kernels.embedding(stream, { ids, table: z(5, 4), positions: z(3, 4), out: 'f32', ...change });
  refused(embed({ offset: 1 }), 'ERR_SHAPE', /'positions': expected at least 4 positions/);
  refused(embed({ ids: z(2, 3) }), 'ERR_DTYPE', /'ids'/);
  refused(embed({ positions: z(3, 5) }), 'ERR_SHAPE', /'positions'/);
  const six = z(2, 3);
  refused(() => kernels.add(stream, { a: six, b: z(2, 2), out: 'f32' }), 'ERR_SHAPE', /'b'/);
  refused(() => kernels.add(stream, { a: six, b: six, alpha: Number.NaN, out: 'f32' }), 'ERR_ARGUMENT', /'alpha'/);
  refused(() => rawCall(stream, 'add', [six, six], [1, 1, 2]), 'ERR_DTYPE', /'out'/);
  const fill = (x: Tensor, value: number) => () => kernels.fill(stream, { x, value });
  refused(fill(ids, 0.5), 'ERR_ARGUMENT', /'value': expected a 32-bit integer/);
  const write = (cache: Tensor, offset: number) => () => kernels.cacheWrite(stream, { x: z(2, 3, 4), cache, offset });
  refused(write(z(2, 8, 4), 6), 'ERR_SHAPE', /'cache': expected at least 9 positions/);
  refused(write(z(1, 8, 4), 0), 'ERR_SHAPE', /'cache'/);
  const frozen = stream.persistent(new Float32Array(3), [3]);
  frozen.freeze();
  refused(fill(frozen, 0), 'ERR_ARGUMENT', /'x': expected a tensor that may be written, got a frozen tensor/);
});

test.serial('embedding at a position on the device is that at the number, and out of range a fault', async (t) => {
  const next = random(31);
  const ids: Input = { data: Int32Array.of(3, 0, 4), shape: [3, 1] };
  const tables = {
    table: { data: normals(5 * 12, next), shape: [5, 12] },
    positions: { data: normals(7 * 12, next), shape: [7, 12] },
  };
  const at = (n: number): Input => ({ data: Int32Array.of(n), shape: [1] });
  for (const { isa, stream } of [{ isa: 'oracle', stream: oracle }, ...fast()]) {
    const embed = (offset: number, position?: Input) =>
      run(stream, kernels.embedding, { ids, ...tables, position, offset, out: 'f32' });
    for (const offset of [0, 4, 6]) t.deepEqual(await embed(6, at(offset)), await embed(offset), isa);
    for (const wrong of [-1, 7]) {
      const message = new RegExp(`^embedding: argument 'position': expected a number from 0 to 6, got ${wrong}`);
      const error = { code: 'ERR_ARGUMENT', message };
      await t.throwsAsync(embed(6, at(wrong)), error, isa);
      stream.endStep();
    }
  }
});
