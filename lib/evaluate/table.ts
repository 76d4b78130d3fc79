/** Code points: names may be in any script. */
const width = (text: string): number => [...text].length;

/**
 * Rows of equally many cells as aligned columns, the first `left` of them to the left and the others to the right; a rule behind
 * the head and wherever a row is null. Lines end with '\n', the last one too.
 */
export function formatColumns(
  head: readonly string[],
  body: readonly (readonly string[] | null)[],
  left: number,
): string {
  const widths = head.map((title, c) => Math.max(width(title), ...body.map((row) => width(row?.[c] ?? ''))));
  const rule = widths.map((n) => '-'.repeat(n)).join('  ');
  const line = (row: readonly string[] | null): string => {
    if (row === null) return rule;
    const cells = row.map((cell, c) => {
      const space = ' '.repeat(widths[c]! - width(cell));
      return c < left ? cell + space : space + cell;
    });
    return cells.join('  ').trimEnd();
  };
  return `${[head, null, ...body].map(line).join('\n')}\n`;
}
