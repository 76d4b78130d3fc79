import { basename } from 'node:path';
import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { type HubOptions, resolveAdapter, resolveExperts } from '../hub/index.js';
import {
  addPositions,
  elementType,
  embedding,
  type FloatName,
  type FloatType,
  layerNorm,
  Parameter,
  type Stream,
  type Tape,
  type Tensor,
  unfold,
} from '../tensor/index.js';
import {
  type AdapterFolder,
  type LoraConfig,
  type ModelFolder,
  openAdapter,
  openExpert,
  openModelFolder,
  type StoredTensor,
  toFloat32,
  type WhisperConfig,
  whisperTensorShapes,
} from '../weights/index.js';
import { Adapters, LoraAdapter, loraDefaults, mergedWeights } from './adapters.js';
import { crossRows, type Decoder, decoderLayer, type Encoder, encoderLayer, linearsOf, sidesOf } from './blocks.js';
import { DecoderState, type ReplayedPosition } from './cache.js';
import {
  inFull,
  loadParameter,
  newExpertTensors,
  newModelTensors,
  type ParameterOptions,
  storedTensors,
} from './create.js';
import { cachedDecoderLayer } from './decoder-layer.js';
import { expertRows, LanguageExpert } from './experts.js';
import { type AdaptedPass, Linear } from './linear.js';
import { type CacheType, OPTIONS, refuseOnGpu, typesOn, type WhisperOptions } from './options.js';
import { EMBEDDING } from './output-table.js';
import { type Forward, ForwardPass, type ModelPass } from './pass.js';

/**
 * Whisper (Radford et al. 2022) as Hugging Face lays it out, of any size, with any number of language experts. What it
 * computes is in `encode` and `decode`, of layers in blocks.ts; kernels and derivatives are lib/tensor's.
 */
export class Whisper {
  readonly experts = new Map<string, LanguageExpert>();
  /** Where experts were loaded from, by their language. */
  private readonly expertFiles = new Map<string, string>();
  /** LoRA adapters, kept apart from the weights. */
  readonly adapters: Adapters;
  /** Its parameters as they are run, layer by layer. */
  readonly encoder: Encoder;
  readonly decoder: Decoder;
  /** From last hidden rows to logits: the tied output projection. */
  private readonly head: Linear<null>;

  private constructor(
    readonly stream: Stream,
    readonly config: WhisperConfig,
    /** The type of its products. */
    readonly compute: FloatName,
    /** The output projection in int8, where the decoder is; else the embedding table is read. */
    private readonly projection: Parameter | null,
    /** How caches are kept where `startDecoding` is not told. */
    readonly cache: Exclude<CacheType, 'auto'>,
    /** The backbone's parameters by Hugging Face name. */
    readonly parameters: ReadonlyMap<string, Parameter>,
    /** Where the weights came from, if from a folder. */
    readonly path: string | null,
    /** Whether they are not the folder's any more. */
    private readonly merged: boolean,
  ) {
    ({ encoder: this.encoder, decoder: this.decoder } = sidesOf(config, parameters));
    this.head = new Linear(projection ?? this.embeddingTable, null);
    this.adapters = new Adapters(config, linearsOf(this));
  }

  /** Loads a model folder by its path or a name, experts inside it included. Errors: those of `openModelFolder`. */
  static async load(
    stream: Stream,
    name: string,
    { hub, ...options }: WhisperOptions & { hub?: HubOptions | undefined } = {},
  ): Promise<Whisper> {
    const folder = await openModelFolder(name, hub);
    try {
      return await Whisper.fromFolder(stream, folder, options);
    } finally {
      await folder.close();
    }
  }

