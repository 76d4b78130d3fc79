import type { DecoderState, ReplayedPosition } from '../model/index.js';
import type { Recording, Stream, Tensor } from '../tensor/index.js';

/**
 * The calls of one token of every item, recorded once for each `graphSpan` positions of the caches and replayed for each token: on a GPU
 * one launch of a CUDA graph. What changes from token to token lies on the device: `fed` i32 [B + 1 + 4·B], the ids, their
 * position and, where there are rules, the ids that each item may go on by.
 */
export class ReplayedStep<T> {
  private readonly fed: Tensor;
  private recording: Recording<T> | null = null;
  /** Tokens that the state may have for the recording. */
  private most = -1;

  /**
   * `calls` gets ids i32 [B, 1] and, with `rules`, allowed i32 [B, 4]; what it returns is written anew by every run, and lives
   * until the next recording.
   */
  constructor(
    private readonly stream: Stream,
    private readonly state: DecoderState,
    private readonly positions: number,
    private readonly calls: (ids: Tensor, at: ReplayedPosition, allowed: Tensor | null) => T,
    private readonly rules = false,
  ) {
    const size = state.batch + 1 + (rules ? 4 * state.batch : 0);
    this.fed = stream.persistent(new Int32Array(size), [size], 'i32');
  }

  /** Queues the token `ids` of every item, behind those of the state; `allowed`, with rules: four bounds for each item. */
  run(ids: readonly number[], allowed: readonly number[] = []): T {
    const { stream, state, fed } = this;
    const { batch, length } = state;
    if (!this.recording || length > this.most) {
      this.recording?.dispose();
      const span = stream.graphSpan;
      this.most = Math.min(length - (length % span) + span, this.positions) - 1;
      const at = { position: fed.slice(batch, batch + 1), most: this.most };
      this.recording = stream.record(() =>
        this.calls(
          fed.slice(0, batch).reshape([batch, 1]),
          at,
          this.rules ? fed.slice(batch + 1, 5 * batch + 1).reshape([batch, 4]) : null,
        ),
      );
    }
    fed.write(Int32Array.of(...ids, length, ...allowed));
    this.recording.replay();
    state.advance(1);
    return this.recording.outputs;
  }

  dispose(): void {
    this.recording?.dispose();
    this.fed.dispose();
  }
}
