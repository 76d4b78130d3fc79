/**
 * Whisper as ONNX graphs of standard operators, laid out as Hugging Face's Optimum exports it, for other runtimes: the
 * names of inputs and outputs are Optimum's too. A language's expert is inside, with its hard gates (G ≥ 0).
 */
import { type ExpertLayerNames, expertLayerNames, type Side, type WhisperConfig } from '../../weights/index.js';
import { Builder, type OnnxDtype, type OnnxWeights } from './builder.js';
import { type Dimension, Graph } from './graph.js';

/** What graphs are made of. */
export interface OnnxModel {
  readonly config: WhisperConfig;
  readonly weights: OnnxWeights;
  /** Language whose expert every row may take, with its tensors among the weights; null: the backbone alone. */
  readonly expert: string | null;
}

/** The token embedding, which is the output projection too. */
export const TOKEN_TABLE = 'model.decoder.embed_tokens.weight';
/** The encoder's output, and on request the decoder's: rows before the output projection. */
export const LAST_HIDDEN = 'last_hidden_state';

const BATCH = 'batch_size';
const TOKENS = 'decoder_sequence_length';
const PAST = 'past_decoder_sequence_length';
const SOURCE = 'encoder_sequence_length';

const cacheShape = (config: WhisperConfig, rows: Dimension): Dimension[] => {
  const heads = config.decoder_attention_heads;
  return [BATCH, heads, rows, config.d_model / heads];
};

const expertLayer = ({ expert }: OnnxModel, side: Side, layer: number): ExpertLayerNames | null =>
  expert === null ? null : expertLayerNames(side, layer, expert);

/** input_features [B, mels, 2S] → last_hidden_state [B, S, D]. */
export function encoderGraph(model: OnnxModel, dtype: OnnxDtype): Graph {
  const { config } = model;
  const { d_model: D, max_source_positions: S, encoder_attention_heads: heads } = config;
  const graph = new Graph();
  const b = new Builder(graph, config, model.weights, dtype);
  const p = 'model.encoder';
  const features = graph.input('input_features', 'f32', [BATCH, config.num_mel_bins, 2 * S]);
  const conv = (x: string, name: string, stride: number): string =>
    b.gelu(
      graph.node('Conv', [x, b.constant(`${p}.${name}.weight`), b.constant(`${p}.${name}.bias`)], {
        kernel_shape: [3],
        pads: [1, 1],
        strides: [stride],
      }),
    );
  const rows = graph.node('Transpose', [conv(conv(features, 'conv1', 1), 'conv2', 2)], { perm: [0, 2, 1] });
  let x = b.op('Add', rows, b.constant(`${p}.embed_positions.weight`));
  for (let i = 0; i < config.encoder_layers; i++) {
    const layer = `${p}.layers.${i}`;
    const name = `${layer}.self_attn`;
    const h = b.layerNorm(x, `${name}_layer_norm`);
    const [k, v] = b.keysAndValues(h, name, heads);
    x = b.op('Add', x, b.attend(b.queries(h, name, heads), k, v, name));
    x = b.feedForward(x, layer, expertLayer(model, 'encoder', i));
  }
  graph.output(LAST_HIDDEN, b.layerNorm(x, `${p}.layer_norm`), 'f32', [BATCH, S, D]);
  return graph;
}

/** A value that goes out of a graph. */
type Output = [name: string, value: string, shape: Dimension[]];

