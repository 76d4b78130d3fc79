import { kernels, LAYER_NORM_EPSILON, type Parameter, type Pass, type Tensor } from '../tensor/index.js';
import type { DecoderState, ReplayedPosition } from './cache.js';
import { type ExpertRows, feedForwardTensors, languageRows } from './gated-ffn.js';

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

const linearTensors = ({ weight, bias }: Linear): kernels.LinearTensors => ({ weight: weight.value, bias: bias.value });
const attentionTensors = ({ norm, q, k, v, out }: AttentionBlock): kernels.SelfAttentionTensors => ({
  norm: linearTensors(norm),
  q: linearTensors(q),
  k: k.value,
  v: linearTensors(v),
  out: linearTensors(out),
});

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
  const { attention, cross } = layer;
  const [keys, values] = state.self(index);
  const [crossKeys, crossValues] = state.cross(index);
  const { y, g } = kernels.decoderLayer(pass.stream, {
    x,
    attention: attentionTensors(attention),
    keys,
    values,
    cross: attentionTensors(cross!),
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
  return [y, g];
}