  /**
   * From an open folder. On the processor frozen weights that are stored in the type that they are computed in are the file's own
   * pages: shared by every process that uses it, and in memory as they are touched (see `SafetensorsFile.stored` for what that
   * asks of the file). All others are converted, one at a time. `adapter`: merged into the weights.
   */
  static async fromFolder(
    stream: Stream,
    folder: ModelFolder,
    { adapter, ...options }: WhisperOptions & { adapter?: AdapterFolder | undefined } = {},
  ): Promise<Whisper> {
    const { config } = folder;
    const { copyWeights } = options;
    const tensors = await storedTensors(folder.weights, copyWeights);
    if (adapter)
      for (const [name, tensor] of await mergedWeights(stream, folder.weights, adapter)) tensors.set(name, tensor);
    const model = Whisper.fromTensors(stream, config, tensors, options, folder.path, adapter !== undefined);
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
    merged = false,
  ): Whisper {
    checkOptions('Whisper', options, OPTIONS);
    if (config.scale_embedding) {
      throw new DistilWhisperError(
        'ERR_CONFIG',
        'scale_embedding: expected false (no published Whisper scales), got true',
      );
    }
    const { compute, quantizes, cache } = typesOn(stream, options);
    const parameters = new Map<string, Parameter>();
    for (const [name, shape] of whisperTensorShapes(config)) {
      const tensor = tensors.get(name);
      if (!tensor) throw new DistilWhisperError('ERR_MODEL', `the model lacks the tensor ${name}`);
      parameters.set(name, loadParameter(stream, name, tensor, shape, { ...options, compute, quantizes }));
    }
    const table = tensors.get(EMBEDDING)!;
    const projection = quantizes ? Parameter.quantized(stream, EMBEDDING, inFull(table), table.shape) : null;
    return new Whisper(stream, config, compute, projection, cache, parameters, path, merged);
  }

  /**
   * A new model: matrices N(0, init_std²), biases 0, norms 1, encoder positions sinusoids (Hugging Face's initialisation).
   */
  static async create(
    stream: Stream,
    config: WhisperConfig,
    options: WhisperOptions & { seed?: number | undefined } = {},
  ): Promise<Whisper> {
    checkOptions('Whisper.create', options, { ...OPTIONS, seed: true });
    const { seed = 0, ...others } = options;
    return Whisper.fromTensors(stream, config, await newModelTensors(stream, config, seed), others);
  }

  /** Every parameter that trains, backbone first. */
  trainable(): Parameter[] {
    const added = [...this.experts.values(), ...this.adapters.values()];
    const all = [this, ...added].flatMap(({ parameters }) => [...parameters.values()]);
    return all.filter((p) => p.trainable);
  }

  attach(expert: LanguageExpert): void {
    this.experts.get(expert.language)?.dispose();
    this.experts.set(expert.language, expert);
  }

  /**
   * Loads the experts that a name stands for (`resolveExperts`: a file, a folder, a repository of the hub) and attaches them.
   * Errors: those of `resolveExperts` and `loadExpert`.
   */
  async loadExperts(
    name: string,
    { hub, ...options }: { trainable?: boolean; copyWeights?: boolean; hub?: HubOptions | undefined } = {},
  ): Promise<LanguageExpert[]> {
    const experts: LanguageExpert[] = [];
    for (const path of await resolveExperts(name, hub)) experts.push(await this.loadExpert(path, options));
    return experts;
  }

  /**
   * Loads an expert file, as `fromFolder` does, and attaches it. Errors: those of `openExpert`; ERR_EXPERT when the language has
   * one already: which of them was meant is not guessed.
   */
  async loadExpert(
    path: string,
    options: { trainable?: boolean | undefined; copyWeights?: boolean | undefined } = {},
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
    options: { seed?: number | undefined; compat?: 'paper' | 'reference' | undefined } = {},
  ): Promise<LanguageExpert> {
    this.requireTrainable();
    const { stream, config } = this;
    const tensors = await newExpertTensors(stream, config, language, (name) => this.sharedWeights(name), options);
    const expert = LanguageExpert.load(stream, config, language, tensors, {
      compute: this.compute,
      trainable: () => true,
    });
    this.attach(expert);
    return expert;
  }

