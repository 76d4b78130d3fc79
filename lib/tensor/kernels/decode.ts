/** Decoding: the best of logits, and caches. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';
import type { Optional } from './arguments.js';

export interface TopKArguments {
  logits: Tensor;
  /** i32 [S]: ids that cannot be chosen. */
  suppress?: Optional;
  /**
   * i32 [R, 4]: the bounds of two ranges of ids, of which alone a row may choose; only of the second where that is likelier as a
   * whole than any id of the first (timestamps).
   */
  allowed?: Optional;
  /** 1 to 32. */
  k: number;
}

/** The k best of each row, ties by id. logits [R, V] → values f32 [R, k] (log-probabilities), ids i32 [R, k], logsumexp f32 [R]. */
export function topK(stream: Stream, a: TopKArguments): { values: Tensor; ids: Tensor; logsumexp: Tensor } {
  const [values, ids, logsumexp] = call(stream, 'top_k', [a.logits, a.suppress, a.allowed], [a.k]);
  return { values: values!, ids: ids!, logsumexp: logsumexp! };
}

/**
 * In place: row b·K + k of every cache becomes what its row b·K + parents[b, k] was, in the first `count` positions. parents i32
 * [B, K], caches [B·K, P, D].
 */
export function cacheReorder(stream: Stream, a: { parents: Tensor; caches: readonly Tensor[]; count: number }): void {
  call(stream, 'cache_reorder', [a.parents, ...a.caches], [a.count]);
}

/** In place: cache[:, offset:offset + t] = x. x [B, t, D], cache [B, P, D]. */
export function cacheWrite(stream: Stream, a: { x: Tensor; cache: Tensor; offset: number }): void {
  call(stream, 'cache_write', [a.x, a.cache], [a.offset]);
}
