/** What a repository holds at a commit: asked of the hub, and kept in the cache as Python's huggingface_hub keeps it. */

import { join } from 'node:path';
import { isDistilWhisperError } from '../errors/index.js';
import { isJsonObject, readJsonObject, writeFileAtomic } from '../files/index.js';
import type { Client } from './client.js';
import type { Repository } from './names.js';

export interface RemoteFile {
  /** From the repository's root, with slashes. */
  readonly path: string;
  readonly size: number;
  /** SHA-1 of the git blob; of a file in LFS that of its pointer. */
  readonly blob: string;
  /** SHA-256 of the content, where it is in LFS. */
  readonly sha256: string | undefined;
  /** Hash of the Xet protocol, by which nothing is fetched here; Python keeps it in its listing. */
  readonly xet: string | undefined;
}

/** The name of its content in blobs/: what the hub calls its ETag. */
export const etagOf = ({ sha256, blob }: RemoteFile): string => sha256 ?? blob;

const COMMIT = /^[0-9a-f]{40}$/;
export const isCommit = (revision: string): boolean => COMMIT.test(revision);
/** Files of a repository; a listing goes on in pages of 1,000. */
const MOST_FILES = 200_000;
const MOST_PAGES = 1000;

/** The commit that a revision stands for now. Errors: those of `Client.request`. */
export async function commitOf(client: Client, { kind, name, revision }: Repository): Promise<string> {
  const { datasetInfo, modelInfo } = await import('@huggingface/hub');
  const params = { name, revision, hubUrl: client.environment.endpoint, fetch: client.fetch };
  const info: unknown = await ask(client, () =>
    kind === 'dataset'
      ? datasetInfo({ ...params, additionalFields: ['sha'] })
      : modelInfo({ ...params, additionalFields: ['sha'] }),
  );
  const sha = isJsonObject(info) ? info.sha : undefined;
  if (typeof sha === 'string' && isCommit(sha)) return sha;
  throw client.strange(`no commit for the revision ${revision}`);
}

/** All files at a commit. Errors: those of `Client.request`. */
export async function listFiles(client: Client, repository: Repository, commit: string): Promise<RemoteFile[]> {
  const hub = await import('@huggingface/hub');
  const files: RemoteFile[] = [];
  const pages = new Set<string>();
  await ask(client, async () => {
    const entries: AsyncIterable<unknown> = hub.listFiles({
      repo: { type: repository.kind === 'dataset' ? 'dataset' : 'model', name: repository.name },
      revision: commit,
      recursive: true,
      hubUrl: client.environment.endpoint,
      fetch: (input, init) => {
        const page = String(input);
        // Each page names the next one.
        if (pages.has(page) || pages.size >= MOST_PAGES) throw client.strange('a listing that does not end');
        pages.add(page);
        return client.fetch(input, init);
      },
    });
    let count = 0;
    for await (const entry of entries) {
      if (++count > MOST_FILES) throw client.strange(`a listing of more than ${MOST_FILES} files`);
      const file = remoteFile(entry);
      if (file === null) throw client.strange('a listing with an entry that is no file');
      if (file !== undefined) files.push(file);
    }
  });
  return files;
}

/** What the hub's own client throws for an answer that it cannot read, typed. */
async function ask<T>(client: Client, call: () => Promise<T>): Promise<T> {
  try {
    return await call();
  } catch (error) {
    if (isDistilWhisperError(error)) throw error;
    throw client.strange('an answer that cannot be read', error);
  }
}

/** A path that stays in the folder that it is put into. */
const isInside = (path: string): boolean =>
  path.length <= 1000 &&
  !/[\\\0]|^[A-Za-z]:/.test(path) &&
  path.split('/').every((part) => part !== '' && part !== '.' && part !== '..');

const isSize = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isHex = (value: unknown, digits: number): value is string =>
  typeof value === 'string' && value.length === digits && /^[0-9a-f]+$/.test(value);

/** An entry of the listing; undefined for a folder, null for what is none. */
function remoteFile(entry: unknown): RemoteFile | null | undefined {
  if (!isJsonObject(entry)) return null;
  if (entry.type === 'directory') return undefined;
  const { type, path, oid, lfs, xetHash } = entry;
  if (type !== 'file' || typeof path !== 'string' || !isInside(path) || !isHex(oid, 40)) return null;
  if (lfs !== undefined && lfs !== null && !isJsonObject(lfs)) return null;
  const size = lfs ? lfs.size : entry.size;
  if (!isSize(size) || (lfs && !isHex(lfs.oid, 64))) return null;
  return {
    path,
    size,
    blob: oid,
    sha256: lfs ? (lfs.oid as string) : undefined,
    xet: isHex(xetHash, 64) ? xetHash : undefined,
  };
}

/** Of the file in trees/ below the repository's folder. */
const FORMAT = 1;
const pathOf = (folder: string, commit: string): string => join(folder, 'trees', `${commit}.json`);

/** The listing that is kept of a commit; null where none is, or one that cannot be used. */
export async function keptListing(folder: string, commit: string): Promise<RemoteFile[] | null> {
  let kept: Record<string, unknown>;
  try {
    kept = await readJsonObject(pathOf(folder, commit), 'ERR_HUB');
  } catch {
    // It can be asked for again.
    return null;
  }
  if (kept.format_version !== FORMAT || !isJsonObject(kept.files)) return null;
  const files: RemoteFile[] = [];
  for (const [path, info] of Object.entries(kept.files)) {
    if (!isJsonObject(info)) return null;
    const { size, blob_id: oid, lfs_sha256: sha, lfs_size: lfsSize, xet_hash: xetHash } = info;
    const lfs = sha === undefined ? undefined : { oid: sha, size: lfsSize ?? size };
    const file = remoteFile({ type: 'file', path, size, oid, lfs, xetHash });
    if (!file) return null;
    files.push(file);
  }
  return files;
}

/** Keeps the listing of a commit; the folder is there. Errors: ERR_FILE_WRITE, ERR_DISK_FULL. */
export async function keepListing(folder: string, commit: string, files: readonly RemoteFile[]): Promise<void> {
  const path = pathOf(folder, commit);
  const sorted = [...files].sort((a, b) => (a.path < b.path ? -1 : 1));
  const entries = sorted.map(({ path, size, blob, sha256, xet }) => [
    path,
    { size, blob_id: blob, lfs_sha256: sha256, lfs_size: sha256 === undefined ? undefined : size, xet_hash: xet },
  ]);
  const text = JSON.stringify({ format_version: FORMAT, files: Object.fromEntries(entries) }, undefined, 1);
  await writeFileAtomic(path, (sink) => sink.append(Buffer.from(text)));
}
