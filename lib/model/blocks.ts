/** Whisper's layers (pre-norm: each block adds to the residual stream x f32 [B, T, D] what it makes of the normed rows). */
import { DistilWhisperError } from '../errors/index.js';
import { attention, feedForward, layerNorm, type Parameter, type Tensor } from '../tensor/index.js';
import type { Side, WhisperConfig } from '../weights/index.js';
import type { ExpertRows } from './experts.js';
import { gatedFfnHard, gatedFfnSoft } from './gated-ffn.js';
import { type AdaptedPass, Linear } from './linear.js';
import type { LayerPass, LayerResult } from './pass.js';

export interface Norm {
  readonly weight: Parameter;
  readonly bias: Parameter;
}
export interface AttentionBlock {
  readonly norm: Norm;
  readonly q: Linear;
  readonly k: Linear<null>;
  readonly v: Linear;
  readonly out: Linear;
}
export interface EncoderLayer {
  readonly attention: AttentionBlock;
  readonly norm: Norm;
  readonly fc1: Linear;
  readonly fc2: Linear;
}
export interface DecoderLayer extends EncoderLayer {
  readonly cross: AttentionBlock;
}
export interface Encoder {
  readonly conv1: Linear;
  readonly conv2: Linear;
  readonly positions: Parameter;
  readonly layers: readonly EncoderLayer[];
  readonly norm: Norm;
}
export interface Decoder {
  readonly tokens: Parameter;
  readonly positions: Parameter;
  readonly layers: readonly DecoderLayer[];
  readonly norm: Norm;
}

/** The two sides of a model, from its parameters by Hugging Face name. */
export function sidesOf(
  config: WhisperConfig,
  parameters: ReadonlyMap<string, Parameter>,
): { encoder: Encoder; decoder: Decoder } {
  const of = (name: string): Parameter => parameters.get(`model.${name}`)!;
  const norm = (name: string): Norm => ({ weight: of(`${name}.weight`), bias: of(`${name}.bias`) });
  const linear = (name: string): Linear => new Linear(of(`${name}.weight`), of(`${name}.bias`));
  const block = (name: string): AttentionBlock => ({
    norm: norm(`${name}_layer_norm`),
    q: linear(`${name}.q_proj`),
    k: new Linear(of(`${name}.k_proj.weight`), null),
    v: linear(`${name}.v_proj`),
    out: linear(`${name}.out_proj`),
  });
  const layer = (name: string): EncoderLayer => ({
    attention: block(`${name}.self_attn`),
    norm: norm(`${name}.final_layer_norm`),
    fc1: linear(`${name}.fc1`),
    fc2: linear(`${name}.fc2`),
  });
  const layers = (side: Side): string[] =>
    Array.from({ length: config[`${side}_layers`] }, (_, i) => `${side}.layers.${i}`);
  return {
    encoder: {
      conv1: linear('encoder.conv1'),
      conv2: linear('encoder.conv2'),
      positions: of('encoder.embed_positions.weight'),
      layers: layers('encoder').map(layer),
      norm: norm('encoder.layer_norm'),
    },
    decoder: {
      tokens: of('decoder.embed_tokens.weight'),
      positions: of('decoder.embed_positions.weight'),
      layers: layers('decoder').map((name) => ({ ...layer(name), cross: block(`${name}.encoder_attn`) })),
      norm: norm('decoder.layer_norm'),
    },
  };
}

