import test from 'ava';
import { kernels } from '../../lib/tensor/index.js';
import { fastest } from '../support/fastest.js';
import { compare, cpus, fast, type Input, normals, oracle, random, run } from '../support/kernels.js';
import { unlessBusy } from '../support/load.js';

const streams = () => [{ isa: 'oracle', stream: oracle }, ...fast()];
const EPS = 2 ** -24;
const matrix = (rows: number, data: Float32Array, dtype: 'f32' | 'bf16' = 'f32'): Input => ({
  data,
  shape: [rows, data.length / rows],
  dtype,
});
const ids = (...list: number[]): Input => ({ data: Int32Array.from(list), shape: [list.length] });
/** The sum of exponentials carries 2e-7 of each term, the difference a rounding. */
const bound = (_: number, __: number, expected: number) => 1e-6 + 4 * EPS * Math.abs(expected);

test.serial('top-k of a small row by hand: log-probabilities after suppression, ids, log-sum-exp', async (t) => {
  const z = Float32Array.of(Math.log(1), Math.log(2), Math.log(4), Math.log(1), Math.log(8));
  for (const { isa, stream } of streams()) {
    const [values, best, lse] = await run(stream, kernels.topK, { logits: matrix(1, z), suppress: ids(4), k: 4 });
    t.deepEqual([...best!], [2, 1, 0, 3], isa);
    [1 / 2, 1 / 4, 1 / 8, 1 / 8].forEach((p, i) => void t.true(Math.abs(values![i]! - Math.log(p)) < 1e-6));
    t.true(Math.abs(lse![0]! - Math.log(8)) < 1e-6);
  }
});

test.serial('top-k: every CPU path is the oracle for odd shapes, f32 and bf16, all k', async (t) => {
  const next = random(21);
  for (const dtype of ['f32', 'bf16'] as const)
    for (const [rows, columns] of [
      [0, 7],
      [1, 1],
      [3, 31],
      [2, 255],
      [2, 256],
      [5, 257],
      [2, 5003],
      [3, 51865],
    ] as const)
      for (const k of [1, 2, 5, 32].filter((k) => k <= columns)) {
        // bf16 has few values: many ties, which the lower id wins.
        const data = normals(rows * columns, next, 3);
        const logits: Input = { data, shape: [rows, columns], dtype };
        const hide = ids(...Array.from({ length: Math.floor(columns / 9) }, () => Math.floor(next() * columns)));
        await compare(t, `${dtype} [${rows}, ${columns}] k ${k}`, kernels.topK, { logits, k }, bound);
        await compare(
          t,
          `${dtype} [${rows}, ${columns}] k ${k} hidden`,
          kernels.topK,
          { logits, suppress: hide, k },
          bound,
        );
      }
});

test.serial('top-k: equal logits come by id, in ascending, descending and constant rows', async (t) => {
  const n = 1000;
  for (const { isa, stream } of streams()) {
    const row = (f: (i: number) => number) =>
      matrix(
        1,
        Float32Array.from({ length: n }, (_, i) => f(i)),
      );
    const first = async (input: Input) => [...(await run(stream, kernels.topK, { logits: input, k: 5 }))[1]!];
    t.deepEqual(await first(row(() => 1)), [0, 1, 2, 3, 4], isa);
    t.deepEqual(await first(row((i) => i)), [999, 998, 997, 996, 995], isa);
    t.deepEqual(await first(row((i) => -i)), [0, 1, 2, 3, 4], isa);
    t.deepEqual(await first(row((i) => i % 2)), [1, 3, 5, 7, 9], isa);
    t.deepEqual(await first(row((i) => Math.floor(i / 100))), [900, 901, 902, 903, 904], isa);
  }
});