  /**
   * A new LoRA adapter that trains, and is what passes take from here on. Default: the paper's, `loraDefaults`. Errors: ERR_ARGUMENT
   * (targets that are no linear layers, a model in int8).
   */
  async addAdapter(
    name: string,
    options: Partial<LoraConfig> & { seed?: number | undefined } = {},
  ): Promise<LoraAdapter> {
    this.requireTrainable();
    const { seed = 0, ...config } = options;
    const adapter = await LoraAdapter.create(this.stream, this.config, name, { ...loraDefaults, ...config }, seed);
    this.adapters.attach(adapter);
    this.adapters.use(name);
    return adapter;
  }

  /**
   * Loads a LoRA adapter's folder as PEFT writes it, by its path or a name of the hub, and keeps it apart from the weights under
   * `name`: passes take it where they say so, or from `adapters.use` on. Errors: those of `resolveAdapter` and `openAdapter`.
   */
  async loadAdapter(
    folder: string,
    { name = basename(folder), trainable = false, hub }: { name?: string; trainable?: boolean; hub?: HubOptions } = {},
  ): Promise<LoraAdapter> {
    if (trainable) this.requireTrainable();
    const source = await openAdapter(await resolveAdapter(folder, hub), this.config);
    try {
      const adapter = await LoraAdapter.load(this.stream, name, source, {
        compute: this.compute,
        trainable: () => trainable,
      });
      await this.stream.sync();
      this.adapters.attach(adapter);
      return adapter;
    } finally {
      await source.close();
    }
  }

  /** Backbone weights in full precision: from the model folder where the parameters here are rounded to bf16. */
  private async sharedWeights(name: string): Promise<Float32Array> {
    const { value } = this.parameters.get(name)!;
    if (this.stream.plans) return new Float32Array(value.size);
    if (value.dtype === 'f32' || this.path === null || this.merged) return (await value.floats()).slice();
    const folder = await openModelFolder(this.path);
    try {
      return toFloat32(await folder.weights.read(name));
    } finally {
      await folder.close();
    }
  }

  dispose(): void {
    for (const parameter of this.parameters.values()) parameter.dispose();
    this.projection?.dispose();
    for (const expert of this.experts.values()) expert.dispose();
    this.adapters.dispose();
  }

