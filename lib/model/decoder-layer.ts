import { dtypeNumber, LAYER_NORM_EPSILON, type Pass, type Tensor } from '../tensor/index.js';
import type { DecoderLayer, Norm } from './blocks.js';
import type { DecoderState, ReplayedPosition } from './cache.js';
import type { ExpertRows } from './experts.js';
import { expertTensors, rangeNumbers } from './gated-ffn.js';
import type { Linear } from './linear.js';
import type { LayerResult } from './pass.js';

/**
 * Layer `index` of the decoder on tokens that follow those of `state`, in one call (inference): x f32 [B, T, D] of the state's B
 * rows → y f32 [B, T, D] and, where rows have an expert, g f32 [B·T]: 1 where a row's gate chose it. Adds to the layer's caches.
 */
export function cachedDecoderLayer(
  pass: Pass,
  x: Tensor,
  layer: DecoderLayer,
  rows: readonly ExpertRows[],
  heads: number,
  state: DecoderState,
  index: number,
  at: ReplayedPosition | null,
): LayerResult {
  const { attention, cross, norm, fc1, fc2 } = layer;
  const pair = ({ weight, bias }: Norm | Linear): Tensor[] => [weight.value, bias.value];
  const [y, gate] = pass.stream.call(
    'decoder_layer',
    [
      x,
      ...[
        ...pair(attention.norm),
        ...pair(attention.q),
        attention.k.weight.value,
        ...pair(attention.v),
        ...pair(attention.out),
      ],
      ...state.self(index),
      ...[...pair(cross.norm), ...pair(cross.q), ...pair(cross.out)],
      ...state.cross(index),
      ...[...pair(norm), ...pair(fc1), ...pair(fc2)],
      ...expertTensors(rows),
      ...(at ? [at.position] : []),
    ],
    [...rangeNumbers(rows), heads, at ? at.most : state.length, LAYER_NORM_EPSILON, dtypeNumber(pass.compute)],
  );
  return rows.length > 0 ? [y!, gate!] : [y!];
}
