/**
 * Runs one call on the oracle, on every CPU path of this machine, on its GPU where it has one, and on a CUDA device that
 * is emulated (test/cuda-emulator), and compares the outputs. The oracle computes in double on the same (already rounded)
 * inputs.
 */
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { chooseIsa, cudaReport, isaNames, packageRoot } from '../../lib/native/index.js';
import {
  bf16ToFloat32,
  type DType,
  dtypeNumber,
  type Isa,
  Stream,
  type StreamOptions,
  type Tensor,
} from '../../lib/tensor/index.js';
import { withPlugin } from './plugin.js';

export { normals, random } from './random.js';

export const oracle = new Stream({ backend: 'reference', threads: 1 });
export const isas: Isa[] = isaNames.slice(0, isaNames.indexOf(chooseIsa('auto')) + 1);

/** The plainest and the fastest: for models, whose kernels are held on every one. */
export const isaEnds: Isa[] = [...new Set([isas[0]!, isas.at(-1)!])];

/** Opens a stream on the CUDA plugin at `path`. */
export function streamOn(path: string, options: StreamOptions = {}): Stream {
  return withPlugin(path, () => new Stream({ device: 'cuda', ...options }));
}

/** What `make` makes when it is first asked for. */
function once<T>(make: () => T): () => T {
  let made: { value: T } | undefined;
  return () => {
    made ??= { value: make() };
    return made.value;
  };
}

/**
 * Path of the emulated device's plugin, which the first call builds where it is older than its sources: minutes, where there is
 * none. Null, after a line why, without g++.
 */
export const emulatedPlugin = once((): string | null => {
  const given = process.env.DISTILWHISPER_EMULATED_PLUGIN;
  if (given) return given === 'none' ? null : given;
  const script = join(packageRoot(), 'scripts', 'build-cuda-emulator.mjs');
  const said = execFileSync(process.execPath, [script], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  }).trim();
  if (!said.startsWith('skipped: ')) return said;
  console.log(`the emulated CUDA device is ${said}`);
  return null;
});

/** The body of a test that needs the emulated device, given its plugin; skipped, and said to be, where there is none. */
export const onEmulated =
  (body: (t: ExecutionContext, plugin: string) => Promise<void> | void) =>
  async (t: ExecutionContext): Promise<void> => {
    const plugin = emulatedPlugin();
    if (plugin !== null) return body(t, plugin);
    t.log('skipped: no emulated device');
    t.pass();
  };

export interface Path {
  /** An instruction set, 'cuda', or 'cuda, emulated'. */
  isa: string;
  stream: Stream;
}
/** Whether this machine has a GPU that can be used; the first call says why where it has none. */
export const hasGpu = once((): boolean => {
  const { devices, problem } = cudaReport();
  if (devices.some((device) => !device.problem)) return true;
  console.log(`skipped on a GPU: ${(problem ?? '').split(/[:(]/)[0]?.trim()}`);
  return false;
});
/** GPU and emulated device, where there are any. The first call opens both. */
export const devices = once((): Path[] => {
  const plugin = emulatedPlugin();
  return [
    ...(hasGpu() ? [{ isa: 'cuda', stream: new Stream({ device: 'cuda' }) }] : []),
    ...(plugin ? [{ isa: 'cuda, emulated', stream: streamOn(plugin) }] : []),
  ];
});
/** What `devices` may hold: for a test each, which are declared before it is known what there is. */
export const deviceNames = ['cuda', 'cuda, emulated'] as const;
/** The body of a test on the device of that name; skipped, and said to be, where there is none. */
export const onDevice =
  (isa: (typeof deviceNames)[number], body: (t: ExecutionContext, place: Path) => Promise<void>) =>
  async (t: ExecutionContext): Promise<void> => {
    const place = devices().find((device) => device.isa === isa);
    if (place) return body(t, place);
    t.log(`skipped: no ${isa === 'cuda' ? 'GPU' : 'emulated device'}`);
    t.pass();
  };
