import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { BACKBONE_STREAM, EXPERT_STREAM } from '../random/index.js';
import {
  addPositions,
  attention,
  embedding,
  type FloatType,
  feedForward,
  layerNorm,
  linear,
  linearGelu,
  Parameter,
  type Pass,
  type Stream,
  type Tape,
  type Tensor,
  unfold,
} from '../tensor/index.js';
import {
  expertLayerNames,
  expertTensorNames,
  GATE_SIZE,
  type HostTensor,
  type ModelFolder,
  openExpert,
  openModelFolder,
  type Side,
  type StoredTensor,
  toFloat32,
  type WhisperConfig,
  whisperTensorShapes,
} from '../weights/index.js';
import { DecoderState, type ReplayedPosition } from './cache.js';
import { type AttentionBlock, decoderLayer, type Layer } from './decoder-layer.js';
import { LanguageExpert } from './experts.js';
import { type ExpertRows, gatedFfnHard, gatedFfnSoft, type SoftGates } from './gated-ffn.js';
import { inFull, loadParameter, type ParameterOptions, randomNormals, storedTensors } from './parameters.js';

/**
 * Type of products and of frozen matrices: f32, bf16, or int8, where the matrices that every token of a decoding reads are held
 * in int8 with a scale for each output, and all else is as in 'auto'. 'auto' is bf16 where the device has instructions for it,
 * else f32.
 */
export type ComputeType = 'auto' | FloatType | 'int8';

/**
 * How the keys and values of the cross-attention are kept while decoding: as the products are computed, or in int8 with a scale
 * for each head of a position, half of bf16's memory. 'auto' is int8 on the processor where products run in bf16, whose rounding
 * moves logits more than that of the cache, or where the decoder's matrices are in int8; else 'compute'.
 */
export type CacheType = 'auto' | 'compute' | 'int8';

export interface WhisperOptions {
  /** Default f32. */
  compute?: ComputeType;
  /** Default 'auto'. int8 runs on the processor. */
  cache?: CacheType;
  /** Which parameters of the backbone train, by name. Default: none. */
  trainable?: (name: string) => boolean;
  /**
   * From files: weights are read into memory of the model's own while it loads, instead of being the file's pages. It takes that
   * memory and time, and then nothing that becomes of the file reaches the model. Default false.
   */
  copyWeights?: boolean;
}

const OPTIONS: Record<keyof WhisperOptions, true> = {
  compute: true,
  cache: true,
  trainable: true,
  copyWeights: true,
};

const EMBEDDING = 'model.decoder.embed_tokens.weight';

function refuseOnGpu(stream: Stream, option: string, type: string): void {
  if (type !== 'int8' || stream.device === 'cpu') return;
  throw new DistilWhisperError(
    'ERR_ARGUMENT',
    `${option}: int8 runs on the processor, got a model on ${stream.device}`,
  );
}

/** One forward pass through a model. */
export interface ModelPass {
  /** null: inference. */
  tape?: Tape | null;
  /** Soft gates for training; without them gates are hard. */
  gates?: SoftGates;
  /** Language (lower-case name) of each item of the batch; null or absent: no expert. */
  languages?: readonly (string | null)[];
  /** Collects the gates g f32 [rows] of every gated layer, encoder first. */
  gateValues?: Tensor[];
  /** On a tape: keep each layer's inputs only, and run its forward again in the backward (Chen et al. 2016). */
  gradientCheckpointing?: boolean;
}

/**
 * Whisper (Radford et al. 2022) as Hugging Face lays it out, of any size, with any number of language experts. The layers'
 * maths is in `encode` and `decode`; kernels and derivatives are lib/tensor's.
 */
export class Whisper {
  readonly experts = new Map<string, LanguageExpert>();
  /** Where experts were loaded from, by their language. */
  private readonly expertFiles = new Map<string, string>();
  private readonly encoderLayers: Layer[];
  private readonly decoderLayers: Layer[];

