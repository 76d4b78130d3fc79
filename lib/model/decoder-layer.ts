import { kernels, LAYER_NORM_EPSILON, type Pass, type Tensor } from '../tensor/index.js';
import type { AttentionBlock, DecoderLayer, Norm } from './blocks.js';
import type { DecoderState, ReplayedPosition } from './cache.js';
import type { ExpertRows } from './experts.js';
import { feedForwardTensors, languageRows } from './gated-ffn.js';
import type { Linear } from './linear.js';
import type { LayerResult } from './pass.js';

const linearTensors = ({ weight, bias }: Norm | Linear): kernels.LinearTensors => ({
  weight: weight.value,
  bias: bias.value,
});
const attentionTensors = ({ norm, q, k, v, out }: AttentionBlock): kernels.SelfAttentionTensors => ({
  norm: linearTensors(norm),
  q: linearTensors(q),
  k: k.weight.value,
  v: linearTensors(v),
  out: linearTensors(out),
});

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
  const { attention, cross } = layer;
  const [keys, values] = state.self(index);
  const [crossKeys, crossValues] = state.cross(index);
  const { y, g } = kernels.decoderLayer(pass.stream, {
    x,
    attention: attentionTensors(attention),
    keys,
    values,
    cross: attentionTensors(cross),
    crossKeys,
    crossValues,
    norm: linearTensors(layer.norm),
    shared: feedForwardTensors(layer),
    languages: languageRows(rows),
    position: at?.position,
    heads,
    offset: at ? at.most : state.length,
    epsilon: LAYER_NORM_EPSILON,
    compute: pass.compute,
  });
  return rows.length > 0 ? [y, g] : [y];
}
