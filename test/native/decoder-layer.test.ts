import test, { type ExecutionContext } from 'ava';
import { rawCall } from '../../lib/tensor/call.js';
import { type DType, kernels, type Stream, type Tensor } from '../../lib/tensor/index.js';
import {
  cpus,
  type Described,
  fast,
  type Input,
  normals,
  oracle,
  place,
  put,
  random,
  relativeL2,
  run,
  values,
} from '../support/kernels.js';

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

type Layer = Described<kernels.DecoderLayerArguments>;

function build(c: Case, compute: Float): Layer {
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
  const norm = () => ({ weight: vector(), bias: vector() });
  const square = () => matrix(D, D);
  const linear = () => ({ weight: square(), bias: vector() });
  const ffn = () => ({ fc1: matrix(F, D), fc1Bias: vector(F), fc2: matrix(D, F), fc2Bias: vector() });
  return {
    x: tensor([B, c.tokens, D]),
    attention: { norm: norm(), q: linear(), k: square(), v: linear(), out: linear() },
    keys: cache(),
    values: cache(),
    cross: { norm: norm(), q: linear(), out: linear() },
    crossKeys: cross(),
    crossValues: cross(),
    norm: norm(),
    shared: ffn(),
    languages: c.ranges.map(([begin, end]) => ({
      expert: { gateIn: tensor([5, D]), gateInBias: vector(5), gateOut: tensor([1, 5]), ...ffn() },
      begin,
      end,
    })),
    heads: c.heads,
    offset: c.offset,
    epsilon: EPSILON,
    compute,
  };
}

/** The layer as fifteen calls; the caches are written in place. */
function inParts(stream: Stream, c: Case, compute: Float, layer: kernels.DecoderLayerArguments): Tensor[] {
  const { x, attention, cross, keys, values, crossKeys, crossValues, offset, heads } = layer;
  const norm = (x: Tensor, of: kernels.LinearTensors) =>
    kernels.layerNorm(stream, { x, ...of, epsilon: EPSILON, out: compute }).y;
  const linear = (x: Tensor, of: { weight: Tensor; bias?: Tensor }, residual?: Tensor) =>
    kernels.linear(stream, { x, ...of, residual, compute, out: residual ? 'f32' : compute }).y;
  const h = norm(x, attention.norm);
  const q = linear(h, attention.q);
  kernels.cacheWrite(stream, { x: linear(h, { weight: attention.k }), cache: keys, offset });
  kernels.cacheWrite(stream, { x: linear(h, attention.v), cache: values, offset });
  const own = { q, k: keys, v: values, heads, causal: true, keys: offset + c.tokens, offset, out: compute };
  const heard = linear(kernels.attention(stream, own).o, attention.out, x);
  const asked = linear(norm(heard, cross.norm), cross.q);
  const shared = asked.reshape([c.batch / (c.beams ?? 1), (c.beams ?? 1) * c.tokens, c.width]);
  const other = { q: shared, k: crossKeys, v: crossValues, heads, keys: c.seen, out: compute };
  const seen = linear(kernels.attention(stream, other).o.reshape(x.shape), cross.out, heard);
  const { y, g } = kernels.gatedFfnHard(stream, {
    x: norm(seen, layer.norm),
    residual: seen,
    shared: layer.shared,
    languages: layer.languages,
    compute,
    out: 'f32',
  });
  return [y, g, keys, values];
}

/** y and g, then the caches. */
const whole = (stream: Stream, layer: Layer): Promise<Float64Array[]> => run(stream, kernels.decoderLayer, layer);

const placed = (stream: Stream, layer: Layer) =>
  place<kernels.DecoderLayerArguments>(layer, (input) => put(stream, input));

const places = (c: Case) => (c.matrices || c.cache ? cpus() : fast());

function same(t: ExecutionContext, title: string, got: Float64Array[], want: Float64Array[]): void {
  for (const [i, values] of want.entries()) t.deepEqual(got[i], values, `${title}, output ${i}`);
}

