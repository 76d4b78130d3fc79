/** Attention. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';
import { type Float, on, type } from './arguments.js';

export interface AttentionArguments {
  q: Tensor;
  k: Tensor;
  v: Tensor;
  heads: number;
  causal?: boolean | undefined;
  /** Rows of k and v that exist (a cache's fill). */
  keys: number;
  /** Position of the first query. */
  offset?: number | undefined;
  out: Float;
}

/**
 * o = softmax(q·kᵀ/√d)·v for each of `heads` that stand side by side, d = D/heads; a causal query sees keys up to its position. q
 * [B, Tq, D], k and v [B, Tk, D] of q's type, or q8 [B, Tk, heads, d] → o [B, Tq, D], lse f32 [B, heads, Tq], the log of each sum.
 */
export function attention(stream: Stream, a: AttentionArguments): { o: Tensor; lse: Tensor } {
  const numbers = [a.heads, on(a.causal), a.keys, a.offset ?? 0, type(a.out)];
  const [o, lse] = call(stream, 'attention', [a.q, a.k, a.v], numbers);
  return { o: o!, lse: lse! };
}

export interface AttentionBackwardArguments {
  q: Tensor;
  k: Tensor;
  v: Tensor;
  o: Tensor;
  lse: Tensor;
  /** Gradient of o. */
  dout: Tensor;
  heads: number;
  causal?: boolean | undefined;
  out: Float;
}

/** Gradients of `attention` over all keys, from position 0: dq [B, Tq, D], dk and dv [B, Tk, D]. */
export function attentionBackward(
  stream: Stream,
  a: AttentionBackwardArguments,
): { dq: Tensor; dk: Tensor; dv: Tensor } {
  const tensors = [a.q, a.k, a.v, a.o, a.lse, a.dout];
  const [dq, dk, dv] = call(stream, 'attention_backward', tensors, [a.heads, on(a.causal), type(a.out)]);
  return { dq: dq!, dk: dk!, dv: dv! };
}
