/**
 * The characters that Python calls whitespace, as the inside of a character class. JavaScript's \s differs: it holds
 * U+FEFF and lacks U+001C–U+001F and U+0085. Whisper's normalisers and jiwer are defined by Python's.
 */
export const PYTHON_SPACE =
  '\\t-\\r\\u001c-\\u001f \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';

const space = new RegExp(`[${PYTHON_SPACE}]`);

/** Removes whitespace, in Python's sense, from both ends. By hand: a pattern for the end tries every run of spaces in between. */
export function strip(text: string): string {
  let start = 0;
  let end = text.length;
  while (start < end && space.test(text.charAt(start))) start++;
  while (end > start && space.test(text.charAt(end - 1))) end--;
  return text.slice(start, end);
}

/** More than a thousand hours of speech; what is made of a longer text may not fit a string of JavaScript. */
export const MAX_TEXT = 10_000_000;

/** One `replace` of too many matches ends the process (V8's list of parts has a limit): a longer text is taken in pieces. */
const PIECE = 1_000_000;

/** `change` of a text whose characters are changed each by itself. */
export function byPieces(text: string, change: (piece: string) => string): string {
  if (text.length <= PIECE) return change(text);
  return Array.from(pieces(text), change).join('');
}

/** Every run of `what` becomes one space. */
export function collapsed(text: string, what: RegExp): string {
  let ended = false;
  return byPieces(text, (piece) => {
    const out = piece.replace(what, ' ');
    // A run may go on from the piece before.
    const fresh = ended && out.startsWith(' ') ? out.slice(1) : out;
    ended = out.endsWith(' ');
    return fresh;
  });
}

function* pieces(text: string): Generator<string> {
  for (let start = 0, end = 0; start < text.length; start = end) {
    end = start + PIECE;
    // A pair of surrogates stays together.
    if (/[\ud800-\udbff]/.test(text.charAt(end - 1))) end++;
    yield text.slice(start, end);
  }
}
