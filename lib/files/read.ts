/** Reading files whole or in parts. */
import { type FileHandle, open, stat } from 'node:fs/promises';
import { DistilWhisperError, type ErrorCode, fileReadError, systemCode } from '../errors/index.js';

/** libuv reads and writes less than 2^31 bytes a call. */
export const IO_CHUNK_BYTES = 64 * 1024 * 1024;

/** A zeroed buffer; a refusal of the machine becomes ERR_OUT_OF_MEMORY that names what asked. */
export function allocateBytes(byteLength: number, purpose: string): Uint8Array {
  try {
    return new Uint8Array(byteLength);
  } catch (cause) {
    throw new DistilWhisperError(
      'ERR_OUT_OF_MEMORY',
      `${purpose} needs ${byteLength} bytes in one piece, which this process cannot allocate`,
      { cause },
    );
  }
}

/** Runs a call again while signals interrupt it; libuv does so itself for all calls but reads. */
export async function retried<T>(call: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (systemCode(error) !== 'EINTR') throw error;
    }
  }
}

/** What a call finds, or null where there is no such file or folder; any other failure is an error. */
export async function ifThere<T>(call: Promise<T>): Promise<T | null> {
  try {
    return await call;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(systemCode(error) ?? '')) return null;
    throw error;
  }
}

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
      const [at, size] = [done, Math.min(length - done, IO_CHUNK_BYTES)];
      ({ bytesRead } = await retried(() => file.read(bytes, at, size, start + at)));
    } catch (error) {
      throw fileReadError(error, path);
    }
    if (bytesRead === 0) throw new DistilWhisperError(code, `${path} ends in the middle of ${what}`);
    done += bytesRead;
  }
  return bytes;
}

/** All of a regular file. Throws ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_OUT_OF_MEMORY. */
export async function readWhole(path: string): Promise<Uint8Array> {
  const file = await openRegularFile(path);
  try {
    const { size } = await file.stat();
    return await readExactly(file, 0, size, path, 'its content', 'ERR_FILE_READ');
  } catch (error) {
    throw fileReadError(error, path);
  } finally {
    await file.close();
  }
}

/** Whether there is a regular file of this name, links followed. */
export async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (kind) => kind.isFile(),
    () => false,
  );
}
