import { checkOptions, DistilWhisperError, shown } from '../errors/index.js';
import { cer, type Normalizer, wer } from '../text/index.js';
import { defaultNormalizer, type Hypothesis } from './evaluate.js';
import { groupsOf } from './groups.js';
import { type Interval, mean, pairedBootstrap, welchInterval } from './statistics.js';
import { formatColumns } from './table.js';

export interface CompareOptions {
  /** What is counted: words (default) or characters. */
  metric?: 'wer' | 'cer' | undefined;
  /** Applied to both sides. Default `defaultNormalizer`, as `evaluate` counts. */
  normalizer?: Normalizer | undefined;
  /** Draws of the bootstrap. Default 10,000. */
  resamples?: number | undefined;
  /** Of the draws. Default 0. */
  seed?: number | undefined;
  /** Of the intervals. Default 0.95. */
  level?: number | undefined;
}

const OPTIONS: Record<keyof CompareOptions, true> = {
  metric: true,
  normalizer: true,
  resamples: true,
  seed: true,
  level: true,
};

/** Error rates are fractions. */
export interface ComparedGroup {
  language: string;
  domain: string;
  utterances: number;
  /** Means over the runs of either side. */
  a: number;
  b: number;
  /** b − a: below 0 where b is better. */
  difference: number;
  /** Of the difference over utterances, by the paired bootstrap. */
  interval: Interval;
  p: number;
  /** The rates of each run. */
  runs: { a: number[]; b: number[] };
  /** Of the difference over runs, by Welch's t; null where a side has one run. */
  overRuns: Interval | null;
  /**
   * 'a' or 'b', the better one, where the intervals over utterances and over runs both say so; 'none' where one of them does not; 'unknown' where
   * the utterances tell them apart but a side has one run, so that another seed might not.
   */
  better: 'a' | 'b' | 'none' | 'unknown';
}

export interface Comparison {
  metric: 'wer' | 'cer';
  level: number;
  /** By language, then domain. */
  groups: ComparedGroup[];
  total: ComparedGroup;
}

/**
 * Compares two systems by what they heard of the same utterances. Of each side one evaluation, or several: runs that differ in
 * their seed. A difference is called one only where utterances and runs agree. Translations are left out: their words need not
 * be the reference's. Errors: ERR_ARGUMENT (nothing to compare, utterances or references that a run lacks or has twice, an option out
 * of range).
 */
export function compare(
  a: readonly (readonly Hypothesis[])[],
  b: readonly (readonly Hypothesis[])[],
  options: CompareOptions = {},
): Comparison {
  checkOptions('compare', options, OPTIONS);
  const { metric = 'wer', normalizer = defaultNormalizer, resamples = 10_000, seed = 0, level = 0.95 } = options;
  checkWhole('resamples', resamples, 100, 1_000_000);
  checkWhole('seed', seed, 0, Number.MAX_SAFE_INTEGER);
  if (metric !== 'wer' && metric !== 'cer') refuse(`metric: expected wer or cer, got ${shown(metric)}`);
  if (!(level > 0.5 && level < 1)) refuse(`level: expected a number between 0.5 and 1, got ${level}`);
  if (a.length === 0 || b.length === 0) refuse('a and b: expected one evaluation of each at least');
  const rate = metric === 'wer' ? wer : cer;
  const counted = a[0]!.flatMap((utterance) => {
    const reference = normalizer(utterance.reference);
    return utterance.task === 'translate' || reference.trim() === '' ? [] : [{ ...utterance, reference }];
  });
  if (counted.length === 0)
    refuse('a: expected a transcribed utterance whose reference the normaliser leaves something of, got none');
  const lengths = Float64Array.from(counted, ({ reference }) => rate([reference], [reference]).length);
  const errorsOf = (run: readonly Hypothesis[], what: string): Float64Array => {
    const heard = paired(run, a[0]!, what);
    return Float64Array.from(counted, ({ id, reference }) => {
      const said = normalizer(heard.get(id)!.hypothesis);
      return rate([reference], [said]).errors;
    });
  };
  const errors = {
    a: a.map((run, i) => errorsOf(run, `run ${i + 1} of a`)),
    b: b.map((run, i) => errorsOf(run, `run ${i + 1} of b`)),
  };
  const compared = (members: readonly number[]): Omit<ComparedGroup, 'language' | 'domain'> => {
    const take = (values: Float64Array): Float64Array => Float64Array.from(members, (i) => values[i]!);
    const length = sum(take(lengths));
    const sides = { a: errors.a.map(take), b: errors.b.map(take) };
    const runs = { a: sides.a.map((e) => sum(e) / length), b: sides.b.map((e) => sum(e) / length) };
    const counts = { lengths: take(lengths), a: meanOf(sides.a), b: meanOf(sides.b) };
    const { interval, p } = pairedBootstrap(counts, { resamples, seed, level });
    const overRuns = welchInterval(runs.a, runs.b, level);
    const [rateOfA, rateOfB] = [mean(runs.a), mean(runs.b)];
    return {
      utterances: members.length,
      a: rateOfA,
      b: rateOfB,
      difference: rateOfB - rateOfA,
      interval,
      p,
      runs,
      overRuns,
      better: verdict(interval, overRuns),
    };
  };
  const all = counted.map((_, i) => i);
  const groups = groupsOf(all, (i) => counted[i]!);
  return {
    metric,
    level,
    groups: groups.map(({ language, domain, members }) => ({ language, domain, ...compared(members) })),
    total: { language: 'all', domain: 'all', ...compared(all) },
  };
}

