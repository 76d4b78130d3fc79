/**
 * The pictures of docs/performance.md, made from committed traces.
 *
 *   npx tsx scripts/docs/trace.ts cut whole.json docs/traces/x.json 1200 1400   keeps what ran between two times, in ms
 *   npx tsx scripts/docs/trace.ts draw docs/traces/x.json docs/x.svg 'Title'
 */
import { readFileSync, writeFileSync } from 'node:fs';

interface Event {
  ph: string;
  tid?: number;
  ts?: number;
  dur?: number;
  cat?: string;
  name: string;
  args?: { name?: string; sort_index?: number };
}

/** The events of a trace, an interrupted one's too. */
function read(path: string): Event[] {
  const text = readFileSync(path, 'utf8').trimEnd();
  return JSON.parse(text.endsWith(']') ? text : `${text.replace(/,$/, '')}\n]`);
}

function cut(from: string, to: string, begin: number, end: number): void {
  const inside = ({ ph, ts = 0, dur = 0 }: Event): boolean => ph === 'X' && ts + dur > begin && ts < end;
  const moved = (e: Event): Event => ({ ...e, ts: Math.round(1e3 * (e.ts! - begin)) / 1e3 });
  const events = read(from).flatMap((e) => (e.ph === 'M' ? [e] : inside(e) ? [moved(e)] : []));
  writeFileSync(to, `[\n${events.map((e) => JSON.stringify(e)).join(',\n')}\n]\n`);
}

const [WIDTH, LABEL, ROW, AXIS, TOP] = [1000, 150, 26, 24, 34];
/** Kernels of a kind share a colour. */
const COLOURS: [match: RegExp, colour: string, legend: string][] = [
  [/^linear/, '#4477aa', 'linear'],
  [/^attention/, '#228833', 'attention'],
  [/^gated_ffn/, '#ee6677', 'gated FFN'],
  [/^distill_loss|^top_k/, '#aa3377', 'loss, top-k'],
  [/^adamw|^global_norm|^fill/, '#ccbb44', 'optimiser'],
  [/^layer_norm|^add|^cast|^embedding|^cache|^unfold|^fold|^gelu/, '#66ccee', 'norms, rows'],
  [/^resample|^log_mel|^decode$|^load$/, '#ee8866', 'audio'],
  [/^next /, '#dddddd', 'waiting'],
  [/^read$|^write$/, '#333333', 'copies'],
  [/^queue |^garbage/, '#999999', 'JavaScript'],
];
const OTHER = '#777755';
const escaped = (text: string): string => text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;' })[c] ?? '&gt;');

function draw(from: string, to: string, title: string): void {
  const events = read(from);
  const names = new Map(events.filter((e) => e.name === 'thread_name').map((e) => [e.tid!, e.args!.name!]));
  const order = new Map(events.filter((e) => e.name === 'thread_sort_index').map((e) => [e.tid!, e.args!.sort_index!]));
  const work = events.filter((e) => e.ph === 'X');
  const lanes = [...names.keys()]
    .filter((tid) => work.some((e) => e.tid === tid))
    .sort((a, b) => order.get(a)! - order.get(b)!);
  const begin = Math.min(0, ...work.map((e) => Math.max(0, e.ts!)));
  const end = Math.max(...work.map((e) => e.ts! + e.dur!));
  const scale = (WIDTH - LABEL - 10) / (end - begin);
  const x = (us: number): number => LABEL + (Math.max(begin, us) - begin) * scale;
  const height = TOP + lanes.length * ROW + AXIS + 24;
  const parts: string[] = [];
  const text = (at: number, y: number, what: string, more = ''): void => {
    parts.push(`<text x="${at.toFixed(1)}" y="${y}"${more}>${escaped(what)}</text>`);
  };
  text(8, 20, title, ' font-weight="bold" font-size="13"');
  const seen = new Set<string>();
  for (const [row, tid] of lanes.entries()) {
    const y = TOP + row * ROW;
    parts.push(`<rect x="${LABEL}" y="${y}" width="${WIDTH - LABEL - 10}" height="${ROW - 4}" fill="#f4f4f4"/>`);
    text(8, y + 15, names.get(tid)!.replace(/, \d+ threads?$/, ''));
    // What is narrower than a third of a pixel is drawn with its neighbours of the same colour.
    let open: { from: number; to: number; colour: string } | null = null;
    const flush = (): void => {
      if (!open) return;
      const width = Math.max(0.3, open.to - open.from).toFixed(2);
      parts.push(
        `<rect x="${open.from.toFixed(2)}" y="${y}" width="${width}" height="${ROW - 4}" fill="${open.colour}"/>`,
      );
      open = null;
    };
    const own = work.filter((e) => e.tid === tid).sort((a, b) => a.ts! - b.ts!);
    for (const e of own) {
      const [left, right] = [x(e.ts!), x(e.ts! + e.dur!)];
      const colour = COLOURS.find(([match]) => match.test(e.name))?.[1] ?? OTHER;
      seen.add(colour);
      const before = open as { from: number; to: number; colour: string } | null;
      if (before && before.colour === colour && left - before.to < 0.33 && right - left < 3) before.to = right;
      else {
        flush();
        open = { from: left, to: right, colour };
      }
      if (right - left > 7 * e.name.length) {
        flush();
        text(left + 3, y + 15, e.name, ` fill="${colour === '#dddddd' || colour === '#ccbb44' ? '#000' : '#fff'}"`);
      }
    }
    flush();
  }
  const bottom = TOP + lanes.length * ROW;
  const ms = (end - begin) / 1e3;
  const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((s) => ms / s <= 12) ?? 2000;
  for (let at = 0; at <= ms; at += step) {
    const left = x(begin + at * 1e3);
    parts.push(`<line x1="${left.toFixed(1)}" x2="${left.toFixed(1)}" y1="${TOP}" y2="${bottom}" stroke="#0002"/>`);
    text(left, bottom + 14, `${at} ms`, ' text-anchor="middle" fill="#555"');
  }
  let at = LABEL;
  for (const [, colour, legend] of [...COLOURS, [/x/, OTHER, 'other'] as const]) {
    if (!seen.has(colour)) continue;
    parts.push(`<rect x="${at}" y="${bottom + AXIS}" width="10" height="10" fill="${colour}"/>`);
    text(at + 14, bottom + AXIS + 9, legend);
    at += 26 + 6.2 * legend.length;
  }
  const head = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" font-family="sans-serif" font-size="11">`;
  writeFileSync(to, `${head}\n<rect width="${WIDTH}" height="${height}" fill="#fff"/>\n${parts.join('\n')}\n</svg>\n`);
}

const [what, from, to, ...rest] = process.argv.slice(2);
if (what === 'cut' && from && to) cut(from, to, 1e3 * Number(rest[0]), 1e3 * Number(rest[1]));
else if (what === 'draw' && from && to && rest[0]) draw(from, to, rest[0]);
else throw new Error("expected 'cut from to begin-ms end-ms' or 'draw from to title'");
