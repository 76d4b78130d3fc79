/**
 * The characters that Python calls whitespace, as the inside of a character class. JavaScript's \s differs: it holds
 * U+FEFF and lacks U+001C–U+001F and U+0085. Whisper's normalisers and jiwer are defined by Python's.
 */
export const PYTHON_SPACE =
  '\\t-\\r\\u001c-\\u001f \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';

const edges = new RegExp(`^[${PYTHON_SPACE}]+|[${PYTHON_SPACE}]+$`, 'g');

/** Removes whitespace, in Python's sense, from both ends. */
export function strip(text: string): string {
  return text.replace(edges, '');
}
