/** From a name to a folder on this machine. */
import { readdir, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { checkOptions, DistilWhisperError, fileReadError, isDistilWhisperError } from '../errors/index.js';
import { ifThere, isJsonObject, readJsonObject } from '../files/index.js';
import { made, RepositoryCache } from './cache.js';
import { type Choice, choose, isExpertFile, isParquetFile } from './choice.js';
import { Client, throwIfInterrupted } from './client.js';
import { download } from './download.js';
import { type Environment, hubEnvironment } from './environment.js';
import { commitOf, isCommit, keepListing, keptListing, listFiles, type RemoteFile } from './listing.js';
import { DEFAULT_REVISION, type Kind, type Meaning, meaningOf, placeOf, type Repository } from './names.js';

/** Where the hub puts what it has made of a data set without parquet files. */
const CONVERTED = 'refs/convert/parquet';
/** Files that are fetched at once. */
const AT_ONCE = 4;

export interface HubProgress {
  /** "org/name" */
  repository: string;
  /** Bytes of what is fetched, those of an earlier call included. */
  done: number;
  total: number;
}

export interface HubOptions {
  /** A branch, a tag or a commit, where the name has none behind an @. Default: main. */
  revision?: string | undefined;
  /** Ask nobody: what is not in the cache is an error. Default: HF_HUB_OFFLINE. */
  offline?: boolean | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: HubProgress) => unknown) | undefined;
  /** What people should know: that something is fetched, that a cached one is taken because the hub does not answer. */
  onNote?: ((note: string) => unknown) | undefined;
}

const OPTIONS: Record<keyof HubOptions, true> = {
  revision: true,
  offline: true,
  signal: true,
  onProgress: true,
  onNote: true,
};

interface Request extends HubOptions {
  /** Of a data set's files those that are wanted. */
  keep?: ((paths: readonly string[]) => readonly string[]) | undefined;
}

/**
 * The folder of a model: of the path or name that `name` is. Names: "org/name", "org/name@revision", a size of OpenAI's ("small" is
 * openai/whisper-small, "large" large-v3, "turbo" large-v3-turbo), "pocket-student" and "pocket-teacher". A folder of that name here
 * comes first. What the cache (HF_HOME) lacks is fetched: of the weights safetensors before .bin, never both. Whether there is a
 * folder at a path is for the caller to find out. Errors: ERR_ARGUMENT, ERR_FILE_NOT_FOUND (neither a path nor a name), ERR_HUB (no
 * answer), ERR_HUB_ACCESS, ERR_HUB_NOT_FOUND, ERR_HUB_CORRUPT (size or hash), ERR_HUB_OFFLINE, ERR_DISK_FULL, ERR_FILE_WRITE,
 * ERR_INTERRUPTED; they name repository and file.
 */
export async function resolveModel(name: string, options: HubOptions = {}): Promise<string> {
  const meaning = asked(name, 'model', options);
  return 'path' in meaning ? meaning.path : pull(meaning.repository, options);
}

/**
 * The expert files that `name` stands for: a file, those of a folder (a run's is one), or those of a repository, which are
 * expert.<language>.safetensors or, where there are none, expert.<language>.bin. Errors: as `resolveModel`; ERR_EXPERT for a folder
 * without any.
 */
export async function resolveExperts(name: string, options: HubOptions = {}): Promise<string[]> {
  const meaning = asked(name, 'expert', options);
  const path = 'path' in meaning ? meaning.path : await pull(meaning.repository, options);
  // What is there not, and what cannot be looked at, is told by whoever opens it.
  const kind = await ifThere(stat(path)).catch(() => null);
  if (!kind?.isDirectory()) return [path];
  const names = await readdir(path).catch((error) => {
    throw fileReadError(error, path);
  });
  const chosen = choose('expert', names.filter(isExpertFile).sort());
  if ('files' in chosen) return chosen.files.map((file) => join(path, file));
  throw new DistilWhisperError('ERR_EXPERT', `${path}: expected ${chosen.missing} in this folder, got none`);
}

/** The folder of a LoRA adapter as PEFT writes it, of the path or name that `name` is. Errors: as `resolveModel`. */
export async function resolveAdapter(name: string, options: HubOptions = {}): Promise<string> {
  const meaning = asked(name, 'adapter', options);
  return 'path' in meaning ? meaning.path : pull(meaning.repository, options);
}

/**
 * The folder of a data set's parquet files, of the path or the name ("org/name", "org/name@revision") that `name` is; `keep` takes
 * the paths of all in the repository ("ca/train-00000-of-00005.parquet") and says which are wanted (default: all). A repository
 * without parquet files has them, converted by the hub, at the revision refs/convert/parquet. Errors: as `resolveModel`; those of
 * `keep`.
 */
