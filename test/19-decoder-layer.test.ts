import test, { type ExecutionContext } from 'ava';
import { type DType, dtypeNumber, type Stream, type Tensor } from '../lib/tensor/index.js';
import { cpus, fast, type Input, normals, oracle, put, random, relativeL2, values } from './support/kernels.js';

type Float = 'f32' | 'bf16';

interface Case {
  title: string;
  batch: number;
  /** Rows of the batch that share the encoder's. Default 1. */
  beams?: number;
  tokens: number;
  /** Tokens before these, and rows of the encoder. */
  offset: number;
  seen: number;
  heads: number;
  width: number;
  inner: number;
  /** Rows of each language. */
  ranges: [number, number][];
  matrices?: DType;
  /** Of the encoder's keys and values. */
  cache?: 'q8';
}

const cases: Case[] = [
  { title: 'one row', batch: 1, tokens: 1, offset: 4, seen: 37, heads: 2, width: 32, inner: 64, ranges: [] },
  { title: 'the first token', batch: 1, tokens: 1, offset: 0, seen: 1, heads: 1, width: 1, inner: 1, ranges: [] },
  { title: 'a prompt', batch: 3, tokens: 5, offset: 0, seen: 70, heads: 3, width: 21, inner: 29, ranges: [] },
  {
    title: 'two languages',
    batch: 5,
    tokens: 1,
    offset: 2,
    seen: 9,
    heads: 1,
    width: 64,
    inner: 97,
    ranges: [
      [0, 2],
      [3, 5],
    ],
  },
  {
    title: 'beams',
    batch: 6,
    beams: 3,
    tokens: 1,
    offset: 3,
    seen: 37,
    heads: 2,
    width: 32,
    inner: 64,
    ranges: [[0, 3]],
  },
  {
    title: 'a prompt of beams',
    batch: 10,
    beams: 5,
    tokens: 3,
    offset: 0,
    seen: 70,
    heads: 3,
    width: 21,
    inner: 29,
    ranges: [],
  },
  { title: 'no items', batch: 0, tokens: 1, offset: 3, seen: 4, heads: 2, width: 8, inner: 8, ranges: [] },
  {
    title: 'int8',
    batch: 2,
    tokens: 1,
    offset: 3,
    seen: 50,
    heads: 2,
    width: 64,
    inner: 130,
    ranges: [[0, 1]],
    matrices: 'q8',
    cache: 'q8',
  },
  {
    title: 'the encoder in int8',
    batch: 2,
    tokens: 6,
    offset: 0,
    seen: 70,
    heads: 3,
    width: 96,
    inner: 40,
    ranges: [],
    cache: 'q8',
  },
  {
    title: 'matrices in int8',
    batch: 9,
    tokens: 1,
    offset: 8,
    seen: 5,
    heads: 1,
    width: 48,
    inner: 33,
    ranges: [],
    matrices: 'q8',
  },
];
const POSITIONS = 9;
const EPSILON = 1e-5;

function build(c: Case, compute: Float): Input[] {
  const next = random(c.width + c.batch);
  const { batch: B, width: D, inner: F } = c;
  const tensor = (shape: number[], dtype: DType = 'f32', scale = 1): Input => ({
    data: normals(
      shape.reduce((a, b) => a * b, 1),
      next,
      scale,
    ),
    shape,
    dtype,
  });
  const matrix = (n: number, k: number): Input => tensor([n, k], c.matrices ?? compute, 1 / Math.sqrt(k));
  const vector = (n = D): Input => tensor([n]);
  const cache = (): Input => ({ ...tensor([B, POSITIONS, D], compute), inout: true });
  const items = B / (c.beams ?? 1);
  const cross = (): Input =>
    c.cache ? tensor([items, c.seen, c.heads, D / c.heads], 'q8') : tensor([items, c.seen, D], compute);
  const norm = (): Input[] => [vector(), vector()];
  const expert = (): Input[] => [
    ...[tensor([5, D]), vector(5), tensor([1, 5])],
    ...[matrix(F, D), vector(F), matrix(D, F), vector()],
  ];
  return [
    tensor([B, c.tokens, D]),
    ...[...norm(), matrix(D, D), vector(), matrix(D, D), matrix(D, D), vector(), matrix(D, D), vector()],
    ...[cache(), cache()],
    ...[...norm(), matrix(D, D), vector(), matrix(D, D), vector(), cross(), cross()],
    ...[...norm(), matrix(F, D), vector(F), matrix(D, F), vector()],
    ...c.ranges.flatMap(expert),
  ];
}

