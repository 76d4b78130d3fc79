import { PYTHON_SPACE, strip } from './whitespace.js';

export interface NormalizerOptions {
  /** Drop accents (`é` → `e`, `ł` → `l`, `ß` → `ss`) instead of keeping composed letters. Default false. */
  removeDiacritics?: boolean;
  /**
   * Basic: a space between all letters. Extended: only around letters of scripts written without spaces between words.
   * Default false.
   */
  splitLetters?: boolean;
}

export type Normalizer = (text: string) => string;

/** Letters that compatibility decomposition does not take apart, as Whisper maps them. */
const letters: Record<string, string> = {
  Æ: 'AE',
  æ: 'ae',
  Ð: 'D',
  ð: 'd',
  Đ: 'D',
  đ: 'd',
  Ł: 'L',
  ł: 'l',
  Ø: 'O',
  ø: 'o',
  Œ: 'OE',
  œ: 'oe',
  ẞ: 'SS',
  ß: 'ss',
  Þ: 'th',
  þ: 'th',
};
const mappedLetter = new RegExp(`[${Object.keys(letters).join('')}]`, 'gu');
const whitespace = new RegExp(`[${PYTHON_SPACE}]+`, 'gu');

/**
 * The scripts that the reference sets apart letter by letter: Thai, Lao, Tibetan and Myanmar; kana, bopomofo, CJK, Yi;
 * Hangul syllables and jamo extended A; compatibility and full-width forms. Symbols in between are gone by then.
 */
const unspacedScript =
  /[\u0e00-\u109f\u3000-\u9fff\ua000-\ua4cf\ua960-\ua97f\uaa60-\uaa7f\uac00-\ud7af\uf900-\ufaff\ufe10-\ufe1f\uff00-\uffef]/gu;

const graphemes = new Intl.Segmenter('und', { granularity: 'grapheme' });

/**
 * Whisper's BasicTextNormalizer: lower case; what stands in <…>, […] or (…) is dropped; marks, symbols and punctuation
 * become spaces; runs of whitespace become one space (outer ones stay, as in Whisper).
 */
export function basicNormalizer(options: NormalizerOptions = {}): Normalizer {
  return (text) => {
    let out = clean(text, options.removeDiacritics ?? false);
    if (options.splitLetters) out = Array.from(graphemes.segment(out), (part) => part.segment).join(' ');
    return out.replace(whitespace, ' ');
  };
}

/**
 * The reference's ExtendedTextNormalizer, by which its error rates are counted (with `splitLetters: true`): as the basic
 * one, but letter splitting puts spaces around Thai, Lao, Tibetan, Myanmar, CJK, kana and Hangul characters only, and then
 * strips the ends. So the "words" of those scripts are their letters, without vowel signs and tones, which are marks.
 */
export function extendedNormalizer(options: NormalizerOptions = {}): Normalizer {
  return (text) => {
    let out = clean(text, options.removeDiacritics ?? false);
    if (options.splitLetters) out = strip(out.replace(unspacedScript, ' $& '));
    return out.replace(whitespace, ' ');
  };
}

function clean(text: string, removeDiacritics: boolean): string {
  const spoken = text
    .toLowerCase()
    .replace(/[<[][^>\]]*[>\]]/gu, '')
    .replace(/\([^)]+\)/gu, '');
  const plain = removeDiacritics
    ? spoken
        .normalize('NFKD')
        .replace(mappedLetter, (letter) => letters[letter]!)
        .replace(/\p{Mn}/gu, '')
    : spoken.normalize('NFKC');
  return plain.replace(/[\p{M}\p{S}\p{P}]/gu, ' ').toLowerCase();
}
