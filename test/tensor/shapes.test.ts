/** Shapes that no tensor can have, at every door: refused with ERR_SHAPE before a kernel sees them, and nothing else happens. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { isDistilWhisperError, kernels, Stream, type Tensor } from '../../lib/index.js';
import { openSafetensors, writeSafetensors } from '../../lib/weights/index.js';
import { run as randomCalls } from '../fuzz/kernels.js';
import { processorSeconds } from '../support/load.js';
import { scratch } from '../support/weights.js';

const fast = new Stream({ threads: 2 });
const oracle = new Stream({ backend: 'reference', threads: 1 });
test.after.always(() => {
  for (const stream of [fast, oracle]) stream.close();
});

function refused(t: ExecutionContext, what: string, body: () => unknown, code = 'ERR_SHAPE', says = /expected/): void {
  let thrown: unknown;
  try {
    body();
  } catch (error) {
    thrown = error;
  }
  t.true(isDistilWhisperError(thrown) && thrown.code === code, `${what}: ${thrown}`);
  t.regex((thrown as Error).message, says, what);
}

/** What is wrong with each, none of it of six elements. */
const BAD: number[][] = [
  ...[[-1], [-1, 3], [2, -3], [-2, -3], [-6, -1], [-0.5], [1.5, 4], [0.1 * 60, 1.0000000001]],
  ...[[Number.NaN], [6, Number.NaN], [Infinity], [-Infinity], [0, Infinity], [2 ** 53], [-(2 ** 63)], [1e308, 0]],
  // Products that wrap: to 0, to 6, to a negative number, or in bytes only.
  ...[
    [2 ** 61, 8],
    [2 ** 62, 4],
    [2 ** 60, 16, 1],
    [2 ** 32, 2 ** 32],
    [2 ** 32, 2 ** 31],
    [2 ** 52, 2],
    [2 ** 51 + 1, 4],
    [2 ** 31, 2 ** 31, 2 ** 2],
  ],
  // Empty, and yet too large for the products of its other dimensions.
  ...[
    [0, 2 ** 62],
    [2 ** 52, 0, 2 ** 10],
    [0, 2 ** 30, 2 ** 30],
  ],
  // More dimensions than any kernel has.
  ...[[1, 1, 1, 1, 6], Array.from({ length: 1000 }, () => 1), [undefined, 6] as unknown as number[]],
];

test('a tensor, zeros, a reshape: no dimension below 0, no fraction, nothing of 2^53 bytes, four dimensions at most', (t) => {
  for (const stream of [fast, oracle]) {
    const six = stream.tensor(new Float32Array(6), [2, 3]);
    const kept = stream.persistent(new Float32Array(6), [2, 3]);
    const before = stream.memory();
    for (const shape of BAD) {
      const what = `[${shape.slice(0, 8)}]`;
      refused(t, `reshape ${what}`, () => six.reshape(shape));
      refused(t, `reshape of a persistent tensor ${what}`, () => kept.reshape(shape));
      refused(t, `tensor ${what}`, () => stream.tensor(new Float32Array(6), shape));
      refused(t, `zeros ${what}`, () => stream.persistent(null, shape));
      refused(t, `persistent ${what}`, () => stream.persistent(new Uint16Array(6), shape, 'bf16'));
    }
    t.deepEqual(stream.memory(), before, 'nothing was taken');
    for (const shape of [null, 6, '6', undefined, [null], ['6'], [[6]], [6n]] as unknown as number[][])
      refused(t, `reshape ${String(shape)}`, () => six.reshape(shape));
    stream.endStep();
    kept.dispose();
  }
});

test('a reshape keeps the elements; a slice stays within the rows', async (t) => {
  const x = fast.tensor(Float32Array.of(1, 2, 3, 4, 5, 6), [3, 2]);
  t.deepEqual(x.reshape([1, 6, 1]).shape, [1, 6, 1]);
  t.deepEqual(await x.slice(1, 3).reshape([4]).read(), Float32Array.of(3, 4, 5, 6));
  t.deepEqual(await x.slice(3, 3).read(), new Float32Array(0));
  for (const shape of [[5], [7], [], [0], [3, 0], [12]])
    refused(t, `[${shape}]`, () => x.reshape(shape), 'ERR_SHAPE', /expected a shape of the 6 elements of \[3,2\], got/);
  for (const [begin, end] of [
    ...[
      [-1, 2],
      [2, 1],
      [0, 4],
      [4, 4],
      [2, -3],
      [0.5, 1],
      [0, 1.5],
    ],
    ...[
      [Number.NaN, 1],
      [0, Number.NaN],
      [0, Infinity],
      [-Infinity, 1],
      [0, 2 ** 53],
      [2 ** 62, 2 ** 62],
    ],
  ] as [number, number][])
    refused(t, `${begin} to ${end}`, () => x.slice(begin, end), 'ERR_SHAPE', /0 <= begin <= end <= 3, got/);
  refused(t, 'a scalar', () => fast.tensor(Float32Array.of(1), []).slice(0, 1), 'ERR_SHAPE', /a tensor with rows/);
  const empty = fast.tensor(new Float32Array(0), [0, 7]);
  t.deepEqual(empty.slice(0, 0).shape, [0, 7]);
  refused(t, 'rows of none', () => empty.slice(0, 1));
  // Rows without columns are empty wherever they are cut.
  t.deepEqual(fast.tensor(new Float32Array(0), [5, 0]).slice(2, 4).shape, [2, 0]);
  fast.endStep();
});

