/**
 * What a terminal would obey instead of show: C0 and C1 controls but tab and newline, DEL, and the marks that reverse the order of
 * what follows them.
 */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const OBEYED = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/g;

/** Text of unknown origin for a terminal: controls as \u001b. In files and pipes text stays as it is. */
export const visible = (text: string): string =>
  text.replace(OBEYED, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