/** Adds the decoder's layers to `b`: tokens behind cached ones, or with `memory` a text without a cache. */
function decoderLayers(b: Builder, model: OnnxModel, memory: string | null, hidden: boolean): Output[] {
  const { graph, config } = b;
  const ids = 'input_ids';
  const { decoder_attention_heads: heads, max_target_positions: positions, d_model: D } = config;
  const p = 'model.decoder';
  const past = (i: number, kind: string): string => `past_key_values.${i}.${kind}`;
  const sizeOf = (value: string, axis: number): string =>
    graph.node('Gather', [graph.node('Shape', [value]), graph.ints(axis)], { axis: 0 });
  const begin = memory ? graph.ints(0) : sizeOf(past(0, 'decoder.key'), 2);
  const end = b.op('Add', begin, sizeOf(ids, 1));
  const places = graph.node('Slice', [b.constant(`${p}.embed_positions.weight`), begin, end, graph.ints(0)]);
  let x = b.op('Add', b.embed(ids, TOKEN_TABLE), places);
  // What a row may not see gets −∞: the triangle above the diagonal.
  const full = graph.constant('causal_mask', 'f32', [positions, positions], () =>
    Float32Array.from({ length: positions ** 2 }, (_, i) => (i % positions > Math.floor(i / positions) ? -1e9 : 0)),
  );
  const corner = (row: string, column: string): string => graph.node('Concat', [row, column], { axis: 0 });
  const mask = graph.node('Slice', [full, corner(begin, graph.ints(0)), corner(end, end), graph.ints(0, 1)]);
  const nothing = (): string => graph.constant('no_rows', 'f32', [0, heads, 1, D / heads], () => new Float32Array(0));
  const outputs: Output[] = [];
  for (let i = 0; i < config.decoder_layers; i++) {
    const layer = `${p}.layers.${i}`;
    const self = `${layer}.self_attn`;
    let h = b.layerNorm(x, `${self}_layer_norm`);
    const fresh = b.keysAndValues(h, self, heads);
    const behind = (j: 0 | 1, kind: string): string =>
      memory ? fresh[j] : graph.node('Concat', [past(i, `decoder.${kind}`), fresh[j]], { axis: 2 });
    const [k, v] = [behind(0, 'key'), behind(1, 'value')];
    x = b.op('Add', x, b.attend(b.queries(h, self, heads), k, v, self, mask));
    const cross = `${layer}.encoder_attn`;
    h = b.layerNorm(x, `${cross}_layer_norm`);
    const source = memory
      ? b.keysAndValues(memory, cross, heads)
      : ([past(i, 'encoder.key'), past(i, 'encoder.value')] as const);
    x = b.op('Add', x, b.attend(b.queries(h, cross, heads), ...source, cross));
    x = b.feedForward(x, layer, expertLayer(model, 'decoder', i));
    const rows = cacheShape(config, `${PAST} + ${TOKENS}`);
    outputs.push([`present.${i}.decoder.key`, k, rows], [`present.${i}.decoder.value`, v, rows]);
    // A step leaves the source's keys and values alone: who calls keeps them.
    for (const [j, kind] of ['key', 'value'].entries()) {
      outputs.push([`present.${i}.encoder.${kind}`, memory ? source[j]! : nothing(), cacheShape(config, SOURCE)]);
    }
  }
  const last = b.layerNorm(x, `${p}.layer_norm`);
  outputs.unshift(['logits', b.logits(last, TOKEN_TABLE), [BATCH, TOKENS, config.vocab_size]]);
  if (hidden) outputs.push([LAST_HIDDEN, last, [BATCH, TOKENS, D]]);
  return outputs;
}

const decoderInputs = (graph: Graph, config: WhisperConfig, memory: boolean): void => {
  graph.input('input_ids', 'i64', [BATCH, TOKENS]);
  if (memory) graph.input('encoder_hidden_states', 'f32', [BATCH, SOURCE, config.d_model]);
  for (let i = 0; i < config.decoder_layers; i++) {
    for (const [side, rows] of [
      ['decoder', PAST],
      ['encoder', SOURCE],
    ] as const) {
      for (const kind of ['key', 'value']) {
        graph.input(`past_key_values.${i}.${side}.${kind}`, 'f32', cacheShape(config, rows));
      }
    }
  }
};

/** Tokens behind cached ones: input_ids [B, T] and past_key_values.* → logits [B, T, V] and present.*.decoder.*. */
export function decoderStepGraph(model: OnnxModel, dtype: OnnxDtype): Graph {
  const graph = new Graph();
  decoderInputs(graph, model.config, false);
  const outputs = decoderLayers(new Builder(graph, model.config, model.weights, dtype), model, null, false);
  for (const [name, value, shape] of outputs) if (!name.includes('.encoder.')) graph.output(name, value, 'f32', shape);
  return graph;
}

/** encoder_hidden_states [B, S, D] → past_key_values.*.encoder.*: the cross-attention's keys and values, once a window. */
export function crossGraph({ config, weights }: OnnxModel): Graph {
  const graph = new Graph();
  const memory = graph.input('encoder_hidden_states', 'f32', [BATCH, SOURCE, config.d_model]);
  const b = new Builder(graph, config, weights, 'fp32');
  for (let i = 0; i < config.decoder_layers; i++) {
    const [k, v] = b.keysAndValues(memory, `model.decoder.layers.${i}.encoder_attn`, config.decoder_attention_heads);
    const shape = cacheShape(config, SOURCE);
    graph.output(`past_key_values.${i}.encoder.key`, k, 'f32', shape);
    graph.output(`past_key_values.${i}.encoder.value`, v, 'f32', shape);
  }
  return graph;
}

/**
 * Optimum's decoder_model_merged: a text without a cache or tokens behind one, as `use_cache_branch` [1] says. With `hidden` the
 * last hidden rows go out too, as last_hidden_state [B, T, D].
 */
export function mergedDecoderGraph(model: OnnxModel, dtype: OnnxDtype, { hidden = false } = {}): Graph {
  const graph = new Graph();
  decoderInputs(graph, model.config, true);
  const condition = graph.input('use_cache_branch', 'bool', [1]);
  let outputs: Output[] = [];
  const branch = (memory: string | null): Graph => {
    const part = new Graph(graph);
    outputs = decoderLayers(new Builder(part, model.config, model.weights, dtype), model, memory, hidden);
    for (const [name, value, shape] of outputs) part.output(`${memory ? 'text' : 'step'}.${name}`, value, 'f32', shape);
    return part;
  };
  const branches = { then_branch: branch(null), else_branch: branch('encoder_hidden_states') };
  const chosen = graph.call('If', [condition], outputs.length, branches);
  for (const [i, [name, , shape]] of outputs.entries()) graph.output(name, chosen[i]!, 'f32', shape);
  return graph;
}
