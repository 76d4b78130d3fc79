import type { ExpertLayerNames, WhisperConfig } from '../../weights/index.js';
import type { Graph } from './graph.js';
import { quantise, rowScales, transpose, unsigned } from './matrices.js';

/** int8: matrices in int8 with a scale an output channel, rows quantised as they come (dynamic quantisation). */
export type OnnxDtype = 'fp32' | 'int8';

/** A model's tensors by Hugging Face name, read when they are written. */
export interface OnnxWeights {
  shape(name: string): readonly number[];
  values(name: string): Promise<Float32Array>;
}

const EPSILON = 1e-5;

/** Nodes of a Whisper in one graph. */
export class Builder {
  private readonly quantised = new Map<string, string[]>();
  /** The last tensor that was read: two constants are made of it in a row. */
  private last: { name: string; values: Promise<Float32Array> } | null = null;

  constructor(
    readonly graph: Graph,
    readonly config: WhisperConfig,
    private readonly weights: OnnxWeights,
    readonly dtype: OnnxDtype,
  ) {}

  constant(name: string): string {
    return this.graph.constant(name, 'f32', this.weights.shape(name), () => this.weights.values(name));
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

  /** x·Wᵀ + b, of `name`'s weight and bias. */
  linear(x: string, name: string, options: { bias?: boolean } = {}): string {
    const matrix = `${name}.weight`;
    const product = this.dtype === 'int8' ? this.int8Product(x, matrix) : this.product(x, matrix);
    return options.bias === false ? product : this.op('Add', product, this.constant(`${name}.bias`));
  }

  /** The rows of the token embedding, by ids. */
  embed(ids: string, table: string): string {
    const { graph } = this;
    const gather = (of: string): string => graph.node('Gather', [of, ids], { axis: 0 });
    if (this.dtype === 'fp32') return gather(this.constant(table));
    const [V, D] = this.matrix(table);
    const rows = graph.constant(`${table}.int8`, 'i8', [V, D], async () => quantise(await this.read(table), V, D));
    const scale = graph.node('Unsqueeze', [gather(this.scales(table)), graph.ints(-1)]);
    return this.op('Mul', graph.node('Cast', [gather(rows)], { to: 1 }), scale);
  }

  /** Logits of rows [B, T, D]: the tied output projection. In fp32 it reads the embedding itself, which is stored once. */
  logits(x: string, table: string): string {
    const { graph } = this;
    if (this.dtype === 'int8') return this.int8Product(x, table);
    const [V, D] = this.matrix(table);
    const product = graph.node('Gemm', [this.op('Reshape', x, graph.ints(-1, D)), this.constant(table)], { transB: 1 });
    const rows = graph.node('Slice', [this.op('Shape', x), graph.ints(0), graph.ints(2)]);
    return this.op('Reshape', product, graph.node('Concat', [rows, graph.ints(V)], { axis: 0 }));
  }

  /** In fp32 whatever the others are. */
  product(x: string, matrix: string): string {
    const [N, K] = this.matrix(matrix);
    const w = this.graph.constant(`${matrix}.T`, 'f32', [K, N], async () => transpose(await this.read(matrix), N, K));
    return this.op('MatMul', x, w);
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

  /** Norm, FFN and residual of a layer; with an expert each row runs the FFN that its gate chooses, and no other. */
  feedForward(x: string, layer: string, expert: ExpertLayerNames | null): string {
    const h = this.layerNorm(x, `${layer}.final_layer_norm`);
    if (!expert) return this.op('Add', x, this.ffn(h, `${layer}.fc1`, `${layer}.fc2`));
    const { graph } = this;
    const flat = graph.ints(-1, this.config.d_model);
    const [rows, residual] = [this.op('Reshape', h, flat), this.op('Reshape', x, flat)];
    const inner = this.op('Add', this.product(rows, expert.gateIn), this.constant(expert.gateInBias));
    const gate = this.product(this.op('Relu', inner), expert.gateOut);
    const open = this.op('Reshape', this.op('GreaterOrEqual', gate, graph.floats(0)), graph.ints(-1));
    const bare = (name: string): string => name.replace(/\.weight$/, '');
    let y = residual;
    for (const [taken, fc1, fc2] of [
      [open, bare(expert.fc1), bare(expert.fc2)],
      [this.op('Not', open), `${layer}.fc1`, `${layer}.fc2`],
    ] as const) {
      const which = graph.node('Transpose', [this.op('NonZero', taken)], { perm: [1, 0] });
      const own = (of: string): string => this.op('GatherND', of, which);
      y = this.op('ScatterND', y, which, this.op('Add', own(residual), this.ffn(own(rows), fc1, fc2)));
    }
    return this.op('Reshape', y, this.op('Shape', x));
  }

  private ffn(h: string, fc1: string, fc2: string): string {
    return this.linear(this.gelu(this.linear(h, fc1)), fc2);
  }

  /**
   * The pattern that onnxruntime's quantize_dynamic writes (per channel); the runtime makes one kernel of it. Weights are unsigned, around
   * 128: with signed ones it adds pairs of products in 16 bits on processors without VNNI, which overflow.
   */
  private int8Product(x: string, matrix: string): string {
    const { graph } = this;
    const [N, K] = this.matrix(matrix);
    // q, k and v read the same rows.
    const rows = this.quantised.get(x) ?? graph.call('DynamicQuantizeLinear', [x], 3);
    this.quantised.set(x, rows);
    const [q, scale, zero] = rows as [string, string, string];
    const w = graph.constant(`${matrix}.uint8.T`, 'u8', [K, N], async () =>
      transpose(unsigned(quantise(await this.read(matrix), N, K)), N, K),
    );
    const wZero = graph.constant(`${matrix}.zero`, 'u8', [N], () => unsigned(new Int8Array(N)));
    const sum = graph.node('Cast', [this.op('MatMulInteger', q, w, zero, wZero)], { to: 1 });
    return this.op('Mul', sum, this.op('Mul', scale, this.scales(matrix)));
  }

  private scales(matrix: string): string {
    const [N, K] = this.matrix(matrix);
    return this.graph.constant(`${matrix}.scale`, 'f32', [N], async () => rowScales(await this.read(matrix), N, K));
  }

  private matrix(name: string): [rows: number, columns: number] {
    return this.weights.shape(name) as [number, number];
  }

  private read(name: string): Promise<Float32Array> {
    if (this.last?.name !== name) this.last = { name, values: this.weights.values(name) };
    return this.last.values;
  }
}