/** The linear layers of a model by their Hugging Face names, those that an adapter may change. */
export function linearsOf({
  encoder,
  decoder,
}: {
  encoder: Encoder;
  decoder: Decoder;
}): Map<string, Linear<Parameter | null>> {
  const linears = new Map<string, Linear<Parameter | null>>();
  const block = (name: string, { q, k, v, out }: AttentionBlock): void => {
    for (const [part, linear] of Object.entries({ q_proj: q, k_proj: k, v_proj: v, out_proj: out }))
      linears.set(`${name}.${part}`, linear);
  };
  const layer = (name: string, { attention, cross, fc1, fc2 }: EncoderLayer & Partial<DecoderLayer>): void => {
    block(`${name}.self_attn`, attention);
    if (cross) block(`${name}.encoder_attn`, cross);
    linears.set(`${name}.fc1`, fc1).set(`${name}.fc2`, fc2);
  };
  for (const [side, { layers }] of Object.entries({ encoder, decoder }))
    for (const [i, one] of layers.entries()) layer(`model.${side}.layers.${i}`, one);
  return linears;
}

/** `rows`: those that have an expert; `index`: the layer's number through encoder, then decoder. */
export function encoderLayer(
  pass: LayerPass,
  x: Tensor,
  layer: EncoderLayer,
  heads: number,
  rows: readonly ExpertRows[],
  index: number,
): LayerResult {
  const h = selfAttention(pass, x, layer.attention, heads, false);
  return feedForwardBlock(pass, h, layer, rows, index);
}

/** The same of the decoder, whole sequences at once; memory [B, S, D]: the encoder's rows. */
export function decoderLayer(
  pass: LayerPass,
  x: Tensor,
  memory: Tensor,
  layer: DecoderLayer,
  heads: number,
  rows: readonly ExpertRows[],
  index: number,
): LayerResult {
  const h = selfAttention(pass, x, layer.attention, heads, true);
  const seen = crossAttention(pass, h, layer.cross, heads, crossRows(pass, layer.cross, memory));
  return feedForwardBlock(pass, seen, layer, rows, index);
}

/** Keys and values [B, S, D] of the encoder's rows. */
export function crossRows(pass: AdaptedPass, { k, v }: AttentionBlock, memory: Tensor): [k: Tensor, v: Tensor] {
  return [k.forward(pass, memory), v.forward(pass, memory)];
}

function selfAttention(pass: AdaptedPass, x: Tensor, block: AttentionBlock, heads: number, causal: boolean): Tensor {
  const h = layerNorm(pass, x, block.norm.weight, block.norm.bias);
  const q = block.q.forward(pass, h);
  const k = block.k.forward(pass, h);
  const v = block.v.forward(pass, h);
  return block.out.forward(pass, attention(pass, q, k, v, { heads, causal }), { residual: x });
}

function crossAttention(
  pass: AdaptedPass,
  x: Tensor,
  block: AttentionBlock,
  heads: number,
  [k, v]: readonly [Tensor, Tensor],
): Tensor {
  const h = layerNorm(pass, x, block.norm.weight, block.norm.bias);
  const q = block.q.forward(pass, h);
  return block.out.forward(pass, attention(pass, q, k, v, { heads }), { residual: x });
}

/** x + FFN(norm(x)), where rows have an expert the gated one. Throws ERR_ADAPTER where an adapter would change what experts stand in for. */
export function feedForwardBlock(
  pass: LayerPass,
  x: Tensor,
  layer: EncoderLayer,
  rows: readonly ExpertRows[],
  index: number,
): LayerResult {
  const { fc1, fc2 } = layer;
  const h = layerNorm(pass, x, layer.norm.weight, layer.norm.bias);
  const isAdapted = fc1.isAdapted(pass) || fc2.isAdapted(pass);
  if (rows.length === 0) {
    if (isAdapted) return [fc2.forward(pass, fc1.forwardGelu(pass, h), { residual: x })];
    return [feedForward(pass, h, fc1, fc2, x)];
  }
  if (isAdapted) {
    throw new DistilWhisperError(
      'ERR_ADAPTER',
      `adapter: expected one that leaves fc1 and fc2 alone where rows have an expert, got '${pass.adapter!.name}'`,
    );
  }
  return pass.gates ? gatedFfnSoft(pass, h, layer, rows, x, index, pass.gates) : gatedFfnHard(pass, h, layer, rows, x);
}
