import test, { type ExecutionContext } from 'ava';
import { rawCall } from '../../lib/tensor/call.js';
import { kernels, Stream } from '../../lib/tensor/index.js';
import {
  centralDifference,
  compare,
  cpus,
  type Described,
  fast,
  type Input,
  normals,
  oracle,
  random,
  roundBf16,
  run,
} from '../support/kernels.js';

type Float = 'f32' | 'bf16';

interface Case {
  batch: number;
  queries: number;
  keys: number;
  heads: number;
  width: number;
  causal?: boolean;
  keyLength?: number;
  offset?: number;
  /** Scores are about this large. */
  scale?: number;
}

const f = Math.fround;

function inputs(c: Case, dtype: Float, seed = 1): Record<'q' | 'k' | 'v' | 'grad', Input> {
  const next = random(seed);
  const D = c.heads * c.width;
  const round = dtype === 'bf16' ? roundBf16 : f;
  const make = (rows: number, scale: number): Input => ({
    data: normals(c.batch * rows * D, next, scale).map(round),
    shape: [c.batch, rows, D],
    dtype,
  });
  const scale = c.scale === undefined ? 1 : Math.sqrt(c.scale);
  return { q: make(c.queries, scale), k: make(c.keys, scale), v: make(c.keys, 1), grad: make(c.queries, 1) };
}

type Inputs = Record<'q' | 'k' | 'v', Input>;
const forwardCall = (c: Case, { q, k, v }: Inputs, out: Float | 'f64'): Described<kernels.AttentionArguments> => ({
  ...{ q, k, v, out },
  heads: c.heads,
  causal: c.causal,
  keys: c.keyLength ?? c.keys,
  offset: c.offset,
});

/** `saved`: o and lse. */
const backwardCall = (
  c: Case,
  { q, k, v, grad }: Inputs & { grad: Input },
  [o, lse]: readonly [Input, Input],
  out: Float | 'f64',
): Described<kernels.AttentionBackwardArguments> => ({
  ...{ q, k, v, o, lse, out },
  dout: grad,
  heads: c.heads,
  causal: c.causal,
});

interface Plain {
  /** o, lse, dq, dk, dv */
  values: Float32Array[];
  /** For each element the sum of the magnitudes of its terms: what a rounding is relative to. */
  reach: Float64Array[];
}

/**
 * Plain loops in fp32, every operation rounded; weights (and dS) rounded to bf16 when the inputs are bf16.
 * With `saved`, the weights are those of a backward pass: exp(s − lse); without it no gradient is made.
 */