export async function resolveDataset(
  name: string,
  { keep, ...options }: Pick<Request, keyof HubOptions | 'keep'> = {},
): Promise<string> {
  const meaning = asked(name, 'dataset', options);
  return 'path' in meaning ? meaning.path : pull(meaning.repository, { ...options, keep });
}

const CALLS: Record<Kind, string> = {
  model: 'resolveModel',
  expert: 'resolveExperts',
  adapter: 'resolveAdapter',
  dataset: 'resolveDataset',
};

function asked(name: string, kind: Kind, options: HubOptions): Meaning {
  checkOptions(CALLS[kind], options, OPTIONS);
  return meaningOf(name, kind, options.revision);
}

/** A snapshot with all files that are needed: from the cache, or fetched into it. */
async function pull(repository: Repository, options: Request): Promise<string> {
  const environment = await hubEnvironment();
  const cache = new RepositoryCache(environment.cache, repository);
  const kept = (await cached(repository, cache, options)) ?? (await convertedOf(repository, cache, options));
  const pinned = isCommit(repository.revision);
  // A commit never changes: what is whole needs no question.
  if (kept !== null && pinned && kept.certain) return kept.folder;
  if (options.offline ?? environment.offline) {
    if (kept !== null) return kept.folder;
    throw new DistilWhisperError(
      'ERR_HUB_OFFLINE',
      `${about(repository)} is not, or not wholly, in ${environment.cache}, and offline nothing is fetched: run once without --offline (HF_HUB_OFFLINE), or give the path of a local ${placeOf(repository.kind)}`,
    );
  }
  const client = new Client(environment, {
    signal: options.signal,
    about: about(repository),
    repository,
    // With what there is nobody need wait for a hub that is down.
    tries: kept === null ? undefined : 1,
    patience: kept === null ? undefined : 10,
  });
  try {
    return await fetched(client, repository, cache, options);
  } catch (error) {
    if (kept === null || !isDistilWhisperError(error) || error.code !== 'ERR_HUB') throw error;
    options.onNote?.(`${error.message}; going on with what the cache has, ${kept.folder}`);
    return kept.folder;
  }
}

const about = ({ name, revision }: Repository): string =>
  revision === DEFAULT_REVISION ? name : `${name}@${revision}`;

/**
 * What the cache has of a revision, if it is enough to work with; `certain`: nothing is missing by the listing. Without a listing
 * (another program fetched it) the files themselves say whether what must be is there.
 */
async function cached(
  repository: Repository,
  cache: RepositoryCache,
  { keep }: Request,
): Promise<{ folder: string; certain: boolean } | null> {
  const commit = await cache.commitOf(repository.revision);
  if (commit === null) return null;
  const folder = cache.snapshot(commit);
  const listing = await keptListing(cache.folder, commit);
  const there = await cache.files(commit);
  const names = listing?.map(({ path }) => path) ?? there;
  let chosen: ReturnType<typeof choose>;
  try {
    chosen = choose(repository.kind, names, keep);
  } catch (error) {
    // It may be in the repository: only a part of that is here.
    if (listing === null) return null;
    throw error;
  }
  if ('missing' in chosen) return null;
  const has = new Set<string>();
  for (const file of listing ?? []) if (await cache.has(commit, file)) has.add(file.path);
  if (listing === null) for (const path of there) has.add(path);
  if (!chosen.files.every((path) => has.has(path))) return null;
  const shards = await shardsOf(folder, chosen).catch(() => null);
  if (shards === null || !shards.every((path) => has.has(path))) return null;
  return { folder, certain: listing !== null };
}

/** What the cache has of a data set as the hub has converted it, where that is what its name stands for. */
async function convertedOf(repository: Repository, cache: RepositoryCache, request: Request) {
  if (repository.kind !== 'dataset' || repository.revision !== DEFAULT_REVISION) return null;
  return cached({ ...repository, revision: CONVERTED }, cache, request);
}

