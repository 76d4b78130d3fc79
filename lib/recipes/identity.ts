/** What a run is made of, by content: the same under another path, and another one under the same path when it has changed. */
import { createHash } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { DistilWhisperError, fileReadError } from '../errors/index.js';
import { openRegularFile, readWhole } from '../files/index.js';
import type { ModelFolder } from '../weights/index.js';

/** Bytes between two looks at whether others want the thread. */
const CHUNK = 8 << 20;

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (!signal?.aborted) return;
  throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted while the model was read; nothing was written');
}

const named = (hex: string): string => `sha256:${hex}`;

/** Of a model's tensors, whichever files hold them. Errors: those of `TensorSource.read`; ERR_INTERRUPTED. */
export async function digestOfWeights({ weights }: ModelFolder, signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for (const name of weights.names().sort()) {
    const { dtype, shape, data } = await weights.read(name);
    hash.update(`${JSON.stringify([name, dtype, shape])}\n`);
    for (let at = 0; at < data.byteLength; at += CHUNK) {
      hash.update(data.subarray(at, at + CHUNK));
      await turn();
      throwIfAborted(signal);
    }
  }
  return named(hash.digest('hex'));
}

/** Of files, in their order. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_INTERRUPTED. */
export async function digestOfFiles(paths: readonly string[], signal?: AbortSignal): Promise<string> {
  const hash = createHash('sha256');
  for (const path of paths) {
    const file = await openRegularFile(path);
    try {
      for await (const chunk of file.createReadStream({ autoClose: false, highWaterMark: CHUNK })) {
        hash.update(chunk as Uint8Array);
        throwIfAborted(signal);
      }
    } catch (error) {
      throw fileReadError(error, path);
    } finally {
      await file.close();
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
