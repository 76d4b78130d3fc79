/**
 * Every kernel by random calls: mostly right ones of odd sizes, and then one thing or another wrong with them. Each must end in a
 * result or in a typed error, at the call or at the next wait; what ends the process is for whoever started it to see.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { isDistilWhisperError } from '../../lib/errors/index.js';
import { chooseIsa, isaNames, packageRoot, typed } from '../../lib/native/index.js';
import { rawCall } from '../../lib/tensor/call.js';
import { type DType, Stream, type Tensor } from '../../lib/tensor/index.js';
import { random } from '../support/random.js';
import { type Argument, type Draw, type Plan, plans } from './kernel-calls.js';

export interface Options {
  /** How long to go on. */
  seconds: number;
  seed: number;
  /** A round that takes more of the processors than this is a fault: sizes are small. Default 5; instrumented code is slower. */
  mostSeconds?: number;
  report(line: string): void;
  /** Told of every call before it is made: what a process that ends in one was doing. */
  trace?(line: string): void;
}

const MOST_SECONDS = 5;
const EVERY_SECONDS = 10;

/** Counts that a shape or a setting is tried with beyond its own: wrong ones, and those at the ends of types. */
const ODD = [
  -1,
  0.5,
  Number.NaN,
  Infinity,
  -Infinity,
  2 ** 31 - 1,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  2 ** 63,
  -(2 ** 63),
  1e308,
];
/** Far more than any machine has, where memory is taken: what could just be had is not tried. */
const HUGE = [2 ** 40, 2 ** 47, 2 ** 50, 2 ** 52, 2 ** 53 - 1];

const MOST_ELEMENTS = 1e6;
/** Such a dimension might just be had. */
const ATTAINABLE = [2 ** 31 - 1, 2 ** 31, 2 ** 32];

function drawing(seed: number): Draw {
  const next = random(seed);
  const draw: Draw = {
    chance: (p) => next() < p,
    from: (low, high) => low + Math.floor(next() * (high - low + 1)),
    pick: (all) => all[Math.floor(next() * all.length)]!,
    value: () =>
      next() < 0.02 ? draw.pick([Number.NaN, Infinity, -Infinity, 3e38, -3e38, 1e-42, 0, -0]) : 4 * next() - 2,
  };
  return draw;
}

const elements = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Empty, and yet of as many rows or columns as an output might just have: to write that takes minutes. */
const attainable = (argument: Argument | null): boolean =>
  argument !== null && elements(argument.shape) === 0 && argument.shape.some((n) => ATTAINABLE.includes(n));

function values(draw: Draw, { values }: Argument, dtype: DType, size: number): ArrayBufferView {
  if (dtype === 'i32') {
    const { low, high } = values ?? { low: -3, high: 40 };
    const one = (): number =>
      draw.chance(0.002) ? draw.pick([-1, 2 ** 31 - 1, -(2 ** 31), high + 1]) : draw.from(low, high);
    return Int32Array.from({ length: size }, one);
  }
  if (dtype === 'bf16') return Uint16Array.from({ length: size }, () => draw.from(0, 0xffff));
  const one = (): number => draw.value();
  return dtype === 'f64' ? Float64Array.from({ length: size }, one) : Float32Array.from({ length: size }, one);
}

/** A tensor for an argument: of a step or persistent (`stays`: persistent), alone or in the middle of another. */
function place(stream: Stream, draw: Draw, argument: Argument, stays: boolean): Tensor {
  const { shape } = argument;
  const oracle = stream.isa === 'oracle';
  let dtype = draw.pick(argument.types.filter((type) => oracle || type !== 'f64'));
  if (draw.chance(0.01)) dtype = draw.pick(['f32', 'bf16', 'i32', ...(oracle ? (['f64'] as const) : [])]);
  if (!shape.every((n) => Number.isInteger(n) && n >= 0) || elements(shape) > MOST_ELEMENTS) {
    // Refused, whether for its shape, for its bytes or for the memory that there is not.
    return draw.chance(0.5) && !ATTAINABLE.includes(Math.max(...shape))
      ? stream.persistent(null, shape, dtype)
      : stream.tensor(new Float32Array(3), shape, dtype);
  }
  if (dtype === 'q8') {
    const source = stream.tensor(values(draw, argument, 'f32', elements(shape)), shape);
    return draw.chance(0.5) ? stream.quantized(source).freeze() : stream.quantized(source);
  }
  const [rows, ...rest] = shape;
  const inside = rows !== undefined && elements(rest) <= MOST_ELEMENTS && draw.chance(0.2);
  const before = inside ? draw.from(0, 2) : 0;
  const whole = inside ? [before + rows + draw.from(0, 2), ...rest] : shape;
  const data = values(draw, argument, dtype, elements(whole));
  const tensor = stays || draw.chance(0.5) ? stream.persistent(data, whole, dtype) : stream.tensor(data, whole, dtype);
  const placed = inside ? tensor.slice(before, before + rows) : tensor;
  return tensor.persistent && !argument.written && draw.chance(0.5) ? placed.freeze() : placed;
}

