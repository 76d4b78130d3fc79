/** The windows of many sources in batches, made ahead of who decodes them. */
import { Prefetcher } from '../data/index.js';
import { throwIfAborted } from '../decode/index.js';
import { type DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { type AudioSource, HeardSource, type HeardWindow, type Hearing, type SourceOptions } from './sources.js';

export interface WindowBatchOptions extends SourceOptions {
  /** Windows of a batch. */
  batchSize: number;
  /** Takes what a source is refused for, and the others go on. Without it that is thrown. */
  onError?: ((source: number, error: DistilWhisperError) => unknown) | undefined;
}

/**
 * The windows of the sources in their order, each begun where the one before it ends, in batches of one size; the last may be
 * smaller. A batch is made while its consumer is busy with the one before. Errors: those of `HeardSource`, ERR_INTERRUPTED.
 */
export function windowBatches(
  sources: readonly AudioSource[],
  hearing: Hearing,
  options: WindowBatchOptions,
): Prefetcher<HeardWindow[]> {
  const batches = batched(windowsInOrder(sources, hearing, options), options.batchSize);
  return new Prefetcher(batches, { lookAhead: 1, wait: 'next windows' });
}

async function* batched<T>(items: AsyncIterable<T>, size: number): AsyncGenerator<T[], void, undefined> {
  let batch: T[] = [];
  for await (const item of items) {
    batch.push(item);
    if (batch.length < size) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}

/** Files are opened a few ahead; of what they hold a bounded part is decoded ahead. */
async function* windowsInOrder(
  sources: readonly AudioSource[],
  hearing: Hearing,
  { signal, onError, strict, maxDuration }: WindowBatchOptions,
): AsyncGenerator<HeardWindow, void, undefined> {
  throwIfAborted(signal);
  const opened = new Prefetcher(new Openings(sources, hearing, { signal, strict, maxDuration }), {
    lookAhead: hearing.pool.size,
    discard: ({ audio }) => audio?.close().catch(() => {}),
  });
  for await (const { source, audio, error } of opened) {
    try {
      throwIfAborted(signal);
      if (!audio) throw error;
      for (let position = 0, last = false; !last; ) {
        const window = await audio.window(position);
        throwIfAborted(signal);
        [position, last] = [window.end, window.whole !== null];
        yield window;
      }
    } catch (error) {
      throwIfAborted(signal);
      if (!onError || !isDistilWhisperError(error)) throw error;
      await onError(source, error);
    } finally {
      await audio?.close().catch(() => {});
    }
  }
}

/** A source that was opened, or why it could not be. */
interface Opening {
  source: number;
  audio: HeardSource | null;
  error: unknown;
}

/** Begins to open a source each time that the next one is asked for. */
class Openings implements AsyncIterator<Opening, undefined, undefined> {
  private readonly abort = new AbortController();
  private readonly ended = (): void => this.abort.abort();
  private begun = 0;

  constructor(
    private readonly sources: readonly AudioSource[],
    private readonly hearing: Hearing,
    private readonly options: SourceOptions,
  ) {
    options.signal?.addEventListener('abort', this.ended, { once: true });
  }

  async next(): Promise<IteratorResult<Opening, undefined>> {
    const { sources, hearing, options } = this;
    if (this.begun === sources.length) return { done: true, value: undefined };
    const source = this.begun++;
    try {
      const audio = await HeardSource.open(sources[source]!, source, hearing, {
        ...options,
        signal: this.abort.signal,
      });
      return { done: false, value: { source, audio, error: null } };
    } catch (error) {
      return { done: false, value: { source, audio: null, error } };
    }
  }

  /** What waits to be opened waits no longer. */
  async return(): Promise<IteratorResult<Opening, undefined>> {
    this.options.signal?.removeEventListener('abort', this.ended);
    this.abort.abort();
    return { done: true, value: undefined };
  }
}