  /** features f32 [B, mels, 2·T] → hidden f32 [B, T, D]; T is max_source_positions. */
  encode(features: Tensor, options: ModelPass = {}): Forward {
    const { config, encoder } = this;
    this.checkFeatures(features);
    const heads = config.encoder_attention_heads;
    const rows = expertRows(this.experts, options.languages, features.shape[0]!, config.max_source_positions);
    const forward = this.forward(options);
    return forward.run((pass) => {
      let x = encoder.conv1.forwardGelu(pass, unfold(pass, features, 1, true));
      x = encoder.conv2.forwardGelu(pass, unfold(pass, x, 2, false));
      x = addPositions(pass, x, encoder.positions);
      for (const [i, layer] of encoder.layers.entries()) {
        x = forward.layer([x], (pass, x) => encoderLayer(pass, x, layer, heads, rows('encoder', i), i));
      }
      return layerNorm(pass, x, encoder.norm.weight, encoder.norm.bias);
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
    options: ModelPass & { state?: DecoderState | undefined; at?: ReplayedPosition | undefined } = {},
  ): Forward {
    const { config, decoder } = this;
    const { state = null, at = null } = options;
    const [B, T] = ids.shape as [number, number];
    const offset = at?.most ?? state?.length ?? 0;
    this.checkTokens(offset + T);
    const heads = config.decoder_attention_heads;
    const rows = expertRows(this.experts, options.languages, B, T);
    const forward = this.forward(state ? { ...options, adapter: state.adapter } : options);
    const result = forward.run((pass) => {
      let x = embedding(pass, ids, decoder.tokens, decoder.positions, offset, config.pad_token_id, at?.position);
      for (const [i, layer] of decoder.layers.entries()) {
        const own = rows('decoder', i);
        x = state
          ? forward.layer([x], (pass, x) => cachedDecoderLayer(pass, x, layer, own, heads, { state, index: i, at }))
          : forward.layer([x, memory!], (pass, x, memory) =>
              decoderLayer(pass, x, memory, layer, heads, own, config.encoder_layers + i),
            );
      }
      return layerNorm(pass, x, decoder.norm.weight, decoder.norm.bias);
    });
    if (!at) state?.advance(T);
    return result;
  }

  /**
   * Caches for decoding `memory` [B, S, D] token by token, `beams` (default 1) sequences an item; its cross-attention keys and
   * values are computed here, once, and kept as `cache` says (default and 'auto': as the model was loaded). Its tokens take
   * `adapter` (default: the active one; null: none). Errors: ERR_ARGUMENT for int8 on a GPU, and an adapter that the model has not.
   */
  startDecoding(
    memory: Tensor,
    options: { beams?: number | undefined; cache?: CacheType | undefined; adapter?: string | null | undefined } = {},
  ): DecoderState {
    const { beams = 1 } = options;
    const cache = options.cache && options.cache !== 'auto' ? options.cache : this.cache;
    refuseOnGpu(this.stream, 'cache', cache);
    const pass = this.inference(options.adapter);
    const { stream, config, products } = this;
    const adapter = pass.adapter?.name ?? null;
    const state = new DecoderState(stream, config, products, memory.shape[0]!, beams, cache === 'int8', adapter);
    for (const layer of this.decoder.layers) state.addCross(...crossRows(pass, layer.cross, memory));
    return state;
  }

  /**
   * Logits f32 [.., V] of last hidden rows [.., D]: the tied output projection. On a `tape` a gradient of theirs that is set there goes on to the
   * rows, and to the embedding table where it trains.
   */
  logits(hidden: Tensor, { tape = null }: { tape?: Tape | null | undefined } = {}): Tensor {
    return this.head.forward({ ...this.inference(null), tape }, hidden, { out: 'f32' });
  }

  get embeddingTable(): Parameter {
    return this.parameters.get(EMBEDDING)!;
  }

  private inference(adapter: string | null | undefined): AdaptedPass {
    return { stream: this.stream, tape: null, compute: this.products, adapter: this.adapters.of(adapter) };
  }

  private forward(options: ModelPass): ForwardPass {
    const adapter = this.adapters.of(options.adapter, options.adapterDropout ?? null);
    return new ForwardPass(this.stream, this.products, adapter, options);
  }

  private get products(): FloatType {
    return elementType(this.compute);
  }

  /** Throws ERR_SHAPE. */
  private checkFeatures({ shape }: Tensor): void {
    const { num_mel_bins, max_source_positions } = this.config;
    const expected = [shape[0]!, num_mel_bins, 2 * max_source_positions];
    if (shape.length === 3 && shape.every((n, i) => n === expected[i])) return;
    throw new DistilWhisperError(
      'ERR_SHAPE',
      `features: expected [batch, ${num_mel_bins} mel bins, ${expected[2]} frames], got [${shape}]`,
    );
  }

  /** Throws ERR_LABEL_TOO_LONG for more tokens than the decoder has positions. */
  private checkTokens(tokens: number): void {
    const { max_target_positions } = this.config;
    if (tokens <= max_target_positions) return;
    throw new DistilWhisperError(
      'ERR_LABEL_TOO_LONG',
      `ids: the decoder has ${max_target_positions} positions, got ${tokens} tokens`,
    );
  }

  /** Throws ERR_ARGUMENT for a model in int8. */
  private requireTrainable(): void {
    if (this.projection) {
      throw new DistilWhisperError('ERR_ARGUMENT', 'model: expected one in fp32 or bf16 to train, got one in int8');
    }
  }

  private parameterOptions(trainable?: (name: string) => boolean): ParameterOptions {
    return { compute: this.compute, quantizes: this.projection !== null, trainable };
  }
}
