import type { FloatType, Stream, Tensor } from '../tensor/index.js';
import type { WhisperConfig } from '../weights/index.js';

/** Key/value caches of a batch that is decoded token by token. Lives until `dispose()`. */
export class DecoderState {
  private readonly self: [k: Tensor, v: Tensor][] = [];
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
      this.self.push([cache(config.max_target_positions), cache(config.max_target_positions)]);
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

  /** Writes the new rows k, v [B, T, D] behind those of earlier tokens and returns the caches. */
  extend(layer: number, k: Tensor, v: Tensor): [k: Tensor, v: Tensor] {
    const [keys, values] = this.self[layer]!;
    this.stream.call('cache_write', [k, keys], [this.tokens]);
    this.stream.call('cache_write', [v, values], [this.tokens]);
    return [keys, values];
  }

  dispose(): void {
    for (const [k, v] of [...this.self, ...this.memory]) {
      k.dispose();
      v.dispose();
    }
  }
}
