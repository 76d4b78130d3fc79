import { type Normalizer, wer } from '../text/index.js';
import { defaultNormalizer, type ErrorCounts, type EvaluationGroup, type EvaluationReport } from './evaluate.js';
import { formatColumns } from './table.js';

/**
 * The report as a table of text: a row for each language, domain and task and one for all, rates in per cent, columns aligned.
 * Lines end with '\n', the last one too.
 */
export function formatTable(report: EvaluationReport): string {
  const gates = report.groups.some((group) => group.gateShare !== null);
  const translations = report.groups.some(({ task }) => task === 'translate');
  const percent = (rate: number): string => (100 * rate).toFixed(1);
  const score = (points: number | null): string => points?.toFixed(1) ?? '-';
  const cells = (language: string, domain: string, counts: ErrorCounts): string[] => [
    language,
    domain || '-',
    String(counts.utterances),
    counts.seconds.toFixed(1),
    percent(counts.wer),
    percent(counts.cer),
    ...(gates ? [counts.gateShare === null ? '-' : percent(counts.gateShare)] : []),
    ...(translations ? [score(counts.bleu), score(counts.chrf)] : []),
  ];
  const head = ['language', 'domain', 'utterances', 'seconds', 'WER %', 'CER %', ...(gates ? ['gate %'] : [])];
  if (translations) head.push('BLEU', 'chrF2');
  const nameOf = ({ language, task }: EvaluationGroup): string =>
    task === 'translate' ? `${language} → en` : language;
  const body = report.groups.map((group) => cells(nameOf(group), group.domain, group));
  return formatColumns(head, [...body, null, cells('all', 'all', report.total)], 2);
}

/** The report as plain data for `JSON.stringify`, rates to six decimals and seconds to three. */
export function toJSON(report: EvaluationReport): EvaluationReport {
  const round = (x: number, digits: number): number => Number(x.toFixed(digits));
  const counts = <T extends ErrorCounts>(c: T): T => ({
    ...c,
    seconds: round(c.seconds, 3),
    wer: round(c.wer, 6),
    cer: round(c.cer, 6),
    gateShare: c.gateShare === null ? null : round(c.gateShare, 6),
    bleu: c.bleu === null ? null : round(c.bleu, 4),
    chrf: c.chrf === null ? null : round(c.chrf, 4),
  });
  return {
    ...report,
    groups: report.groups.map(counts),
    total: counts(report.total),
    secondsTaken: round(report.secondsTaken, 3),
  };
}

/** The hypotheses as JSON lines with each utterance's own word error rate; `normalizer` as in the evaluation. */
export function formatHypotheses(report: EvaluationReport, normalizer: Normalizer = defaultNormalizer): string {
  return report.hypotheses
    .map(({ id, language, domain, task, reference, hypothesis }) => {
      const { rate } = wer([normalizer(reference)], [normalizer(hypothesis)]);
      return `${JSON.stringify({ id, language, domain, task, reference, hypothesis, wer: Number(rate.toFixed(6)) })}\n`;
    })
    .join('');
}
