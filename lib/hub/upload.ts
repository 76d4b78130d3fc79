/** From files of this machine to a repository of the hub. */
import { openAsBlob } from 'node:fs';
import { stat } from 'node:fs/promises';
import { DistilWhisperError, fileReadError, isDistilWhisperError, shown } from '../errors/index.js';
import { isJsonObject } from '../files/index.js';
import { Client } from './client.js';
import { hubEnvironment } from './environment.js';
import { DEFAULT_REVISION, isRepositoryName } from './names.js';
import type { HubProgress } from './resolve.js';

/** A file as it is to be called in the repository, and what is in it: a text, or a file of this machine. */
export interface UploadFile {
  readonly path: string;
  readonly content: string | { readonly file: string };
}

export interface UploadOptions {
  /** A repository that is made is private; one that is public already is refused. Default: as the owner's settings say. */
  private?: boolean | undefined;
  /** Of the commit. */
  title: string;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: HubProgress) => unknown) | undefined;
}

/** Refuses what is no repository's name. Throws ERR_ARGUMENT. */
export function checkRepositoryName(option: string, name: unknown): asserts name is string {
  if (typeof name === 'string' && isRepositoryName(name)) return;
  throw new DistilWhisperError(
    'ERR_ARGUMENT',
    `${option}: expected a repository as org/name (letters, digits, '-', '_', '.'), got ${shown(name)}`,
  );
}

/**
 * Puts files into a model repository in one commit, which is made where it is not. Returns the repository's page. Errors:
 * ERR_ARGUMENT (the name), ERR_HUB_ACCESS (no token, or one that may not write), ERR_HUB, ERR_HUB_OFFLINE, ERR_INTERRUPTED,
 * ERR_FILE_NOT_FOUND, ERR_FILE_READ.
 */
export async function upload(name: string, files: readonly UploadFile[], options: UploadOptions): Promise<string> {
  checkRepositoryName('to', name);
  const environment = await hubEnvironment();
  if (environment.offline) {
    throw new DistilWhisperError('ERR_HUB_OFFLINE', `${name}: offline (HF_HUB_OFFLINE) nothing is uploaded`);
  }
  if (environment.token === undefined) {
    throw new DistilWhisperError(
      'ERR_HUB_ACCESS',
      `${name}: expected a token that may write there, in HF_TOKEN, got none`,
    );
  }
  const { endpoint: hubUrl } = environment;
  const repository = { kind: 'model', name, revision: DEFAULT_REVISION } as const;
  const client = new Client(environment, { signal: options.signal, about: name, repository });
  const operations = [];
  let total = 0;
  for (const { path, content } of files) {
    const blob = typeof content === 'string' ? new Blob([content]) : await blobOf(content.file);
    total += blob.size;
    operations.push({ operation: 'addOrUpdate', path, content: blob } as const);
  }
  const sizes = new Map(operations.map(({ path, content }) => [path, content.size]));
  const { commitIter, createRepo } = await import('@huggingface/hub');
  try {
    const visible = await visibilityOf(client, name);
    if (visible === 'public' && options.private) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `private: expected a repository that is private or to be made, got ${name}, which is public`,
      );
    }
    if (visible === null) {
      await createRepo({
        repo: { type: 'model', name },
        visibility: options.private ? 'private' : undefined,
        hubUrl,
        fetch: client.fetch,
        // The client's fetch says who asks.
        accessToken: undefined,
        credentials: undefined,
      } as unknown as Parameters<typeof createRepo>[0]);
    }
    const done = new Map<string, number>();
    for await (const event of commitIter({
      repo: { type: 'model', name },
      title: options.title,
      operations,
      hubUrl,
      fetch: client.fetch,
      abortSignal: options.signal ?? new AbortController().signal,
      // Its requests go to another host with a token of their own, which this client's fetch takes away.
      useXet: false,
    })) {
      if (event.event !== 'fileProgress' || event.state !== 'uploading') continue;
      done.set(event.path, event.progress * (sizes.get(event.path) ?? 0));
      const sum = [...done.values()].reduce((a, b) => a + b, 0);
      options.onProgress?.({ repository: name, done: Math.round(sum), total });
    }
  } catch (error) {
    if (isDistilWhisperError(error)) throw error;
    if (options.signal?.aborted) {
      throw new DistilWhisperError('ERR_INTERRUPTED', `interrupted while ${name} was uploaded`, { cause: error });
    }
    throw client.strange('an answer that cannot be read', error);
  }
  options.onProgress?.({ repository: name, done: total, total });
  return `${hubUrl}/${name}`;
}

/** What can be seen of a repository; null where there is none, or none that this token may see. */
async function visibilityOf(client: Client, name: string): Promise<'public' | 'private' | null> {
  const { modelInfo } = await import('@huggingface/hub');
  try {
    const info: unknown = await modelInfo({ name, hubUrl: client.environment.endpoint, fetch: client.fetch });
    return isJsonObject(info) && info.private === true ? 'private' : 'public';
  } catch (error) {
    if (isDistilWhisperError(error) && error.code === 'ERR_HUB_NOT_FOUND') return null;
    throw error;
  }
}

/** A file's content, read as it is sent. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ. */
async function blobOf(path: string): Promise<Blob> {
  try {
    if (!(await stat(path)).isFile()) throw new DistilWhisperError('ERR_FILE_READ', `${path}: expected a file`);
    return await openAsBlob(path);
  } catch (error) {
    throw fileReadError(error, path);
  }
}