/** One thing wrong with a call, now and then two. */
function spoil(draw: Draw, plan: Plan): void {
  const { tensors, numbers, sizes = [] } = plan;
  const at = draw.from(0, Math.max(0, tensors.length - 1));
  const argument = tensors[at];
  const number = draw.from(0, Math.max(0, numbers.length - 1));
  const change = (to: (shape: number[]) => number[]): void => {
    if (argument) tensors[at] = { ...argument, shape: to([...argument.shape]) };
  };
  const one = (shape: number[], n: number): number[] => {
    if (shape.length > 0) shape[draw.from(0, shape.length - 1)] = n;
    return shape;
  };
  const ways: (() => void)[] = [
    () => void tensors.splice(at, 1, null),
    () => void tensors.splice(at, 1),
    () => void tensors.push(draw.pick([null, { shape: [1], types: ['f32'] } satisfies Argument])),
    () => change((shape) => one(shape, draw.from(0, 9))),
    () => change((shape) => shape.slice(1)),
    () => change((shape) => [...shape, draw.from(0, 3)]),
    () => change((shape) => [1, ...shape]),
    // Empty, and yet of many rows or columns.
    () =>
      change((shape) =>
        one(
          shape.map(() => draw.pick([1, 1, draw.pick(HUGE)])),
          0,
        ),
      ),
    () => change((shape) => one(shape, draw.pick(ODD))),
    // The same memory twice.
    () => void tensors.splice(at, 1, tensors[draw.from(0, tensors.length - 1)] ?? null),
    () => void numbers.splice(number, 1),
    () => void numbers.push(0),
    () => void numbers.splice(number, 1, draw.pick(sizes.includes(number) ? HUGE : [...ODD, ...HUGE])),
    () => void numbers.splice(number, 1, draw.from(-2, 70)),
  ];
  draw.pick(ways)();
  if (draw.chance(0.2)) spoil(draw, plan);
}

/** What the addon itself is asked, past the checks of TypeScript. */
function ask(stream: Stream, draw: Draw): void {
  const { native } = stream;
  const any = (): number => draw.pick([...ODD, ...HUGE, 0, 1, 2, 7]);
  const shape = (): number[] => Array.from({ length: draw.from(0, 6) }, any);
  const base = stream.tensor(new Float32Array(12), [3, 4]);
  const ways: (() => number | undefined)[] = [
    () => native.view(base.id, any(), shape()),
    () => native.view(any(), 0, [1]),
    // Of what could just be had nothing is taken.
    () =>
      native.create(
        any(),
        [draw.pick([...ODD.filter((n) => !(n > 0 && n < 2 ** 40)), ...HUGE]), ...shape().map((n) => n || 1)],
        draw.chance(0.5),
      ),
    () => void native.write(base.id, new Uint8Array(draw.from(0, 60)), draw.chance(0.5)),
    () => void native.call(any(), [base.id, any()], [any()]),
    () => void native.replay(any()),
    () => native.stored(any(), any(), any(), any(), shape(), draw.chance(0.5)),
  ];
  const made = draw.pick(ways)();
  if (made !== undefined) native.dispose(made);
}