  private constructor(
    readonly stream: Stream,
    readonly config: WhisperConfig,
    readonly compute: FloatType,
    /** The output projection in int8, where the decoder is; else the embedding table is read. */
    private readonly projection: Parameter | null,
    /** How caches are kept where `startDecoding` is not told. */
    readonly cache: Exclude<CacheType, 'auto'>,
    /** The backbone's parameters by Hugging Face name. */
    readonly parameters: ReadonlyMap<string, Parameter>,
    /** Where the weights came from, if from a folder. */
    readonly path: string | null,
  ) {
    this.encoderLayers = this.layers('encoder');
    this.decoderLayers = this.layers('decoder');
  }

  /** Loads a model folder, experts inside it included. Errors: those of `openModelFolder`. */
  static async load(stream: Stream, path: string, options: WhisperOptions = {}): Promise<Whisper> {
    const folder = await openModelFolder(path);
    try {
      return await Whisper.fromFolder(stream, folder, options);
    } finally {
      await folder.close();
    }
  }

  /**
   * From an open folder. On the processor frozen weights that are stored in the type that they are computed in are the file's own
   * pages: shared by every process that uses it, and in memory as they are touched (see `SafetensorsFile.stored` for what that
   * asks of the file). All others are converted, one at a time.
   */
  static async fromFolder(stream: Stream, folder: ModelFolder, options: WhisperOptions = {}): Promise<Whisper> {
    const { config } = folder;
    const { copyWeights } = options;
    const tensors = await storedTensors(folder.weights, copyWeights);
    const model = Whisper.fromTensors(stream, config, tensors, options, folder.path);
    for (const [language, source] of folder.experts) {
      const settings = model.parameterOptions(options.trainable);
      model.attach(LanguageExpert.load(stream, config, language, await storedTensors(source, copyWeights), settings));
    }
    await stream.sync();
    return model;
  }

  /** From tensors in memory or in open files, by Hugging Face name. Throws ERR_MODEL for a missing one. */
  static fromTensors(
    stream: Stream,
    config: WhisperConfig,
    tensors: ReadonlyMap<string, StoredTensor>,
    options: WhisperOptions = {},
    path: string | null = null,
  ): Whisper {
    checkOptions('Whisper', options, OPTIONS);
    if (config.scale_embedding) {
      throw new DistilWhisperError(
        'ERR_CONFIG',
        'scale_embedding: expected false (no published Whisper scales), got true',
      );
    }
    const wanted = options.compute ?? 'f32';
    const compute = wanted === 'f32' || wanted === 'bf16' ? wanted : stream.fastType;
    const quantizes = wanted === 'int8';
    const kept = options.cache ?? 'auto';
    refuseOnGpu(stream, 'compute', wanted);
    refuseOnGpu(stream, 'cache', kept);
    const narrow = stream.device === 'cpu' && (quantizes || compute === 'bf16');
    const cache = kept === 'auto' ? (narrow ? 'int8' : 'compute') : kept;
    if (quantizes && options.trainable) {
      throw new DistilWhisperError('ERR_ARGUMENT', 'compute: expected f32 or bf16 for a model that trains, got int8');
    }
    const parameters = new Map<string, Parameter>();
    for (const [name, shape] of whisperTensorShapes(config)) {
      const tensor = tensors.get(name);
      if (!tensor) throw new DistilWhisperError('ERR_MODEL', `the model lacks the tensor ${name}`);
      parameters.set(name, loadParameter(stream, name, tensor, shape, { ...options, compute, quantizes }));
    }
    const table = tensors.get(EMBEDDING)!;
    const projection = quantizes ? Parameter.quantized(stream, EMBEDDING, inFull(table), table.shape) : null;
    return new Whisper(stream, config, compute, projection, cache, parameters, path);
  }

