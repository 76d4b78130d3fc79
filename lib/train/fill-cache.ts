import { DistilWhisperError } from '../errors/index.js';
import type { Whisper } from '../model/index.js';
import { BatchUploader, type TrainBatch } from './batch.js';
import { cachedTeacher } from './teacher.js';
import type { TeacherCache } from './teacher-cache.js';

/**
 * Has a teacher say the rows of batches, and adds them to its cache. `keys`: of the utterances that the batches name. Batches are
 * queued one ahead. Errors: ERR_INTERRUPTED, behind the batches that were begun; ERR_DISK_FULL, ERR_FILE_WRITE; those of the batches.
 */
export async function fillCache(
  teacher: Whisper,
  cache: TeacherCache,
  batches: AsyncIterable<TrainBatch>,
  keys: readonly string[],
  {
    signal,
    onProgress,
  }: { signal?: AbortSignal | undefined; onProgress?: ((done: number) => unknown) | undefined } = {},
): Promise<void> {
  const { stream, config } = teacher;
  const asked = cachedTeacher(cache, config, teacher.embeddingTable, teacher);
  const uploader = new BatchUploader(stream, config);
  let done = 0;
  let before: Promise<unknown> = Promise.resolve();
  for await (const batch of batches) {
    const said: Promise<Uint16Array>[] = [];
    const recalled = batch.utterances!.map((i) => ({
      rows: null,
      keep: (rows: Promise<Uint16Array>) => {
        said.push(rows);
        cache.add(keys[i]!, rows);
      },
    }));
    const { features, ids } = uploader.upload(batch);
    stream.inPart('teacher', () => asked.teach(features, ids, { ...batch, recalled }));
    stream.endStep();
    await before;
    before = Promise.all(said);
    before.catch(() => {});
    done += batch.labels.length;
    await onProgress?.(done);
    if (signal?.aborted) {
      await cache.flush();
      const where = `after ${done} utterances; the same command goes on from there`;
      throw new DistilWhisperError('ERR_INTERRUPTED', `filling the teacher cache was interrupted ${where}`);
    }
  }
  await before;
  await cache.flush();
}