function naive(c: Case, x: ReturnType<typeof inputs>, dtype: Float, saved?: Float32Array): Plain {
  const { batch: B, queries: Tq, keys: Tk, heads: H, width: w } = c;
  const D = H * w;
  const round = dtype === 'bf16' ? roundBf16 : f;
  const scale = f(1 / Math.sqrt(w));
  const [q, k, v, g] = [x.q.data, x.k.data, x.v.data, x.grad.data];
  const o = new Float32Array(B * Tq * D);
  const lse = new Float32Array(B * H * Tq);
  const dq = new Float32Array(B * Tq * D);
  const dk = new Float32Array(B * Tk * D);
  const dv = new Float32Array(B * Tk * D);
  const reach = [o, lse, dq, dk, dv].map((y) => new Float64Array(y.length));
  const [ro, rl, rq, rk, rv] = reach as [Float64Array, Float64Array, Float64Array, Float64Array, Float64Array];
  const dot = (a: ArrayLike<number>, i: number, b: ArrayLike<number>, j: number): number => {
    let s = 0;
    for (let n = 0; n < w; n++) s = f(s + f(a[i + n]! * b[j + n]!));
    return s;
  };
  const size = (a: ArrayLike<number>, i: number, b: ArrayLike<number>, j: number): number => {
    let s = 0;
    for (let n = 0; n < w; n++) s += Math.abs(a[i + n]! * b[j + n]!);
    return s;
  };
  for (let b = 0; b < B; b++)
    for (let h = 0; h < H; h++)
      for (let i = 0; i < Tq; i++) {
        const row = (b * Tq + i) * D + h * w;
        const n = Math.min(c.keyLength ?? Tk, c.causal ? i + (c.offset ?? 0) + 1 : Tk);
        const at = (j: number) => (b * Tk + j) * D + h * w;
        const s = Array.from({ length: n }, (_, j) => f(scale * dot(q, row, k, at(j))));
        const top = Math.max(...s);
        const e = s.map((y) => f(Math.exp(f(y - top))));
        let sum = 0;
        for (const y of e) sum = f(sum + y);
        lse[(b * H + h) * Tq + i] = f(top + f(Math.log(sum)));
        rl[(b * H + h) * Tq + i] = 1 + scale * Math.max(...s.map((_, j) => size(q, row, k, at(j))));
        const p = saved
          ? s.map((y) => round(f(Math.exp(f(y - saved[(b * H + h) * Tq + i]!)))))
          : e.map((y) => round(f(y / sum)));
        for (let j = 0; j < n; j++) {
          const [weight, key] = [p[j]!, at(j)];
          for (let m = 0; m < w; m++) {
            o[row + m] = f(o[row + m]! + f(weight * v[key + m]!));
            ro[row + m]! += weight * Math.abs(v[key + m]!);
          }
        }
        if (!saved) continue;
        const delta = dot(g, row, o, row);
        const known = size(g, row, o, row);
        for (let j = 0; j < n; j++) {
          const [weight, key] = [p[j]!, at(j)];
          const terms = scale * weight * (size(g, row, v, key) + known);
          const ds = round(f(weight * f(dot(g, row, v, key) - delta)));
          for (let m = 0; m < w; m++) {
            rv[key + m]! += weight * Math.abs(g[row + m]!);
            rq[row + m]! += terms * Math.abs(k[key + m]!);
            rk[key + m]! += terms * Math.abs(q[row + m]!);
            dv[key + m] = f(dv[key + m]! + f(weight * g[row + m]!));
            dq[row + m] = f(dq[row + m]! + f(scale * f(ds * k[key + m]!)));
            dk[key + m] = f(dk[key + m]! + f(scale * f(ds * q[row + m]!)));
          }
        }
      }
  return { values: [o, lse, dq, dk, dv], reach };
}

const same = (a: Float64Array[], b: Float64Array[]) =>
  a.length === b.length && a.every((y, i) => Buffer.from(y.buffer).equals(Buffer.from(b[i]!.buffer)));

function distance(a: ArrayLike<number>, b: ArrayLike<number> | null): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i]! - (b?.[i] ?? 0)) ** 2;
  return Math.sqrt(sum);
}
const norm = (y: ArrayLike<number>): number => distance(y, null);

/** The fast kernel's error (L2) is at most twice that of plain loops in its own type, or a few roundings of the terms. */
function held(
  t: ExecutionContext,
  title: string,
  got: Float64Array[],
  expected: Float64Array[],
  plain: Plain,
  from: number,
): void {
  for (let o = 0; o < expected.length; o++) {
    t.is(got[o]!.length, expected[o]!.length, `${title}: size of output ${o}`);
    const error = distance(got[o]!, expected[o]!);
    const limit = 2 * distance(plain.values[from + o]!, expected[o]!) + 8 * 2 ** -24 * norm(plain.reach[from + o]!);
    if (!(error <= limit)) t.fail(`${title}: output ${o}: error ${error}, allowed ${limit}`);
  }
}

