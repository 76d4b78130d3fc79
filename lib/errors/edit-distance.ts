/** Steps of the longest comparison that is made: about a minute. */
const MAX_STEPS = 2 ** 36;

/**
 * Levenshtein distance of two sequences (insertion, deletion and substitution cost 1) in O(n·m) time and two rows, n and m
 * without what both begin and end with; undefined where that would be more than 2^36 steps.
 */
export function editDistance(a: readonly unknown[], b: readonly unknown[]): number | undefined {
  let start = 0;
  let aEnd = a.length;
  let bEnd = b.length;
  while (start < aEnd && start < bEnd && a[start] === b[start]) start++;
  while (aEnd > start && bEnd > start && a[aEnd - 1] === b[bEnd - 1]) {
    aEnd--;
    bEnd--;
  }
  if ((aEnd - start) * (bEnd - start) > MAX_STEPS) return undefined;
  // Small integers compare several times faster than strings in the inner loop.
  const numbers = new Map<unknown, number>();
  const number = (item: unknown): number => {
    const known = numbers.get(item) ?? numbers.size;
    numbers.set(item, known);
    return known;
  };
  const left = Uint32Array.from(a.slice(start, aEnd), number);
  const right = Uint32Array.from(b.slice(start, bEnd), number);
  const width = right.length;
  let above = new Uint32Array(width + 1).map((_, j) => j);
  let row = new Uint32Array(width + 1);
  for (let i = 0; i < left.length; i++) {
    const item = left[i];
    row[0] = i + 1;
    for (let j = 1; j <= width; j++) {
      const substituted = above[j - 1]! + (item === right[j - 1] ? 0 : 1);
      row[j] = Math.min(substituted, above[j]! + 1, row[j - 1]! + 1);
    }
    [above, row] = [row, above];
  }
  return above[width]!;
}
