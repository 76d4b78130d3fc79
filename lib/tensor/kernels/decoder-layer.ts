/** A layer of the decoder in one call. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';
import { type Float, type Optional, type } from './arguments.js';
import { addExperts, type FeedForwardTensors, type LanguageRows, ranges } from './experts.js';

/** Of a linear layer or of a layer norm. */
export interface LinearTensors {
  weight: Tensor;
  bias: Tensor;
}

/** The weights of an attention behind its layer norm: matrices [D, D], vectors f32 [D]. */
export interface AttentionTensors {
  norm: LinearTensors;
  q: LinearTensors;
  out: LinearTensors;
}

/** Keys have no bias. */
export interface SelfAttentionTensors extends AttentionTensors {
  k: Tensor;
  v: LinearTensors;
}

export interface DecoderLayerArguments {
  x: Tensor;
  /** Attention to the tokens so far. */
  attention: SelfAttentionTensors;
  /** Its caches [B, P, D] of type `compute`: rows [offset, offset + T) are written. */
  keys: Tensor;
  values: Tensor;
  /** Attention to what is heard; its keys and values, as `attention` takes them, of C items, each for the next B / C of x. */
  cross: AttentionTensors;
  crossKeys: Tensor;
  crossValues: Tensor;
  /** Layer norm before the FFN. */
  norm: LinearTensors;
  shared: FeedForwardTensors;
  /** Rows of x count through items and their tokens. */
  languages: readonly LanguageRows[];
  /** i32 [1]: the offset is read there when the call runs; T is then 1. */
  position?: Optional;
  heads: number;
  /** Tokens in the caches; with `position` the most that may stand there. */
  offset: number;
  /** Of the layer norms. */
  epsilon: number;
  compute: Float;
}

/**
 * A layer of the decoder, token by token: h = x + attention(norm(x)), h += cross-attention(norm(h)), y = h + gatedFfnHard(norm(h)).
 * x f32 [B, T, D] → y f32 [B, T, D], g f32 [B·T] of zeros and ones.
 */
export function decoderLayer(stream: Stream, a: DecoderLayerArguments): { y: Tensor; g: Tensor } {
  const { attention: own, cross, norm, shared } = a;
  const tensors: Tensor[] = [
    a.x,
    own.norm.weight,
    own.norm.bias,
    own.q.weight,
    own.q.bias,
    own.k,
    own.v.weight,
    own.v.bias,
    own.out.weight,
    own.out.bias,
    a.keys,
    a.values,
    cross.norm.weight,
    cross.norm.bias,
    cross.q.weight,
    cross.q.bias,
    cross.out.weight,
    cross.out.bias,
    a.crossKeys,
    a.crossValues,
    norm.weight,
    norm.bias,
    shared.fc1,
    shared.fc1Bias,
    shared.fc2,
    shared.fc2Bias,
  ];
  addExperts(tensors, a.languages);
  if (a.position) tensors.push(a.position);
  const numbers = ranges(a.languages);
  numbers.push(a.heads, a.offset, a.epsilon, type(a.compute));
  const [y, g] = call(stream, 'decoder_layer', tensors, numbers);
  return { y: y!, g: g! };
}
