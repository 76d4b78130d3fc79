/**
 * Whisper as ONNX graphs of standard operators, laid out as Hugging Face's Optimum exports it, for other runtimes: the
 * names of inputs and outputs are Optimum's too. Experts are left out.
 */
import type { Whisper } from '../../model/index.js';
import type { Parameter } from '../../tensor/index.js';
import type { WhisperConfig } from '../../weights/index.js';
import { type Dimension, Graph } from './graph.js';

/** int8: matrices in int8 with a scale an output channel, rows quantised as they come (dynamic quantisation). */
export type OnnxWeights = 'fp32' | 'int8';

const EPSILON = 1e-5;

/** The backbone's values by name. */
export type Values = ReadonlyMap<string, { readonly shape: readonly number[]; readonly values: Float32Array }>;

/** The values of a model's backbone, in f32: what the graphs hold. */
export async function readValues(model: Whisper): Promise<Values> {
  const read = async ([name, parameter]: [string, Parameter]) =>
    [name, { shape: parameter.shape, values: await parameter.value.floats() }] as const;
  return new Map(await Promise.all([...model.parameters].map(read)));
}

/** Nodes of a Whisper in one graph. */
class Builder {
  private readonly quantised = new Map<string, string[]>();

  constructor(
    readonly graph: Graph,
    readonly config: WhisperConfig,
    private readonly values: Values,
    private readonly weights: OnnxWeights,
  ) {}

  constant(name: string): string {
    const { shape, values } = this.values.get(name)!;
    return this.graph.constant(name, 'f32', shape, () => values);
  }

  op(name: string, ...inputs: string[]): string {
    return this.graph.node(name, inputs);
  }

  layerNorm(x: string, name: string): string {
    const inputs = [x, this.constant(`${name}.weight`), this.constant(`${name}.bias`)];
    return this.graph.node('LayerNormalization', inputs, { axis: -1, epsilon: EPSILON });
  }

  /** gelu(x) = x·(1 + erf(x/√2))/2, as PyTorch's exporter writes it: runtimes look for this pattern. */
  gelu(x: string): string {
    const { graph } = this;
    const erf = this.op('Erf', this.op('Div', x, graph.floats(Math.SQRT2)));
    return this.op('Mul', this.op('Mul', x, this.op('Add', erf, graph.floats(1))), graph.floats(0.5));
  }

  /** x·Wᵀ + b; `name` names W and b, `matrix` W alone. */
  linear(x: string, name: string, options: { bias?: boolean; matrix?: string } = {}): string {
    const matrix = options.matrix ?? `${name}.weight`;
    const product = this.weights === 'int8' ? this.int8Product(x, matrix) : this.product(x, matrix);
    return options.bias === false ? product : this.op('Add', product, this.constant(`${name}.bias`));
  }

  private product(x: string, matrix: string): string {
    const { shape, values } = this.values.get(matrix)!;
    const [N, K] = shape as [number, number];
    return this.op(
      'MatMul',
      x,
      this.graph.constant(`${matrix}.T`, 'f32', [K, N], () => transpose(values, N, K)),
    );
  }

  /** The pattern that onnxruntime's quantize_dynamic writes (per channel); the runtime makes one kernel of it. */
  private int8Product(x: string, matrix: string): string {
    const { graph } = this;
    const { shape, values } = this.values.get(matrix)!;
    const [N, K] = shape as [number, number];
    // q, k and v read the same rows.
    const rows = this.quantised.get(x) ?? graph.call('DynamicQuantizeLinear', [x], 3);
    this.quantised.set(x, rows);
    const [q, scale, zero] = rows as [string, string, string];
    const scales = channelScales(values, N, K);
    const w = graph.constant(`${matrix}.int8`, 'i8', [K, N], () => transpose(quantise(values, scales, K), N, K));
    const wZero = graph.constant(`${matrix}.zero`, 'i8', [N], () => new Int8Array(N));
    const sum = graph.node('Cast', [this.op('MatMulInteger', q, w, zero, wZero)], { to: 1 });
    const factor = this.op(
      'Mul',
      scale,
      graph.constant(`${matrix}.scale`, 'f32', [N], () => scales),
    );
    return this.op('Mul', sum, factor);
  }

  /** Rows [B, T, D] by heads [B, H, T, D/H]. */
  split(x: string, heads: number): string {
    const shaped = this.op('Reshape', x, this.graph.ints(0, -1, heads, this.config.d_model / heads));
    return this.graph.node('Transpose', [shaped], { perm: [0, 2, 1, 3] });
  }

