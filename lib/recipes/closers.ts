/** Closes things in the opposite order; the first error that comes of it is thrown when all are closed. */
export class Closers {
  private readonly all: (() => unknown)[] = [];

  add(close: () => unknown): void {
    this.all.push(close);
  }

  async close(): Promise<void> {
    let failure: { error: unknown } | null = null;
    for (const close of this.all.splice(0).reverse()) {
      try {
        await close();
      } catch (error) {
        failure ??= { error };
      }
    }
    if (failure) throw failure.error;
  }
}