  /**
   * A new model: matrices N(0, init_std²), biases 0, norms 1, encoder positions sinusoids (Hugging Face's initialisation).
   */
  static async create(
    stream: Stream,
    config: WhisperConfig,
    options: WhisperOptions & { seed?: number } = {},
  ): Promise<Whisper> {
    checkOptions('Whisper.create', options, { ...OPTIONS, seed: true });
    const { seed = 0, ...others } = options;
    const tensors = new Map<string, HostTensor>();
    let op = BACKBONE_STREAM;
    for (const [name, shape] of whisperTensorShapes(config)) {
      const size = shape.reduce((a, b) => a * b, 1);
      let values: Float32Array;
      if (name === 'model.encoder.embed_positions.weight') values = sinusoids(shape[0]!, shape[1]!);
      else if (name.endsWith('norm.weight')) values = new Float32Array(size).fill(1);
      else if (name.endsWith('.bias')) values = new Float32Array(size);
      else values = await randomNormals(stream, size, config.init_std, seed, op);
      op++;
      tensors.set(name, { dtype: 'f32', shape, data: new Uint8Array(values.buffer) });
    }
    return Whisper.fromTensors(stream, config, tensors, others);
  }

  /** Every parameter that trains, backbone first. */
  trainable(): Parameter[] {
    const all = [...this.parameters.values(), ...[...this.experts.values()].flatMap((e) => [...e.parameters.values()])];
    return all.filter((p) => p.trainable);
  }

  attach(expert: LanguageExpert): void {
    this.experts.get(expert.language)?.dispose();
    this.experts.set(expert.language, expert);
  }

  /**
   * Loads an expert file, as `fromFolder` does, and attaches it. Errors: those of `openExpert`; ERR_EXPERT when the language has
   * one already: which of them was meant is not guessed.
   */
  async loadExpert(
    path: string,
    options: { trainable?: boolean; copyWeights?: boolean } = {},
  ): Promise<LanguageExpert> {
    const file = await openExpert(path, this.config);
    try {
      if (this.experts.has(file.language)) {
        const other = this.expertFiles.get(file.language) ?? this.path ?? 'the model itself';
        throw new DistilWhisperError(
          'ERR_EXPERT',
          `${path}: expected one expert for ${file.language}, got another one beside that of ${other}`,
        );
      }
      if (options.trainable) this.requireTrainable();
      const tensors = await storedTensors(file.weights, options.copyWeights);
      const expert = LanguageExpert.load(this.stream, this.config, file.language, tensors, {
        ...this.parameterOptions(),
        trainable: () => options.trainable ?? false,
      });
      await this.stream.sync();
      this.attach(expert);
      this.expertFiles.set(expert.language, path);
      return expert;
    } finally {
      await file.close();
    }
  }

  /**
   * Attaches a new trainable expert: the FFNs are copies of the shared ones; W_in ~ N(0, 0.01²), b_in = 0, w_out = 0, or, in
   * the reference's way, W_in and w_out ~ N(0, 0.02²).
   */
  async addExpert(
    language: string,
    options: { seed?: number; compat?: 'paper' | 'reference' } = {},
  ): Promise<LanguageExpert> {
    this.requireTrainable();
    const reference = options.compat === 'reference';
    const seed = options.seed ?? 0;
    const shared = this.sharedWeights();
    const tensors = new Map<string, HostTensor>();
    let op = EXPERT_STREAM;
    const put = (name: string, shape: readonly number[], values: Float32Array): void => {
      tensors.set(name, {
        dtype: 'f32',
        shape,
        data: new Uint8Array(values.buffer, values.byteOffset, values.byteLength),
      });
    };
    const shapes = expertTensorNames(this.config, language);
    for (const side of ['encoder', 'decoder'] as const) {
      for (let i = 0; i < this.config[`${side}_layers`]; i++) {
        const names = expertLayerNames(side, i, language);
        const layer = `model.${side}.layers.${i}`;
        const D = this.config.d_model;
        const draw = (n: number): Promise<Float32Array> =>
          randomNormals(this.stream, n, reference ? 0.02 : 0.01, seed, op++);
        put(names.gateIn, [GATE_SIZE, D], await draw(GATE_SIZE * D));
        put(names.gateInBias, [GATE_SIZE], new Float32Array(GATE_SIZE));
        put(names.gateOut, [1, GATE_SIZE], reference ? await draw(GATE_SIZE) : new Float32Array(GATE_SIZE));
        for (const [to, from] of [
          [names.fc1, `${layer}.fc1.weight`],
          [names.fc1Bias, `${layer}.fc1.bias`],
          [names.fc2, `${layer}.fc2.weight`],
          [names.fc2Bias, `${layer}.fc2.bias`],
        ] as const) {
          put(to, shapes.get(to)!, await shared(from));
        }
      }
    }
    const expert = LanguageExpert.load(this.stream, this.config, language, tensors, {
      compute: this.compute,
      trainable: () => true,
    });
    this.attach(expert);
    return expert;
  }

