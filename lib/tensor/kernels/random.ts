/** Randomness, as the other kernels draw it. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';
import { type Float, type Optional, type } from './arguments.js';

/** Philox: the key is `seed`, the counter is step, op and an element's index. */
export interface RandomArguments {
  count: number;
  seed: number;
  step: number;
  op: number;
}

const random = (stream: Stream, name: string, a: RandomArguments): { values: Tensor } => {
  const [values] = call(stream, name, [], [a.count, a.seed, a.step, a.op]);
  return { values: values! };
};

/** Values of N(0, 1): f32 [count]. */
export function randomNormal(stream: Stream, a: RandomArguments): { values: Tensor } {
  return random(stream, 'random_normal', a);
}

/** Values of [0, 1): f32 [count]. */
export function randomUniform(stream: Stream, a: RandomArguments): { values: Tensor } {
  return random(stream, 'random_uniform', a);
}

export interface DropArguments extends Omit<RandomArguments, 'count'> {
  x: Tensor;
  /** 0/1 keep mask f32 in x's shape, instead of drawn. */
  mask?: Optional;
  /** Probability of a drop. */
  p: number;
  scale?: number | undefined;
  out: Float;
}

/** y = scale · (x / (1 − p) where it is kept, else 0): its own adjoint. x [..] → y in its shape. */
export function drop(stream: Stream, a: DropArguments): { y: Tensor } {
  const [y] = call(stream, 'drop', [a.x, a.mask], [a.p, a.scale ?? 1, a.seed, a.step, a.op, type(a.out)]);
  return { y: y! };
}