/** Asks the hub for the commit, lists it where it is not known yet, and fetches what the cache lacks. */
async function fetched(
  client: Client,
  repository: Repository,
  cache: RepositoryCache,
  options: Request,
): Promise<string> {
  const { revision } = repository;
  const commit = isCommit(revision) ? revision : await commitOf(client, repository);
  let listing = await keptListing(cache.folder, commit);
  if (listing === null) {
    listing = await listFiles(client, repository, commit);
    await made(join(cache.folder, 'trees'));
    await keepListing(cache.folder, commit, listing);
  }
  const chosen = choose(
    repository.kind,
    listing.map(({ path }) => path),
    options.keep,
  );
  if ('missing' in chosen) {
    const own = listing.some(({ path }) => isParquetFile(path));
    if (repository.kind === 'dataset' && revision === DEFAULT_REVISION && !own) {
      options.onNote?.(`${repository.name} has no parquet files of its own: taking those that the hub has made of it`);
      return pull({ ...repository, revision: CONVERTED }, options);
    }
    throw new DistilWhisperError('ERR_HUB_NOT_FOUND', missing(repository, chosen.missing, listing));
  }
  const files = new Map(listing.map((file) => [file.path, file]));
  const work = { client, cache, repository, commit, environment: client.environment };
  const folder = cache.snapshot(commit);
  await fetchAll(
    chosen.files.map((path) => files.get(path)!),
    work,
    options,
  );
  const shards = await shardsOf(folder, chosen);
  const absent = shards.find((path) => !files.has(path));
  if (absent !== undefined) {
    throw new DistilWhisperError(
      'ERR_HUB_NOT_FOUND',
      missing(repository, `${absent}, which ${chosen.index} names`, listing),
    );
  }
  await fetchAll(
    shards.map((path) => files.get(path)!),
    work,
    options,
  );
  // Last: whoever reads it offline finds all that it stands for.
  await cache.keepCommit(revision, commit);
  return folder;
}

function missing(repository: Repository, what: string, listing: readonly RemoteFile[]): string {
  const has = listing.map(({ path }) => path).filter((path) => !path.startsWith('.'));
  const rest = has.length > 12 ? ` and ${has.length - 12} more` : '';
  return `${about(repository)}: expected ${what}, got ${has.slice(0, 12).join(', ') || 'no files'}${rest}`;
}

/** The shards that the index of a choice names; none without an index. Errors: ERR_MODEL. */
async function shardsOf(folder: string, { index }: Choice): Promise<string[]> {
  if (index === undefined) return [];
  const path = join(folder, index);
  const { weight_map: map } = await readJsonObject(path, 'ERR_MODEL');
  const names = isJsonObject(map) ? [...new Set(Object.values(map))] : [];
  if (names.length === 0)
    throw new DistilWhisperError('ERR_MODEL', `${path} has no weight_map object that names files`);
  return names.map((name) => {
    if (typeof name === 'string' && /^\w[\w.-]*$/.test(name)) return name;
    throw new DistilWhisperError('ERR_MODEL', `${path} names ${JSON.stringify(name)}, which is no file's name`);
  });
}

interface Work {
  client: Client;
  cache: RepositoryCache;
  repository: Repository;
  commit: string;
  environment: Environment;
}

/** Fetches those of the files that the cache lacks, some at once. The first failure ends the others. */
async function fetchAll(files: readonly RemoteFile[], work: Work, options: Request): Promise<void> {
  const { cache, commit, repository, environment } = work;
  const lacking: RemoteFile[] = [];
  for (const file of files) if (!(await cache.has(commit, file))) lacking.push(file);
  if (lacking.length === 0) return;
  const total = lacking.reduce((sum, { size }) => sum + size, 0);
  await refuseIfFull(total, lacking, work);
  const { onProgress, onNote = () => {} } = options;
  const failed = new AbortController();
  const signal = AbortSignal.any([failed.signal, ...(options.signal ? [options.signal] : [])]);
  let done = 0;
  const onBytes = (bytes: number): void => {
    done += bytes;
    onProgress?.({ repository: repository.name, done, total });
  };
  onBytes(0);
  const client = new Client(environment, { signal, about: about(repository), repository });
  const waiting = [...lacking].sort((a, b) => a.size - b.size);
  let failure: unknown;
  const lane = async (): Promise<void> => {
    for (let file = waiting.shift(); file && !signal.aborted; file = waiting.shift()) {
      try {
        await download(file, { client, cache, repository, commit, signal, onBytes, onNote });
      } catch (error) {
        failure ??= error;
        failed.abort();
      }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  if (failure !== undefined) throw failure;
  throwIfInterrupted(options.signal);
}

/** Throws ERR_DISK_FULL where the disk has no room for what is to come, before any of it is fetched. */
async function refuseIfFull(total: number, files: readonly RemoteFile[], { cache, repository }: Work): Promise<void> {
  await made(cache.folder);
  const disk = await statfs(cache.folder).catch(() => null);
  if (disk === null || disk.blocks === 0) return;
  const free = disk.bavail * disk.bsize;
  // A blob of an earlier commit is not fetched again.
  const there = async (file: RemoteFile): Promise<number> => {
    const blob = await ifThere(stat(cache.blob(file)));
    if (blob?.size === file.size) return file.size;
    return (await ifThere(stat(`${cache.blob(file)}.incomplete`)))?.size ?? 0;
  };
  const needed = total - (await Promise.all(files.map(there))).reduce((sum, size) => sum + size, 0);
  if (needed <= free) return;
  throw new DistilWhisperError(
    'ERR_DISK_FULL',
    `The disk is full: ${about(repository)} needs ${needed} bytes more, and ${cache.folder} has room for ${free}; make room, or put the cache elsewhere (HF_HOME)`,
  );
}
