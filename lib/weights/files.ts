/** Writing whole or not at all: beside, synced, then renamed. */
import { randomBytes } from 'node:crypto';
import { type FileHandle, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { DistilWhisperError, type ErrorCode, fileReadError, fileWriteError, systemCode } from '../errors/index.js';
import { allocateBytes } from './host.js';

/** libuv reads and writes less than 2^31 bytes a call. */
const IO_CHUNK_BYTES = 64 * 1024 * 1024;

/** Opens a regular file for reading. Throws ERR_FILE_NOT_FOUND or ERR_FILE_READ (a folder, a pipe, no permission). */
export async function openRegularFile(path: string): Promise<FileHandle> {
  try {
    // Asked first, because opening a pipe would wait for its other end.
    const kind = await stat(path);
    if (!kind.isFile()) {
      const what = kind.isDirectory() ? 'a folder' : 'no regular file';
      throw new DistilWhisperError('ERR_FILE_READ', `${path} is ${what}, expected a file`);
    }
    return await open(path, 'r');
  } catch (error) {
    throw fileReadError(error, path);
  }
}

/**
 * The `length` bytes at `start` of a file, in new memory. Throws ERR_FILE_READ, ERR_OUT_OF_MEMORY, and `code` where the
 * file ends before them; `what` says in the sentence what was being read.
 */
export async function readExactly(
  file: FileHandle,
  start: number,
  length: number,
  path: string,
  what: string,
  code: ErrorCode,
): Promise<Uint8Array> {
  const bytes = allocateBytes(length, `${what} of ${path}`);
  let done = 0;
  while (done < length) {
    let bytesRead: number;
    try {
      ({ bytesRead } = await file.read(bytes, done, Math.min(length - done, IO_CHUNK_BYTES), start + done));
    } catch (error) {
      throw fileReadError(error, path);
    }
    if (bytesRead === 0) throw new DistilWhisperError(code, `${path} ends in the middle of ${what}`);
    done += bytesRead;
  }
  return bytes;
}

/** Where the content of a file goes; `append` writes all of its bytes or throws. */
export interface FileSink {
  append(bytes: Uint8Array): Promise<void>;
}

/** Runs a file-system call for `path`, with its failure typed; what a caller's own function throws is not touched. */
async function typed<T>(path: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw fileWriteError(error, path);
  }
}

async function appendAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.byteLength) {
    const { bytesWritten } = await file.write(bytes, done, Math.min(bytes.byteLength - done, IO_CHUNK_BYTES));
    done += bytesWritten;
  }
}

/** Makes the names in a folder durable. Some file systems refuse to sync a folder (EINVAL); then there is nothing to do. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } catch (error) {
    if (systemCode(error) !== 'EINVAL') throw error;
  } finally {
    await folder.close();
  }
}

function besideName(path: string, ending: string): string {
  return `${path}.${randomBytes(6).toString('hex')}.${ending}`;
}

/**
 * Writes `path` through `fill`: a temporary file beside it takes the content, is synced, and is renamed over `path`;
 * the folder is synced last. After a failure the temporary file is gone and an earlier `path` is untouched.
 * Throws ERR_DISK_FULL or ERR_FILE_WRITE; whatever `fill` itself throws passes through.
 */
export async function writeFileAtomic(path: string, fill: (sink: FileSink) => Promise<void>): Promise<void> {
  const target = resolve(path);
  const temporary = besideName(target, 'tmp');
  const file = await typed(path, () => open(temporary, 'wx', 0o666));
  try {
    try {
      await fill({ append: (bytes) => typed(path, () => appendAll(file, bytes)) });
      await typed(path, () => file.sync());
    } finally {
      await typed(path, () => file.close());
    }
    await typed(path, () => rename(temporary, target));
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await typed(path, () => syncFolder(dirname(target)));
}

/**
 * Writes the folder `path` through `fill`, which gets the path of a temporary folder beside it; that is synced and then
 * renamed. An earlier `path` is an error unless `replace` is set; then it is moved aside, and removed once the new one
 * stands (a process killed between the two renames leaves the old content in `path.<hex>.old`).
 * After a failure the temporary folder is gone and an earlier `path` is untouched.
 */
export async function writeFolderAtomic(
  path: string,
  fill: (temporary: string) => Promise<void>,
  options: { replace?: boolean } = {},
): Promise<void> {
  const target = resolve(path);
  const earlier = await stat(target).catch(() => undefined);
  if (earlier && !(options.replace && earlier.isDirectory())) {
    const advice = earlier.isDirectory() ? 'ask for it to be replaced, or name another folder' : 'it is no folder';
    throw new DistilWhisperError('ERR_FILE_WRITE', `${path} exists already: ${advice}`);
  }
  const temporary = besideName(target, 'tmp');
  await typed(path, () => mkdir(dirname(target), { recursive: true }));
  await typed(path, () => mkdir(temporary));
  try {
    await fill(temporary);
    await typed(path, () => syncFolder(temporary));
    await typed(path, () => swapIn(temporary, target, earlier !== undefined));
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  }
}

async function swapIn(temporary: string, target: string, earlier: boolean): Promise<void> {
  if (!earlier) {
    // rename() replaces an empty folder silently, which is what a folder made meanwhile by someone else would be.
    await rename(temporary, target);
    await syncFolder(dirname(target));
    return;
  }
  const aside = besideName(target, 'old');
  await rename(target, aside);
  try {
    await rename(temporary, target);
  } catch (error) {
    await rename(aside, target);
    throw error;
  }
  await syncFolder(dirname(target));
  await rm(aside, { recursive: true, force: true });
}

/** Writes a small file inside a folder that is itself still temporary: synced, not renamed. */
export async function writeSynced(folder: string, name: string, content: Uint8Array | string): Promise<void> {
  const path = join(folder, name);
  await typed(path, async () => {
    const file = await open(path, 'wx');
    try {
      await appendAll(file, typeof content === 'string' ? new TextEncoder().encode(content) : content);
      await file.sync();
    } finally {
      await file.close();
    }
  });
}
