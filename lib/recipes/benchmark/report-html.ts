/** A benchmark as one page that needs nothing else: tables, curves as SVG, gates by layer, the worst utterances to hear. */
import type { GateHistogram } from '../../train/index.js';
import { count, mainTables, PAIRS, pairsOf, percent, ratesOf, TRANSLATIONS, translationsOf } from './report.js';
import type { BenchmarkSummary, Curve } from './summary.js';

const safe = (text: string): string =>
  text.replaceAll(/[&<>"']/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' })[c]!);

/** Told apart by people who see few colours too (Okabe and Ito). */
const COLOURS = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#8c6d31', '#999999'];

const STYLE = `
:root{--page:#fbfbfa;--ink:#1d1d1b;--soft:#6b6b66;--line:#dedcd6;--card:#fff;--good:#00704f;--bad:#b3441a;color-scheme:light dark}
@media (prefers-color-scheme:dark){:root{--page:#161615;--ink:#ecebe7;--soft:#a09e97;--line:#35342f;--card:#1f1e1c;--good:#4fc79b;--bad:#f08a5d}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1100px;margin:0 auto;padding:32px 20px 80px}
h1{font-size:26px;margin:0 0 4px}h2{font-size:19px;margin:44px 0 10px}h3{font-size:15px;margin:22px 0 6px}
p{margin:6px 0;color:var(--soft);max-width:76ch}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:10px;background:var(--card)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:8px 14px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;color:var(--soft);font-size:13px}tr:last-child td{border-bottom:0}
td:first-child,th:first-child{text-align:left}.text{text-align:left;white-space:normal;min-width:180px}
.way{font-weight:600}.better{color:var(--good);font-weight:600}.worse{color:var(--bad)}
.dot{display:inline-block;width:10px;height:10px;border-radius:5px;margin-right:7px}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(320px,1fr));gap:16px}
figure{margin:0;padding:12px 14px;border:1px solid var(--line);border-radius:10px;background:var(--card)}
figcaption{font-size:13px;font-weight:600;color:var(--soft);margin-bottom:4px}
svg{width:100%;height:auto;display:block}svg text{fill:var(--soft);font-size:11px}
.grid{stroke:var(--line)}.legend{display:flex;flex-wrap:wrap;gap:6px 18px;margin:10px 0;font-size:13px}
del{background:color-mix(in srgb,var(--bad) 22%,transparent);text-decoration:none;border-radius:3px}
ins{background:color-mix(in srgb,var(--good) 22%,transparent);text-decoration:none;border-radius:3px}
audio{height:30px;width:180px}
`;

/** A page. Everything in it comes from the summary; it asks for nothing. */
export function benchmarkHtml(summary: BenchmarkSummary): string {
  const { model, teacher, costs } = summary;
  const ways = [...new Set(costs.map(({ way }) => way))];
  const colour = (way: string): string => COLOURS[ways.indexOf(way) % COLOURS.length] ?? '#999999';
  const dot = (way: string): string =>
    `<span class="dot" style="background:${way === 'before' ? 'transparent' : colour(way)}"></span>`;
  const sections = [
    ...mainTables(summary).map((one) => mainSection(one, dot)),
    translationSection(summary),
    costSection(summary, dot),
    curveSection(summary, ways, colour),
    gateSection(summary, dot),
    pairSection(summary),
    worstSection(summary, dot),
  ];
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>Benchmark of ${safe(model)}</title><style>${STYLE}</style></head>
<body><main><h1>Benchmark of ${safe(model)}</h1>
<p>${teacher === null ? 'No teacher.' : `Teacher: ${safe(teacher)}.`} Seeds: ${safe([...new Set(costs.flatMap(({ seeds }) => seeds))].join(', '))}. Word error rates in per cent, means over seeds ± their standard deviation.</p>
${sections.join('\n')}
</main></body></html>
`;
}

/** `head` and lines of HTML. */
const table = (head: readonly string[], lines: readonly (readonly string[])[]): string =>
  `<div class="scroll"><table><thead><tr>${head.map((cell) => `<th>${cell}</th>`).join('')}</tr></thead><tbody>${lines
    .map((cells) => `<tr>${cells.map((cell) => (cell.startsWith('<td') ? cell : `<td>${cell}</td>`)).join('')}</tr>`)
    .join('')}</tbody></table></div>`;

const named = (way: string, dot: (way: string) => string): string => `<span class="way">${dot(way)}${safe(way)}</span>`;

function mainSection(
  { taught, domains, against, lines }: ReturnType<typeof mainTables>[number],
  dot: (way: string) => string,
): string {
  const head = [
    'way',
    ...domains.map((domain) => safe(domain || taught)),
    'other languages',
    'their transcripts unchanged, %',
  ];
  const body = lines.map(({ way, cells, forgetting, unchanged }) => [
    named(way, dot),
    ...cells.map(
      ({ text, mark }) =>
        `<span class="${mark}">${text}${{ better: ' ▼', worse: ' ▲', none: '', unknown: ' ?' }[mark]}</span>`,
    ),
    forgetting,
    unchanged,
  ]);
  const legend =
    against === null
      ? ''
      : `<p>▼ fewer, ▲ more errors than ${safe(against)}, where the paired bootstrap over utterances and Welch's interval over seeds agree, each at 95%; ? one seed cannot say.</p>`;
  return `<h2>${safe(taught)}</h2>${table(head, body)}${legend}`;
}

function translationSection(summary: BenchmarkSummary): string {
  const lines = translationsOf(summary).map((cells) => cells.map(safe));
  return lines.length > 0 ? `<h2>Translations into English</h2>${table(TRANSLATIONS, lines)}` : '';
}

function costSection({ costs }: BenchmarkSummary, dot: (way: string) => string): string {
  const head = [
    'way',
    'taught',
    'learning rates: validation',
    'chosen',
    'trained',
    'run through',
    'best update',
    'seconds',
    'memory, MiB',
  ];
  const body = costs.map((cost) => [
    named(cost.way, dot),
    safe(cost.taught),
    ratesOf(cost),
    String(cost.learningRate ?? 'default'),
    count(cost.trainable),
    count(cost.active),
    cost.bestUpdate ? count(cost.bestUpdate.mean) : '-',
    count(cost.seconds),
    count(cost.memory / 2 ** 20),
  ]);
  return `<h2>What it took</h2>${table(head, body)}<p>Trained and run through: parameters; a row runs through one of the two feed-forward blocks. Learning rates were tried with the first seed.</p>`;
}

function curveSection({ curves }: BenchmarkSummary, ways: readonly string[], colour: (way: string) => string): string {
  const languages = [...new Set(curves.map(({ taught }) => taught))];
  const legend = `<div class="legend">${ways.map((way) => `<span><span class="dot" style="background:${colour(way)}"></span>${safe(way)}</span>`).join('')}</div>`;
  const kinds: [title: string, of: (point: Curve['points'][number]) => number][] = [
    ['loss', ({ loss }) => loss],
    ['divergence from the teacher', ({ distillation }) => distillation],
    ['mean soft gate', ({ gate }) => gate],
    ['share that inference would send to the expert', ({ chosen }) => chosen],
    ['learning rate', ({ learningRate }) => learningRate],
  ];
  const blocks = languages.map((taught) => {
    const own = curves.filter((curve) => curve.taught === taught);
    const figures = kinds.map(([title, of]) => {
      const series = own
        .map(({ way, points }) => ({
          colour: colour(way),
          points: points.map((point): [number, number] => [point.step, of(point)]),
        }))
        .filter(({ points }) => points.some(([, y]) => y !== 0));
      return series.length > 0 ? chart(title, series) : '';
    });
    const validation = own
      .map(({ way, validation: all }) => ({
        colour: colour(way),
        points: all.map(({ step, wer }): [number, number] => [step, 100 * wer]),
      }))
      .filter(({ points }) => points.length > 0);
    if (validation.length > 0) figures.unshift(chart('validation, WER %', validation));
    return `<h3>${safe(taught)}</h3><div class="charts">${figures.join('')}</div>`;
  });
  return `<h2>Curves</h2>${legend}${blocks.join('')}`;
}

/** Lines in a frame with its ends named; a line a run. */
function chart(title: string, series: readonly { colour: string; points: readonly [number, number][] }[]): string {
  const all = series.flatMap(({ points }) => points).filter(([, y]) => Number.isFinite(y));
  const [left, top, width, height] = [46, 8, 344, 158];
  const high = Math.max(...all.map(([, y]) => y));
  const low = Math.min(0, ...all.map(([, y]) => y));
  const last = Math.max(...all.map(([x]) => x));
  const x = (step: number): string => (left + (width * step) / (last || 1)).toFixed(1);
  const y = (value: number): string => (top + height - (height * (value - low)) / (high - low || 1)).toFixed(1);
  const shown = (value: number): string =>
    value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(0) : Number(value.toPrecision(3)).toString();
  const lines = series
    .map(
      ({ colour, points }) =>
        `<polyline fill="none" stroke="${colour}" stroke-width="1.4" stroke-opacity=".8" points="${points
          .filter(([, v]) => Number.isFinite(v))
          .map(([s, v]) => `${x(s)},${y(v)}`)
          .join(' ')}"/>`,
    )
    .join('');
  const rules = [low, (low + high) / 2, high]
    .map(
      (value) =>
        `<line class="grid" x1="${left}" x2="${left + width}" y1="${y(value)}" y2="${y(value)}"/><text x="${left - 6}" y="${Number(y(value)) + 4}" text-anchor="end">${shown(value)}</text>`,
    )
    .join('');
  return `<figure><figcaption>${safe(title)}</figcaption><svg viewBox="0 0 400 192" role="img" aria-label="${safe(title)}">${rules}${lines}<text x="${left}" y="186">0</text><text x="${left + width}" y="186" text-anchor="end">update ${last}</text></svg></figure>`;
}

/** Of each way with gates: where their sums lie in each layer, at the last histogram of the first run. */
function gateSection({ curves, rows }: BenchmarkSummary, dot: (way: string) => string): string {
  const gated = curves.filter(
    ({ gates }, i) =>
      gates !== null && curves.findIndex((one) => one.way === curves[i]!.way && one.taught === curves[i]!.taught) === i,
  );
  if (gated.length === 0) return '';
  const blocks = gated.map(({ way, taught, gates, points, layerShares }) => {
    const share = rows.filter((row) => row.way === way && row.taught === taught && row.gateShare !== null);
    const inference = share
      .map(({ domain, gateShare }) => `${safe(domain || taught)} ${percent(gateShare!)}%`)
      .join(', ');
    const mean = points.at(-1)?.gate ?? 0;
    return `<h3>${named(way, dot)} ${safe(taught)}</h3><p>At inference the expert took: ${inference || '-'}. Soft mean of the last update in training: ${percent(mean)}%.</p><div class="charts">${layersOf(gates!, layerShares)}</div>`;
  });
  return `<h2>Gates</h2><p>Where G lies, the sum whose sign is the gate at inference, layer by layer (encoder before decoder): left of the line a row takes the shared block, right of it the expert's.</p>${blocks.join('')}`;
}

function layersOf({ layers, low, high }: GateHistogram, shares: readonly number[] | null): string {
  return layers
    .map((counts, layer) => {
      const most = Math.max(...counts, 1);
      const total = counts.reduce((a, b) => a + b, 0) || 1;
      const above = counts.slice(counts.length / 2).reduce((a, b) => a + b, 0) / total;
      const width = 360 / counts.length;
      const bars = counts
        .map((n, i) =>
          n === 0
            ? ''
            : `<rect x="${(20 + i * width).toFixed(1)}" y="${(70 - (60 * n) / most).toFixed(1)}" width="${(width * 0.9).toFixed(1)}" height="${((60 * n) / most).toFixed(1)}" fill="${i < counts.length / 2 ? '#999999' : '#009e73'}"/>`,
        )
        .join('');
      return `<figure><figcaption>layer ${layer}: to the expert ${shares ? `${percent(shares[layer]!)}% at inference, ` : ''}${percent(above)}% in training</figcaption><svg viewBox="0 0 400 88" role="img" aria-label="layer ${layer}">${bars}<line class="grid" x1="200" x2="200" y1="6" y2="72"/><text x="20" y="84">${low}</text><text x="200" y="84" text-anchor="middle">0</text><text x="380" y="84" text-anchor="end">${high}</text></svg></figure>`;
    })
    .join('');
}

function pairSection(summary: BenchmarkSummary): string {
  const lines = pairsOf(summary).map((cells) => cells.map(safe));
  return lines.length > 0 ? `<h2>Every two</h2>${table(PAIRS, lines)}` : '';
}

function worstSection({ worst }: BenchmarkSummary, dot: (way: string) => string): string {
  if (worst.length === 0) return '';
  const body = worst.map(({ way, domain, reference, before, after, wer, audio }) => [
    named(way, dot),
    safe(domain || '-'),
    `<td class="text">${safe(reference)}</td>`,
    `<td class="text">${differing(before, reference)}</td>`,
    `<td class="text">${differing(after, reference)}</td>`,
    percent(wer),
    audio === null ? '-' : `<audio controls preload="none" src="${audio}"></audio>`,
  ]);
  return `<h2>Worst utterances</h2>${table(['way', 'domain', 'said', 'heard before', 'heard after', 'WER %', 'audio'], body)}`;
}

/** Words that the reference has in that place by a longest common subsequence, and the others marked. */
function differing(text: string, reference: string): string {
  const [a, b] = [text.split(/\s+/).filter(Boolean), reference.split(/\s+/).filter(Boolean)];
  const longest = Array.from({ length: a.length + 1 }, () => Array<number>(b.length + 1).fill(0));
  for (let i = a.length - 1; i >= 0; i--)
    for (let j = b.length - 1; j >= 0; j--)
      longest[i]![j] = a[i] === b[j] ? longest[i + 1]![j + 1]! + 1 : Math.max(longest[i + 1]![j]!, longest[i]![j + 1]!);
  const words: string[] = [];
  for (let i = 0, j = 0; i < a.length; ) {
    if (j < b.length && a[i] === b[j]) {
      words.push(safe(a[i]!));
      i++;
      j++;
    } else if (j < b.length && longest[i]![j + 1]! >= longest[i + 1]![j]!) j++;
    else words.push(`<del>${safe(a[i++]!)}</del>`);
  }
  return words.join(' ');
}
