/** How often each n-gram of one length stands in a text; the items of an n-gram are joined by a space. */
export type NgramCounts = ReadonlyMap<string, number>;

/** The n-grams of items (words, or characters in code points) of each length from 1 to `longest`. */
export function ngrams(items: readonly string[], longest: number): NgramCounts[] {
  return Array.from({ length: longest }, (_, n) => {
    const counts = new Map<string, number>();
    for (let i = 0; i + n < items.length; i++) {
      const key = n === 0 ? items[i]! : items.slice(i, i + n + 1).join(' ');
      counts.set(key, (counts.get(key) ?? 0) + 1);
    }
    return counts;
  });
}

export function total(counts: NgramCounts): number {
  let sum = 0;
  for (const count of counts.values()) sum += count;
  return sum;
}

/** How many n-grams of one text stand in the other, each as often as in both. */
export function common(a: NgramCounts, b: NgramCounts): number {
  let sum = 0;
  for (const [key, count] of a) sum += Math.min(count, b.get(key) ?? 0);
  return sum;
}
