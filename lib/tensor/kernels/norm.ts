/** Normalisation. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';
import { type Float, type Optional, type } from './arguments.js';

export interface LayerNormArguments {
  x: Tensor;
  weight: Tensor;
  bias: Tensor;
  /** Added to the variance. */
  epsilon: number;
  out: Float;
}

/**
 * y = (x − mean)·rstd·weight + bias over the last dimension, rstd = 1/√(variance + epsilon). x [.., D], weight and bias f32 [D] →
 * y [.., D], mean and rstd f32 [rows].
 */
export function layerNorm(stream: Stream, a: LayerNormArguments): { y: Tensor; mean: Tensor; rstd: Tensor } {
  const [y, mean, rstd] = call(stream, 'layer_norm', [a.x, a.weight, a.bias], [a.epsilon, type(a.out)]);
  return { y: y!, mean: mean!, rstd: rstd! };
}

export interface LayerNormBackwardArguments {
  dy: Tensor;
  x: Tensor;
  weight: Tensor;
  mean: Tensor;
  rstd: Tensor;
  /** Added to dx: the gradient so far. */
  residual?: Optional;
  dweight?: Optional;
  dbias?: Optional;
  out: Float;
}

/** dx [.., D] of `layerNorm`, whose mean and rstd it takes; in place, dweight and dbias f32 [D] are added to. */
export function layerNormBackward(stream: Stream, a: LayerNormBackwardArguments): { dx: Tensor } {
  const tensors = [a.dy, a.x, a.weight, a.mean, a.rstd, a.residual, a.dweight, a.dbias];
  const [dx] = call(stream, 'layer_norm_backward', tensors, [type(a.out)]);
  return { dx: dx! };
}