const numbers = (c: Case, compute: Float): number[] => [
  ...[c.ranges.length, ...c.ranges.flat(), c.heads, c.offset, EPSILON, dtypeNumber(compute)],
];

/** The layer as fifteen calls; the caches are written in place. */
function inParts(stream: Stream, c: Case, compute: Float, at: Tensor[]): [y: Tensor, gate: Tensor] {
  const [type, f32] = [dtypeNumber(compute), dtypeNumber('f32')];
  const norm = (x: Tensor, i: number) => stream.call('layer_norm', [x, at[i]!, at[i + 1]!], [EPSILON, type])[0]!;
  const linear = (x: Tensor, i: number, bias = true, residual: Tensor | null = null) =>
    stream.call('linear', [x, at[i]!, bias ? at[i + 1]! : null, residual], [0, 0, type, residual ? f32 : type])[0]!;
  const attend = (q: Tensor, i: number, causal: number, keys: number, offset: number) =>
    stream.call('attention', [q, at[i]!, at[i + 1]!], [c.heads, causal, keys, offset, type])[0]!;
  const x = at[0]!;
  const h = norm(x, 1);
  const q = linear(h, 3);
  stream.call('cache_write', [linear(h, 5, false), at[10]!], [c.offset]);
  stream.call('cache_write', [linear(h, 6), at[11]!], [c.offset]);
  const heard = linear(attend(q, 10, 1, c.offset + c.tokens, c.offset), 8, true, x);
  const cross = linear(norm(heard, 12), 14);
  const shared = cross.reshape([c.batch / (c.beams ?? 1), (c.beams ?? 1) * c.tokens, c.width]);
  const seen = linear(attend(shared, 18, 0, c.seen, 0).reshape(x.shape), 16, true, heard);
  const ffn = [norm(seen, 20), seen, ...at.slice(22)];
  const [y, gate] = stream.call('gated_ffn_hard', ffn, [c.ranges.length, ...c.ranges.flat(), type, f32]);
  return [y!, gate!];
}

async function whole(stream: Stream, c: Case, compute: Float, inputs: Input[]): Promise<Float64Array[]> {
  const at = inputs.map((input) => put(stream, input)!);
  const result = stream.call('decoder_layer', at, numbers(c, compute));
  const got = await Promise.all([...result, at[10]!, at[11]!].map(values));
  stream.endStep();
  return got;
}

const places = (c: Case) => (c.matrices || c.cache ? cpus : fast);

function same(t: ExecutionContext, title: string, got: Float64Array[], want: Float64Array[]): void {
  for (const [i, values] of want.entries()) t.deepEqual(got[i], values, `${title}, output ${i}`);
}

for (const compute of ['f32', 'bf16'] as const)
  for (const c of cases)
    test.serial(`decoder_layer in ${compute} is its parts to the bit, and near the oracle: ${c.title}`, async (t) => {
      const inputs = build(c, compute);
      const exact = await whole(oracle, c, compute, inputs);
      for (const { isa, stream } of [...places(c), { isa: 'oracle', stream: oracle }]) {
        const got = await whole(stream, c, compute, inputs);
        const at = inputs.map((input) => put(stream, input)!);
        const parts = inParts(stream, c, compute, at);
        same(t, isa, got, await Promise.all([...parts, at[10]!, at[11]!].map(values)));
        stream.endStep();
        // A bf16 step is 2⁻⁸ of a value; some ten roundings follow one another.
        for (const [i, values] of exact.entries())
          t.true(relativeL2(got[i]!, values) <= (compute === 'f32' ? 2e-5 : 2e-2), `${isa}, output ${i}`);
      }
    });