test.serial('top-k: huge logits, -inf, and rows with fewer live logits than k', async (t) => {
  const n = 700;
  const huge = normals(n, random(22), 1e30);
  await compare(t, 'huge', kernels.topK, { logits: matrix(1, huge), k: 5 }, bound);
  await compare(
    t,
    'shifted',
    kernels.topK,
    {
      logits: matrix(
        1,
        normals(n, random(23)).map((x) => x + 3e4),
      ),
      k: 5,
    },
    bound,
  );
  const sparse = new Float32Array(n).fill(Number.NEGATIVE_INFINITY);
  sparse[600] = 1;
  sparse[300] = 2;
  await compare(t, 'two live', kernels.topK, { logits: matrix(1, sparse), k: 4 }, bound);
  for (const { isa, stream } of streams()) {
    const [values, best, lse] = await run(stream, kernels.topK, {
      logits: matrix(1, sparse),
      suppress: ids(300, 600),
      k: 3,
    });
    const none = Number.NEGATIVE_INFINITY;
    t.deepEqual([[...values!], [...best!], [...lse!]], [[none, none, none], [0, 1, 2], [none]], isa);
    const all = ids(...Array.from({ length: n }, (_, i) => n - 1 - i));
    const [v2, b2, l2] = await run(stream, kernels.topK, { logits: matrix(1, huge), suppress: all, k: 2 });
    t.deepEqual([[...v2!], [...b2!], [...l2!]], [[none, none], [0, 1], [none]], isa);
  }
});

test.serial(
  'top-k: NaN and +inf are faults wherever they stand, unless suppressed; so are ids out of range',
  async (t) => {
    for (const { isa, stream } of streams()) {
      const call = (data: Float32Array, hide: Input | null) =>
        run(stream, kernels.topK, { logits: matrix(2, data), suppress: hide, k: 3 });
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY])
        for (const at of [0, 255, 256, 699, 700, 1399])
          for (const rest of [0, Number.NEGATIVE_INFINITY]) {
            const data = new Float32Array(1400).fill(rest);
            data[at] = bad;
            await t.throwsAsync(
              call(data, null),
              { code: 'ERR_KERNEL', message: new RegExp(`row ${at < 700 ? 0 : 1}`) },
              isa,
            );
            await t.notThrowsAsync(call(data, ids(at % 700)), isa);
          }
      for (const id of [-1, 700])
        await t.throwsAsync(call(new Float32Array(1400), ids(id)), { code: 'ERR_ARGUMENT' }, isa);
      const x = stream.tensor(new Float32Array(12), [3, 4]);
      for (const k of [0, 33, 1.5]) t.throws(() => kernels.topK(stream, { logits: x, k }), { code: 'ERR_ARGUMENT' });
      t.throws(() => kernels.topK(stream, { logits: x, k: 5 }), { code: 'ERR_SHAPE' });
      t.throws(() => kernels.topK(stream, { logits: x, suppress: x, k: 1 }), { code: 'ERR_DTYPE' });
    }
  },
);

/** Four bounds for each row. */
const bounds = (...rows: (readonly number[])[]): Input => ({
  data: Int32Array.from(rows.flat()),
  shape: [rows.length, 4],
});
const hidden = Number.NEGATIVE_INFINITY;

test.serial('top-k by hand where only two ranges are allowed: the second alone where it is the likelier', async (t) => {
  const row = [5, 1, 2, 5, 1, 1.5, 1.5, 5];
  const z = matrix(4, Float32Array.from([row, row, row, row].flat()));
  // Σ of the second: one of 1.5, less than 2; two, more than 2; nothing, beside which the first stays; nothing at all.
  const allowed = bounds([1, 3, 4, 6], [1, 3, 4, 7], [1, 3, 8, 8], [8, 8, 8, 8]);
  const log = (...of: number[]) => Math.log(of.reduce((sum, x) => sum + Math.exp(x), 0));
  for (const { isa, stream } of streams()) {
    const [values, best, lse] = await run(stream, kernels.topK, { logits: z, allowed, k: 4 });
    const sums = [log(1, 2, 1, 1.5), log(1, 1.5, 1.5), log(1, 2), hidden];
    // Behind what is allowed come the lowest other ids.
    t.deepEqual(
      [...best!],
      [
        [2, 5, 1, 4],
        [5, 6, 4, 0],
        [2, 1, 0, 3],
        [0, 1, 2, 3],
      ].flat(),
      isa,
    );
    const chosen = [[2, 1.5, 1, 1], [1.5, 1.5, 1, hidden], [2, 1, hidden, hidden], Array(4).fill(hidden)];
    for (const [r, sum] of sums.entries()) {
      t.true(sum === lse![r] || Math.abs(lse![r]! - sum) < 1e-6, isa);
      for (const [j, x] of chosen[r]!.entries()) {
        const value = values![4 * r + j]!;
        t.true(x === hidden ? value === hidden : Math.abs(value - (x - sum)) < 1e-6, isa);
      }
    }
    // As likely is not likelier; suppressed ids count in neither range.
    const even = matrix(1, Float32Array.of(0, 7, 3, 7, 9));
    const chosenOf = async (allowed: Input, k: number, suppress?: Input) => [
      ...(await run(stream, kernels.topK, { logits: even, suppress, allowed, k }))[1]!,
    ];
    t.deepEqual(await chosenOf(bounds([0, 2, 3, 4]), 2), [1, 3], isa);
    t.deepEqual(await chosenOf(bounds([0, 2, 2, 4]), 3, ids(1)), [3, 2, 0], isa);
    t.deepEqual(await chosenOf(bounds([0, 2, 3, 4]), 2, ids(3)), [1, 0], isa);
  }
});