for (const compute of ['f32', 'bf16'] as const)
  for (const c of cases)
    test.serial(`decoder_layer in ${compute} is its parts to the bit, and near the oracle: ${c.title}`, async (t) => {
      const layer = build(c, compute);
      const exact = await whole(oracle, layer);
      for (const { isa, stream } of [...places(c), { isa: 'oracle', stream: oracle }]) {
        const got = await whole(stream, layer);
        const parts = inParts(stream, c, compute, placed(stream, layer));
        same(t, isa, got, await Promise.all(parts.map(values)));
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
        const layer = build(c, compute);
        const want = await whole(stream, layer);
        const at = (position: number) =>
          whole(stream, { ...layer, offset: POSITIONS - 1, position: { data: Int32Array.of(position), shape: [1] } });
        same(t, `${c.title}, ${compute}, ${isa}`, await at(c.offset), want);
        if (c.batch === 0) continue;
        for (const wrong of [-1, POSITIONS]) {
          const message = new RegExp(`'position': expected a number from 0 to ${POSITIONS - 1}, got ${wrong}`);
          await t.throwsAsync(at(wrong), { code: 'ERR_ARGUMENT', message }, isa);
          stream.endStep();
        }
      }
});

test.serial('decoder_layer refuses what does not fit, before anything is written', (t) => {
  const c = cases[0]!;
  const { stream } = cpus().at(-1)!;
  const given = build(c, 'f32');
  const { attention, shared } = given;
  const zeros = (shape: number[], dtype: DType = 'f32'): Input => ({
    data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
    shape,
    dtype,
  });
  const q = { ...attention.q, weight: zeros([32, 31]) };
  for (const [change, code, message] of [
    [{ attention: { ...attention, q } }, 'ERR_SHAPE', /'q weight': expected \[32, 32\]/],
    [{ values: zeros([1, POSITIONS - 1, 32]) }, 'ERR_SHAPE', /'values'/],
    [{ keys: zeros([1, POSITIONS, 32], 'bf16') }, 'ERR_DTYPE', /the computation's type f32/],
    [{ crossKeys: zeros([2, 37, 32]) }, 'ERR_SHAPE', /'cross k': expected items for 1 rows of x, as many for each/],
    [{ crossKeys: zeros([0, 37, 32]) }, 'ERR_SHAPE', /'cross k': expected items for 1 rows/],
    [{ crossValues: zeros([0, 37, 32]) }, 'ERR_SHAPE', /'cross v': expected f32\[1, 37, 32\]/],
    [{ crossKeys: zeros([1, 37, 32], 'bf16') }, 'ERR_DTYPE', /'cross k': expected f32\[1, 37, 32\]/],
    [{ crossValues: zeros([1, 37, 2, 16], 'q8') }, 'ERR_DTYPE', /'cross v': expected f32\[1, 37, 32\], got q8/],
    [{ shared: { ...shared, fc2: zeros([32, 64], 'q8') } }, 'ERR_DTYPE', /'fc2 weight'/],
    [{ heads: 3 }, 'ERR_SHAPE', /'heads': expected a divisor of the width 32/],
    [{ offset: POSITIONS }, 'ERR_SHAPE', /'keys': expected at least 10 positions/],
  ] as [Partial<Layer>, string, RegExp][])
    t.throws(() => kernels.decoderLayer(stream, placed(stream, { ...given, ...change })), { code, message });
  const norm = [zeros([32]), zeros([32])].map((input) => put(stream, input));
  const first = [put(stream, given.x), ...norm, put(stream, attention.q.weight), null];
  t.throws(() => rawCall(stream, 'decoder_layer', first, [0, 2, 4, EPSILON, 0]), {
    code: 'ERR_ARGUMENT',
    message: /'q bias': expected a tensor/,
  });
  const position = { data: Int32Array.of(0), shape: [1] };
  const many = { code: 'ERR_SHAPE', message: /one token an item where its position is a tensor/ };
  t.throws(() => kernels.decoderLayer(stream, placed(stream, { ...build(cases[2]!, 'f32'), position })), many);
  stream.endStep();
});
