/**
 * The cache, laid out as Python's huggingface_hub does, so that both share it:
 *   models--org--name/refs/main               the commit of a branch or tag
 *   models--org--name/snapshots/<commit>/…    links into blobs/, under the files' names
 *   models--org--name/blobs/<etag>            contents; <etag>.incomplete: what of one has come so far
 *   models--org--name/trees/<commit>.json     the listing
 *   .locks/models--org--name/<etag>.lock
 */

import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, readdir, readFile, rename, rm, stat, symlink } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { fileWriteError, systemCode } from '../errors/index.js';
import { ifThere, writeFileAtomic } from '../files/index.js';
import { etagOf, isCommit, type RemoteFile } from './listing.js';
import type { Repository } from './names.js';

/** A repository's part of a cache. */
export class RepositoryCache {
  readonly folder: string;
  private readonly locks: string;

  constructor(cache: string, { kind, name }: Repository) {
    const own = [kind === 'dataset' ? 'datasets' : 'models', ...name.split('/')].join('--');
    this.folder = join(cache, own);
    this.locks = join(cache, '.locks', own);
  }

  snapshot(commit: string): string {
    return join(this.folder, 'snapshots', commit);
  }

  blob(file: RemoteFile): string {
    return join(this.folder, 'blobs', etagOf(file));
  }

  lock(file: RemoteFile): string {
    return join(this.locks, `${etagOf(file)}.lock`);
  }

  /** The commit that a revision stood for when it was last asked for; null where it never was. */
  async commitOf(revision: string): Promise<string | null> {
    if (isCommit(revision)) return revision;
    const text = await ifThere(readFile(join(this.folder, 'refs', revision), 'utf8')).catch(() => null);
    return text !== null && isCommit(text.trim()) ? text.trim() : null;
  }

  /** Errors: ERR_FILE_WRITE, ERR_DISK_FULL. */
  async keepCommit(revision: string, commit: string): Promise<void> {
    if (revision === commit || (await this.commitOf(revision)) === commit) return;
    const path = join(this.folder, 'refs', revision);
    await made(dirname(path));
    await writeFileAtomic(path, (sink) => sink.append(Buffer.from(commit)));
  }

  /** Whether a file is there, with its whole size. */
  async has(commit: string, file: RemoteFile): Promise<boolean> {
    const kind = await ifThere(stat(join(this.snapshot(commit), file.path)));
    return kind?.isFile() === true && kind.size === file.size;
  }

  /** Names of the files of a snapshot, whoever fetched them. */
  async files(commit: string): Promise<string[]> {
    const folder = this.snapshot(commit);
    const names = (await ifThere(readdir(folder, { recursive: true }))) ?? [];
    const kinds = await Promise.all(names.map((name) => ifThere(stat(join(folder, name)))));
    return names.filter((_, i) => kinds[i]?.isFile()).map((name) => name.replaceAll('\\', '/'));
  }

  /** Puts a file's content under its name into a snapshot. Errors: ERR_FILE_WRITE, ERR_DISK_FULL. */
  async link(commit: string, file: RemoteFile): Promise<void> {
    const [path, blob] = [join(this.snapshot(commit), file.path), this.blob(file)];
    await made(dirname(path));
    // Beside and renamed: another process may read the earlier one now.
    const beside = join(dirname(path), `.${randomBytes(6).toString('hex')}.tmp`);
    try {
      try {
        await symlink(relative(dirname(path), blob), beside);
      } catch (error) {
        // A file system without links.
        if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS'].includes(systemCode(error) ?? '')) throw error;
        await copyFile(blob, beside);
      }
      await rename(beside, path);
    } catch (error) {
      await rm(beside, { force: true }).catch(() => {});
      throw fileWriteError(error, path);
    }
  }
}

/** Makes a folder and those above it. Errors: ERR_FILE_WRITE, ERR_DISK_FULL. */
export async function made(folder: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    throw fileWriteError(error, folder);
  }
}