/** Every CPU path, the fastest last. For a run on a GPU that one is enough: all have their turn where there is none. */
export const cpus = once((): Path[] => {
  const chosen = process.env.DISTILWHISPER_KERNEL_TESTS === 'cuda' ? isas.slice(-1) : isas;
  return chosen.map((isa) => ({ isa, stream: new Stream({ isa, threads: 2 }) }));
});
/** Everything that is held against the oracle; the last is the fastest CPU path. */
export const fast = once((): Path[] => [...devices(), ...cpus()]);
export const number = dtypeNumber;

export function toBf16(values: ArrayLike<number>): Uint16Array {
  const f = Float32Array.from(values);
  const u = new Uint32Array(f.buffer);
  const bits = new Uint16Array(u.length);
  for (let i = 0; i < u.length; i++) bits[i] = (u[i]! + 0x7fff + ((u[i]! >>> 16) & 1)) >>> 16;
  return bits;
}

const one = new Float32Array(1);
const bitsOfOne = new Uint32Array(one.buffer);
/** The nearest bf16, ties to even. */
export function roundBf16(x: number): number {
  one[0] = x;
  bitsOfOne[0] = ((bitsOfOne[0]! + 0x7fff + ((bitsOfOne[0]! >>> 16) & 1)) >>> 16) << 16;
  return one[0]!;
}

export interface Input {
  data: Float32Array | Int32Array;
  shape: readonly number[];
  dtype?: DType;
  /** Written in place by the kernel: compared as an output too. */
  inout?: boolean;
}

export function put(stream: Stream, input: Input): Tensor {
  const dtype = input.dtype ?? (input.data instanceof Int32Array ? 'i32' : 'f32');
  if (dtype === 'q8') return stream.quantized(stream.tensor(input.data, input.shape));
  const data = dtype === 'bf16' ? toBf16(input.data) : dtype === 'f64' ? Float64Array.from(input.data) : input.data;
  return stream.tensor(data, input.shape, dtype);
}

export async function values(t: Tensor): Promise<Float64Array> {
  const data = await t.read();
  return Float64Array.from(data instanceof Uint16Array ? bf16ToFloat32(data) : data);
}

/** Arguments of a kernel with data in the place of tensors. */
export type Described<V> = V extends Tensor ? Input : V extends object ? { [K in keyof V]: Described<V[K]> } : V;

export type Kernel<A> = (stream: Stream, args: A) => unknown;

const isInput = (value: object): value is Input => 'data' in value && 'shape' in value;

/** The arguments, with what `make` makes of each input. */
export function place<A>(described: Described<A>, make: (input: Input) => Tensor): A {
  const walk = (value: unknown): unknown => {
    if (typeof value !== 'object' || value === null) return value;
    if (isInput(value)) return make(value);
    if (Array.isArray(value)) return value.map(walk);
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, walk(inner)]));
  };
  return walk(described) as A;
}

/** What a kernel returned, in its order, without what was not asked for. */
export const resultsOf = (results: unknown): Tensor[] =>
  Object.values((results ?? {}) as Record<string, Tensor | null>).filter((t) => t !== null);

/** All results of a call, then its in-place tensors in the order of the arguments, as doubles. */
export async function run<A>(stream: Stream, kernel: Kernel<A>, described: Described<A>): Promise<Float64Array[]> {
  const written: Tensor[] = [];
  const placed = place<A>(described, (input) => {
    const tensor = put(stream, input);
    if (input.inout) written.push(tensor);
    return tensor;
  });
  const result = await Promise.all([...resultsOf(kernel(stream, placed)), ...written].map(values));
  stream.endStep();
  return result;
}

/**
 * Holds every path against the oracle. `bound(output, index, expected)` is the largest error allowed for one element; outputs are
 * counted as `run` returns them.
 */
