/**
 * Milliseconds of the fastest of some turns: what the work takes when nothing else runs. Tests that hold it against a
 * bar begin with `speed:`; builds with sanitizers, which are many times slower, leave those out.
 */
export async function fastest(turns: number, work: () => Promise<void>): Promise<number> {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < turns; i++) {
    const begin = performance.now();
    await work();
    best = Math.min(best, performance.now() - begin);
  }
  return best;
}
