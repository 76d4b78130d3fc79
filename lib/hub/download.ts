/**
 * One file into the cache. The hub's own client writes a file anew each time, checks no hash and takes no lock; so that a fetch of
 * gigabytes goes on where it ended, this is ours.
 */
import { createHash, type Hash, randomBytes } from 'node:crypto';
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { DistilWhisperError, fileWriteError, isDistilWhisperError, systemCode } from '../errors/index.js';
import { ifThere, retried } from '../files/index.js';
import { made, type RepositoryCache } from './cache.js';
import { type Answer, type Client, chunksOf, pause, throwIfInterrupted } from './client.js';
import type { RemoteFile } from './listing.js';
import { takeLock } from './lock.js';
import type { Repository } from './names.js';

/** How often a body that ends early is gone on with, without a byte that came in between. */
const TRIES = 5;
const READ_BYTES = 1 << 20;

export interface Download {
  readonly client: Client;
  readonly cache: RepositoryCache;
  readonly repository: Repository;
  readonly commit: string;
  readonly signal: AbortSignal | undefined;
  /** More bytes of the file are here; negative: some of them were no good. */
  readonly onBytes: (bytes: number) => void;
  readonly onNote: (note: string) => void;
}

/**
 * Fetches a file, or waits until another process has, and links it into the snapshot. What has come stays where the fetch ends
 * early, and is gone on with. Errors: those of `Client.request`; ERR_HUB (the body ends early again and again), ERR_HUB_CORRUPT
 * (size or hash), ERR_DISK_FULL, ERR_FILE_WRITE, ERR_INTERRUPTED.
 */
export async function download(file: RemoteFile, to: Download): Promise<void> {
  const { cache, commit, signal, repository, onNote } = to;
  const blob = cache.blob(file);
  await made(dirname(blob));
  const wait = (): void => onNote(`waiting for another process that fetches ${file.path} of ${repository.name}`);
  const lock = await takeLock(cache.lock(file), signal, wait);
  try {
    if ((await ifThere(stat(blob)))?.size === file.size) to.onBytes(file.size);
    else await fetchBlob(file, blob, lock.exclusive, to);
    await cache.link(commit, file);
  } finally {
    await lock.release();
  }
}

async function fetchBlob(file: RemoteFile, blob: string, exclusive: boolean, to: Download): Promise<void> {
  // Without a lock two processes must not write into one file; what a killed one leaves is not gone on with then.
  const path = `${blob}${exclusive ? '' : `.${randomBytes(4).toString('hex')}`}.incomplete`;
  const part = await Part.open(path, file);
  try {
    to.onBytes(part.size);
    const resumed = part.size > 0;
    try {
      await fill(part, to);
      await part.check(to);
    } catch (error) {
      // What an earlier fetch left was not this file.
      if (!resumed || !isDistilWhisperError(error) || error.code !== 'ERR_HUB_CORRUPT') throw error;
      to.onBytes(-part.size);
      await part.restart();
      await fill(part, to);
      await part.check(to);
    }
    await part.finish(blob);
  } catch (error) {
    const wrong = isDistilWhisperError(error) && error.code === 'ERR_HUB_CORRUPT';
    if (wrong || !exclusive) await rm(path, { force: true }).catch(() => {});
    throw error;
  } finally {
    await part.close();
  }
}

/** Asks for what is missing until the file has its size. */
async function fill(part: Part, to: Download): Promise<void> {
  const { client, repository, commit, signal } = to;
  const { file } = part;
  const type = repository.kind === 'dataset' ? 'datasets/' : '';
  const name = file.path.split('/').map(encodeURIComponent).join('/');
  const url = `${client.environment.endpoint}/${type}${repository.name}/resolve/${commit}/${name}`;
  for (let [fruitless, most] = [0, 0]; part.size < file.size; ) {
    const from = part.size;
    const range = from > 0 ? { range: `bytes=${from}-` } : undefined;
    // Compressed, a body has neither the length nor the ranges of the file.
    const answer = await client.request(url, { headers: { 'accept-encoding': 'identity', ...range } }, file.path);
    const begin = beginOf(answer, from);
    if (begin === null) {
      // What is there reaches behind the end, or lies elsewhere: from the start, then.
      await answer.response.body?.cancel().catch(() => {});
      if (from === 0) throw client.strange(`the part ${answer.response.headers.get('content-range')} of ${file.path}`);
    }
    if (begin !== from) {
      to.onBytes(-from);
      await part.restart();
    }
    if (begin === null) continue;
    try {
      for await (const bytes of chunksOf(answer)) {
        throwIfInterrupted(signal);
        await part.append(bytes, to);
        to.onBytes(bytes.length);
      }
    } catch (error) {
      throwIfInterrupted(signal);
      if (isDistilWhisperError(error)) throw error;
      // The connection was lost: what came is kept.
    }
    // More than ever before: who begins again each time must not be asked for ever.
    fruitless = part.size > most ? 0 : fruitless + 1;
    most = Math.max(most, part.size);
    if (part.size >= file.size) break;
    if (fruitless >= TRIES) {
      throw new DistilWhisperError(
        'ERR_HUB',
        `${repository.name}, ${file.path}: the connection ends after ${part.size} of ${file.size} bytes again and again; the same call goes on from there`,
      );
    }
    await pause(fruitless === 0 ? 0.1 : 0.5 * 2 ** (fruitless - 1), signal);
  }
}

