import { DistilWhisperError } from '../errors/index.js';
import { byPieces, collapsed, MAX_TEXT, PYTHON_SPACE, strip } from './whitespace.js';

export interface NormalizerOptions {
  /** Drop accents (`é` → `e`, `ł` → `l`, `ß` → `ss`) instead of keeping composed letters. Default false. */
  removeDiacritics?: boolean;
  /**
   * Basic: a space between all letters. Extended: only around letters of scripts written without spaces between words.
   * Default false.
   */
  splitLetters?: boolean;
}

/** Throws ERR_ARGUMENT for a text of more than 10,000,000 characters. */
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
    if (options.splitLetters) out = spaced(out);
    return collapsed(out, whitespace);
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
    if (options.splitLetters) out = strip(byPieces(out, (piece) => piece.replace(unspacedScript, ' $& ')));
    return collapsed(out, whitespace);
  };
}

/** The segmenter takes time by the square of a text's length: it is given so many characters at once. */
const SEGMENTED = 1000;

/** A space between all graphemes. */
function spaced(text: string): string {
  const parts: string[] = [];
  let start = 0;
  for (let length = SEGMENTED; start < text.length; ) {
    const end = start + length;
    const segments = Array.from(graphemes.segment(text.slice(start, end)), (part) => part.segment);
    // The last one may go on behind the piece: it begins the next, which is longer where it is all of this.
    const last = end < text.length ? segments.pop()! : '';
    length = segments.length > 0 ? SEGMENTED : 2 * length;
    if (segments.length > 0) parts.push(segments.join(' '));
    start = Math.min(end, text.length) - last.length;
  }
  return parts.join(' ');
}

/** Longer runs of marks are no writing. */
const MARKS = 64;
const manyMarks = new RegExp(`\\p{M}{${MARKS + 1}}`, 'u');

/**
 * Normalisation sorts the marks behind a letter, by the square of their number. A letter is joined with one mark of a kind at most
 * twice, and all that is left of marks is the space in their place: so of a long run two of each kind are enough.
 */
function withFewMarks(text: string): string {
  if (!manyMarks.test(text)) return text;
  return text.replace(/\p{M}+/gu, (run) => {
    if (run.length <= MARKS) return run;
    const counts = new Map<string, number>();
    return Array.from(run)
      .filter((mark) => {
        const count = (counts.get(mark) ?? 0) + 1;
        counts.set(mark, count);
        return count <= 2;
      })
      .join('');
  });
}

/** Without what matches [<[][^>\]]*[>\]]; by search instead, because a text of openers alone takes that pattern quadratic time. */
function withoutBrackets(text: string): string {
  return without(text, /[<[]/g, /[>\]]/g, 1);
}

/** Without what matches \([^)]+\): as a search too. */
function withoutParentheses(text: string): string {
  return without(text, /\(/g, /\)/g, 2);
}

/** Without what stands from an `opener` to the next `closer`, where that lies `least` characters on or more. */
function without(text: string, opener: RegExp, closer: RegExp, least: number): string {
  let kept = '';
  let from = 0;
  for (let at = 0; ; ) {
    opener.lastIndex = at;
    const open = opener.exec(text);
    if (!open) break;
    closer.lastIndex = open.index + 1;
    const close = closer.exec(text);
    // Without a closer behind this opener there is none behind a later one.
    if (!close) break;
    if (close.index - open.index < least) {
      at = open.index + 1;
      continue;
    }
    kept += text.slice(from, open.index);
    from = close.index + 1;
    at = from;
  }
  return kept + text.slice(from);
}

function clean(text: string, removeDiacritics: boolean): string {
  if (text.length > MAX_TEXT) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `text must have at most ${MAX_TEXT} characters to be normalised, got ${text.length}.`,
    );
  }
  const spoken = withFewMarks(withoutParentheses(withoutBrackets(text.toLowerCase())));
  const plain = removeDiacritics
    ? byPieces(spoken.normalize('NFKD'), (piece) =>
        piece.replace(mappedLetter, (letter) => letters[letter]!).replace(/\p{Mn}/gu, ''),
      )
    : spoken.normalize('NFKC');
  return byPieces(plain, (piece) => piece.replace(/[\p{M}\p{S}\p{P}]/gu, ' ')).toLowerCase();
}