test.serial(
  'top-k with ranges: every path is the oracle for odd shapes, any bounds, f32 and bf16, all k',
  async (t) => {
    const next = random(27);
    for (const dtype of ['f32', 'bf16'] as const)
      for (const [rows, columns] of [
        [0, 7],
        [1, 1],
        [4, 31],
        [5, 256],
        [7, 257],
        [6, 5003],
        [5, 51865],
      ] as const)
        for (const k of [1, 2, 6, 32].filter((k) => k <= columns)) {
          const any = (): number[] =>
            Array.from({ length: 4 }, () => Math.floor(next() * (columns + 1))).sort((a, b) => a - b);
          const edges = [
            [0, columns, columns, columns],
            [0, 0, 0, columns],
            [0, columns - 1, columns - 1, columns],
            [columns, columns, columns, columns],
          ];
          const logits: Input = { data: normals(rows * columns, next, 3), shape: [rows, columns], dtype };
          const hide = ids(...Array.from({ length: Math.floor(columns / 9) }, () => Math.floor(next() * columns)));
          for (const [what, of] of [
            ['any', any],
            ['edges', (row: number) => edges[(row + k) % 4]!],
            [
              'of a vocabulary',
              (row: number) =>
                [row % 3 === 0 ? 0 : 0.9, 0.97, 0.97 + 0.005 * row, 1].map((x) => Math.floor(x * columns)),
            ],
          ] as const) {
            const allowed = { ...bounds(...Array.from({ length: rows }, (_, row) => of(row))), shape: [rows, 4] };
            for (const suppress of [null, hide])
              await compare(
                t,
                `${dtype} [${rows}, ${columns}] k ${k} ${what}${suppress ? ' hidden' : ''}`,
                kernels.topK,
                { logits, suppress, allowed, k },
                bound,
              );
          }
        }
  },
);

test.serial('top-k with ranges: a range that is all columns changes no bit', async (t) => {
  const data = normals(3 * 5003, random(28), 4);
  const all = bounds(...Array.from({ length: 3 }, () => [0, 5003, 5003, 5003]));
  for (const { isa, stream } of streams()) {
    const call = (allowed: Input | null) =>
      run(stream, kernels.topK, { logits: matrix(3, data), suppress: ids(7, 4000), allowed, k: 5 });
    t.deepEqual(await call(all), await call(null), isa);
  }
});

test.serial(
  'top-k with ranges: NaN and +inf are faults inside them only; bounds out of order are refused',
  async (t) => {
    const rest = bounds([0, 1400, 1400, 1400]);
    for (const { isa, stream } of streams()) {
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY])
        for (const [at, inside] of [
          [0, false],
          [99, false],
          [100, true],
          [899, true],
          [900, false],
          [1000, true],
          [1399, false],
        ] as const) {
          const data = new Float32Array(1400);
          data[at] = bad;
          const call = () =>
            run(stream, kernels.topK, { logits: matrix(1, data), allowed: bounds([100, 900, 1000, 1399]), k: 3 });
          if (inside) await t.throwsAsync(call(), { code: 'ERR_KERNEL', message: /row 0/ }, `${isa} ${at}`);
          else await t.notThrowsAsync(call(), `${isa} ${at}`);
        }
      const zeros = matrix(2, new Float32Array(2800));
      for (const [wrong, element, got] of [
        [[-1, 5, 6, 7], 4, -1],
        [[5, 4, 6, 7], 5, 4],
        [[0, 4, 3, 7], 6, 3],
        [[0, 4, 6, 1401], 7, 1401],
        [[2000, 4, 6, 7], 4, 2000],
      ] as const) {
        const two = bounds([...rest.data], wrong);
        const message = `top_k: argument 'allowed': expected bounds of two ranges in order, from 0 to 1400, got ${got} at element ${element}`;
        await t.throwsAsync(
          run(stream, kernels.topK, { logits: zeros, allowed: two, k: 3 }),
          { code: 'ERR_ARGUMENT', message },
          isa,
        );
        stream.endStep();
      }
      const x = stream.tensor(new Float32Array(12), [3, 4]);
      const i32 = (...shape: number[]) => stream.tensor(new Int32Array(shape[0]! * shape[1]!), shape, 'i32');
      for (const [allowed, code] of [
        [i32(2, 4), 'ERR_SHAPE'],
        [i32(3, 3), 'ERR_SHAPE'],
        [x, 'ERR_DTYPE'],
      ] as const)
        t.throws(
          () => kernels.topK(stream, { logits: x, allowed, k: 1 }),
          { code, message: /argument 'allowed'/ },
          isa,
        );
      stream.endStep();
    }
  },
);

