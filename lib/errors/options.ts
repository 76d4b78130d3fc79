/** Options of the public calls, by their names: what a misspelt one would leave at its default is refused instead. */
import { editDistance } from './edit-distance.js';
import { DistilWhisperError } from './error.js';

/**
 * Refuses options that a call does not have. `call` opens the sentence; `known` lists every name, best as
 * `Record<keyof Options, true>`, which the compiler holds complete. Throws ERR_ARGUMENT with the nearest name.
 */
export function checkOptions(call: string, options: unknown, known: Readonly<Record<string, true>>): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    const got = options === null ? 'null' : Array.isArray(options) ? 'an array' : typeof options;
    throw new DistilWhisperError('ERR_ARGUMENT', `${call}: expected an object of options, got ${got}`);
  }
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(known, name)) continue;
    const near = nearest(name, Object.keys(known));
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `${call}: unknown option ${JSON.stringify(name.slice(0, 60))}; ${near === null ? `it has ${Object.keys(known).join(', ')}` : `did you mean ${near}?`}`,
    );
  }
}

/** The name that was meant, where one is near: the same letters in another spelling (beam_size), or a few edits away. */
function nearest(name: string, names: readonly string[]): string | null {
  if (name.length > 60) return null;
  const letters = (text: string): string[] => [...text.toLowerCase().replaceAll(/[^a-z0-9]/g, '')];
  const given = letters(name);
  const scored = names.map((known) => ({ known, edits: editDistance(given, letters(known)) ?? given.length }));
  const best = scored.reduce((a, b) => (b.edits < a.edits ? b : a), { known: '', edits: Number.POSITIVE_INFINITY });
  return best.edits <= Math.max(given.length < 4 ? 1 : 2, Math.floor(0.4 * given.length)) ? best.known : null;
}