  /** Scaled queries by heads. */
  queries(x: string, name: string, heads: number): string {
    const scale = this.graph.floats((this.config.d_model / heads) ** -0.5);
    return this.split(this.op('Mul', this.linear(x, `${name}.q_proj`), scale), heads);
  }

  keysAndValues(x: string, name: string, heads: number): [k: string, v: string] {
    return [
      this.split(this.linear(x, `${name}.k_proj`, { bias: false }), heads),
      this.split(this.linear(x, `${name}.v_proj`), heads),
    ];
  }

  /** softmax(q·kᵀ + mask)·v, heads side by side again, and the output projection. */
  attend(q: string, k: string, v: string, name: string, mask: string | null = null): string {
    const { graph } = this;
    const scores = this.op('MatMul', q, graph.node('Transpose', [k], { perm: [0, 1, 3, 2] }));
    const weights = graph.node('Softmax', [mask ? this.op('Add', scores, mask) : scores], { axis: -1 });
    const rows = graph.node('Transpose', [this.op('MatMul', weights, v)], { perm: [0, 2, 1, 3] });
    return this.linear(this.op('Reshape', rows, graph.ints(0, -1, this.config.d_model)), `${name}.out_proj`);
  }

  feedForward(x: string, layer: string): string {
    const h = this.layerNorm(x, `${layer}.final_layer_norm`);
    return this.op('Add', x, this.linear(this.gelu(this.linear(h, `${layer}.fc1`)), `${layer}.fc2`));
  }
}

const headsShape = (config: WhisperConfig, rows: Dimension): Dimension[] => {
  const heads = config.decoder_attention_heads;
  return ['batch', heads, rows, config.d_model / heads];
};

/** input_features [B, mels, 2S] → last_hidden_state [B, S, D]. */
export function encoderGraph(config: WhisperConfig, values: Values, weights: OnnxWeights): Graph {
  const { d_model: D, max_source_positions: S, encoder_attention_heads: heads } = config;
  const graph = new Graph();
  const b = new Builder(graph, config, values, weights);
  const p = 'model.encoder';
  const features = graph.input('input_features', 'f32', ['batch', config.num_mel_bins, 2 * S]);
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
    x = b.feedForward(x, layer);
  }
  graph.output('last_hidden_state', b.layerNorm(x, `${p}.layer_norm`), 'f32', ['batch', S, D]);
  return graph;
}

/** A value that goes out of a graph. */
type Output = [name: string, value: string, shape: Dimension[]];

/** Adds the decoder's layers to `b`: one token behind cached ones, or with `memory` a text without a cache. */
function decoderLayers(b: Builder, memory: string | null): Output[] {
  const { graph, config } = b;
  const ids = 'input_ids';
  const { decoder_attention_heads: heads, max_target_positions: positions, vocab_size: V } = config;
  const p = 'model.decoder';
  const past = (i: number, kind: string): string => `past_key_values.${i}.${kind}`;
  const tokens = graph.node('Gather', [graph.node('Shape', [ids]), graph.ints(1)], { axis: 0 });
  const cached = memory
    ? graph.ints(0)
    : graph.node('Gather', [graph.node('Shape', [past(0, 'decoder.key')]), graph.ints(2)], { axis: 0 });
  const table = b.constant(`${p}.embed_positions.weight`);
  const rows = graph.node('Slice', [table, cached, b.op('Add', cached, tokens), graph.ints(0)]);
  let x = b.op('Add', graph.node('Gather', [b.constant(`${p}.embed_tokens.weight`), ids], { axis: 0 }), rows);
  // What a row may not see gets −∞: the triangle above the diagonal.
  let mask: string | null = null;
  if (memory) {
    const full = graph.constant('causal mask', 'f32', [positions, positions], () =>
      Float32Array.from({ length: positions ** 2 }, (_, i) => (i % positions > Math.floor(i / positions) ? -1e9 : 0)),
    );
    const corner = graph.node('Concat', [tokens, tokens], { axis: 0 });
    mask = graph.node('Slice', [full, graph.ints(0, 0), corner, graph.ints(0, 1)]);
  }
  const width = config.d_model / heads;
  const nothing = (): string => graph.constant('nothing', 'f32', [0, heads, 1, width], () => new Float32Array(0));
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
    x = b.feedForward(x, layer);
    outputs.push([`present.${i}.decoder.key`, k, headsShape(config, `present`)]);
    outputs.push([`present.${i}.decoder.value`, v, headsShape(config, `present`)]);
    // A step leaves the source's keys and values alone: who calls keeps them.
    for (const [j, kind] of ['key', 'value'].entries()) {
      outputs.push([`present.${i}.encoder.${kind}`, memory ? source[j]! : nothing(), headsShape(config, 'source')]);
    }
  }
  const logits = b.linear(b.layerNorm(x, `${p}.layer_norm`), '', { matrix: `${p}.embed_tokens.weight`, bias: false });
  return [['logits', logits, ['batch', 'tokens', V]], ...outputs];
}