/** Where the body of an answer begins: 0 for a whole one; null where it is no part of what was asked for. */
function beginOf({ response: { status, headers } }: Answer, from: number): number | null {
  if (status === 416) return null;
  if (status !== 206) return 0;
  const begin = /^bytes (\d{1,15})-/.exec(headers.get('content-range') ?? '');
  return begin && Number(begin[1]) === from ? from : null;
}

/** A file that is not whole yet, and the hash of what it has. */
class Part {
  size = 0;
  private hash: Hash;

  private constructor(
    private readonly path: string,
    readonly file: RemoteFile,
    private readonly handle: FileHandle,
  ) {
    this.hash = this.fresh();
  }

  /** With what an earlier fetch left. Errors: ERR_FILE_WRITE, ERR_DISK_FULL. */
  static async open(path: string, file: RemoteFile): Promise<Part> {
    let handle: FileHandle;
    try {
      // To be read and written, and made where it is not; never cut.
      handle = await open(path, 'a+', 0o666);
    } catch (error) {
      throw fileWriteError(error, path);
    }
    const part = new Part(path, file, handle);
    try {
      const { size } = await handle.stat();
      if (size > file.size) await part.restart();
      else await part.hear(size);
      return part;
    } catch (error) {
      await handle.close();
      throw fileWriteError(error, path);
    }
  }

  private fresh(): Hash {
    if (this.file.sha256 !== undefined) return createHash('sha256');
    return createHash('sha1').update(`blob ${this.file.size}\0`);
  }

  private async hear(size: number): Promise<void> {
    const buffer = Buffer.alloc(Math.min(READ_BYTES, size));
    while (this.size < size) {
      const { bytesRead } = await retried(() => this.handle.read(buffer, 0, buffer.length, this.size));
      if (bytesRead === 0) break;
      this.hash.update(buffer.subarray(0, bytesRead));
      this.size += bytesRead;
    }
  }

  async restart(): Promise<void> {
    try {
      await this.handle.truncate(0);
    } catch (error) {
      throw fileWriteError(error, this.path);
    }
    this.size = 0;
    this.hash = this.fresh();
  }

  /** Errors: ERR_DISK_FULL, ERR_FILE_WRITE; ERR_HUB_CORRUPT for more bytes than the file has. */
  async append(bytes: Uint8Array, to: Download): Promise<void> {
    const { file } = this;
    if (this.size + bytes.length > file.size) throw wrong(to, file, `more than its ${file.size} bytes`);
    try {
      for (let done = 0; done < bytes.length; ) {
        const { bytesWritten } = await this.handle.write(bytes, done, bytes.length - done);
        this.hash.update(bytes.subarray(done, done + bytesWritten));
        this.size += bytesWritten;
        done += bytesWritten;
      }
    } catch (error) {
      throw this.writeError(error, to);
    }
  }

  private writeError(error: unknown, { repository }: Download): DistilWhisperError {
    const { path, size } = this.file;
    const full = ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(systemCode(error) ?? '');
    if (!full) return fileWriteError(error, this.path);
    return new DistilWhisperError(
      'ERR_DISK_FULL',
      `The disk is full: ${repository.name}, ${path} has ${size} bytes, of which ${this.size} are in ${dirname(this.path)}; make room, or put the cache elsewhere (HF_HOME), and the same call goes on`,
      { cause: error },
    );
  }

  /** Throws ERR_HUB_CORRUPT. */
  async check(to: Download): Promise<void> {
    const { sha256, blob } = this.file;
    const got = this.hash.digest('hex');
    if (got === (sha256 ?? blob)) return;
    const kind = sha256 === undefined ? 'SHA-1 of the git blob' : 'SHA-256';
    throw wrong(to, this.file, `content of another hash (${kind}: expected ${sha256 ?? blob}, got ${got})`);
  }

  /** Puts it, durably, in its place. Errors: ERR_FILE_WRITE, ERR_DISK_FULL. */
  async finish(blob: string): Promise<void> {
    try {
      await this.handle.sync();
      await rename(this.path, blob);
    } catch (error) {
      throw fileWriteError(error, blob);
    }
  }

  close(): Promise<void> {
    return this.handle.close();
  }
}

const wrong = ({ repository, client }: Download, file: RemoteFile, what: string): DistilWhisperError =>
  new DistilWhisperError(
    'ERR_HUB_CORRUPT',
    `${repository.name}, ${file.path}: ${client.environment.endpoint} sent ${what}; nothing of it was kept: try again, and if it stays so, the file is damaged there`,
  );
