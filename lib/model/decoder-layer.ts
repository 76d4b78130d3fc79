import { attention, kernels, LAYER_NORM_EPSILON, layerNorm, type Tensor } from '../tensor/index.js';
import { type AttentionBlock, type DecoderLayer, feedForwardBlock, type Norm } from './blocks.js';
import type { DecoderState, ReplayedPosition } from './cache.js';
import type { ExpertRows } from './experts.js';
import { feedForwardTensors, languageRows } from './gated-ffn.js';
import type { Linear } from './linear.js';
import type { LayerPass, LayerResult } from './pass.js';

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

/** Tokens that follow those of `state`, in layer `index` of the decoder. */
export interface CachedTokens {
  readonly state: DecoderState;
  readonly index: number;
  /** Of calls that are recorded. */
  readonly at: ReplayedPosition | null;
}

/**
 * A layer of the decoder on tokens that follow those of a state (inference): x f32 [B, T, D] of the state's B rows → y f32
 * [B, T, D] and, where rows have an expert, g f32 [B·T]: 1 where a row's gate chose it. Adds to the layer's caches.
 */
export function cachedDecoderLayer(
  pass: LayerPass,
  x: Tensor,
  layer: DecoderLayer,
  rows: readonly ExpertRows[],
  heads: number,
  tokens: CachedTokens,
): LayerResult {
  return pass.adapter ? adapted(pass, x, layer, rows, heads, tokens) : inOneCall(pass, x, layer, rows, heads, tokens);
}

function inOneCall(
  pass: LayerPass,
  x: Tensor,
  layer: DecoderLayer,
  rows: readonly ExpertRows[],
  heads: number,
  { state, index, at }: CachedTokens,
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

/** The same as calls of its parts, whose linear layers take an adapter. It is not for recordings: its offset is a number. */
function adapted(
  pass: LayerPass,
  x: Tensor,
  layer: DecoderLayer,
  rows: readonly ExpertRows[],
  heads: number,
  { state, index }: CachedTokens,
): LayerResult {
  const { attention: own, cross } = layer;
  const { stream } = pass;
  const offset = state.length;
  const [keys, values] = state.self(index);
  const normed = (of: AttentionBlock, rows: Tensor): Tensor => layerNorm(pass, rows, of.norm.weight, of.norm.bias);
  const said = normed(own, x);
  kernels.cacheWrite(stream, { x: own.k.forward(pass, said), cache: keys, offset });
  kernels.cacheWrite(stream, { x: own.v.forward(pass, said), cache: values, offset });
  const [B, T, D] = x.shape as [number, number, number];
  const q = own.q.forward(pass, said);
  const seen = attention(pass, q, keys, values, { heads, causal: true, keys: offset + T, offset });
  const h = own.out.forward(pass, seen, { residual: x });
  // Beams of an item are queries to what it hears.
  const [crossKeys, crossValues] = state.cross(index);
  const items = B / state.beams;
  const asked = cross.q.forward(pass, normed(cross, h)).reshape([items, state.beams * T, D]);
  const heard = attention(pass, asked, crossKeys, crossValues, { heads }).reshape([B, T, D]);
  return feedForwardBlock(pass, cross.out.forward(pass, heard, { residual: h }), layer, rows, index);
}