const exact = () => 0;

/** Beams of `items`, in an order that `of` gives, and caches of some shapes. */
function reordering(items: number, beams: number, of: (k: number) => number, caches: readonly Input[], count: number) {
  const parents = Int32Array.from({ length: items * beams }, (_, i) => of(i % beams));
  const written = caches.map((cache) => ({ ...cache, inout: true }));
  return { parents: { data: parents, shape: [items, beams] }, caches: written, count };
}

test.serial('cache_reorder by hand: each item has its own order, and positions behind the count stay', async (t) => {
  const rows = Float32Array.from({ length: 2 * 3 * 3 * 2 }, (_, i) => i);
  const parents: Input = { data: Int32Array.of(2, 0, 0, 0, 1, 1), shape: [2, 3] };
  const cache: Input = { data: rows, shape: [6, 3, 2], inout: true };
  for (const { isa, stream } of streams()) {
    const [got] = await run(stream, kernels.cacheReorder, { parents, caches: [cache], count: 2 });
    const row = (n: number, from: number) => [0, 1, 2, 3].map((i) => 6 * from + i).concat([6 * n + 4, 6 * n + 5]);
    t.deepEqual([...got!], [...row(0, 2), ...row(1, 0), ...row(2, 0), ...row(3, 3), ...row(4, 4), ...row(5, 4)], isa);
  }
});

test.serial('cache_reorder: every path is the oracle for odd shapes, both types, several caches a call', async (t) => {
  const next = random(26);
  for (const [items, beams, positions, width, count] of [
    [0, 4, 3, 8, 2],
    [1, 1, 1, 1, 1],
    [1, 2, 5, 0, 3],
    [2, 3, 7, 5, 4],
    [3, 5, 40, 96, 33],
    [1, 32, 4, 17, 3],
    [2, 7, 448, 16, 448],
    [2, 2, 3, 8, 0],
  ] as const) {
    const cache = (dtype: 'f32' | 'bf16', wider = 0): Input => {
      const shape = [items * beams, positions + wider, width + wider];
      const size = shape.reduce((a, b) => a * b, 1);
      return { data: normals(size, next), shape, dtype };
    };
    const caches = [cache('f32'), cache('bf16'), cache('f32', 3), cache('bf16', 8)];
    for (const [name, of] of [
      ['themselves', (k: number) => k],
      ['the first', () => 0],
      ['the last', () => beams - 1],
      ['reversed', (k: number) => beams - 1 - k],
      ['the next', (k: number) => (k + 1) % beams],
      ['any', () => Math.floor(next() * beams)],
    ] as const)
      await compare(
        t,
        `${items} × ${beams}, ${name}`,
        kernels.cacheReorder,
        reordering(items, beams, of, caches, count),
        exact,
      );
    await compare(
      t,
      'no caches',
      kernels.cacheReorder,
      reordering(items, beams, (k) => k, [], count),
      exact,
    );
  }
});

