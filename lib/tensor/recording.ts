import { type NativeStream, typed } from '../native/index.js';

const forgotten = new FinalizationRegistry<{ native: NativeStream; id: number }>(({ native, id }) => native.forget(id));

/**
 * Calls that are queued again and again, on the same tensors: inputs are read and outputs written where they are. On a GPU that is
 * one launch of a CUDA graph, which the first replay captures. The tensors that the recording made live until `dispose()`.
 */
export class Recording<T> {
  constructor(
    private readonly native: NativeStream,
    private readonly id: number,
    /** What `body` returned. */
    readonly outputs: T,
  ) {
    forgotten.register(this, { native, id });
  }

  /** Queues the calls. Errors: ERR_DISPOSED; those of the calls come with the next read. */
  replay(): void {
    try {
      this.native.replay(this.id);
    } catch (error) {
      throw typed(error);
    }
  }

  /** Safe at any time: what is queued still runs. */
  dispose(): void {
    this.native.forget(this.id);
  }
}
