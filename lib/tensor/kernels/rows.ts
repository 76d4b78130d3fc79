/** What moves rows or works on elements. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';
import { type Float, type Optional, type } from './arguments.js';

export interface EmbeddingArguments {
  ids: Tensor;
  table: Tensor;
  positions: Tensor;
  /** i32 [1]: the offset is read there when the call runs, which lets a recording go on from another. */
  position?: Optional;
  /** Position of the first token; with `position` the most that may stand there. */
  offset?: number | undefined;
  out: Float;
}

/** y[b, t] = table[ids[b, t]] + positions[offset + t]. ids i32 [B, T], table [V, D], positions [P, D] → y [B, T, D]. */
export function embedding(stream: Stream, a: EmbeddingArguments): { y: Tensor } {
  const tensors = a.position ? [a.ids, a.table, a.positions, a.position] : [a.ids, a.table, a.positions];
  const [y] = call(stream, 'embedding', tensors, [a.offset ?? 0, type(a.out)]);
  return { y: y! };
}

export interface EmbeddingBackwardArguments {
  dy: Tensor;
  ids: Tensor;
  dtable?: Optional;
  dpositions?: Optional;
  offset?: number | undefined;
  /** Id whose lookups get no gradient. Default: none. */
  padding?: number | undefined;
}

/** In place: adds dy [B, T, D] to the rows of dtable f32 [V, D] and dpositions f32 [P, D] that `embedding` summed. */
export function embeddingBackward(stream: Stream, a: EmbeddingBackwardArguments): void {
  const numbers = [a.offset ?? 0, a.padding ?? -1];
  call(stream, 'embedding_backward', [a.dy, a.ids, a.dtable, a.dpositions], numbers);
}

/** y = alpha·a + beta·b, both 1 by default. a [..], b of as many elements, or a's last dimensions, repeated → y in a's shape. */
export function add(
  stream: Stream,
  { a, b, alpha = 1, beta = 1, out }: { a: Tensor; b: Tensor; alpha?: number; beta?: number; out: Float },
): { y: Tensor } {
  const [y] = call(stream, 'add', [a, b], [alpha, beta, type(out)]);
  return { y: y! };
}

/** In place: dpositions += Σ dy over items. dy [B, T, D], dpositions f32 [T, D]. */
export function addBackwardRows(stream: Stream, a: { dy: Tensor; dpositions: Tensor }): void {
  call(stream, 'add_backward_rows', [a.dy, a.dpositions], []);
}

/** y = x in another float type, rounded to nearest even. */
export function cast(stream: Stream, a: { x: Tensor; out: Float }): { y: Tensor } {
  const [y] = call(stream, 'cast', [a.x], [type(a.out)]);
  return { y: y! };
}

/** In place: every element of x becomes `value`, a whole number where x is i32. */
export function fill(stream: Stream, a: { x: Tensor; value: number }): void {
  call(stream, 'fill', [a.x], [a.value]);
}
