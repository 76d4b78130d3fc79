import { dtypeNumber, LAYER_NORM_EPSILON, type Parameter, type Pass, type Tensor } from '../tensor/index.js';
import type { DecoderState, ReplayedPosition } from './cache.js';
import { type ExpertRows, expertTensors, rangeNumbers } from './gated-ffn.js';

interface Linear {
  readonly weight: Parameter;
  readonly bias: Parameter;
}
export interface AttentionBlock {
  readonly q: Linear;
  readonly k: Parameter;
  readonly v: Linear;
  readonly out: Linear;
  readonly norm: Linear;
}
export interface Layer {
  readonly attention: AttentionBlock;
  /** null in the encoder. */
  readonly cross: AttentionBlock | null;
  readonly norm: Linear;
  readonly fc1: Linear;
  readonly fc2: Linear;
}

/**
 * Layer `index` of the decoder on tokens that follow those of `state`, in one call (inference): x f32 [B, T, D] of the state's B
 * rows → [y f32 [B, T, D], g f32 [B·T]]; g: 1 where a row's gate chose its language's FFN. Adds to the layer's caches.
 */
export function decoderLayer(
  pass: Pass,
  x: Tensor,
  layer: Layer,
  rows: readonly ExpertRows[],
  heads: number,
  state: DecoderState,
  index: number,
  at: ReplayedPosition | null,
): [y: Tensor, gate: Tensor] {
  const { attention, cross, norm, fc1, fc2 } = layer;
  const pair = ({ weight, bias }: Linear): Tensor[] => [weight.value, bias.value];
  const [y, gate] = pass.stream.call(
    'decoder_layer',
    [
      x,
      ...[
        ...pair(attention.norm),
        ...pair(attention.q),
        attention.k.value,
        ...pair(attention.v),
        ...pair(attention.out),
      ],
      ...state.self(index),
      ...[...pair(cross!.norm), ...pair(cross!.q), ...pair(cross!.out)],
      ...state.cross(index),
      ...[...pair(norm), ...pair(fc1), ...pair(fc2)],
      ...expertTensors(rows),
      ...(at ? [at.position] : []),
    ],
    [...rangeNumbers(rows), heads, at ? at.most : state.length, LAYER_NORM_EPSILON, dtypeNumber(pass.compute)],
  );
  return [y!, gate!];
}
