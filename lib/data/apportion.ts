/** `total` in whole parts, in proportion to the shares, by largest remainder; of equal ones the first. The shares' sum is above 0. */
export function apportion(total: number, shares: readonly number[]): number[] {
  const sum = shares.reduce((a, b) => a + b, 0);
  const exact = shares.map((share) => (total * share) / sum);
  const parts = exact.map(Math.floor);
  let left = total - parts.reduce((a, b) => a + b, 0);
  const byRemainder = [...parts.keys()].sort((a, b) => exact[b]! - parts[b]! - (exact[a]! - parts[a]!));
  for (const part of byRemainder) if (left-- > 0) parts[part]!++;
  return parts;
}

/**
 * Shares of languages of which there is so much, as multilingual training levels them: p ∝ n^(1/T). 1 leaves them as they are, Infinity makes
 * them equal.
 */
export const leveled = (amounts: readonly number[], temperature: number): number[] => {
  // Of the largest: powers of what may be a million overflow at a low temperature.
  const most = Math.max(...amounts);
  return amounts.map((n) => (n / most) ** (1 / temperature));
};
