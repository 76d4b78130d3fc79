/** Loads the next batches while the current one is computed on. */
import { checkOptions, DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { onLane } from '../trace/index.js';
import { Prefetcher } from './prefetcher.js';
import type { Batch } from './sampler.js';

export interface PrefetchLoaderOptions<Example, Item, Output> {
  examples: readonly Example[];
  /** Which examples form which batch, in order: for instance `sampler.iterate({ epoch, position })`, to start anywhere. */
  batches: Iterable<Batch>;
  /**
   * Makes an example ready (decode, features, labels), the `at`-th of its batch. Should stop early when the signal is aborted.
   */
  load(example: Example, signal: AbortSignal, place: { batch: Batch; at: number }): Item | Promise<Item>;
  /** Puts the items of a batch together, in the order of its indices. */
  collate(items: Item[], batch: Batch): Output | Promise<Output>;
  /** Batches that are loaded or being loaded ahead of the consumer; 4 by default. */
  lookAhead?: number | undefined;
  /** Examples that are loaded at once; 4 by default. */
  concurrency?: number | undefined;
  /** Names an example in errors; by default its id, manifest and line. */
  describe?(example: Example): string;
  /** Called once when the loader ends, fails or is closed: for instance to close a DecodePool that belongs to it alone. */
  onClose?(): void | Promise<void>;
}

const OPTIONS: Record<keyof PrefetchLoaderOptions<unknown, unknown, unknown>, true> = {
  examples: true,
  batches: true,
  load: true,
  collate: true,
  lookAhead: true,
  concurrency: true,
  describe: true,
  onClose: true,
};

export interface LoadedBatch<Output> extends Batch {
  data: Output;
}

class Cancelled extends Error {}

/**
 * An async iterator over batches, with bounded look-ahead. Batches come in order. An example that fails to load ends the iteration
 * with its error, which names the example, at the place of its batch: the batches before it are delivered, and which error is
 * thrown does not depend on timing. Leaving a `for await` loop early, or `close()`, stops all loading, waits for what is under
 * way and calls `onClose`.
 */
export class PrefetchLoader<Example, Item, Output> extends Prefetcher<LoadedBatch<Output>> {
  constructor(options: PrefetchLoaderOptions<Example, Item, Output>) {
    checkOptions('PrefetchLoader', options, OPTIONS);
    const { lookAhead = 4, concurrency = 4 } = options;
    for (const [name, value] of Object.entries({ lookAhead, concurrency }))
      if (!Number.isInteger(value) || value < 1)
        throw new DistilWhisperError(
          'ERR_ARGUMENT',
          `PrefetchLoader: ${name} must be a whole number from 1, got ${value}`,
        );
    super(new BatchLoads(options, concurrency), { lookAhead, wait: 'next batch' });
  }
}

/** Begins the load of a batch each time that the next one is asked for. */
class BatchLoads<Example, Item, Output> implements AsyncIterator<LoadedBatch<Output>, undefined, undefined> {
  readonly #options: PrefetchLoaderOptions<Example, Item, Output>;
  readonly #concurrency: number;
  readonly #batches: Iterator<Batch>;
  readonly #abort = new AbortController();
  readonly #waiting: { start(): void; cancel(): void }[] = [];
  readonly #running = new Set<Promise<unknown>>();
  #exhausted = false;
  #failed = false;

  constructor(options: PrefetchLoaderOptions<Example, Item, Output>, concurrency: number) {
    this.#options = options;
    this.#concurrency = concurrency;
    this.#batches = options.batches[Symbol.iterator]();
  }

  async next(): Promise<IteratorResult<LoadedBatch<Output>, undefined>> {
    if (this.#exhausted || this.#failed) return { done: true, value: undefined };
    const { done, value } = this.#batches.next();
    if (!done) return { done: false, value: await this.#batch(value) };
    this.#exhausted = true;
    return { done: true, value: undefined };
  }

  async return(): Promise<IteratorResult<LoadedBatch<Output>, undefined>> {
    this.#abort.abort();
    for (const task of this.#waiting.splice(0)) task.cancel();
    try {
      if (!this.#exhausted) this.#batches.return?.();
      await this.#options.onClose?.();
    } finally {
      await Promise.allSettled(this.#running);
    }
    return { done: true, value: undefined };
  }

  async #batch(batch: Batch): Promise<LoadedBatch<Output>> {
    const { examples, collate } = this.#options;
    const results = await Promise.allSettled(
      Array.from(batch.indices, (index, at) => {
        const example = examples[index];
        if (example !== undefined) return this.#limited(() => this.#load(example, { batch, at }));
        this.#failed = true;
        throw new DistilWhisperError(
          'ERR_ARGUMENT',
          `PrefetchLoader: example ${index} of ${examples.length} was asked for`,
        );
      }),
    );
    const items = results.map((result) => {
      if (result.status === 'rejected') throw result.reason;
      return result.value;
    });
    if (this.#abort.signal.aborted) throw new Cancelled();
    return { ...batch, data: await collate(items, batch) };
  }

  async #load(example: Example, place: { batch: Batch; at: number }): Promise<Item> {
    try {
      const load = async (): Promise<Item> => this.#options.load(example, this.#abort.signal, place);
      return await onLane('loader', 'load', load, () => ({ example: this.#describe(example) }));
    } catch (error) {
      // Tasks start in order, so everything that belongs before this one is under way already: nothing new needs to start.
      this.#failed = true;
      for (const task of this.#waiting.splice(0)) task.cancel();
      const message = `${this.#describe(example)}: ${error instanceof Error ? error.message : String(error)}`;
      throw isDistilWhisperError(error)
        ? new DistilWhisperError(error.code, message, { cause: error })
        : new Error(message, { cause: error });
    }
  }

  #describe(example: Example): string {
    return (this.#options.describe ?? describe)(example);
  }

  /** Runs a task when fewer than `concurrency` are running, in the order of the calls. */
  #limited<T>(task: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const start = () => {
        const run = task();
        this.#running.add(run);
        const end = () => {
          this.#running.delete(run);
          this.#waiting.shift()?.start();
        };
        run.then(resolve, reject);
        run.then(end, end);
      };
      const cancel = () => reject(new Cancelled());
      if (this.#failed || this.#abort.signal.aborted) cancel();
      else if (this.#running.size < this.#concurrency) start();
      else this.#waiting.push({ start, cancel });
    });
  }
}

function describe(example: unknown): string {
  const { id, manifest, line } = (typeof example === 'object' && example !== null ? example : {}) as Record<
    string,
    unknown
  >;
  const place = manifest === undefined ? '' : ` (${manifest} line ${line})`;
  return id === undefined ? `example${place}` : `example ${id}${place}`;
}
