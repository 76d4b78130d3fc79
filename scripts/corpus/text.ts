/** The written form of the corpus: lower case, letters and single spaces only. */

export const LANGUAGES = ['ca', 'cs', 'en', 'hu', 'pl', 'th', 'uk'] as const;
export type Language = (typeof LANGUAGES)[number];

/**
 * Lower-case NFC text in which punctuation, symbols and apostrophes have become spaces, as the evaluation's normaliser
 * makes them. Unlike there the vowel signs of Thai stay, since without them the text could not be read.
 */
export function writtenForm(spoken: string): string {
  return spoken
    .normalize('NFC')
    .toLowerCase()
    .replace(/[\u00ad\u200b-\u200f\ufeff]/gu, '')
    .replace(/[\u02bc\p{P}\p{S}]/gu, ' ')
    .replace(/\s+/gu, ' ')
    .trim();
}

/** What two texts share when the evaluation cannot tell them apart: compatibility form without marks and spaces. */
export function comparisonKey(text: string): string {
  return writtenForm(text)
    .normalize('NFKC')
    .replace(/[\p{M}\p{P}\p{S}\s]/gu, '');
}

/** Length in code points, which is the length in tokens of the pocket tokenizer. */
export function codePoints(text: string): number {
  return [...text].length;
}

/** Letters of the longest text: with its prompt and its end it fits 64 positions of a decoder. */
export const LONGEST_TEXT = 36;
