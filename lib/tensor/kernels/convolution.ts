/** Convolution as products. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';
import { type Float, on, type } from './arguments.js';

export interface UnfoldArguments {
  x: Tensor;
  stride: number;
  /** Whether x is [B, C, T]. */
  channelsFirst?: boolean | undefined;
  out: Float;
}

/** rows[b, t, 3·c + j] = x[b, stride·t + j − 1, c], zero outside. x [B, T, C], stride 1 or 2 → rows [B, ⌈T/stride⌉, 3·C]. */
export function unfold(stream: Stream, a: UnfoldArguments): { rows: Tensor } {
  const [rows] = call(stream, 'unfold', [a.x], [a.stride, on(a.channelsFirst), type(a.out)]);
  return { rows: rows! };
}

/** The adjoint of `unfold`: rows [B, ⌈T/stride⌉, 3·C], `length` T → x f32 [B, T, C]. */
export function fold(stream: Stream, a: { rows: Tensor; length: number; stride: number }): { x: Tensor } {
  const [x] = call(stream, 'fold', [a.rows], [a.length, a.stride]);
  return { x: x! };
}