const decoderInputs = (graph: Graph, config: WhisperConfig, memory: boolean): void => {
  graph.input('input_ids', 'i64', ['batch', 'tokens']);
  if (memory) graph.input('encoder_hidden_states', 'f32', ['batch', 'source', config.d_model]);
  for (let i = 0; i < config.decoder_layers; i++) {
    for (const [side, rows] of [
      ['decoder', 'past'],
      ['encoder', 'source'],
    ] as const) {
      for (const kind of ['key', 'value']) {
        graph.input(`past_key_values.${i}.${side}.${kind}`, 'f32', headsShape(config, rows));
      }
    }
  }
};

/** One token a call: input_ids [B, 1] and past_key_values.* → logits [B, 1, V] and present.*.decoder.*. */
export function decoderStepGraph(config: WhisperConfig, values: Values, weights: OnnxWeights): Graph {
  const graph = new Graph();
  decoderInputs(graph, config, false);
  const outputs = decoderLayers(new Builder(graph, config, values, weights), null);
  for (const [name, value, shape] of outputs) if (!name.includes('.encoder.')) graph.output(name, value, 'f32', shape);
  return graph;
}

/** encoder_hidden_states [B, S, D] → past_key_values.*.encoder.*: the cross-attention's keys and values, once a window. */
export function crossGraph(config: WhisperConfig, values: Values): Graph {
  const graph = new Graph();
  const memory = graph.input('encoder_hidden_states', 'f32', ['batch', 'source', config.d_model]);
  const b = new Builder(graph, config, values, 'fp32');
  for (let i = 0; i < config.decoder_layers; i++) {
    const [k, v] = b.keysAndValues(memory, `model.decoder.layers.${i}.encoder_attn`, config.decoder_attention_heads);
    const shape = headsShape(config, 'source');
    graph.output(`past_key_values.${i}.encoder.key`, k, 'f32', shape);
    graph.output(`past_key_values.${i}.encoder.value`, v, 'f32', shape);
  }
  return graph;
}

/** Optimum's decoder_model_merged: a text without a cache or a step behind one, as `use_cache_branch` [1] says. */
export function mergedDecoderGraph(config: WhisperConfig, values: Values, weights: OnnxWeights): Graph {
  const graph = new Graph();
  decoderInputs(graph, config, true);
  const condition = graph.input('use_cache_branch', 'bool', [1]);
  let outputs: Output[] = [];
  const branch = (memory: string | null): Graph => {
    const part = new Graph(graph);
    outputs = decoderLayers(new Builder(part, config, values, weights), memory);
    for (const [name, value, shape] of outputs) part.output(`${memory ? 'text' : 'step'}.${name}`, value, 'f32', shape);
    return part;
  };
  const branches = { then_branch: branch(null), else_branch: branch('encoder_hidden_states') };
  const chosen = graph.call('If', [condition], outputs.length, branches);
  for (const [i, [name, , shape]] of outputs.entries()) graph.output(name, chosen[i]!, 'f32', shape);
  return graph;
}

/** w [rows, columns] → [columns, rows], by blocks that stay in the cache. */
function transpose<T extends Float32Array | Int8Array>(w: T, rows: number, columns: number): T {
  const out = new (w.constructor as new (n: number) => T)(w.length);
  const block = 32;
  for (let r0 = 0; r0 < rows; r0 += block) {
    for (let c0 = 0; c0 < columns; c0 += block) {
      for (let r = r0; r < Math.min(r0 + block, rows); r++) {
        for (let c = c0; c < Math.min(c0 + block, columns); c++) out[c * rows + r] = w[r * columns + c]!;
      }
    }
  }
  return out;
}

function channelScales(w: Float32Array, N: number, K: number): Float32Array {
  const scales = new Float32Array(N);
  for (let n = 0; n < N; n++) {
    let most = 0;
    for (let k = 0; k < K; k++) most = Math.max(most, Math.abs(w[n * K + k]!));
    scales[n] = most / 127 || 1;
  }
  return scales;
}

function quantise(w: Float32Array, scales: Float32Array, K: number): Int8Array {
  const out = new Int8Array(w.length);
  for (let n = 0; n < scales.length; n++) {
    for (let k = 0; k < K; k++) out[n * K + k] = Math.round(w[n * K + k]! / scales[n]!);
  }
  return out;
}