  /** Backbone weights in full precision: from the model folder where the parameters here are rounded to bf16. */
  private sharedWeights(): (name: string) => Promise<Float32Array> {
    return async (name) => {
      const { value } = this.parameters.get(name)!;
      if (value.dtype === 'f32' || this.path === null) return (await value.floats()).slice();
      const folder = await openModelFolder(this.path);
      try {
        return toFloat32(await folder.weights.read(name));
      } finally {
        await folder.close();
      }
    };
  }

  dispose(): void {
    for (const parameter of this.parameters.values()) parameter.dispose();
    this.projection?.dispose();
    for (const expert of this.experts.values()) expert.dispose();
  }

  /** features f32 [B, mels, 2·T] → f32 [B, T, D]; T is max_source_positions. */
  encode(features: Tensor, options: ModelPass = {}): Tensor {
    const { config } = this;
    const expected = [features.shape[0]!, config.num_mel_bins, 2 * config.max_source_positions];
    if (features.shape.length !== 3 || features.shape.some((n, i) => n !== expected[i])) {
      throw new DistilWhisperError(
        'ERR_SHAPE',
        `features: expected [batch, ${config.num_mel_bins} mel bins, ${expected[2]} frames], got [${features.shape}]`,
      );
    }
    const pass = this.pass(options);
    const rows = this.ranges(options, features.shape[0]!, config.max_source_positions);
    return this.inference(pass, options, () => {
      const p = (name: string): Parameter => this.parameters.get(`model.encoder.${name}`)!;
      let x = linearGelu(pass, unfold(pass, features, 1, true), p('conv1.weight'), p('conv1.bias'));
      x = linearGelu(pass, unfold(pass, x, 2, false), p('conv2.weight'), p('conv2.bias'));
      x = addPositions(pass, x, p('embed_positions.weight'));
      for (const [i, layer] of this.encoderLayers.entries()) {
        const input = x;
        x = this.layer(pass, options, [input], (pass, options) => {
          const h = this.selfAttention(pass, input, layer.attention, config.encoder_attention_heads, false);
          return this.ffn(pass, options, h, layer, rows('encoder', i), i);
        });
      }
      return layerNorm(pass, x, p('layer_norm.weight'), p('layer_norm.bias'));
    });
  }

  /**
   * ids i32 [B, T], memory [B, S, D] → last hidden rows [B, T, D], before the tied output projection.
   * With a `state` the call goes on from its tokens and adds to its caches (inference only); with `at` too it is one to be
   * recorded, for one token, and who replays it advances the state.
   */
  decode(
    ids: Tensor,
    memory: Tensor | null,
    options: ModelPass & { state?: DecoderState; at?: ReplayedPosition } = {},
  ): Tensor {
    const { config } = this;
    const pass = this.pass(options);
    const state = options.state ?? null;
    const at = options.at ?? null;
    const offset = at?.most ?? state?.length ?? 0;
    const T = ids.shape[1]!;
    if (offset + T > config.max_target_positions) {
      throw new DistilWhisperError(
        'ERR_LABEL_TOO_LONG',
        `ids: the decoder has ${config.max_target_positions} positions, got ${offset + T} tokens`,
      );
    }
    const rows = this.ranges(options, ids.shape[0]!, T);
    const heads = config.decoder_attention_heads;
    const result = this.inference(pass, options, () => {
      const p = (name: string): Parameter => this.parameters.get(`model.decoder.${name}`)!;
      let x = embedding(
        pass,
        ids,
        p('embed_tokens.weight'),
        p('embed_positions.weight'),
        offset,
        config.pad_token_id,
        at?.position,
      );
      for (const [i, layer] of this.decoderLayers.entries()) {
        const input = x;
        x = this.layer(pass, options, memory ? [input, memory] : [input], (pass, options) => {
          if (state) {
            const [y, gate] = decoderLayer(pass, input, layer, rows('decoder', i), heads, state, i, at);
            if (rows('decoder', i).length > 0) options.gateValues?.push(gate);
            return y;
          }
          const h = this.selfAttention(pass, input, layer.attention, heads, true);
          const seen = this.crossAttention(pass, h, layer.cross!, heads, this.crossRows(pass, layer, memory!));
          return this.ffn(pass, options, seen, layer, rows('decoder', i), config.encoder_layers + i);
        });
      }
      return layerNorm(pass, x, p('layer_norm.weight'), p('layer_norm.bias'));
    });
    if (!at) state?.advance(T);
    return result;
  }

