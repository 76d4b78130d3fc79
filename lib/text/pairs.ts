import { DistilWhisperError } from '../errors/index.js';

/** The references of each hypothesis, as lists. Errors: ERR_ARGUMENT (lists that are empty or of different lengths, an entry that is no string). */
export function checkPairs(
  references: readonly (string | readonly string[])[],
  hypotheses: readonly string[],
): readonly (readonly string[])[] {
  const refuse = (message: string): never => {
    throw new DistilWhisperError('ERR_ARGUMENT', message);
  };
  if (!Array.isArray(references) || !Array.isArray(hypotheses))
    return refuse('references and hypotheses: expected arrays');
  if (references.length !== hypotheses.length || references.length === 0)
    refuse(
      `references and hypotheses: expected as many of each, one at least, got ${references.length} and ${hypotheses.length}`,
    );
  return references.map((reference: string | readonly string[], row) => {
    const all = Array.isArray(reference) ? (reference as readonly string[]) : [reference as string];
    if (all.length === 0) refuse(`references[${row}]: expected a text or several, got an empty list`);
    for (const text of [...all, hypotheses[row]])
      if (typeof text !== 'string') refuse(`row ${row}: expected texts, got ${typeof text}`);
    return all;
  });
}
