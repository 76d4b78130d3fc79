import { onLane } from '../trace/index.js';

export interface PrefetcherOptions<Item> {
  /** Items that are being made, or lie ready, ahead of who takes them: a whole number from 1. */
  lookAhead: number;
  /** What a profile calls the wait for an item. Default: it is not drawn. */
  wait?: string | undefined;
  /** Lets go of an item that was made and that nobody took. */
  discard?: ((item: Item) => unknown) | undefined;
}

/**
 * Takes the items of a source ahead of who needs them, a bounded number, and gives them in order. The source's `next()` is
 * called again before what it promised is there: a source may make several items at once, or, as an async generator does, one
 * behind the other. An error comes at its item's turn, behind the items before it, and ends the iteration. At the end, behind an
 * error, on `close()` and where a `for await` loop is left, the source's `return()` is called, which should stop what is under
 * way; that is then waited for.
 */
export class Prefetcher<Item> implements AsyncIterableIterator<Item> {
  readonly #source: AsyncIterator<Item, unknown, undefined>;
  readonly #options: PrefetcherOptions<Item>;
  readonly #ahead: Promise<IteratorResult<Item, unknown>>[] = [];
  #turn: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;

  constructor(source: AsyncIterator<Item, unknown, undefined>, options: PrefetcherOptions<Item>) {
    this.#source = source;
    this.#options = options;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** The next item. @throws what the source threw in its place; the prefetcher is closed then */
  next(): Promise<IteratorResult<Item, undefined>> {
    const { wait } = this.#options;
    const take = () => this.#take();
    const result = this.#turn.then(() => (wait === undefined ? take() : onLane('waiting for data', wait, take)));
    const over = (): void => {};
    this.#turn = result.then(over, over);
    return result;
  }

  async return(): Promise<IteratorResult<Item, undefined>> {
    await this.close();
    return { done: true, value: undefined };
  }

  /** Ends the source and waits for what is under way. A waiting `next()` ends the iteration. Can be called again. */
  close(): Promise<void> {
    this.#closing ??= this.#shut();
    return this.#closing;
  }

  async #shut(): Promise<void> {
    try {
      await this.#source.return?.();
    } finally {
      const { discard } = this.#options;
      for (const made of await Promise.allSettled(this.#ahead.splice(0)))
        if (discard && made.status === 'fulfilled' && !made.value.done) await discard(made.value.value);
    }
  }

  async #take(): Promise<IteratorResult<Item, undefined>> {
    const end = { done: true, value: undefined } as const;
    if (this.#closing) return end;
    try {
      this.#fill();
      const made = await this.#ahead[0]!;
      if (this.#closing) return end;
      if (made.done) {
        await this.close();
        return end;
      }
      this.#ahead.shift();
      this.#fill();
      return made;
    } catch (error) {
      if (this.#closing) return end;
      await this.close();
      throw error;
    }
  }

  #fill(): void {
    while (this.#ahead.length < this.#options.lookAhead) {
      const made = this.#source.next();
      made.catch(() => {}); // Thrown by next(), at its turn.
      this.#ahead.push(made);
    }
  }
}
