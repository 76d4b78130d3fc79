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
    config: WhisperConfig,
    compute: FloatType,
    readonly batch: number,
    sourceRows: number,
  ) {
    const cache = (rows: number): Tensor => stream.persistent(null, [batch, rows, config.d_model], compute);
    for (let i = 0; i < config.decoder_layers; i++) {
      this.keptRows.push([cache(config.max_target_positions), cache(config.max_target_positions)]);
      this.memory.push([cache(sourceRows), cache(sourceRows)]);
    }
  }

  /** Tokens decoded so far. */
  get length(): number {
    return this.tokens;
  }

  advance(tokens: number): void {
    this.tokens += tokens;
  }

  setCross(layer: number, k: Tensor, v: Tensor): void {
    const [keys, values] = this.memory[layer]!;
    this.stream.call('cache_write', [k, keys], [0]);
    this.stream.call('cache_write', [v, values], [0]);
  }

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
