import test, { type ExecutionContext } from 'ava';
import { Stream } from '../lib/tensor/index.js';
import {
  centralDifference,
  compare,
  fast,
  type Input,
  normals,
  number,
  oracle,
  random,
  run,
} from './support/kernels.js';

const U = 2 ** -24; // half a unit in the last place of 1 in fp32
const STEP = 2 ** -7; // of bf16: a number close to a tie may be rounded the other way
const kinds = ['f32', 'bf16'] as const;
const outputs = [...kinds];

const max = (x: ArrayLike<number>) => Array.from(x).reduce((a, b) => Math.max(a, Math.abs(b)), 0);
const roundBf16 = (x: number): number => {
  const f = Float32Array.of(x);
  const u = new Uint32Array(f.buffer);
  u[0] = ((u[0]! + 0x7fff + ((u[0]! >>> 16) & 1)) >>> 16) << 16;
  return f[0]!;
};
/** Normal values that the type holds exactly, so that the bounds below speak of the same numbers. */
function make(shape: number[], next: () => number, dtype: 'f32' | 'bf16' = 'f32', scale = 1, shift = 0): Input {
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
        const [, , rstd] = await run(oracle, 'layer_norm', [x, weight, bias], [1e-5, number(out)]);
        // x − mean carries a rounding of the largest |x|; mean and rstd, computed in double and rounded, another each.
        const spreads = rstd!.map((r, row) => r * max(x.data.slice(row * D, (row + 1) * D)));
        const spread = (row: number) => spreads[row]!;
        await compare(
          t,
          `${shape} ${dtype} ${out} ${scale}+${shift}`,
          'layer_norm',
          [x, weight, bias],
          [1e-5, number(out)],
          (o, i, y) => {
            if (o === 1) return (4 * U * spread(i)) / rstd![i]!;
            if (o === 2) return 8 * U * y * (1 + Math.sqrt(D) + spread(i));
            const xhat = spread(Math.floor(i / D));
            const w = Math.abs(weight.data[i % D]!);
            const error = 8 * U * (w * (1 + xhat) * (1 + Math.sqrt(D)) + Math.abs(bias.data[i % D]!));
            return error + (out === 'bf16' ? STEP * Math.abs(y) : 0);
          },
        );
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
          const [, mean, rstd] = await run(oracle, 'layer_norm', [x, weight, weight], [1e-5, 0]);
          const saved = (data: Float64Array): Input => ({ data: Float32Array.from(data), shape: [rows] });
          const r = residual ? make(shape, next, dtype) : null;
          const grads = parameters
            ? [make([D], next), make([D], next)].map((g) => ({ ...g, inout: true }))
            : [null, null];
          const call = [dy, x, weight, saved(mean!), saved(rstd!), r, ...grads];
          const biggest = max(dy.data) * Math.max(1, max(weight.data));
          const steepest = max(rstd!);
          const xhat = (max(x.data) + max(mean!)) * steepest;
          await compare(
            t,
            `${shape} ${dtype} ${residual} ${parameters}`,
            'layer_norm_backward',
            call,
            [number(dtype)],
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
  const wide = (i: Input): Input => ({ ...i, dtype: 'f64' });
  const call = [x, weight, bias].map(wide);
  const forward = await Promise.all(
    oracle.call(
      'layer_norm',
      call.map((i) => oracle.tensor(Float64Array.from(i.data), i.shape, 'f64')),
      [1e-5, number('f64')],
    ),
  );
  const parameters = [12, 12].map((n) => oracle.tensor(new Float64Array(n), [n], 'f64'));
  const tensor = (i: Input) => oracle.tensor(Float64Array.from(i.data), i.shape, 'f64');
  const [dx] = oracle.call(
    'layer_norm_backward',
    [tensor(dy), tensor(x), tensor(weight), forward[1]!, forward[2]!, null, ...parameters],
    [number('f64')],
  );
  const grads = await Promise.all([dx!, ...parameters].map((g) => g.read()));
  oracle.endStep();
  for (let which = 0; which < 3; which++) {
    const direction = Float64Array.from(normals(call[which]!.data.length, next));
    const measured = await centralDifference('layer_norm', call, [1e-5, number('f64')], which, direction, [
      Float64Array.from(dy.data),
      null,
      null,
    ]);
    const stated = Array.from(grads[which]!).reduce((a, g, i) => a + g * direction[i]!, 0);
    t.true(Math.abs(measured - stated) < 1e-7 * (1 + Math.abs(stated)), `input ${which}: ${measured} ${stated}`);
  }
});

