import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { numberOfReferences } from './bleu.js';
import { wordsOf } from './bleu-tokenizers.js';
import { common, type NgramCounts, ngrams, total } from './ngrams.js';
import { checkPairs } from './pairs.js';

export interface ChrfOptions {
  /** Longest n-gram of characters. Default 6. */
  characters?: number | undefined;
  /** Longest n-gram of words. Default 0: chrF; 2: chrF++. */
  words?: number | undefined;
  /** How much more recall weighs than precision. Default 2. */
  beta?: number | undefined;
  lowercase?: boolean | undefined;
  /** Count whitespace as characters. Default false. */
  whitespace?: boolean | undefined;
  /** Smooth as chrF++.py does, instead of leaving out lengths of which a side has none. Default false. */
  epsilon?: boolean | undefined;
}

const OPTIONS: Record<keyof ChrfOptions, true> = {
  characters: true,
  words: true,
  beta: true,
  lowercase: true,
  whitespace: true,
  epsilon: true,
};

export interface ChrfScore {
  /** 0 to 100. */
  score: number;
  /** How it was counted, in sacrebleu's words. */
  signature: string;
}

/** Of each length of n-grams: those of the hypothesis, of the reference, and of both. */
type Matches = [hypothesis: number, reference: number, both: number][];

const EPSILON = 1e-16;
const PUNCTUATION = new Set('!"#$%&\'()*+,-./:;<=>?@[\\]^_`{|}~');

/**
 * chrF of a corpus (Popović, 2015 and 2017), as sacrebleu 2.6 defines it: F-score of the n-grams of characters, and of words for chrF++. Of several
 * references that counts which fits best. Errors: ERR_ARGUMENT, as `bleu`.
 */
export function chrf(
  references: readonly (string | readonly string[])[],
  hypotheses: readonly string[],
  options: ChrfOptions = {},
): ChrfScore {
  checkOptions('chrf', options, OPTIONS);
  const { characters = 6, words = 0, beta = 2, lowercase = false, whitespace = false, epsilon = false } = options;
  checkOrder('characters', characters, 1);
  checkOrder('words', words, 0);
  if (!(Number.isFinite(beta) && beta > 0))
    throw new DistilWhisperError('ERR_ARGUMENT', `beta: expected a number above 0, got ${beta}`);
  const pairs = checkPairs(references, hypotheses);
  const countsOf = (text: string): NgramCounts[] => {
    const cased = lowercase ? text.toLowerCase() : text;
    const letters = Array.from(whitespace ? cased : wordsOf(cased).join(''));
    return [...ngrams(letters, characters), ...ngrams(wordsAndMarks(cased), words)];
  };
  const sums: Matches = Array.from({ length: characters + words }, () => [0, 0, 0]);
  for (const [i, hypothesis] of hypotheses.entries()) {
    const said = countsOf(hypothesis);
    let best: { score: number; matches: Matches } | undefined;
    for (const reference of pairs[i]!) {
      const matches = matchesOf(said, countsOf(reference));
      const score = fScore(matches, beta, epsilon);
      if (!best || score > best.score) best = { score, matches };
    }
    for (const [n, match] of best!.matches.entries()) for (const k of [0, 1, 2] as const) sums[n]![k] += match[k];
  }
  const signature = [
    `nrefs:${numberOfReferences(pairs)}`,
    `case:${lowercase ? 'lc' : 'mixed'}`,
    `eff:${epsilon ? 'no' : 'yes'}`,
    `nc:${characters}`,
    `nw:${words}`,
    `space:${whitespace ? 'yes' : 'no'}`,
    'version:2.6.0',
  ].join('|');
  return { score: fScore(sums, beta, epsilon), signature };
}

function checkOrder(name: string, value: number, least: number): void {
  if (!Number.isInteger(value) || value < least || value > 100)
    throw new DistilWhisperError('ERR_ARGUMENT', `${name}: expected a whole number from ${least} to 100, got ${value}`);
}

function matchesOf(hypothesis: readonly NgramCounts[], reference: readonly NgramCounts[]): Matches {
  return hypothesis.map((counts, n) => {
    const wanted = reference[n]!;
    return [wanted.size > 0 ? total(counts) : 0, total(wanted), common(counts, wanted)];
  });
}

function fScore(matches: Matches, beta: number, epsilon: boolean): number {
  const weight = beta ** 2;
  const f = (precision: number, recall: number): number =>
    ((1 + weight) * precision * recall) / (weight * precision + recall);
  let [smoothed, precisions, recalls, lengths] = [0, 0, 0, 0];
  for (const [hypothesis, reference, both] of matches) {
    const precision = hypothesis > 0 ? both / hypothesis : EPSILON;
    const recall = reference > 0 ? both / reference : EPSILON;
    smoothed += weight * precision + recall > 0 ? f(precision, recall) : EPSILON;
    if (hypothesis > 0 && reference > 0) {
      precisions += precision;
      recalls += recall;
      lengths++;
    }
  }
  if (epsilon) return (100 * smoothed) / matches.length;
  if (precisions + recalls === 0) return 0;
  return 100 * f(precisions / lengths, recalls / lengths);
}

/** Words, and one mark of punctuation before or behind each apart. */
function wordsAndMarks(text: string): string[] {
  return wordsOf(text).flatMap((word) => {
    const letters = Array.from(word);
    if (letters.length === 1) return [word];
    const [first, last] = [letters[0]!, letters.at(-1)!];
    if (PUNCTUATION.has(last)) return [letters.slice(0, -1).join(''), last];
    if (PUNCTUATION.has(first)) return [first, letters.slice(1).join('')];
    return [word];
  });
}
