/** Products of matrices, and gelu. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';
import { type Float, type Optional, on, type } from './arguments.js';

export interface LinearArguments {
  x: Tensor;
  weight: Tensor;
  bias?: Optional;
  /** Added last, in the shape of y. */
  residual?: Optional;
  /** Whether y = gelu(x·Wᵀ + b). */
  gelu?: boolean | undefined;
  /** Whether `pre`, what gelu was applied to, is wanted. */
  savePre?: boolean | undefined;
  /** Type in which the product's operands are multiplied. */
  compute: Float;
  /** Type of y and pre. */
  out: Float;
}

/** y = act(x·Wᵀ + b) + residual. x [.., K], weight [N, K] (f32, bf16 or q8), bias f32 [N] → y [.., N], pre [.., N] if asked for. */
export function linear(stream: Stream, a: LinearArguments): { y: Tensor; pre: Tensor | null } {
  const numbers = [on(a.gelu), on(a.savePre), type(a.compute), type(a.out)];
  const [y, pre] = call(stream, 'linear', [a.x, a.weight, a.bias, a.residual], numbers);
  return { y: y!, pre: pre ?? null };
}

export interface LinearBackwardInputArguments {
  dy: Tensor;
  weight: Tensor;
  /** The pre-activation of a gelu between: dx is then its gradient. */
  geluOf?: Optional;
  /** Added: the gradient so far. */
  residual?: Optional;
  compute: Float;
  out: Float;
}

/** dx = (dy·W) ⊙ gelu′(geluOf) + residual. dy [.., N], weight [N, K], geluOf and residual [.., K] → dx [.., K]. */
export function linearBackwardInput(stream: Stream, a: LinearBackwardInputArguments): { dx: Tensor } {
  const tensors = [a.dy, a.weight, a.geluOf, a.residual];
  const [dx] = call(stream, 'linear_backward_input', tensors, [type(a.compute), type(a.out)]);
  return { dx: dx! };
}

export interface LinearBackwardWeightArguments {
  dy: Tensor;
  x: Tensor;
  dweight?: Optional;
  dbias?: Optional;
  /** Whether x is a pre-activation and gelu(x) is meant. */
  gelu?: boolean | undefined;
  compute: Float;
}

/** In place: dweight += dyᵀ·x, dbias += Σ dy over rows. dy [.., N], x [.., K], dweight f32 [N, K], dbias f32 [N]. */
export function linearBackwardWeight(stream: Stream, a: LinearBackwardWeightArguments): void {
  call(stream, 'linear_backward_weight', [a.dy, a.x, a.dweight, a.dbias], [on(a.gelu), type(a.compute)]);
}

/** In place: quantized = weight as int8, a row's largest |value| being 127 times its scale. weight [.., K], quantized q8 [.., K]. */
export function quantize(stream: Stream, a: { weight: Tensor; quantized: Tensor }): void {
  call(stream, 'quantize', [a.weight, a.quantized], []);
}

/** y = gelu(x). x [..] → y in its shape. */
export function gelu(stream: Stream, a: { x: Tensor; out: Float }): { y: Tensor } {
  const [y] = call(stream, 'gelu', [a.x], [type(a.out)]);
  return { y: y! };
}

/** dpre = dy ⊙ gelu′(pre). dy and pre of as many elements → dpre in pre's shape. */
export function geluBackward(stream: Stream, a: { dy: Tensor; pre: Tensor; out: Float }): { dpre: Tensor } {
  const [dpre] = call(stream, 'gelu_backward', [a.dy, a.pre], [type(a.out)]);
  return { dpre: dpre! };
}