  /**
   * Caches for decoding `memory` [B, S, D] token by token, `beams` (default 1) sequences an item; its cross-attention keys and
   * values are computed here, once, and kept as `cache` says (default and 'auto': as the model was loaded). Errors: ERR_ARGUMENT for int8
   * on a GPU.
   */
  startDecoding(memory: Tensor, options: { beams?: number; cache?: CacheType } = {}): DecoderState {
    const { beams = 1 } = options;
    const cache = options.cache && options.cache !== 'auto' ? options.cache : this.cache;
    refuseOnGpu(this.stream, 'cache', cache);
    const pass = this.pass({});
    const state = new DecoderState(this.stream, this.config, this.compute, memory.shape[0]!, beams, cache === 'int8');
    for (const layer of this.decoderLayers) state.addCross(...this.crossRows(pass, layer, memory));
    return state;
  }

  /** Logits f32 [.., V] of last hidden rows: the tied output projection. */
  logits(hidden: Tensor): Tensor {
    return linear(this.pass({}), hidden, this.projection ?? this.embeddingTable, null, { out: 'f32' });
  }

  get embeddingTable(): Parameter {
    return this.parameters.get(EMBEDDING)!;
  }

  private pass(options: ModelPass): Pass {
    return { stream: this.stream, tape: options.tape ?? null, compute: this.compute };
  }

  /** In inference the temporaries of a block go when it ends; on a tape they are kept for the backward. */
  private inference(pass: Pass, options: ModelPass, body: () => Tensor): Tensor {
    if (pass.tape) return body();
    const before = options.gateValues?.length ?? 0;
    return pass.stream.tidy(() => [body(), ...(options.gateValues?.slice(before) ?? [])])[0]!;
  }

  /** One layer of `inputs`: freed behind it in inference, kept on a tape, or run again in the backward. */
  private layer(
    pass: Pass,
    options: ModelPass,
    inputs: readonly Tensor[],
    body: (pass: Pass, options: ModelPass) => Tensor,
  ): Tensor {
    if (!pass.tape || !options.gradientCheckpointing) return this.inference(pass, options, () => body(pass, options));
    const [y, ...gates] = pass.tape.checkpoint(inputs, (tape) => {
      const gateValues: Tensor[] = [];
      return [body({ ...pass, tape }, { ...options, tape, gateValues }), ...gateValues];
    });
    options.gateValues?.push(...gates);
    return y!;
  }

  private selfAttention(pass: Pass, x: Tensor, block: AttentionBlock, heads: number, causal: boolean): Tensor {
    const h = layerNorm(pass, x, block.norm.weight, block.norm.bias);
    const q = linear(pass, h, block.q.weight, block.q.bias);
    const k = linear(pass, h, block.k, null);
    const v = linear(pass, h, block.v.weight, block.v.bias);
    const o = attention(pass, q, k, v, { heads, causal });
    return linear(pass, o, block.out.weight, block.out.bias, { residual: x });
  }

  private crossRows(pass: Pass, layer: Layer, memory: Tensor): [k: Tensor, v: Tensor] {
    const { k, v } = layer.cross!;
    return [linear(pass, memory, k, null), linear(pass, memory, v.weight, v.bias)];
  }

