/** Randomness, as the other kernels draw it. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';

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
