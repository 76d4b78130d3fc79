import { type FloatType, kernels, type Stream, type Tensor } from '../tensor/index.js';
import type { WhisperConfig } from '../weights/index.js';

/** Where a token stands whose calls are recorded: read from `position` i32 [1] when they are replayed, `most` at most. */
export interface ReplayedPosition {
  position: Tensor;
  most: number;
}

/**
 * Key/value caches of a batch that is decoded token by token: of each of its rows the decoder's own, and of each item, which
 * `beams` rows behind one another hear, the encoder's. Lives until `dispose()`.
 */
export class DecoderState {
  private readonly keptRows: [k: Tensor, v: Tensor][] = [];
  private readonly memory: [k: Tensor, v: Tensor][] = [];
  private tokens = 0;
  /** Rows. */
  readonly batch: number;

  constructor(
    private readonly stream: Stream,
    private readonly config: WhisperConfig,
    private readonly compute: FloatType,
    items: number,
    readonly beams: number,
    /** Whether keys and values of the cross-attention are kept in q8 [items, S, heads, D / heads], not in `compute`. */
    private readonly quantizes: boolean,
    /** Name of the adapter that its tokens take; null: none. */
    readonly adapter: string | null,
  ) {
    this.batch = items * beams;
    const cache = (): Tensor =>
      stream.persistent(null, [this.batch, config.max_target_positions, config.d_model], compute);
    for (let i = 0; i < config.decoder_layers; i++) this.keptRows.push([cache(), cache()]);
  }

  /** Tokens decoded so far. */
  get length(): number {
    return this.tokens;
  }

  advance(tokens: number): void {
    this.tokens += tokens;
  }

  /** Row k of an item goes on from the tokens of its row parents[item, k]: parents i32 [items, beams]. */
  reorder(parents: Tensor): void {
    kernels.cacheReorder(this.stream, { parents, caches: this.keptRows.flat(), count: this.tokens });
  }

  /** Keeps the cross-attention's keys and values [items, S, D] of the next layer; the tensors given are gone. */
  addCross(k: Tensor, v: Tensor): void {
    this.memory.push([this.kept(k), this.kept(v)]);
  }

  /** The keys and values of the encoder's rows [items, rows, D]. */
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
      kernels.cacheWrite(stream, { x: rows, cache, offset: 0 });
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
