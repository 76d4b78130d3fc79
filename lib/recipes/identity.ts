/** What a run is made of, by content: the same under another path, and another one under the same path when it has changed. */
import { createHash } from 'node:crypto';
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import type { ManifestEntry } from '../data/index.js';
import { DistilWhisperError, fileReadError } from '../errors/index.js';
import { readWhole } from '../files/index.js';
import type { ModelFolder } from '../weights/index.js';

/** Bytes between two looks at whether others want the thread. */
const CHUNK = 8 << 20;

const named = (hex: string): string => `sha256:${hex}`;

/** Of rows in their order: texts, languages, tasks, and names and sizes of the audio. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ. */
export async function digestOfRows(entries: readonly ManifestEntry[]): Promise<string> {
  const hash = createHash('sha256');
  for (const { audio, text, language, task = 'transcribe' } of entries) {
    let size: number;
    try {
      ({ size } = await stat(audio));
    } catch (error) {
      throw fileReadError(error, audio);
    }
    hash.update(`${JSON.stringify([basename(audio), size, text, language, task])}\n`);
  }
  return named(hash.digest('hex'));
}

/** Of a model's tensors, whichever files hold them. Errors: those of `TensorSource.read`; ERR_INTERRUPTED. */
export async function digestOfWeights({ weights }: ModelFolder, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for (const name of weights.names().sort()) {
    const { dtype, shape, data } = await weights.read(name);
    hash.update(`${JSON.stringify([name, dtype, shape])}\n`);
    for (let at = 0; at < data.byteLength; at += CHUNK) {
      hash.update(data.subarray(at, at + CHUNK));
      await turn();
      if (signal?.aborted) {
        throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted while the model was read; nothing was written');
      }
    }
  }
  return named(hash.digest('hex'));
}

/** Of a model folder's tokenizer; null where it has none. */
export async function digestOfTokenizer({ tokenizerPath }: ModelFolder): Promise<string | null> {
  if (tokenizerPath === undefined) return null;
  return named(
    createHash('sha256')
      .update(await readWhole(tokenizerPath))
      .digest('hex'),
  );
}