test.serial('parameter gradients of layer norm are the same bits on any number of threads', async (t) => {
  const next = random(4);
  const shape = [1500, 64];
  const saved = make([1500], next);
  const grads = [make([64], next), make([64], next)].map((g) => ({ ...g, inout: true }));
  const call = [make(shape, next), make(shape, next), make([64], next), saved, saved, null, ...grads];
  const first = await run(fast.at(-1)!.stream, 'layer_norm_backward', call, [0]);
  for (const threads of [1, 3]) {
    const stream = new Stream({ threads });
    t.deepEqual(await run(stream, 'layer_norm_backward', call, [0]), first);
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
            'embedding',
            [ids, table, positions],
            [3, number(out)],
            (_o, _i, y) => (out === 'f32' ? 4 * U * Math.abs(y) + U * 1e-3 : STEP * Math.abs(y)),
          );
          const dy = make([B, T, D], next, dtype);
          const grads = [make([V, D], next), make([T + 5, D], next)].map((g) => ({ ...g, inout: true }));
          for (const padding of [-1, 0])
            for (const given of [
              [true, true],
              [true, false],
              [false, true],
            ])
              await compare(
                t,
                `embedding_backward ${B} ${T} ${D}`,
                'embedding_backward',
                [dy, ids, ...grads.map((g, i) => (given[i] ? g : null))],
                [3, padding],
                () => U * (B * T + 2) ** 1.5 * 8,
              );
        }
  },
);

test.serial('an id out of range is refused when the embedding runs, and the stream goes on', async (t) => {
  for (const stream of [oracle, ...fast.map((f) => f.stream)])
    for (const id of [-1, 5, 2147483647]) {
      const tensors = () => [
        stream.tensor(Int32Array.of(0, id), [1, 2], 'i32'),
        stream.tensor(new Float32Array(10), [5, 2]),
        stream.tensor(new Float32Array(4), [2, 2]),
      ];
      const [y] = stream.call('embedding', tensors(), [0, 0]);
      const error = (await t.throwsAsync(y!.read())) as Error & { code: string };
      t.is(error.code, 'ERR_ARGUMENT');
      t.regex(error.message, new RegExp(`'ids': expected ids from 0 to 4, got ${id} at element 1`));
      stream.endStep();
      const dy = stream.tensor(new Float32Array(4), [1, 2, 2]);
      const table = stream.tensor(new Float32Array(10), [5, 2]);
      stream.call('embedding_backward', [dy, tensors()[0]!, table, null], [0, -1]);
      const late = (await t.throwsAsync(stream.sync())) as Error & { code: string };
      t.is(late.code, 'ERR_ARGUMENT');
      stream.endStep();
      // A table without rows has none in place of the one that is asked for.
      const empty = stream.tensor(new Float32Array(0), [0, 2]);
      const [none] = stream.call('embedding', [tensors()[0]!, empty, tensors()[2]!], [0, 0]);
      await t.throwsAsync(none!.read(), { code: 'ERR_ARGUMENT', message: /'ids'/ });
      stream.endStep();
      t.deepEqual(await run(stream, 'cast', [{ data: Float32Array.of(1, 2), shape: [2] }], [0]), [
        Float64Array.of(1, 2),
      ]);
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
              'add',
              [a, b],
              [2.5, -0.5, number(out)],
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
        'add_backward_rows',
        [make([B!, T!, D!], next, dtype), { ...make([T!, D!], next), inout: true }],
        [],
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
    await compare(t, out, 'cast', [{ data, shape: [data.length] }], [number(out)], exact);
    await compare(
      t,
      `bf16 ${out}`,
      'cast',
      [{ data: data.map(roundBf16), shape: [data.length], dtype: 'bf16' }],
      [number(out)],
      exact,
    );
    await compare(t, 'empty', 'cast', [{ data: new Float32Array(0), shape: [0, 3] }], [number(out)], exact);
    for (const { stream } of fast) {
      const [got] = await run(
        stream,
        'cast',
        [{ data: Float32Array.of(Number.NaN, 1 + 2 ** -8), shape: [2] }],
        [number(out)],
      );
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
        'fill',
        [{ ...make([3, 11], next, dtype), inout: true }],
        [value],
        exact,
      );
  await compare(t, 'fill ids', 'fill', [{ data: new Int32Array(5), shape: [5], inout: true }], [-100], exact);
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
          'cache_write',
          [make([B!, rows!, 17], next, from), { ...make([B!, P!, 17], next, to), inout: true }],
          [offset!],
          exact,
        );
});