  private crossAttention(
    pass: Pass,
    x: Tensor,
    block: AttentionBlock,
    heads: number,
    [k, v]: [Tensor, Tensor],
  ): Tensor {
    const h = layerNorm(pass, x, block.norm.weight, block.norm.bias);
    const q = linear(pass, h, block.q.weight, block.q.bias);
    const o = attention(pass, q, k, v, { heads });
    return linear(pass, o, block.out.weight, block.out.bias, { residual: x });
  }

  private ffn(
    pass: Pass,
    options: ModelPass,
    x: Tensor,
    layer: Layer,
    rows: readonly ExpertRows[],
    index: number,
  ): Tensor {
    const h = layerNorm(pass, x, layer.norm.weight, layer.norm.bias);
    if (rows.length === 0) return feedForward(pass, h, layer.fc1, layer.fc2, x);
    const [y, gate] = options.gates
      ? gatedFfnSoft(pass, h, layer, rows, x, index, options.gates)
      : gatedFfnHard(pass, h, layer, rows, x);
    options.gateValues?.push(gate);
    return y;
  }

  /** Rows of each run of items whose language has an expert; an item is `rowsPerItem` rows. */
  private ranges(options: ModelPass, batch: number, rowsPerItem: number): (side: Side, layer: number) => ExpertRows[] {
    const { languages } = options;
    if (!languages) return () => [];
    if (languages.length !== batch) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `languages: expected one for each of ${batch} items, got ${languages.length}`,
      );
    }
    const runs: { expert: LanguageExpert; begin: number; end: number }[] = [];
    for (const [item, language] of languages.entries()) {
      const expert = language === null ? undefined : this.experts.get(language);
      if (!expert) continue;
      const last = runs.at(-1);
      if (last?.expert === expert && last.end === item * rowsPerItem) last.end += rowsPerItem;
      else runs.push({ expert, begin: item * rowsPerItem, end: (item + 1) * rowsPerItem });
    }
    return (side, layer) => runs.map(({ expert, begin, end }) => ({ expert: expert[side][layer]!, begin, end }));
  }

  /** Throws ERR_ARGUMENT for a model in int8. */
  private requireTrainable(): void {
    if (this.projection) {
      throw new DistilWhisperError('ERR_ARGUMENT', 'model: expected one in f32 or bf16 to train, got one in int8');
    }
  }

  private parameterOptions(trainable?: (name: string) => boolean): ParameterOptions {
    return { compute: this.compute, quantizes: this.projection !== null, ...(trainable && { trainable }) };
  }

  private layers(side: Side): Layer[] {
    const of = (name: string): Parameter => this.parameters.get(name)!;
    const pair = (name: string): Layer['fc1'] => ({ weight: of(`${name}.weight`), bias: of(`${name}.bias`) });
    const block = (name: string): AttentionBlock => ({
      q: pair(`${name}.q_proj`),
      k: of(`${name}.k_proj.weight`),
      v: pair(`${name}.v_proj`),
      out: pair(`${name}.out_proj`),
      norm: pair(`${name}_layer_norm`),
    });
    return Array.from({ length: this.config[`${side}_layers`] }, (_, i) => {
      const name = `model.${side}.layers.${i}`;
      return {
        attention: block(`${name}.self_attn`),
        cross: side === 'decoder' ? block(`${name}.encoder_attn`) : null,
        norm: pair(`${name}.final_layer_norm`),
        fc1: pair(`${name}.fc1`),
        fc2: pair(`${name}.fc2`),
      };
    });
  }
}

/** Whisper's encoder positions: sines, then cosines, of position · 10000^(−i / (D/2 − 1)). */
function sinusoids(positions: number, width: number): Float32Array {
  const half = width / 2;
  const table = new Float32Array(positions * width);
  for (let t = 0; t < positions; t++) {
    for (let i = 0; i < half; i++) {
      const angle = t * Math.exp((-Math.log(10000) * i) / (half - 1));
      table[t * width + i] = Math.sin(angle);
      table[t * width + half + i] = Math.cos(angle);
    }
  }
  return table;
}
