import type { FloatType, Stream, Tensor } from '../tensor/index.js';
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
    config: WhisperConfig,
    compute: FloatType,
    items: number,
    sourceRows: number,
    readonly beams = 1,
  ) {
    this.batch = items * beams;
    const pair = (items: number, rows: number): [k: Tensor, v: Tensor] => {
      const cache = (): Tensor => stream.persistent(null, [items, rows, config.d_model], compute);
      return [cache(), cache()];
    };
    for (let i = 0; i < config.decoder_layers; i++) {
      this.keptRows.push(pair(this.batch, config.max_target_positions));
      this.memory.push(pair(items, sourceRows));
    }
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
    this.stream.call('cache_reorder', [parents, ...this.keptRows.flat()], [this.tokens]);
  }

  setCross(layer: number, k: Tensor, v: Tensor): void {
    const [keys, values] = this.memory[layer]!;
    this.stream.call('cache_write', [k, keys], [0]);
    this.stream.call('cache_write', [v, values], [0]);
  }

  /** The keys and values of the encoder's rows [items, rows, D]. */
  cross(layer: number): [k: Tensor, v: Tensor] {
    return this.memory[layer]!;
  }

  /** The caches of a layer's own keys and values [B, positions, D], whose first `length` rows are filled. */
  self(layer: number): [k: Tensor, v: Tensor] {
    return this.keptRows[layer]!;
  }

  dispose(): void {
    for (const [k, v] of [...this.keptRows, ...this.memory]) {
      k.dispose();
      v.dispose();
    }
  }
}
