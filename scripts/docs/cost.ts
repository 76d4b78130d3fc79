/**
 * The picture of what a training step costs by batch and by labels, from committed results of `npm run bench -- --only cost`:
 *
 *   npx tsx scripts/docs/cost.ts bench/results/x.json docs/cost.svg
 */
import { readFileSync, writeFileSync } from 'node:fs';

interface Results {
  answers: { question: string; tables: { title: string; rows: { name: string; ms: { median: number } }[] }[] }[];
}

const WIDTH = 720;
const HEIGHT = 280;
const PANEL = { width: 290, height: 190, top: 40 };

const [from, to] = process.argv.slice(2);
if (!from || !to) throw new Error('usage: npx tsx scripts/docs/cost.ts <results.json> <picture.svg>');
const results = JSON.parse(readFileSync(from, 'utf8')) as Results;
const tables = results.answers.find(({ question }) => question === 'cost')?.tables;
if (!tables) throw new Error(`${from}: expected answers to the question 'cost', got none`);

/** Least squares: y = a + b·x, and the share of the variance that it explains. */
function line(points: readonly (readonly [x: number, y: number])[]): { a: number; b: number; explained: number } {
  const mean = (values: number[]): number => values.reduce((s, v) => s + v, 0) / values.length;
  const [mx, my] = [mean(points.map(([x]) => x)), mean(points.map(([, y]) => y))];
  const b = points.reduce((s, [x, y]) => s + (x - mx) * (y - my), 0) / points.reduce((s, [x]) => s + (x - mx) ** 2, 0);
  const a = my - b * mx;
  const rest = points.reduce((s, [x, y]) => s + (y - a - b * x) ** 2, 0);
  return { a, b, explained: 1 - rest / points.reduce((s, [, y]) => s + (y - my) ** 2, 0) };
}

const parts: string[] = [];
for (const [i, { title, rows }] of tables.entries()) {
  const points = rows.map(({ name, ms }) => [Number(name), ms.median] as const);
  const { a, b, explained } = line(points);
  const [right, top] = [Math.max(...points.map(([x]) => x)), 1.1 * Math.max(...points.map(([, y]) => y))];
  const left = 55 + i * (PANEL.width + 70);
  const bottom = PANEL.top + PANEL.height;
  const x = (value: number): number => left + (PANEL.width * value) / right;
  const y = (value: number): number => bottom - (PANEL.height * value) / top;
  parts.push(
    `<text x="${left}" y="18">${title}</text>`,
    `<text x="${left}" y="32" fill="#777">${a.toFixed(0)} ms + ${b.toFixed(1)} ms each; explains ${(100 * explained).toFixed(1)}% of the variance</text>`,
    `<path d="M${left} ${PANEL.top}V${bottom}H${left + PANEL.width}" fill="none" stroke="#999"/>`,
    `<line x1="${x(0)}" y1="${y(a)}" x2="${x(right)}" y2="${y(a + b * right)}" stroke="#4878a8"/>`,
  );
  for (const [px, py] of points) {
    parts.push(
      `<circle cx="${x(px).toFixed(1)}" cy="${y(py).toFixed(1)}" r="3.5" fill="#c44e52"/>`,
      `<text x="${x(px).toFixed(1)}" y="${bottom + 16}" text-anchor="middle">${px}</text>`,
    );
  }
  const step = 10 ** Math.floor(Math.log10(top / 2));
  for (let value = 0; value <= top; value += step * Math.ceil(top / step / 6))
    parts.push(`<text x="${left - 6}" y="${(y(value) + 4).toFixed(1)}" text-anchor="end">${value}</text>`);
  parts.push(`<text x="${left - 40}" y="${PANEL.top - 6}" fill="#777">ms</text>`);
}
const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="11">`;
writeFileSync(to, `${head}\n<rect width="${WIDTH}" height="${HEIGHT}" fill="#fff"/>\n${parts.join('\n')}\n</svg>\n`);
