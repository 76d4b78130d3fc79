/**
 * The regular expressions of a tokenizer.json come with a model that someone else made, and JavaScript runs them by trying and
 * going back: `(a+)+b` takes longer than a day on a line of text. Only those are run that are seen to take time in proportion
 * to the text, which those of Whisper and GPT-2 do.
 */
import { DistilWhisperError } from '../errors/index.js';
import { isRecord } from './tokenizer-json.js';

const MAX_PATTERN = 500;
/** A character may repeat so often in what is bounded. */
const MAX_TIMES = 16;
/** Ways to repeat what stands before a place of an alternative, which are all tried where that place fails. */
const MAX_WAYS = 20;
/** Sections nest two deep in published tokenizers. */
const MAX_NESTING = 20;

/** White space before a word, the one thing that looks ahead in GPT-2's pattern: all but the last of a run. */
const SPACES_BEFORE = '\\s+(?!\\S)';
/** One character; a class of them is looked at apart. */
const ATOM = /^(\\[pP]\{[\w=]+\}|\\[xu]\{?[\dA-Fa-f]+\}?|\\[^\dpPxuUkgGKRXbBAyYzZ]|[^\\()[\]{}*+?|^$])/;
const QUANTIFIER = /^(?:([?*+])|\{(\d+)(,?)(\d*)\})/;

/**
 * Why a pattern may take longer than in proportion to the text; undefined where it cannot: its alternatives are characters and
 * classes one after another, of which a few repeat with a bound; what repeats without one, and a group, stand at their end,
 * where nothing can fail and send the search back into them.
 */
export function slowness(pattern: string): string | undefined {
  if (pattern.length > MAX_PATTERN) return `it has ${pattern.length} characters, expected at most ${MAX_PATTERN}`;
  let rest = pattern;
  const take = (length: number): void => {
    rest = rest.slice(length);
  };
  /** Reads alternatives up to a `)` or the end; `before`: ways to repeat what stands before them. */
  const alternatives = (before: number): string | undefined => {
    let ways = before;
    let unbounded = false;
    while (rest !== '' && rest[0] !== ')') {
      if (rest[0] === '|') {
        ways = before;
        unbounded = false;
        take(1);
        continue;
      }
      const ends = (): boolean => rest === '' || rest[0] === '|' || rest[0] === ')';
      if (rest.startsWith(SPACES_BEFORE) && !unbounded) {
        take(SPACES_BEFORE.length);
        if (!ends()) return `something follows '${SPACES_BEFORE}'`;
        continue;
      }
      const group = /^\((?:\?i?:)?(?!\?)/.exec(rest)?.[0];
      if (group !== undefined) {
        if (unbounded) return 'a group follows what repeats without a bound';
        take(group.length);
        const why = alternatives(ways);
        if (why !== undefined) return why;
        if (rest === '') return 'a group is left open';
        take(1);
        if (!ends()) return 'something follows a group, or repeats it';
        continue;
      }
      const atom = rest[0] === '[' ? characterClass(rest) : ATOM.exec(rest)?.[0];
      if (atom === undefined) return `it holds '${rest.slice(0, 20)}'`;
      take(atom.length);
      const times = QUANTIFIER.exec(rest);
      const [whole, sign, least, comma, most] = times ?? [''];
      take(whole.length);
      if (times && /^[?*+]/.test(rest)) return 'a repetition is lazy or possessive';
      // What may be empty cannot fail.
      const mayBeEmpty = sign === '*' || sign === '?' || (least !== undefined && Number(least) === 0);
      if (unbounded && !mayBeEmpty) return 'something follows what repeats without a bound';
      const bound = Math.max(Number(least ?? 1), Number(most || 1));
      if (bound > MAX_TIMES) return `a part of it repeats more than ${MAX_TIMES} times`;
      if (sign === '*' || sign === '+' || (comma === ',' && most === '')) unbounded = true;
      else if (times) ways *= bound + 1;
      if (ways > MAX_WAYS) return 'too many parts of it repeat one after another';
    }
    return undefined;
  };
  return alternatives(1) ?? (rest === '' ? undefined : 'a group is closed that was not opened');
}

/** The class that a text begins with, one without classes in it; undefined where there is none. */
function characterClass(text: string): string | undefined {
  return /^\[\^?\]?(?:\\.|[^\\\][])*\]/.exec(text)?.[0];
}

/**
 * Holds every pattern in these sections of a tokenizer.json against what is run.
 * @throws ERR_TOKENIZER naming `source` and the pattern
 */
export function checkPatterns(sections: readonly unknown[], source: string): void {
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_TOKENIZER', `${source}: ${what}`);
  };
  const check = (value: unknown, depth: number): void => {
    if (typeof value !== 'object' || value === null) return;
    if (depth > MAX_NESTING) refuse(`its sections nest deeper than ${MAX_NESTING}`);
    if (isRecord(value) && isRecord(value.pattern) && value.pattern.Regex !== undefined) {
      const { Regex: pattern } = value.pattern;
      if (typeof pattern !== 'string') refuse(`expected a pattern to be text, got a ${typeof pattern}`);
      const why = slowness(pattern as string);
      if (why !== undefined) {
        const shown = (pattern as string).slice(0, 100);
        refuse(`the regular expression '${shown}' is not run, because it could take very long: ${why}`);
      }
    }
    for (const inner of Object.values(value)) check(inner, depth + 1);
  };
  for (const section of sections) check(section, 0);
}