const cases: Case[] = [
  { batch: 1, queries: 1, keys: 1, heads: 1, width: 16 },
  { batch: 1, queries: 7, keys: 1, heads: 2, width: 64 },
  { batch: 2, queries: 37, keys: 53, heads: 3, width: 16 },
  { batch: 1, queries: 101, keys: 101, heads: 2, width: 64, causal: true },
  { batch: 1, queries: 131, keys: 263, heads: 1, width: 64 },
  { batch: 2, queries: 67, keys: 41, heads: 2, width: 48, causal: true },
  { batch: 1, queries: 11, keys: 401, heads: 1, width: 128 },
  { batch: 1, queries: 29, keys: 31, heads: 5, width: 1 },
  { batch: 3, queries: 13, keys: 17, heads: 2, width: 7 },
  { batch: 1, queries: 97, keys: 199, heads: 1, width: 33, causal: true },
  { batch: 1, queries: 19, keys: 70, heads: 1, width: 80 },
  { batch: 1, queries: 97, keys: 130, heads: 2, width: 64, scale: 1e4 },
  { batch: 2, queries: 150, keys: 181, heads: 2, width: 64, causal: true },
  { batch: 0, queries: 5, keys: 5, heads: 2, width: 16 },
  { batch: 2, queries: 0, keys: 5, heads: 2, width: 16 },
];
const cacheCases: Case[] = [
  { batch: 1, queries: 1, keys: 448, heads: 6, width: 64, keyLength: 1, causal: true },
  { batch: 3, queries: 1, keys: 448, heads: 2, width: 64, keyLength: 130, causal: true, offset: 129 },
  { batch: 1, queries: 1, keys: 1500, heads: 2, width: 64 },
  { batch: 2, queries: 4, keys: 64, heads: 2, width: 16, keyLength: 9, causal: true, offset: 5 },
  { batch: 2, queries: 3, keys: 300, heads: 3, width: 20, keyLength: 299, causal: true, offset: 3 },
  { batch: 1, queries: 2, keys: 70, heads: 2, width: 64, scale: 1e4 },
  { batch: 2, queries: 5, keys: 300, heads: 2, width: 64 },
  { batch: 1, queries: 8, keys: 130, heads: 3, width: 64, keyLength: 129, causal: true, offset: 100 },
  { batch: 8, queries: 8, keys: 70, heads: 2, width: 64 },
  { batch: 1, queries: 9, keys: 300, heads: 1, width: 64 },
  { batch: 1, queries: 50, keys: 448, heads: 2, width: 64, keyLength: 200, causal: true, offset: 150 },
  { batch: 1, queries: 5, keys: 16, heads: 2, width: 7, keyLength: 3, causal: true, offset: 1 },
  { batch: 1, queries: 6, keys: 200, heads: 1, width: 16, keyLength: 151, causal: true, offset: 400 },
];

test.serial('attention forward: odd shapes, caches, few queries and huge scores agree with the oracle', async (t) => {
  for (const c of [...cases, ...cacheCases])
    for (const dtype of ['f32', 'bf16'] as const) {
      const x = inputs(c, dtype);
      const plain = naive(c, x, dtype);
      const expected = await run(oracle, kernels.attention, forwardCall(c, x, 'f64'));
      for (const { isa, stream } of fast()) {
        const got = await run(stream, kernels.attention, forwardCall(c, x, 'f32'));
        held(t, `${isa} ${dtype} ${JSON.stringify(c)}`, got, expected, plain, 0);
      }
    }
});

test.serial('attention backward: odd shapes, causal and huge scores agree with the oracle', async (t) => {
  for (const c of cases)
    for (const dtype of ['f32', 'bf16'] as const) {
      const x = inputs(c, dtype, 2);
      const D = c.heads * c.width;
      const [o, lse] = await run(oracle, kernels.attention, forwardCall(c, x, 'f64'));
      const saved = [
        { data: Float32Array.from(o!), shape: [c.batch, c.queries, D] },
        { data: Float32Array.from(lse!), shape: [c.batch, c.heads, c.queries] },
      ] as const;
      const plain = naive(c, x, dtype, saved[1].data);
      const expected = await run(oracle, kernels.attentionBackward, backwardCall(c, x, saved, 'f64'));
      for (const { isa, stream } of fast()) {
        const got = await run(stream, kernels.attentionBackward, backwardCall(c, x, saved, 'f32'));
        held(t, `${isa} ${dtype} ${JSON.stringify(c)}`, got, expected, plain, 2);
      }
    }
});