/** One round: a few calls, then a wait. Returns what is wrong, or null. */
async function round(
  stream: Stream,
  draw: Draw,
  told: (call: string) => void,
): Promise<{ calls: number; faults: string[] }> {
  const faults: string[] = [];
  const named: string[] = [];
  const refuse = (error: unknown, call: string): void => {
    if (!isDistilWhisperError(error)) faults.push(`${call}: ${error instanceof Error ? error.stack : String(error)}`);
  };
  const made: Tensor[] = [];
  for (let i = draw.from(1, 4); i > 0; i--) {
    const op = draw.pick(Object.keys(plans));
    const plan = plans[op]!(draw);
    if (draw.chance(0.4)) spoil(draw, plan);
    if (plan.tensors.some(attainable)) continue;
    const shapes = plan.tensors.map((argument) => (argument ? `${argument.types[0]}[${argument.shape}]` : 'null'));
    const call = `${stream.isa} ${op}(${shapes.join(', ')}; ${plan.numbers.join(', ')})`;
    const recorded = draw.chance(0.4);
    named.push(call);
    told(call);
    try {
      // One argument that stands twice is one tensor.
      const placed = new Map<Argument, Tensor>();
      const tensors = plan.tensors.map((argument) => {
        if (!argument) return null;
        const tensor = placed.get(argument) ?? place(stream, draw, argument, recorded);
        placed.set(argument, tensor);
        return tensor;
      });
      made.push(...placed.values());
      const queued = () => rawCall(stream, op, tensors, plan.numbers);
      if (recorded) {
        // Its outputs have memory of their own, at the ends of which a sanitizer watches.
        const recording = stream.record(queued);
        for (let times = draw.from(0, 2); times > 0; times--) recording.replay();
        recording.dispose();
      } else {
        for (const output of queued()) if (draw.chance(0.3)) output.dispose();
      }
    } catch (error) {
      refuse(error, call);
    }
    if (draw.chance(0.1)) {
      try {
        ask(stream, draw);
      } catch (error) {
        refuse(typed(error), `${stream.isa}: a question to the addon`);
      }
    }
  }
  await stream.sync().catch((error) => refuse(error, named.join('; ')));
  await stream.sync().catch((error) => faults.push(`${named.join('; ')}: a second wait rejects too: ${error}`));
  for (const tensor of made) tensor.dispose();
  stream.endStep();
  return { calls: named.length, faults };
}

/** Random calls of all operations until the time is up. The same seed gives the same calls. */
export async function run({
  seconds,
  seed,
  mostSeconds = MOST_SECONDS,
  report,
  trace,
}: Options): Promise<{ calls: number; faults: string[] }> {
  const faults: string[] = [];
  const listed = readFileSync(join(packageRoot(), 'native', 'core', 'op_names.h'), 'utf8').matchAll(/X\((\w+), \w+\)/g);
  for (const [, name] of listed) if (!plans[name!]) faults.push(`there are no calls of the operation '${name}'`);
  const isas = isaNames.slice(0, isaNames.indexOf(chooseIsa('auto')) + 1);
  const streams = [
    new Stream({ backend: 'reference', threads: 2 }),
    ...isas.flatMap((isa) => [1, 3].map((threads) => new Stream({ isa, threads }))),
  ];
  if (process.env.DISTILWHISPER_CUDA_PLUGIN) streams.push(new Stream({ device: 'cuda' }));
  const start = performance.now();
  const spent = (): number => (performance.now() - start) / 1000;
  let calls = 0;
  let said = 0;
  for (let i = 0; spent() < seconds; i++) {
    const began = process.cpuUsage();
    const stream = streams[i % streams.length]!;
    let last = '';
    const done = await round(stream, drawing(seed * 1_000_003 + i), (call) => {
      last = call;
      trace?.(`round ${i}: ${call}`);
    });
    const used = process.cpuUsage(began);
    const took = (used.user + used.system) / 1e6;
    if (took > mostSeconds) done.faults.push(`${last}: ${took.toFixed(1)} s of the processors`);
    calls += done.calls;
    for (const fault of done.faults) {
      faults.push(`round ${i}: ${fault}`);
      report(faults.at(-1)!);
    }
    if (spent() > said + EVERY_SECONDS) {
      said = spent();
      report(`${calls} calls in ${said.toFixed(0)} s, ${faults.length} faults`);
    }
  }
  for (const stream of streams) stream.close();
  return { calls, faults };
}
