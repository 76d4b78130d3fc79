/** Levenshtein distance of two sequences (insertion, deletion and substitution cost 1) in O(n·m) time and two rows. */
export function editDistance(a: readonly unknown[], b: readonly unknown[]): number {
  let start = 0;
  let aEnd = a.length;
  let bEnd = b.length;
  while (start < aEnd && start < bEnd && a[start] === b[start]) start++;
  while (aEnd > start && bEnd > start && a[aEnd - 1] === b[bEnd - 1]) {
    aEnd--;
    bEnd--;
  }
  const width = bEnd - start;
  let above = new Uint32Array(width + 1).map((_, j) => j);
  let row = new Uint32Array(width + 1);
  for (let i = start; i < aEnd; i++) {
    row[0] = i - start + 1;
    for (let j = 1; j <= width; j++) {
      const substituted = above[j - 1]! + (a[i] === b[start + j - 1] ? 0 : 1);
      row[j] = Math.min(substituted, above[j]! + 1, row[j - 1]! + 1);
    }
    [above, row] = [row, above];
  }
  return above[width]!;
}