test.serial(
  'cache_reorder: a parent that is no beam of the item is a fault; what does not fit is refused',
  async (t) => {
    const cache: Input = { data: new Float32Array(4 * 5 * 3), shape: [4, 5, 3] };
    for (const { isa, stream } of streams()) {
      for (const wrong of [-1, 2]) {
        const bad: Input = { data: Int32Array.of(0, 1, 1, wrong), shape: [2, 2] };
        const message = new RegExp(
          `^cache_reorder: argument 'parents': expected beams from 0 to 1, got ${wrong} at element 3`,
        );
        await t.throwsAsync(
          run(stream, kernels.cacheReorder, { parents: bad, caches: [{ ...cache, inout: true }], count: 2 }),
          { code: 'ERR_ARGUMENT', message },
          isa,
        );
        stream.endStep();
      }
      const tensor = ({ data, shape }: Input) => stream.tensor(data, shape, data instanceof Int32Array ? 'i32' : 'f32');
      const parents = (shape: number[]) => tensor({ data: new Int32Array(shape[0]! * shape[1]!), shape });
      for (const [given, count, code, message] of [
        [parents([2, 2]), 6, 'ERR_SHAPE', /'cache': expected at least 6 positions/],
        [parents([1, 2]), 2, 'ERR_SHAPE', /'cache': expected \[2, any, any\]/],
        [parents([1, 33]), 2, 'ERR_SHAPE', /'parents': expected 1 to 32 beams an item/],
        [tensor(cache), 2, 'ERR_DTYPE', /'parents'/],
        [parents([2, 2]), -1, 'ERR_ARGUMENT', /'count'/],
      ] as const)
        t.throws(
          () => kernels.cacheReorder(stream, { parents: given, caches: [tensor(cache)], count }),
          { code, message },
          isa,
        );
      stream.endStep();
    }
  },
);

/** Philox-4x32-10 written from the paper, on big integers: counter and key as words, low first. */
function philox(counter: bigint[], key: bigint[]): number[] {
  const low = (x: bigint) => x & 0xffffffffn;
  let [a, b, c, d] = counter as [bigint, bigint, bigint, bigint];
  let [k, l] = key as [bigint, bigint];
  for (let round = 0; round < 10; round++) {
    const p = 0xd2511f53n * a;
    const q = 0xcd9e8d57n * c;
    [a, b, c, d] = [(q >> 32n) ^ b ^ k, low(q), (p >> 32n) ^ d ^ l, low(p)];
    k = low(k + 0x9e3779b9n);
    l = low(l + 0xbb67ae85n);
  }
  return [a, b, c, d].map(Number);
}

test.serial('the Philox that the draws are held against gives the published words', (t) => {
  const hex = (words: number[]) => words.map((w) => w.toString(16).padStart(8, '0')).join(' ');
  const f = 0xffffffffn;
  t.is(hex(philox([0n, 0n, 0n, 0n], [0n, 0n])), '6627e8d5 e169c58d bc57ac4c 9b00dbd8');
  t.is(hex(philox([f, f, f, f], [f, f])), '408f276d 41c83b0e a20bc7c6 6d5451fd');
  t.is(
    hex(philox([0x243f6a88n, 0x85a308d3n, 0x13198a2en, 0x03707344n], [0xa4093822n, 0x299f31d0n])),
    'd16cfe09 94fdcceb 5001e420 24126ea1',
  );
});

const seeds: [seed: number, step: number, op: number][] = [
  [0, 0, 0],
  [1, 2, 3],
  [2 ** 53, 0xffffffff, 0xffffffff],
  [0x1299f31d0a409, 0x13198a2e, 0x03707344],
];

test.serial('uniform draws are the words of Philox, bit for bit, and normal draws their Box-Muller', async (t) => {
  const count = 150;
  for (const [seed, step, op] of seeds) {
    const key = [BigInt(seed) & 0xffffffffn, BigInt(seed) >> 32n];
    const words = Array.from({ length: Math.ceil(count / 4) }, (_, block) =>
      philox([BigInt(block), 0n, BigInt(step), BigInt(op)], key),
    ).flat();
    for (const { isa, stream } of streams()) {
      const [uniform] = await run(stream, kernels.randomUniform, { count, seed, step, op });
      const [normal] = await run(stream, kernels.randomNormal, { count, seed, step, op });
      for (let i = 0; i < count; i++) {
        if (uniform![i] !== (words[i]! >>> 8) / 2 ** 24) t.fail(`${isa} uniform ${i} of seed ${seed}`);
        const [a, b] = [words[i - (i % 2)]! >>> 8, words[i - (i % 2) + 1]! >>> 8];
        const angle = (2 * Math.PI * b) / 2 ** 24;
        const expected = Math.sqrt(-2 * Math.log((a + 1) / 2 ** 24)) * (i % 2 ? Math.sin(angle) : Math.cos(angle));
        if (!(Math.abs(normal![i]! - expected) < 2e-6)) t.fail(`${isa} normal ${i} of seed ${seed}`);
      }
    }
  }
  t.pass();
});

