/** How BLEU cuts texts into words: the tokenizers of sacrebleu 2.6, which are those of NIST's mteval scripts. */
import { PYTHON_SPACE, strip } from './whitespace.js';

const spaces = new RegExp(`[${PYTHON_SPACE}]+`);

/** What stands between whitespace, in Python's sense. */
export const wordsOf = (text: string): string[] => text.split(spaces).filter((word) => word !== '');

type Rule = readonly [pattern: RegExp, by: string];
const applied = (text: string, rules: readonly Rule[]): string =>
  rules.reduce((out, [pattern, by]) => out.replace(pattern, by), text);

/** Of mteval-v13a: ASCII punctuation apart; points and commas but between digits; a dash behind a digit. */
const WESTERN: readonly Rule[] = [
  [/([{-~[-` -&(-+:-@/])/g, ' $1 '],
  [/([^0-9])([.,])/gu, '$1 $2 '],
  [/([.,])([^0-9])/gu, ' $1 $2'],
  [/([0-9])(-)/g, '$1 $2 '],
];
const ENTITIES: readonly Rule[] = [
  [/&quot;/g, '"'],
  [/&amp;/g, '&'],
  [/&lt;/g, '<'],
  [/&gt;/g, '>'],
];
/** Of mteval-v14: punctuation apart but between numbers, symbols. */
const INTERNATIONAL: readonly Rule[] = [
  [/(\P{N})(\p{P})/gu, '$1 $2 '],
  [/(\p{P})(\P{N})/gu, ' $1 $2'],
  [/(\p{S})/gu, ' $1 '],
];
/** What the Chinese tokenizer takes apart. The range from U+2001 is what its authors' "\u20000" means to Python, and that from U+2F81 "\u2f800". */
const CHINESE =
  /[\u3400-\u4db5\u4e00-\u9fbb\uf900-\ufa2d\ufa30-\ufa6a\ufa70-\ufad9\u2001-\u2a6d\u2f81-\u2fa1\uff00-\uffef\u2e80-\u2eff\u3000-\u303f\u31c0-\u31ef\u2f00-\u2fdf\u2ff0-\u312f\u31a0-\u31bf\ufe10-\ufe1f\ufe30-\ufe4f\u3200-\u33ff]/g;

const TOKENIZERS = {
  '13a': (text: string) => {
    const joined = text
      .replace(/<skipped>/g, '')
      .replace(/-\n/g, '')
      .replace(/\n/g, ' ');
    return wordsOf(applied(` ${applied(joined, ENTITIES)} `, WESTERN));
  },
  intl: (text: string) => wordsOf(applied(text, INTERNATIONAL)),
  zh: (text: string) => wordsOf(applied(strip(text).replace(CHINESE, ' $& '), WESTERN)),
  char: (text: string) => Array.from(text).filter((character) => wordsOf(character).length > 0),
  none: wordsOf,
} satisfies Record<string, (text: string) => string[]>;

export type BleuTokenizer = keyof typeof TOKENIZERS;
export const BLEU_TOKENIZERS = Object.keys(TOKENIZERS) as BleuTokenizer[];

/** The words of a text, whose end is without whitespace. */
export const bleuWords = (text: string, tokenizer: BleuTokenizer): string[] =>
  TOKENIZERS[tokenizer](strip(`.${text}`).slice(1));
