/** Texts and tables in Markdown. */

/** A text in a table, or in a paragraph: nothing of it is markup. */
export const plain = (text: string): string => text.replaceAll(/[|`\r\n<>]/g, ' ');

/** Of texts; a line each. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.map(plain).join(' | ')} |`;
  return [line(head), `|${head.map(() => '---').join('|')}|`, ...rows.map(line)].join('\n');
}
