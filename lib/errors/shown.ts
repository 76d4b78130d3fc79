/** How a value that was refused is shown in a sentence. */

/**
 * A value as JSON on one line, cut to `limit` characters; what JSON has no form for (a list that nests too deep, a cycle, a
 * function) by its kind. Never throws.
 */
export function shown(value: unknown, limit = 120): string {
  let text: string | undefined;
  try {
    text = JSON.stringify(value, (_, inner) => (typeof inner === 'bigint' ? `${inner}n` : inner));
  } catch {
    return Array.isArray(value) ? 'a list that JSON cannot show' : 'an object that JSON cannot show';
  }
  if (text === undefined) return value === undefined ? 'undefined' : `a ${typeof value}`;
  return text.length <= limit ? text : `${text.slice(0, limit)}…`;
}
