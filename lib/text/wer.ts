import { DistilWhisperError, editDistance } from '../errors/index.js';
import { MAX_TEXT, PYTHON_SPACE, strip } from './whitespace.js';

/** Corpus-level error rate: `rate` = `errors` / `length`, a fraction (it may exceed 1); `length` counts the references. */
export interface ErrorRate {
  readonly errors: number;
  readonly length: number;
  readonly rate: number;
}

/**
 * Word error rate over a corpus: the sum of edit errors over the sum of reference lengths (micro average), as jiwer 3
 * and evaluate 0.4 count. Runs of whitespace become one space and outer whitespace goes; words are what stands between
 * spaces. Nothing else is normalised: pass both sides through a normaliser first.
 * @throws ERR_ARGUMENT when the two lists are empty or differ in length, an entry is no string, or a reference has no words
 */
export function wer(references: readonly string[], hypotheses: readonly string[]): ErrorRate {
  return errorRate(references, hypotheses, (text) => text.split(' ').filter((word) => word !== ''));
}

/**
 * Character error rate over a corpus, counted in Unicode code points, spaces included; otherwise as {@link wer}.
 * @throws ERR_ARGUMENT as {@link wer}
 */
export function cer(references: readonly string[], hypotheses: readonly string[]): ErrorRate {
  return errorRate(references, hypotheses, (text) => Array.from(text));
}

const spaces = new RegExp(`[${PYTHON_SPACE}]{2,}`, 'g');

function errorRate(
  references: readonly string[],
  hypotheses: readonly string[],
  split: (text: string) => string[],
): ErrorRate {
  if (!Array.isArray(references) || !Array.isArray(hypotheses)) {
    throw new DistilWhisperError('ERR_ARGUMENT', 'references and hypotheses must be arrays of strings.');
  }
  if (references.length !== hypotheses.length || references.length === 0) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `references and hypotheses must pair up, one or more of each: got ${references.length} and ${hypotheses.length}.`,
    );
  }
  let errors = 0;
  let length = 0;
  for (let row = 0; row < references.length; row++) {
    const reference = split(clean(references[row], 'reference', row));
    const hypothesis = split(clean(hypotheses[row], 'hypothesis', row));
    if (reference.length === 0) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `The reference of row ${row + 1} (of ${references.length}) is empty: an error rate needs references with text. Drop the row, or look at what the normaliser left of it.`,
      );
    }
    const distance = editDistance(reference, hypothesis);
    if (distance === undefined) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `The texts of row ${row + 1} are too long to be aligned (${reference.length} by ${hypothesis.length}): compare them in parts.`,
      );
    }
    errors += distance;
    length += reference.length;
  }
  return { errors, length, rate: errors / length };
}

function clean(text: unknown, side: string, row: number): string {
  if (typeof text !== 'string') {
    throw new DistilWhisperError('ERR_ARGUMENT', `The ${side} of row ${row + 1} must be a string, got ${typeof text}.`);
  }
  if (text.length > MAX_TEXT) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `The ${side} of row ${row + 1} must have at most ${MAX_TEXT} characters, got ${text.length}.`,
    );
  }
  return strip(text.replace(spaces, ' '));
}