export async function compare<A>(
  t: ExecutionContext,
  title: string,
  kernel: Kernel<A>,
  described: Described<A>,
  bound: (output: number, index: number, expected: number, all: Float64Array) => number,
): Promise<void> {
  let quantized = false;
  const expected = await run<A>(oracle, kernel, described);
  place(described, (input) => {
    quantized ||= input.dtype === 'q8';
    return input as never;
  });
  // Matrices of int8 are the processor's.
  for (const { isa, stream } of quantized ? cpus() : fast()) {
    const got = await run<A>(stream, kernel, described);
    t.is(got.length, expected.length);
    for (let o = 0; o < expected.length; o++) {
      const e = expected[o]!;
      const g = got[o]!;
      t.is(g.length, e.length, `${title} ${isa}: size of output ${o}`);
      for (let i = 0; i < e.length; i++) {
        if (Object.is(g[i], e[i]) || g[i] === e[i]) continue;
        const error = Math.abs(g[i]! - e[i]!);
        const limit = bound(o, i, e[i]!, e);
        if (!(error <= limit)) {
          t.fail(
            `${title} ${isa}: output ${o} element ${i}: expected ${e[i]}, got ${g[i]} (error ${error}, allowed ${limit})`,
          );
          return;
        }
      }
    }
  }
  t.pass();
}

/** The error that is allowed in element i, which should be e, of output o, all of which should be `all`. */
export type Limit = (o: number, i: number, e: number, all: Float64Array) => number;

/** Holds outputs against those that are wanted, each element within its limit. */
export function close(
  t: ExecutionContext,
  title: string,
  got: Float64Array[],
  want: Float64Array[],
  limit: Limit,
): void {
  t.is(got.length, want.length, title);
  for (let o = 0; o < want.length; o++) {
    t.is(got[o]!.length, want[o]!.length, `${title}: size of output ${o}`);
    for (let i = 0; i < want[o]!.length; i++) {
      const error = Math.abs(got[o]![i]! - want[o]![i]!);
      const allowed = limit(o, i, want[o]![i]!, want[o]!);
      if (!(error <= allowed)) {
        t.fail(`${title}: output ${o}[${i}]: expected ${want[o]![i]}, got ${got[o]![i]}, allowed ${allowed}`);
        return;
      }
    }
  }
}

/** ‖a − b‖ / ‖b‖ */
export function relativeL2(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let top = 0;
  let bottom = 0;
  for (let i = 0; i < b.length; i++) {
    top += (a[i]! - b[i]!) ** 2;
    bottom += b[i]! ** 2;
  }
  return Math.sqrt(top / (bottom || 1));
}

/**
 * Directional derivative by central differences on the oracle in f64: Σ_outputs ⟨weight, f(x + h·d) − f(x − h·d)⟩ / 2h, where of
 * the described inputs only `which` moves, along `direction`. Those in `narrow` stay f32, as masks must.
 */
export async function centralDifference<A>(
  kernel: Kernel<A>,
  described: Described<A>,
  which: Input,
  direction: Float64Array,
  weights: (Float64Array | null)[],
  narrow: readonly (Input | null | undefined)[] = [],
): Promise<number> {
  const h = 1e-5;
  const at = async (sign: number): Promise<number> => {
    const placed = place<A>(described, (input) => {
      if (input.data instanceof Int32Array || narrow.includes(input)) return put(oracle, input);
      const data = Float64Array.from(input.data);
      if (input === which) for (let j = 0; j < data.length; j++) data[j]! += sign * h * direction[j]!;
      return oracle.tensor(data, input.shape, 'f64');
    });
    const outputs = await Promise.all(resultsOf(kernel(oracle, placed)).map(values));
    oracle.endStep();
    let sum = 0;
    for (let o = 0; o < outputs.length; o++) {
      const w = weights[o];
      if (w) for (let i = 0; i < w.length; i++) sum += w[i]! * outputs[o]![i]!;
    }
    return sum;
  };
  return ((await at(1)) - (await at(-1))) / (2 * h);
}
