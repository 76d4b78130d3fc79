import { createHash } from 'node:crypto';
import type { Dataset } from './dataset.js';
import type { ManifestEntry } from './manifest.js';

/** What a run learns from a row besides its audio. */
const learned = ({ text, language, task = 'transcribe', segments }: ManifestEntry): unknown[] =>
  segments ? [text, language, task, segments] : [text, language, task];

/**
 * What rows are, in their order: names and sizes of the audio, and what is `told` of each (default: text, language, task, segments). The same
 * under another path, and another where they have changed. Errors: those of `Dataset.identity`.
 */
export async function digestOfRows(
  data: Dataset,
  told: (entry: ManifestEntry) => unknown[] = learned,
): Promise<string> {
  const hash = createHash('sha256');
  for (const i of data.numbers()) {
    const [name, size] = await data.identity(i);
    hash.update(`${JSON.stringify([name, size, ...told(data.entry(i))])}\n`);
  }
  return `sha256:${hash.digest('hex')}`;
}