test.serial('attention backward is the derivative of attention: central differences in double', async (t) => {
  const next = random(5);
  for (const c of [
    cases[2]!,
    cases[9]!,
    { batch: 2, queries: 9, keys: 14, heads: 2, width: 5, causal: true },
  ] as Case[]) {
    const x = inputs(c, 'f32', 3);
    const wide = (i: Input): Input => ({ ...i, dtype: 'f64' });
    const doubles = { q: wide(x.q), k: wide(x.k), v: wide(x.v), grad: wide(x.grad) };
    const call = forwardCall(c, doubles, 'f64');
    const [o, lse] = await run(oracle, kernels.attention, call);
    const saved = [
      wide({ ...x.grad, data: Float32Array.from(o!) }),
      wide({ data: Float32Array.from(lse!), shape: [c.batch, c.heads, c.queries] }),
    ] as const;
    const grads = await run(oracle, kernels.attentionBackward, backwardCall(c, doubles, saved, 'f64'));
    for (const [which, input] of [call.q, call.k, call.v].entries()) {
      const direction = Float64Array.from(normals(input.data.length, next));
      const weights = [Float64Array.from(x.grad.data), null];
      const measured = await centralDifference(kernels.attention, call, input, direction, weights);
      const stated = grads[which]!.reduce((a, y, i) => a + y * direction[i]!, 0);
      // o and lse were rounded to fp32 on their way into the call.
      t.true(Math.abs(measured - stated) <= 2e-6 * (1 + Math.abs(measured)) * 10, `${which}: ${measured} ${stated}`);
    }
  }
});

test.serial(
  'attention gives the same bits twice, and forward on any number of threads; bf16 outputs are roundings',
  async (t) => {
    const c: Case = { batch: 1, queries: 211, keys: 400, heads: 3, width: 64, causal: true };
    const threaded = [1, 2, 3].map((threads) => ({ isa: `${threads} threads`, stream: new Stream({ threads }) }));
    for (const dtype of ['f32', 'bf16'] as const) {
      const x = inputs(c, dtype, 4);
      const forward = (stream: Stream, out: Float) => run(stream, kernels.attention, forwardCall(c, x, out));
      const onOne = await forward(threaded[0]!.stream, 'f32');
      for (const { stream } of threaded) t.true(same(await forward(stream, 'f32'), onOne), `${dtype} on any threads`);
      for (const { isa, stream } of [...threaded, ...fast()]) {
        const first = await forward(stream, 'f32');
        t.true(same(await forward(stream, 'f32'), first), `${dtype} ${isa}`);
        const saved = [
          { ...x.q, data: Float32Array.from(first[0]!) },
          { data: Float32Array.from(first[1]!), shape: [1, 3, 211] },
        ] as const;
        const backward = () => run(stream, kernels.attentionBackward, backwardCall(c, x, saved, 'f32'));
        t.true(same(await backward(), await backward()), `${dtype} backward ${isa}`);
        const [rounded] = await forward(stream, 'bf16');
        t.true(same([rounded!], [first[0]!.map(roundBf16)]), `${dtype} rounded ${isa}`);
      }
    }
    for (const { stream } of threaded) stream.close();
  },
);

test.serial('attention: rows of a cache beyond its length are never read', async (t) => {
  const c: Case = { batch: 2, queries: 5, keys: 96, heads: 2, width: 16, keyLength: 33 };
  for (const queries of [1, 5])
    for (const dtype of ['f32', 'bf16'] as const) {
      const x = inputs({ ...c, queries }, dtype);
      const [k, v] = [x.k, x.v].map((i) => ({ ...i, data: (i.data as Float32Array).slice() })) as [Input, Input];
      for (const i of [k, v])
        for (let b = 0; b < 2; b++) i.data.fill(Number.NaN, (b * 96 + 33) * 32, (b + 1) * 96 * 32);
      for (const { stream } of fast()) {
        const clean = await run(stream, kernels.attention, forwardCall(c, x, 'f32'));
        t.true(same(await run(stream, kernels.attention, forwardCall(c, { q: x.q, k, v }, 'f32')), clean));
      }
    }
});

