/** A benchmark's numbers as tables of text. */
import { mean } from '../../evaluate/index.js';
import { table } from '../markdown.js';
import type { BenchmarkCost, BenchmarkRow, BenchmarkSummary, Spread } from './summary.js';

export const percent = (rate: number): string => (100 * rate).toFixed(1);
export const withSpread = ({ mean, deviation, values }: Spread): string =>
  values.length > 1 ? `${percent(mean)} ± ${percent(deviation)}` : percent(mean);
export const count = (n: number): string => Math.round(n).toLocaleString('en');

/** A row for each way, language, domain and task. */
export function benchmarkCsv({ rows }: BenchmarkSummary): string {
  const head =
    'way,taught,language,domain,task,utterances,wer,wer_deviation,cer,cer_deviation,bleu,bleu_deviation,chrf,chrf_deviation,gate_share,unchanged,seeds';
  const quoted = (text: string): string => (/[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = rows.map((row) =>
    [
      ...[row.way, row.taught ?? '', row.language, row.domain, row.task].map(quoted),
      row.utterances,
      ...[row.wer.mean, row.wer.deviation, row.cer.mean, row.cer.deviation].map((x) => x.toFixed(6)),
      ...[row.bleu, row.chrf].flatMap((score) =>
        score ? [score.mean.toFixed(4), score.deviation.toFixed(4)] : ['', ''],
      ),
      row.gateShare === null ? '' : row.gateShare.toFixed(6),
      row.unchanged.toFixed(6),
      row.wer.values.length,
    ].join(','),
  );
  return `${[head, ...lines].join('\n')}\n`;
}

/** One of the table's cells: a way in a domain of the language that it was taught. */
export interface MainCell {
  text: string;
  /** Whether it is better, or worse, than the first way: only where utterances and seeds agree. */
  mark: 'better' | 'worse' | 'none' | 'unknown';
}

export interface MainTable {
  taught: string;
  domains: string[];
  /** That of the first row after 'before', which the others are held against. */
  against: string | null;
  lines: { way: string; cells: MainCell[]; forgetting: string; unchanged: string }[];
}

/** Of each language that was taught: its error rates by way and domain, and what became of the other languages. */
export function mainTables({ rows, comparisons, costs }: BenchmarkSummary): MainTable[] {
  const transcribed = rows.filter(({ task }) => task === 'transcribe');
  return [...new Set(costs.map(({ taught }) => taught))].map((taught) => {
    const ways = ['before', ...costs.filter((cost) => cost.taught === taught).map(({ way }) => way)];
    const against = ways[1] ?? null;
    const of = (way: string) => transcribed.filter((row) => row.way === way && isTaught(row, taught));
    const domains = of('before')
      .filter(({ language }) => language === taught)
      .map(({ domain }) => domain);
    const markOf = (way: string, domain: string): MainCell['mark'] => {
      if (way === against || against === null) return 'none';
      const found = comparisons.find(
        (one) => one.taught === taught && [one.a, one.b].includes(way) && [one.a, one.b].includes(against),
      );
      const group = found?.comparison.groups.find((one) => one.domain === domain);
      if (!found || !group || group.better === 'none') return 'none';
      if (group.better === 'unknown') return 'unknown';
      return found[group.better] === way ? 'better' : 'worse';
    };
    const lines = ways.map((way) => {
      const mine = of(way);
      const others = mine.filter(({ language }) => language !== taught);
      return {
        way,
        cells: domains.map((domain): MainCell => {
          const row = mine.find((one) => one.language === taught && one.domain === domain)!;
          return { text: withSpread(row.wer), mark: markOf(way, domain) };
        }),
        forgetting: others.length > 0 ? percent(mean(others.map(({ wer }) => wer.mean))) : '-',
        unchanged: others.length > 0 ? percent(mean(others.map((row) => row.unchanged))) : '-',
      };
    });
    return { taught, domains, against, lines };
  });
}

/** What was before is a row of every language that was taught. */
const isTaught = (row: BenchmarkRow, taught: string): boolean => row.taught === null || row.taught === taught;

export const TRANSLATIONS = ['taught', 'way', 'spoken', 'domain', 'utterances', 'BLEU', 'chrF2'];

/** The scores of translations into English, under `TRANSLATIONS`. */
export function translationsOf({ rows, costs }: BenchmarkSummary): string[][] {
  const points = ({ mean, deviation, values }: Spread): string =>
    values.length > 1 ? `${mean.toFixed(1)} ± ${deviation.toFixed(1)}` : mean.toFixed(1);
  return [...new Set(costs.map(({ taught }) => taught))].flatMap((taught) =>
    rows
      .filter((row) => row.task === 'translate' && isTaught(row, taught))
      .map((row) => [
        ...[taught, row.way, row.language, row.domain || '-', count(row.utterances)],
        ...[points(row.bleu!), points(row.chrf!)],
      ]),
  );
}

const MARKS: Record<MainCell['mark'], string> = { better: ' +', worse: ' −', none: '', unknown: ' ?' };

/** The tables, in Markdown. */
export function benchmarkMarkdown(summary: BenchmarkSummary): string {
  const parts = [`# Benchmark of ${summary.model}\n`];
  if (summary.teacher !== null) parts.push(`Teacher: ${summary.teacher}.\n`);
  for (const { taught, domains, against, lines } of mainTables(summary)) {
    const head = [
      'way',
      ...domains.map((domain) => `WER % ${domain || taught}`),
      'other languages, WER %',
      'their transcripts unchanged, %',
    ];
    const body = lines.map(({ way, cells, forgetting, unchanged }) => [
      way,
      ...cells.map(({ text, mark }) => text + MARKS[mark]),
      forgetting,
      unchanged,
    ]);
    parts.push(`## ${taught}\n\n${table(head, body)}\n`);
    if (against !== null)
      parts.push(
        `Means over seeds ± their standard deviation. +, −: better, worse than ${against}, by the utterances (paired bootstrap) and by the seeds (Welch) alike, 95%; ?: one seed cannot say.\n`,
      );
  }
  const translations = translationsOf(summary);
  if (translations.length > 0) parts.push(`## Translations into English\n\n${table(TRANSLATIONS, translations)}\n`);
  const costs = summary.costs.map((cost) => [
    cost.way,
    cost.taught,
    ratesOf(cost),
    String(cost.learningRate ?? 'default'),
    count(cost.trainable),
    count(cost.active),
    count(cost.seconds),
    `${count(cost.memory / 2 ** 20)} MiB`,
  ]);
  const head = [
    'way',
    'taught',
    'learning rates: validation WER %',
    'chosen',
    'trained',
    'run through',
    'seconds',
    'memory',
  ];
  parts.push(`## What it took\n\n${table(head, costs)}\n`);
  parts.push(`## Every two\n\n${table(PAIRS, pairsOf(summary))}\n`);
  return parts.join('\n');
}

const signed = (rate: number): string => `${rate > 0 ? '+' : ''}${percent(rate)}`;

/** The learning rates of a way, and the validation error that each came to. */
export const ratesOf = ({ rates }: BenchmarkCost): string =>
  rates
    .map(
      ({ learningRate, validation }) =>
        `${learningRate ?? 'default'}: ${validation === null ? '-' : percent(validation)}`,
    )
    .join(', ');

export const PAIRS = ['taught', 'domain', 'difference', 'WER points', 'over utterances', 'over seeds', 'better'];

/** What every two ways differ by, under `PAIRS`. */
export const pairsOf = ({ comparisons }: BenchmarkSummary): string[][] =>
  comparisons.flatMap(({ taught, a, b, comparison }) =>
    [...comparison.groups, { ...comparison.total, domain: 'all' }].map((group) => [
      taught,
      group.domain || '-',
      `${b} − ${a}`,
      signed(group.difference),
      `${signed(group.interval.low)} to ${signed(group.interval.high)}`,
      group.overRuns ? `${signed(group.overRuns.low)} to ${signed(group.overRuns.high)}` : '-',
      { a, b, none: '-', unknown: '?' }[group.better],
    ]),
  );