test('what is no type, no data or not as many bytes', (t) => {
  refused(t, 'a type', () => fast.tensor(new Float32Array(1), [1], 'f16' as never), 'ERR_DTYPE', /one of f32, .*'f16'/);
  refused(t, 'zeros', () => fast.persistent(null, [2, 2], 'q8'), 'ERR_DTYPE', /zeros, got q8/);
  refused(t, 'data', () => fast.tensor([1] as never, [1]), 'ERR_ARGUMENT', /typed array, got object/);
  refused(t, 'none', () => fast.tensor(null as never, [1]), 'ERR_ARGUMENT', /typed array, got null/);
  refused(t, 'bytes', () => fast.tensor(new Float32Array(3), [1]), 'ERR_SHAPE', /takes 4 bytes, got 12/);
});

test('the addon trusts none of it: ids, offsets, shapes and types that TypeScript would not have let through', async (t) => {
  for (const stream of [fast, oracle]) {
    const { native } = stream;
    const six = stream.tensor(Float32Array.of(1, 2, 3, 4, 5, 6), [2, 3]);
    for (const shape of BAD) {
      const what = `[${shape.slice(0, 8)}]`;
      const code = [...shape].includes(undefined as never) ? 'ERR_ARGUMENT' : 'ERR_SHAPE';
      refused(t, `view ${what}`, () => stream.guard(() => native.view(six.id, 0, shape)), code, /./);
      refused(t, `create ${what}`, () => stream.guard(() => native.create(0, shape, true)), code, /./);
    }
    for (const [offset, shape] of [
      ...[
        [1, [6]],
        [6, [1]],
        [7, []],
        [2 ** 52, [1]],
        [2 ** 53 - 7, [6]],
      ],
      ...[
        [-1, [1]],
        [0.5, [1]],
        [Number.NaN, [1]],
        [Infinity, [1]],
        [2 ** 63, [1]],
      ],
    ] as [number, number[]][]) {
      refused(t, `${offset}`, () => stream.guard(() => native.view(six.id, offset, shape)), 'ERR_SHAPE', /./);
    }
    const argument = (what: string, body: () => unknown): void =>
      refused(t, what, () => stream.guard(body), 'ERR_ARGUMENT', /expected/);
    for (const bad of [-1, 5, 0.5, Number.NaN, 'f32', null, undefined, {}] as never[])
      argument(`type ${bad}`, () => native.create(bad, [1], false));
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 53, '7', null] as never[]) {
      argument(`tensor ${bad}`, () => native.call(0, [bad], []));
      argument(`view of ${bad}`, () => native.view(bad, 0, [1]));
      argument(`operation ${bad}`, () => native.call(bad, [], []));
      argument(`replay ${bad}`, () => native.replay(bad));
    }
    argument('operation', () => native.call(10_000, [], []));
    argument('no array', () => native.call(0, null as never, []));
    argument('numbers', () => native.call(0, [], ['1'] as never));
    argument('bytes', () => native.write(six.id, new Float32Array(6) as never, false));
    t.deepEqual(await six.read(), Float32Array.of(1, 2, 3, 4, 5, 6));
    stream.endStep();
  }
});

test('values in a mapped file: a shape of other bytes, or one that leaves the file', async (t) => {
  const path = join(await scratch(t), 'one.safetensors');
  await writeSafetensors(path, [{ name: 'x', dtype: 'f32', shape: [6], data: new Uint8Array(24) }]);
  const file = await openSafetensors(path);
  const values = await file.stored('x');
  for (const shape of [...BAD, [5], [7]])
    refused(t, `[${shape.slice(0, 8)}]`, () => fast.stored(values, shape, 'f32', true), 'ERR_SHAPE', /./);
  for (const byte of [-4, 2 ** 53, 0.5, Number.NaN])
    refused(t, `${byte}`, () => fast.stored({ ...values, byte }, [6], 'f32', true), 'ERR_SHAPE', /stored: byte/);
  for (const byte of [values.byte + 4, 2 ** 40])
    refused(t, `${byte}`, () => fast.stored({ ...values, byte }, [6], 'f32', true), 'ERR_SHAPE', /outside of a file/);
  t.deepEqual(await fast.stored(values, [2, 3], 'f32', true).read(), new Float32Array(6));
  await file.close();
});