test.serial('draws: every CPU path is the oracle, uniforms exactly, normals to 2e-6, for any count', async (t) => {
  for (const count of [0, 1, 2, 3, 5, 63, 64, 65, 4097, 100003]) {
    const call = { count, seed: 1234567890123, step: 7, op: 42 };
    await compare(t, `${count} uniforms`, kernels.randomUniform, call, () => 0);
    await compare(t, `${count} normals`, kernels.randomNormal, call, () => 2e-6);
  }
});

test.serial('draws have the moments of their distributions and differ by seed, step and op', async (t) => {
  const n = 1 << 20;
  const { stream } = cpus().at(-1)!;
  const moments = (x: Float64Array) => {
    const mean = x.reduce((a, b) => a + b, 0) / n;
    const variance = x.reduce((a, b) => a + (b - mean) ** 2, 0) / n;
    return { mean, variance, fourth: x.reduce((a, b) => a + (b - mean) ** 4, 0) / n / variance ** 2 };
  };
  const near = (got: number, wanted: number, limit: number) =>
    t.true(Math.abs(got - wanted) < limit, `${got}, ${wanted}`);
  const normal = moments((await run(stream, kernels.randomNormal, { count: n, seed: 5, step: 6, op: 7 }))[0]!);
  near(normal.mean, 0, 5e-3);
  near(normal.variance, 1, 7e-3);
  near(normal.fourth, 3, 0.03);
  const [u] = await run(stream, kernels.randomUniform, { count: n, seed: 5, step: 6, op: 7 });
  const uniform = moments(u!);
  near(uniform.mean, 0.5, 1.5e-3);
  near(uniform.variance, 1 / 12, 4e-4);
  t.true(u!.every((x) => x >= 0 && x < 1));
  const draw = async (seed: number, step: number, op: number) =>
    (await run(stream, kernels.randomUniform, { count: 64, seed, step, op }))[0]!.join();
  const draws = [
    await draw(5, 6, 7),
    await draw(6, 6, 7),
    await draw(5, 7, 7),
    await draw(5, 6, 8),
    await draw(5 + 2 ** 40, 6, 7),
  ];
  t.is(new Set(draws).size, draws.length);
  t.is(await draw(5, 6, 7), draws[0]!);
});

test.serial('draws refuse counts, seeds, steps and ops out of range', (t) => {
  for (const { stream } of streams())
    for (const draw of [kernels.randomNormal, kernels.randomUniform])
      for (const [[count, seed, step, op], what] of [
        [[-1, 0, 0, 0], /count/],
        [[1.5, 0, 0, 0], /count/],
        [[1, -1, 0, 0], /seed/],
        [[1, 2 ** 54, 0, 0], /seed/],
        [[1, 0, 2 ** 32, 0], /step/],
        [[1, 0, 0, -1], /op/],
        [[1, 0, 0, Number.NaN], /op/],
      ] as const)
        t.throws(() => draw(stream, { count, seed, step, op }), { code: 'ERR_ARGUMENT', message: what });
});

test.serial('speed: top-k over a vocabulary, and a million draws', async (t) => {
  const { stream } = cpus().at(-1)!;
  const logits = stream.persistent(normals(4 * 51865, random(24), 3), [4, 51865], 'f32');
  const held = (name: string, bar: number, call: () => unknown) => {
    const measure = () =>
      fastest(10, async () => {
        call();
        await stream.sync();
        stream.endStep();
      });
    return unlessBusy(
      t,
      measure,
      (best) => best < bar,
      (best) => `${name}: ${best.toFixed(3)} ms`,
    );
  };
  const draws = { count: 1 << 20, seed: 1, step: 2, op: 3 };
  await held('top_k', 20, () => kernels.topK(stream, { logits, k: 5 }));
  await held('random_normal', 100, () => kernels.randomNormal(stream, draws));
  await held('random_uniform', 100, () => kernels.randomUniform(stream, draws));
  logits.dispose();
});
