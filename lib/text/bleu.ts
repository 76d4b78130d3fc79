import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { BLEU_TOKENIZERS, type BleuTokenizer, bleuWords } from './bleu-tokenizers.js';
import { common, type NgramCounts, ngrams, total } from './ngrams.js';
import { checkPairs } from './pairs.js';

/** What a length of n-grams without a match counts as; 'exp': half as much for each such length (NIST). */
export type BleuSmoothing = 'exp' | 'floor' | 'add-k' | 'none';

export interface BleuOptions {
  /** How words are told apart. Default '13a', as WMT counts; 'zh' for Chinese, 'char' for scripts without spaces, 'none' for texts that are cut already. */
  tokenizer?: BleuTokenizer | undefined;
  lowercase?: boolean | undefined;
  /** Default 'exp'. */
  smoothing?: BleuSmoothing | undefined;
  /** Of 'floor' (default 0.1) and 'add-k' (default 1). */
  smoothingValue?: number | undefined;
  /** Leave out lengths of which the hypotheses have no n-gram: for single sentences. Default false. */
  effectiveOrder?: boolean | undefined;
}

const OPTIONS: Record<keyof BleuOptions, true> = {
  tokenizer: true,
  lowercase: true,
  smoothing: true,
  smoothingValue: true,
  effectiveOrder: true,
};

export interface BleuScore {
  /** 0 to 100. */
  score: number;
  brevityPenalty: number;
  /** Of n-grams of 1 to 4 words: those that a reference has, and all. */
  counts: number[];
  totals: number[];
  /** In per cent. */
  precisions: number[];
  /** In words; of several references the one that is nearest in length. */
  hypothesisLength: number;
  referenceLength: number;
  /** How it was counted, in sacrebleu's words. */
  signature: string;
}

const ORDER = 4;
const SMOOTHING_VALUES: Record<BleuSmoothing, number | null> = { exp: null, floor: 0.1, 'add-k': 1, none: null };
/** What sacrebleu takes for the logarithm of 0. */
const LOG_OF_NOTHING = -9999999999;

/**
 * BLEU of a corpus (Papineni et al., 2002), as sacrebleu 2.6 defines it: n-grams of up to four words, clipped by the reference,
 * with a penalty for brevity. A reference is a text, or several of which each n-gram may stand in any.
 * Errors: ERR_ARGUMENT (lists that are empty or of different lengths, no string, an option that is none).
 */
export function bleu(
  references: readonly (string | readonly string[])[],
  hypotheses: readonly string[],
  options: BleuOptions = {},
): BleuScore {
  checkOptions('bleu', options, OPTIONS);
  const { tokenizer = '13a', lowercase = false, smoothing = 'exp', effectiveOrder = false } = options;
  checkChoice('tokenizer', tokenizer, BLEU_TOKENIZERS);
  checkChoice('smoothing', smoothing, Object.keys(SMOOTHING_VALUES));
  const value = options.smoothingValue ?? SMOOTHING_VALUES[smoothing] ?? 0;
  if (!(Number.isFinite(value) && value >= 0))
    throw new DistilWhisperError('ERR_ARGUMENT', `smoothingValue: expected a number from 0, got ${value}`);
  const pairs = checkPairs(references, hypotheses);
  const words = (text: string): string[] => bleuWords(lowercase ? text.toLowerCase() : text, tokenizer);
  const [counts, totals] = [new Array<number>(ORDER).fill(0), new Array<number>(ORDER).fill(0)];
  let [hypothesisLength, referenceLength] = [0, 0];
  for (const [i, hypothesis] of hypotheses.entries()) {
    const said = words(hypothesis);
    const wanted = pairs[i]!.map(words);
    const most = wanted.map((each) => ngrams(each, ORDER)).reduce(largest);
    hypothesisLength += said.length;
    referenceLength += nearest(said.length, wanted);
    for (const [n, these] of ngrams(said, ORDER).entries()) {
      totals[n]! += total(these);
      counts[n]! += common(these, most[n]!);
    }
  }
  const brevityPenalty = brevity(hypothesisLength, referenceLength);
  const smoothed = SMOOTHING_VALUES[smoothing] === null ? smoothing : `${smoothing}[${value.toFixed(2)}]`;
  const signature = [
    `nrefs:${numberOfReferences(pairs)}`,
    `case:${lowercase ? 'lc' : 'mixed'}`,
    `eff:${effectiveOrder ? 'yes' : 'no'}`,
    `tok:${tokenizer}`,
    `smooth:${smoothed}`,
    'version:2.6.0',
  ].join('|');
  const precisions = new Array<number>(ORDER).fill(0);
  const found = { brevityPenalty, counts, totals, precisions, hypothesisLength, referenceLength, signature };
  if (counts.every((count) => count === 0)) return { score: 0, ...found };
  let [halves, order] = [1, ORDER];
  for (let n = 0; n < ORDER; n++) {
    if (smoothing === 'add-k' && n > 0) {
      counts[n]! += value;
      totals[n]! += value;
    }
    if (totals[n] === 0) break;
    if (effectiveOrder) order = n + 1;
    if (counts[n]! > 0) precisions[n] = (100 * counts[n]!) / totals[n]!;
    else if (smoothing === 'exp') {
      halves *= 2;
      precisions[n] = 100 / (halves * totals[n]!);
    } else if (smoothing === 'floor') precisions[n] = (100 * value) / totals[n]!;
  }
  const logs = precisions.slice(0, order).map((p) => (p === 0 ? LOG_OF_NOTHING : Math.log(p)));
  return { score: brevityPenalty * Math.exp(logs.reduce((a, b) => a + b, 0) / order), ...found };
}

function checkChoice(name: string, value: string, choices: readonly string[]): void {
  if (!choices.includes(value))
    throw new DistilWhisperError('ERR_ARGUMENT', `${name}: expected one of ${choices.join(', ')}, got ${value}`);
}

/** Of each n-gram as many as the reference has that has most. */
function largest(a: readonly NgramCounts[], b: readonly NgramCounts[]): NgramCounts[] {
  return a.map((counts, n) => {
    const most = new Map(counts);
    for (const [key, count] of b[n]!) most.set(key, Math.max(count, most.get(key) ?? 0));
    return most;
  });
}

function nearest(length: number, references: readonly (readonly string[])[]): number {
  const distance = (other: number): number => Math.abs(other - length);
  return references
    .map((words) => words.length)
    .reduce((best, other) =>
      distance(other) < distance(best) || (distance(other) === distance(best) && other < best) ? other : best,
    );
}

function brevity(length: number, reference: number): number {
  if (length >= reference) return 1;
  return length > 0 ? Math.exp(1 - reference / length) : 0;
}

/** As a signature has it: 'var' where rows have different numbers. */
export function numberOfReferences(pairs: readonly (readonly string[])[]): string {
  const numbers = new Set(pairs.map((references) => references.length));
  return numbers.size === 1 ? String([...numbers][0]) : 'var';
}