/** Empty, of `rows` rows or columns that would come to far more than any machine has. */
const hollow = (shape: number[]): Tensor => fast.tensor(new Float32Array(0), shape);

test('a result that no memory holds is refused at the call, and the stream goes on', async (t) => {
  const far = 2 ** 40;
  const calls: [what: string, code: string, call: () => unknown][] = [
    [
      'a product of two empty matrices',
      'ERR_SHAPE',
      () => kernels.linear(fast, { x: hollow([far, 0]), weight: hollow([far, 0]), compute: 'f32', out: 'f32' }),
    ],
    [
      'one that might be',
      'ERR_OUT_OF_MEMORY',
      () => kernels.linear(fast, { x: hollow([far, 0]), weight: hollow([4, 0]), compute: 'f32', out: 'f32' }),
    ],
    ['numbers', 'ERR_OUT_OF_MEMORY', () => kernels.randomNormal(fast, { count: far, seed: 0, step: 0, op: 0 })],
    ['rows of scales', 'ERR_OUT_OF_MEMORY', () => fast.quantized(hollow([far, 0]))],
    [
      'a vocabulary',
      'ERR_SHAPE',
      () =>
        kernels.distillLoss(fast, {
          hidden: hollow([0, 0]),
          weight: hollow([far, 0]),
          labels: fast.tensor(new Int32Array(0), [0], 'i32'),
          smoothing: 0,
          temperature: 1,
          kind: 'none',
          crossEntropyWeight: 1,
          divergenceWeight: 0,
          grad: false,
          compute: 'f32',
          workspace: 1 << 20,
        }),
    ],
    ['zeros', 'ERR_OUT_OF_MEMORY', () => fast.persistent(null, [far, 100])],
    ['a step tensor', 'ERR_OUT_OF_MEMORY', () => fast.guard(() => fast.native.create(0, [far, 100], false))],
  ];
  for (const [what, code, call] of calls) refused(t, what, call, code, /./);
  t.deepEqual(await fast.tensor(Float32Array.of(3), [1]).read(), Float32Array.of(3));
  fast.endStep();
});

test.serial('rows without columns cost nothing, however many they are', async (t) => {
  const far = 2 ** 45;
  const start = processorSeconds();
  for (const stream of [fast, oracle]) {
    const rows = stream.tensor(new Float32Array(0), [far, 0]);
    const none = stream.tensor(new Float32Array(0), [0, 0]);
    t.deepEqual(kernels.cast(stream, { x: rows, out: 'bf16' }).y.shape, [far, 0]);
    t.deepEqual(kernels.linear(stream, { x: rows, weight: none, compute: 'f32', out: 'f32' }).y.shape, [far, 0]);
    const x = stream.tensor(new Float32Array(0), [far, 5, 0]);
    t.deepEqual(kernels.unfold(stream, { x, stride: 1, out: 'f32' }).rows.shape, [far, 5, 0]);
    await stream.sync();
    stream.endStep();
  }
  t.true(processorSeconds() - start < 1);
});

test.serial('random calls of every operation end in a result or a typed error', async (t) => {
  const { calls, faults } = await randomCalls({ seconds: 2, seed: 7, report: (line) => t.log(line) });
  t.deepEqual(faults, []);
  t.log(`${calls} calls`);
  t.true(calls > 20);
});

const prlimit = spawnSync('prlimit', ['--version']).status === 0;
(prlimit ? test.serial : test.serial.skip)(
  'where memory ends: a tensor, a read and a write are ERR_OUT_OF_MEMORY, and the stream goes on',
  (t) => {
    const program = fileURLToPath(new URL('../support/scarce-memory.mjs', import.meta.url));
    const library = new URL('../../dist/index.js', import.meta.url).href;
    const { status, stdout, stderr } = spawnSync(process.execPath, [program, library], { encoding: 'utf8' });
    t.is(status, 0, stderr);
    const [allocated, read, written] = Array.from({ length: 3 }, () => 'ERR_OUT_OF_MEMORY');
    t.deepEqual(JSON.parse(stdout), { allocated, read, written, after: [3] });
  },
);
