/** A new content for a file, made beside it and renamed over it. */
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { access, type FileHandle, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { DistilWhisperError, fileWriteError, systemCode } from '../errors/index.js';
import { IO_CHUNK_BYTES, retried } from './read.js';
import { type Target, targetOf } from './target.js';

/** Where the content of a file goes; `append` writes all of its bytes or throws. */
export interface FileSink {
  append(bytes: Uint8Array): Promise<void>;
}

/** Runs a file-system call for `path`, with its failure typed; what a caller's own function throws is not touched. */
export async function typed<T>(path: string, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    throw fileWriteError(error, path);
  }
}

export async function writeAll(file: FileHandle, bytes: Uint8Array, position: number | null): Promise<void> {
  let done = 0;
  while (done < bytes.byteLength) {
    const at = position === null ? null : position + done;
    const { bytesWritten } = await file.write(bytes, done, Math.min(bytes.byteLength - done, IO_CHUNK_BYTES), at);
    done += bytesWritten;
  }
}

/** Makes the names in a folder durable, where the file system and the folder's permissions let us. */
export async function syncFolder(path: string): Promise<void> {
  let folder: FileHandle | null = null;
  try {
    folder = await open(path, 'r');
    await folder.sync();
  } catch (error) {
    if (!['EINVAL', 'EACCES', 'EPERM', 'EISDIR'].includes(systemCode(error) ?? '')) throw error;
  } finally {
    await folder?.close();
  }
}

/** A free name in the folder of `path`; short enough wherever that is. */
export function besideName(path: string, ending: 'tmp' | 'old'): string {
  return join(dirname(path), `${basename(path).slice(0, 40)}.${randomBytes(6).toString('hex')}.${ending}`);
}

/** Whether a name is one of `besideName`: what is left of a process that was killed. */
export const isRemnant = (name: string): boolean => /\.[0-9a-f]{12}\.(tmp|old)$/.test(name);

/** The folder may not be written, or the name cannot be renamed over (a mount point), but the file itself can be written. */
const NO_RENAME = ['EACCES', 'EPERM', 'EROFS', 'EBUSY', 'EXDEV'];

/**
 * The content of a regular file until `commit`, which puts it in its place, with the mode and, where this user may, the owner
 * of what was there. Where the folder does not let a file be renamed into place, what is there is overwritten.
 */
export class Replacement {
  private committed = false;

  private constructor(
    readonly path: string,
    private readonly target: Target,
    private file: FileHandle,
    private temporary: string | null,
  ) {}

  /** Errors: ERR_FILE_WRITE (a folder, no permission, no such folder), ERR_DISK_FULL. */
  static async begin(path: string): Promise<Replacement> {
    return typed(path, async () => {
      const target = await targetOf(path);
      const { kind } = target;
      if (kind?.isDirectory()) throw new DistilWhisperError('ERR_FILE_WRITE', `${path}: expected a file, got a folder`);
      // A rename would get around the mode of what is there.
      if (kind) await access(target.path, constants.W_OK);
      const temporary = besideName(target.path, 'tmp');
      let file: FileHandle;
      try {
        file = await open(temporary, 'wx+', kind ? 0o600 : 0o666);
      } catch (error) {
        if (!kind) throw fileWriteError(error, `${path}, a file in ${dirname(target.path)},`);
        if (!NO_RENAME.includes(systemCode(error) ?? '')) throw error;
        return new Replacement(path, target, await open(target.path, 'r+'), null);
      }
      const made = new Replacement(path, target, file, temporary);
      try {
        if (kind) await made.dressAs(kind);
        return made;
      } catch (error) {
        await made.discard();
        throw error;
      }
    });
  }

  /** Writes all of `bytes` at `position`. */
  async write(bytes: Uint8Array, position: number): Promise<void> {
    await typed(this.path, async () => {
      if (this.temporary === null && !this.committed) await this.file.truncate(position);
      this.committed ||= this.temporary === null;
      await writeAll(this.file, bytes, position);
    });
  }

  async truncate(length: number): Promise<void> {
    await typed(this.path, () => this.file.truncate(length));
  }

  async sync(): Promise<void> {
    await typed(this.path, () => this.file.sync());
  }

  /** Puts what was written in its place, durably; more may be written behind it. */
  async commit(): Promise<void> {
    await typed(this.path, async () => {
      const { temporary, target } = this;
      await this.file.sync();
      if (temporary === null) return;
      try {
        await rename(temporary, target.path);
      } catch (error) {
        if (!target.kind || !NO_RENAME.includes(systemCode(error) ?? '')) throw error;
        await this.overwrite();
      }
      this.temporary = null;
      this.committed = true;
      await syncFolder(dirname(target.path));
    });
  }

  /** Closes the file; without a `commit` before, nothing is left of it. */
  async discard(): Promise<void> {
    const { temporary } = this;
    this.temporary = null;
    await this.file.close();
    // What is left after a failure here lies beside: it is no reason to fail.
    if (temporary !== null) await rm(temporary, { force: true }).catch(() => {});
  }

  private async dressAs({ uid, gid, mode }: { uid: number; gid: number; mode: number }): Promise<void> {
    const own = await this.file.stat();
    if (own.uid !== uid || own.gid !== gid) {
      await this.file.chown(uid, gid).catch((error: unknown) => {
        if (systemCode(error) !== 'EPERM') throw error;
      });
    }
    await this.file.chmod(mode & 0o7777);
  }

  private async overwrite(): Promise<void> {
    const from = this.file;
    const to = await open(this.target.path, 'r+');
    this.file = to;
    try {
      const { size } = await from.stat();
      const buffer = Buffer.alloc(Math.min(size, IO_CHUNK_BYTES));
      for (let at = 0; at < size; ) {
        const { bytesRead } = await retried(() => from.read(buffer, 0, buffer.length, at));
        if (bytesRead === 0) break;
        await writeAll(to, buffer.subarray(0, bytesRead), at);
        at += bytesRead;
      }
      await to.truncate(size);
      await to.sync();
    } finally {
      await from.close();
    }
    await rm(this.temporary!, { force: true });
  }
}