test('bad calls of the row kernels are refused with the argument named', async (t) => {
  const stream = fast[0]!.stream;
  const z = (...shape: number[]) => stream.tensor(new Float32Array(shape.reduce((a, b) => a * b, 1)), shape);
  const ids = stream.tensor(new Int32Array(6), [2, 3], 'i32');
  const refused = (
    context: ExecutionContext,
    op: string,
    tensors: Parameters<Stream['call']>[1],
    numbers: number[],
    code: string,
    text: RegExp,
  ) => {
    const error = context.throws(() => stream.call(op, tensors, numbers)) as Error & { code: string };
    context.is(error.code, code);
    context.regex(error.message, text);
  };
  refused(
    t,
    'layer_norm',
    [z(2, 4), z(3), z(4)],
    [1e-5, 0],
    'ERR_SHAPE',
    /layer_norm: argument 'weight': expected \[4\], got f32\[3\]/,
  );
  refused(t, 'layer_norm', [z(2, 4), z(4), z(4)], [-1, 0], 'ERR_ARGUMENT', /'eps'/);
  refused(t, 'layer_norm', [z(2, 0), z(0), z(0)], [1e-5, 0], 'ERR_SHAPE', /'x'/);
  refused(t, 'layer_norm', [ids, z(3), z(3)], [1e-5, 0], 'ERR_DTYPE', /'x'/);
  refused(t, 'layer_norm_backward', [z(2, 4), z(4, 2), z(2), z(4), z(4), null, null, null], [0], 'ERR_SHAPE', /'x'/);
  refused(
    t,
    'layer_norm_backward',
    [z(2, 4), z(2, 4), z(4), z(2), z(2), z(8), null, null],
    [0],
    'ERR_SHAPE',
    /'residual'/,
  );
  refused(t, 'embedding', [ids, z(5, 4), z(3, 4)], [1, 0], 'ERR_SHAPE', /'positions': expected at least 4 positions/);
  refused(t, 'embedding', [z(2, 3), z(5, 4), z(3, 4)], [0, 0], 'ERR_DTYPE', /'ids'/);
  refused(t, 'embedding', [ids, z(5, 4), z(3, 5)], [0, 0], 'ERR_SHAPE', /'positions'/);
  refused(t, 'add', [z(2, 3), z(2, 2)], [1, 1, 0], 'ERR_SHAPE', /'b'/);
  refused(t, 'add', [z(2, 3), z(2, 3)], [Number.NaN, 1, 0], 'ERR_ARGUMENT', /'alpha'/);
  refused(t, 'add', [z(2, 3), z(2, 3)], [1, 1, 2], 'ERR_DTYPE', /'out'/);
  refused(t, 'fill', [ids], [0.5], 'ERR_ARGUMENT', /'value': expected a 32-bit integer/);
  refused(t, 'cache_write', [z(2, 3, 4), z(2, 8, 4)], [6], 'ERR_SHAPE', /'cache': expected at least 9 positions/);
  refused(t, 'cache_write', [z(2, 3, 4), z(1, 8, 4)], [0], 'ERR_SHAPE', /'cache'/);
  const frozen = stream.persistent(new Float32Array(3), [3]);
  frozen.freeze();
  refused(t, 'fill', [frozen], [0], 'ERR_ARGUMENT', /'x': expected a tensor that may be written, got a frozen tensor/);
});

test.serial('embedding at a position on the device is that at the number, and out of range a fault', async (t) => {
  const next = random(31);
  const ids: Input = { data: Int32Array.of(3, 0, 4), shape: [3, 1] };
  const tables: Input[] = [
    { data: normals(5 * 12, next), shape: [5, 12] },
    { data: normals(7 * 12, next), shape: [7, 12] },
  ];
  const at = (n: number): Input => ({ data: Int32Array.of(n), shape: [1] });
  for (const { isa, stream } of [{ isa: 'oracle', stream: oracle }, ...fast]) {
    for (const offset of [0, 4, 6])
      t.deepEqual(
        await run(stream, 'embedding', [ids, ...tables, at(offset)], [6, 0]),
        await run(stream, 'embedding', [ids, ...tables], [offset, 0]),
        isa,
      );
    for (const wrong of [-1, 7]) {
      const message = new RegExp(`^embedding: argument 'position': expected a number from 0 to 6, got ${wrong}`);
      const error = { code: 'ERR_ARGUMENT', message };
      await t.throwsAsync(run(stream, 'embedding', [ids, ...tables, at(wrong)], [6, 0]), error, isa);
      stream.endStep();
    }
  }
});