test.serial('attention to keys and values in q8 agrees with the oracle, for few queries and for many', async (t) => {
  const next = random(5);
  for (const [B, Tq, Tk, heads, width] of [
    [1, 1, 1, 1, 1],
    [2, 1, 131, 3, 64],
    [1, 3, 64, 2, 17],
    [2, 5, 70, 2, 32],
    [1, 9, 200, 1, 128],
  ] as const)
    for (const type of ['f32', 'bf16'] as const)
      for (const causal of [false, true]) {
        const q: Input = { data: normals(B * Tq * heads * width, next), shape: [B, Tq, heads * width], dtype: type };
        const rows = (): Input => ({
          data: normals(B * Tk * heads * width, next),
          shape: [B, Tk, heads, width],
          dtype: 'q8',
        });
        // What the tables of fp32 allow, on terms of about 1; scores are sums of `width` of them.
        await compare(
          t,
          `${B}x${Tq}x${Tk}, ${heads} heads of ${width}, ${type}`,
          kernels.attention,
          { q, k: rows(), v: rows(), heads, causal, keys: Tk, offset: Math.max(0, Tk - Tq), out: type },
          (output, _, expected) => 2e-5 + (output === 0 && type === 'bf16' ? Math.abs(expected) / 128 : 0),
        );
      }
});

test('attention refuses what does not fit and says what it expected', (t) => {
  const stream = cpus()[0]!.stream;
  const z = (shape: number[], dtype: 'f32' | 'bf16' = 'f32') =>
    stream.tensor(
      dtype === 'f32'
        ? new Float32Array(shape.reduce((a, b) => a * b, 1))
        : new Uint16Array(shape.reduce((a, b) => a * b, 1)),
      shape,
      dtype,
    );
  const [q, k, v] = [z([2, 3, 32]), z([2, 5, 32]), z([2, 5, 32])];
  const refused = (change: Partial<kernels.AttentionArguments>, code: string, text: RegExp) => {
    const call = () => kernels.attention(stream, { q, k, v, heads: 2, keys: 5, out: 'f32', ...change });
    const error = t.throws(call) as Error & { code: string };
    t.is(error.code, code);
    t.regex(error.message, text);
  };
  refused({ heads: 3 }, 'ERR_SHAPE', /'heads': expected a divisor of the width 32, got 3/);
  refused({ heads: 0 }, 'ERR_ARGUMENT', /'heads'/);
  refused({ keys: 6 }, 'ERR_ARGUMENT', /'kv_len': expected an integer from 1 to 5, got 6/);
  refused({ keys: 0 }, 'ERR_ARGUMENT', /'kv_len'/);
  refused({ offset: -1 }, 'ERR_ARGUMENT', /'q_offset'/);
  refused({ k: z([2, 4, 32]), keys: 4 }, 'ERR_SHAPE', /'v'/);
  refused({ k: z([1, 5, 32]) }, 'ERR_SHAPE', /'k'/);
  refused({ k: z([2, 0, 32]), v: z([2, 0, 32]), keys: 1 }, 'ERR_SHAPE', /'k': expected at least one key/);
  refused({ k: z([2, 5, 32], 'bf16') }, 'ERR_DTYPE', /'k': expected f32\[2, 5, 32\], got bf16/);
  const q8 = (shape: number[]) => stream.quantized(z(shape));
  refused({ k: q8([2, 5, 2, 16]) }, 'ERR_DTYPE', /'v': expected q8\[2, 5, 2, 16\], got f32/);
  refused({ v: q8([2, 5, 2, 16]) }, 'ERR_DTYPE', /'v': expected f32\[2, 5, 32\], got q8/);
  refused({ k: q8([2, 5, 32]), v: q8([2, 5, 32]) }, 'ERR_SHAPE', /'k': expected q8\[2, 5, 2, 16\]/);
  refused({ k: q8([2, 5, 2, 16]), v: q8([2, 4, 2, 16]) }, 'ERR_SHAPE', /'v'/);
  const wide = () => z([1, 2, 258]);
  refused(
    { q: wide(), k: wide(), v: wide(), keys: 2 },
    'ERR_SHAPE',
    /'heads': expected heads of width 1 to 128, got 129/,
  );
  for (const [tensors, numbers, code, message] of [
    [[q, k, v], [2, 2, 5, 0, 0], 'ERR_ARGUMENT', /'causal'/],
    [[q, k, v], [2, 0, 5, 0, 2], 'ERR_DTYPE', /'out'/],
    [[q, k], [2, 0, 5, 0, 0], 'ERR_ARGUMENT', /'v': expected a tensor, got nothing/],
    [[q, k, v], [2, 0, 5, 0], 'ERR_ARGUMENT', /'out'/],
  ] as const)
    t.throws(() => rawCall(stream, 'attention', tensors, numbers), { code, message });
});