test.serial('a position on the device, as a replayed call reads it: the bits of the number', async (t) => {
  for (const c of cases.filter(({ tokens }) => tokens === 1))
    for (const compute of ['f32', 'bf16'] as const)
      for (const { isa, stream } of [{ isa: 'oracle', stream: oracle }, ...places(c)]) {
        const inputs = build(c, compute);
        const want = await whole(stream, c, compute, inputs);
        const position: Input = { data: Int32Array.of(c.offset), shape: [1] };
        const most = { ...c, offset: POSITIONS - 1 };
        same(t, `${c.title}, ${compute}, ${isa}`, await whole(stream, most, compute, [...inputs, position]), want);
        if (c.batch === 0) continue;
        for (const wrong of [-1, POSITIONS]) {
          const bad: Input = { data: Int32Array.of(wrong), shape: [1] };
          const message = new RegExp(`'position': expected a number from 0 to ${POSITIONS - 1}, got ${wrong}`);
          await t.throwsAsync(whole(stream, most, compute, [...inputs, bad]), { code: 'ERR_ARGUMENT', message }, isa);
          stream.endStep();
        }
      }
});

test.serial('decoder_layer refuses what does not fit, before anything is written', (t) => {
  const c = cases[0]!;
  const { stream } = cpus.at(-1)!;
  const call = (change: { tensor?: [number, Tensor | null]; number?: [number, number] }): void => {
    const tensors: (Tensor | null)[] = build(c, 'f32').map((input) => put(stream, input)!);
    const given = numbers(c, 'f32');
    if (change.tensor) tensors[change.tensor[0]] = change.tensor[1];
    if (change.number) given[change.number[0]] = change.number[1];
    stream.call('decoder_layer', tensors, given);
  };
  const zeros = (shape: number[], dtype: DType = 'f32') =>
    put(stream, { data: new Float32Array(shape.reduce((a, b) => a * b, 1)), shape, dtype });
  for (const [change, code, message] of [
    [{ tensor: [3, zeros([32, 31])] }, 'ERR_SHAPE', /'q weight': expected \[32, 32\]/],
    [{ tensor: [11, zeros([1, POSITIONS - 1, 32])] }, 'ERR_SHAPE', /'values'/],
    [{ tensor: [10, zeros([1, POSITIONS, 32], 'bf16')] }, 'ERR_DTYPE', /the computation's type f32/],
    [{ tensor: [18, zeros([2, 37, 32])] }, 'ERR_SHAPE', /'cross k': expected items for 1 rows of x, as many for each/],
    [{ tensor: [18, zeros([0, 37, 32])] }, 'ERR_SHAPE', /'cross k': expected items for 1 rows/],
    [{ tensor: [19, zeros([0, 37, 32])] }, 'ERR_SHAPE', /'cross v': expected f32\[1, 37, 32\]/],
    [{ tensor: [18, zeros([1, 37, 32], 'bf16')] }, 'ERR_DTYPE', /'cross k': expected f32\[1, 37, 32\]/],
    [{ tensor: [19, zeros([1, 37, 2, 16], 'q8')] }, 'ERR_DTYPE', /'cross v': expected f32\[1, 37, 32\], got q8/],
    [{ tensor: [24, zeros([32, 64], 'q8')] }, 'ERR_DTYPE', /'fc2 weight'/],
    [{ tensor: [4, null] }, 'ERR_ARGUMENT', /'q bias': expected a tensor/],
    [{ number: [1, 3] }, 'ERR_SHAPE', /'heads': expected a divisor of the width 32/],
    [{ number: [2, POSITIONS] }, 'ERR_SHAPE', /'keys': expected at least 10 positions/],
  ] as [Parameters<typeof call>[0], string, RegExp][])
    t.throws(() => call(change), { code, message });
  const prompt = cases[2]!;
  const at = [...build(prompt, 'f32'), { data: Int32Array.of(0), shape: [1] }].map((input) => put(stream, input)!);
  const many = { code: 'ERR_SHAPE', message: /one token an item where its position is a tensor/ };
  t.throws(() => stream.call('decoder_layer', at, numbers(prompt, 'f32')), many);
  stream.endStep();
});
