/** The locks by which processes that share a cache fetch a file once: those of Python's huggingface_hub. */
import { type FileHandle, mkdir, open, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { fileWriteError } from '../errors/index.js';
import { ifThere } from '../files/index.js';
import { lockFile } from '../native/index.js';
import { pause, throwIfInterrupted } from './client.js';

/** Seconds between two tries. */
const EVERY = 0.1;

/** A file's lock; it goes when it is released, and with the process. */
export interface HubLock {
  /** False where the file system has no locks: another process may do the same at the same time. */
  readonly exclusive: boolean;
  release(): Promise<void>;
}

/**
 * Waits for the lock of the file `path`, made where it is not, and takes it: flock(2), as the filelock package does on all systems
 * but Windows. The file stays. Errors: ERR_INTERRUPTED, ERR_FILE_WRITE, ERR_DISK_FULL.
 */
export async function takeLock(path: string, signal: AbortSignal | undefined, onWait: () => void): Promise<HubLock> {
  let waits = false;
  for (;;) {
    throwIfInterrupted(signal);
    let file: FileHandle | null = null;
    try {
      await mkdir(dirname(path), { recursive: true });
      // Others of the cache's group wait for it too.
      file = await open(path, 'a', 0o664);
      const locked = lockFile(file.fd);
      if (locked === null || (locked && (await isSame(file, path)))) {
        const held = file;
        file = null;
        return { exclusive: locked !== null, release: () => held.close() };
      }
    } catch (error) {
      throw fileWriteError(error, path);
    } finally {
      await file?.close();
    }
    if (!waits) onWait();
    waits = true;
    await pause(EVERY, signal);
  }
}

/** Whether the open file is still the one of that name: it may have been removed while it was waited for. */
async function isSame(file: FileHandle, path: string): Promise<boolean> {
  const [own, now] = [await file.stat(), await ifThere(stat(path))];
  return now !== null && own.ino === now.ino && own.dev === now.dev;
}
