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
