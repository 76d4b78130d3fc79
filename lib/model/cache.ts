import type { FloatType, Stream, Tensor } from '../tensor/index.js';
import type { WhisperConfig } from '../weights/index.js';

/** Where a token stands whose calls are recorded: read from `position` i32 [1] when they are replayed, `most` at most. */
export interface ReplayedPosition {
  position: Tensor;
  most: number;
}

/** Key/value caches of a batch that is decoded token by token. Lives until `dispose()`. */
export class DecoderState {
  private readonly keptRows: [k: Tensor, v: Tensor][] = [];
  private readonly memory: [k: Tensor, v: Tensor][] = [];
  private tokens = 0;

  constructor(
    private readonly stream: Stream,
    private readonly config: WhisperConfig,
    private readonly compute: FloatType,
    /** Whether keys and values of the cross-attention are kept in q8 [B, S, heads, D / heads] instead of `compute` [B, S, D]. */
    private readonly quantizes: boolean,
    readonly batch: number,
  ) {
    const cache = (): Tensor => stream.persistent(null, [batch, config.max_target_positions, config.d_model], compute);
    for (let i = 0; i < config.decoder_layers; i++) this.keptRows.push([cache(), cache()]);
  }

  /** Tokens decoded so far. */
  get length(): number {
    return this.tokens;
  }

  advance(tokens: number): void {
    this.tokens += tokens;
  }

  /** Keeps the cross-attention's keys and values [B, S, D] of the next layer; the tensors given are gone. */
  addCross(k: Tensor, v: Tensor): void {
    this.memory.push([this.kept(k), this.kept(v)]);
  }

  cross(layer: number): [k: Tensor, v: Tensor] {
    return this.memory[layer]!;
  }

  /** The caches of a layer's own keys and values [B, positions, D], whose first `length` rows are filled. */
  self(layer: number): [k: Tensor, v: Tensor] {
    return this.keptRows[layer]!;
  }

  private kept(rows: Tensor): Tensor {
    const { stream, config, compute } = this;
    const [B, S, D] = rows.shape as [number, number, number];
    const heads = config.decoder_attention_heads;
    let cache: Tensor;
    if (this.quantizes) {
      cache = stream.quantized(rows.reshape([B, S, heads, D / heads]));
    } else {
      cache = stream.persistent(null, [B, S, D], compute);
      stream.call('cache_write', [rows, cache], [0]);
    }
    rows.dispose();
    return cache;
  }

  dispose(): void {
    for (const [k, v] of [...this.keptRows, ...this.memory]) {
      k.dispose();
      v.dispose();
    }
  }
}
