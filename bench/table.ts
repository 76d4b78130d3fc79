/** Tables as aligned Markdown: read on a terminal, committed in bench/results. */
import type { Row, Table } from './harness.js';

const HEAD = ['', 'ms: min', 'median', 'max', 'rate', 'of the ceiling', ''];

/** Three digits that count. */
function number(value: number): string {
  if (value !== 0 && Math.abs(value) < 0.01) return value.toExponential(1);
  return value.toFixed(Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2);
}

function cells({ name, ms, rate, ceiling, notes }: Row): string[] {
  return [
    name,
    ms ? number(ms.min) : '',
    ms ? number(ms.median) : '',
    ms ? number(ms.max) : '',
    rate ? `${number(rate.value)} ${rate.unit}` : '',
    ceiling ? `${(100 * ceiling.share).toFixed(0)}% of ${number(ceiling.value)}` : '',
    Object.entries(notes ?? {})
      .map(([key, value]) => `${key} ${typeof value === 'number' ? number(value) : value}`)
      .join(', '),
  ];
}

export function render(table: Table): string {
  const lines = [HEAD, ...table.rows.map(cells)];
  const used = HEAD.map((_, i) => table.rows.length === 0 || lines.slice(1).some((line) => line[i] !== ''));
  const kept = lines.map((line) => line.filter((_, i) => used[i]));
  const width = kept[0]!.map((_, i) => Math.max(...kept.map((line) => line[i]!.length), 3));
  const last = width.length - 1;
  const text = (line: string[]): string =>
    `| ${line.map((cell, i) => (i === 0 || (i === last && used.at(-1)) ? cell.padEnd(width[i]!) : cell.padStart(width[i]!))).join(' | ')} |`;
  const rule = `|${width.map((w, i) => (i === 0 || (i === last && used.at(-1)) ? '-'.repeat(w + 2) : `${'-'.repeat(w + 1)}:`)).join('|')}|`;
  return [`### ${table.title}`, '', text(kept[0]!), rule, ...kept.slice(1).map(text), ''].join('\n');
}