function refuse(message: string): never {
  throw new DistilWhisperError('ERR_ARGUMENT', message);
}

function checkWhole(name: string, value: number, least: number, most: number): void {
  if (!Number.isInteger(value) || value < least || value > most)
    refuse(`${name}: expected a whole number from ${least} to ${most}, got ${value}`);
}

/** The utterances of a run by their ids; they must be those of the first one. */
function paired(run: readonly Hypothesis[], first: readonly Hypothesis[], what: string): Map<string, Hypothesis> {
  const byId = new Map(run.map((utterance) => [utterance.id, utterance]));
  if (byId.size < run.length) {
    const ids = run.map(({ id }) => id);
    refuse(`${what}: utterance ${shown(ids.find((id, i) => ids.indexOf(id) < i))} is there twice`);
  }
  for (const { id, reference } of first) {
    const other = byId.get(id);
    if (!other) refuse(`${what}: expected the utterances of the first run, got none with the id ${shown(id)}`);
    if (other.reference !== reference) refuse(`${what}: utterance ${shown(id)} has another reference`);
  }
  if (run.length > first.length) {
    const known = new Set(first.map(({ id }) => id));
    const more = run.find(({ id }) => !known.has(id))!;
    refuse(`${what}: expected the utterances of the first run, got ${shown(more.id)} too`);
  }
  return byId;
}

const sum = (values: Float64Array): number => values.reduce((total, value) => total + value, 0);

function meanOf(runs: readonly Float64Array[]): Float64Array {
  return runs[0]!.map((_, i) => runs.reduce((total, errors) => total + errors[i]!, 0) / runs.length);
}

function verdict(overUtterances: Interval, overRuns: Interval | null): ComparedGroup['better'] {
  const side = ({ low, high }: Interval): 'a' | 'b' | 'none' => (high < 0 ? 'b' : low > 0 ? 'a' : 'none');
  const said = side(overUtterances);
  if (said === 'none') return 'none';
  if (overRuns === null) return 'unknown';
  return side(overRuns) === said ? said : 'none';
}

/** The comparison as a table of text, rates in per cent; the lines below it say what its words mean. Ends with '\n'. */
export function formatComparison({ metric, level, groups, total }: Comparison): string {
  const percent = (rate: number): string => (100 * rate).toFixed(1);
  const signed = (rate: number): string => (rate > 0 ? '+' : '') + percent(rate);
  const range = (interval: Interval | null): string =>
    interval ? `${signed(interval.low)} to ${signed(interval.high)}` : '-';
  const name = metric.toUpperCase();
  const head = ['language', 'domain', 'utterances', `${name} % a`, `${name} % b`, 'b - a', 'over utterances'];
  const cells = (group: ComparedGroup): string[] => [
    group.language || '-',
    group.domain || '-',
    String(group.utterances),
    percent(group.a),
    percent(group.b),
    signed(group.difference),
    range(group.interval),
    range(group.overRuns),
    group.better === 'unknown' ? '?' : group.better === 'none' ? '-' : group.better,
  ];
  const table = formatColumns([...head, 'over runs', 'better'], [...groups.map(cells), null, cells(total)], 2);
  const notes = [`Intervals of ${percent(level)}%; over utterances by the paired bootstrap, over runs by Welch's t.`];
  if ([...groups, total].some(({ better }) => better === 'unknown'))
    notes.push('?: the utterances tell them apart, but a side has one run: another seed may say otherwise.');
  return `${table}\n${notes.join('\n')}\n`;
}
