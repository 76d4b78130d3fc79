/**
 * A teacher's last hidden rows on disk. What it says of an utterance hangs on the utterance alone, so that a run pays for it once:
 *   rows-00000000.packed         packed files (lib/packed): records of bf16 [labels, D], one an utterance
 *   cache.lock                   which process adds to them, while it does
 * The header of a file says which teacher made it, of which features; the key of a record is a digest of the utterance's audio and
 * of what the decoder heard. A file is written beside, synced and renamed: a process killed at any moment leaves whole ones only.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdir, readdir, rm, rmdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { RowAudio } from '../data/index.js';
import { DistilWhisperError, fileReadError, fileWriteError } from '../errors/index.js';
import { FolderLock, ifThere, isRemnant } from '../files/index.js';
import { PackedReader, PackedWriter } from '../packed/index.js';
import type { FloatName } from '../tensor/index.js';

const KIND = 'teacher rows';
const LOCK = 'cache.lock';
const FILE = /^rows-(\d{8})\.packed$/;
const fileName = (number: number): string => `rows-${String(number).padStart(8, '0')}.packed`;
/** Bytes of a file, about: what a killed process may have to make again. */
const FILE_BYTES = 64 << 20;
/** Files whose audio is read at once. */
const AT_ONCE = 4;

/** Who says the rows of a cache, and of what. */
export interface CacheSource {
  /** Digest of the teacher's weights. */
  teacher: string;
  /** Columns of a row. */
  width: number;
  /** Of the features: how they are made (`FEATURES_VERSION`), and their shape. */
  features: number;
  mels: number;
  frames: number;
  /** Type that the teacher computed in. */
  compute: FloatName;
}

/** What it takes to say what a field of a header means. */
const MEANING: Record<keyof CacheSource, string> = {
  teacher: 'another teacher',
  width: 'a teacher of another width',
  features: 'features of another version',
  mels: 'features of another shape',
  frames: 'features of another shape',
  compute: 'a teacher that computed in another type',
};

interface Place {
  file: PackedReader;
  record: number;
}

/** An open cache. Without `adds` it is only read. */
export class TeacherCache {
  private readonly places = new Map<string, Place>();
  private writer: PackedWriter | null = null;
  /** Keys of the records that the writer has: they are read when its file is whole. */
  private unfinished = new Set<string>();
  /** What is added goes behind what was added before. */
  private queue: Promise<void> = Promise.resolve();
  private failure: { error: unknown } | null = null;

  private constructor(
    readonly path: string,
    readonly source: CacheSource,
    private readonly lock: FolderLock | null,
    private readonly files: PackedReader[],
    /** Number of the next file. */
    private next: number,
  ) {
    for (const file of files) this.include(file);
  }

  /**
   * Opens a cache, or with `adds` makes it where there is none. Where nothing is added the rows may come of any type of products:
   * `source.compute` is then theirs. Errors: ERR_FILE_NOT_FOUND (no cache there), ERR_TEACHER_CACHE (rows of another teacher or other
   * features, naming the file; other files), ERR_PACKED (a file cut short or damaged), ERR_RUN (another process adds to it),
   * ERR_FILE_READ, ERR_FILE_WRITE.
   */
  static async open(path: string, source: CacheSource, { adds }: { adds: boolean }): Promise<TeacherCache> {
    if (adds) await made(path);
    // Before the lock is there: a folder of something else is left as it is.
    await filesOf(path);
    const lock = adds ? await FolderLock.take(path, LOCK) : null;
    const files: PackedReader[] = [];
    try {
      const names = await filesOf(path);
      for (const name of names) files.push(await PackedReader.open(join(path, name), { kind: KIND }));
      if (adds) await removeRemnants(path);
      const theirs = files[0]?.header.compute;
      const compute = !adds && (theirs === 'fp32' || theirs === 'bf16') ? theirs : source.compute;
      const next = names.length === 0 ? 0 : Number(FILE.exec(names.at(-1)!)![1]) + 1;
      return new TeacherCache(path, { ...source, compute }, lock, files, next);
    } catch (error) {
      for (const file of files) await file.close();
      await lock?.release();
      throw error;
    }
  }

  /** Utterances whose rows are there. */
  get size(): number {
    return this.places.size;
  }

  has(key: string): boolean {
    return this.places.has(key);
  }

  /**
   * Rows bf16 [labels, D] of an utterance that is there, or was added. Errors: ERR_PACKED, ERR_FILE_READ; ERR_TEACHER_CACHE (another
   * number of rows).
   */
  async rows(key: string, labels: number): Promise<Uint16Array> {
    if (!this.places.has(key)) await this.flush();
    const { file, record } = this.places.get(key)!;
    const bytes = await file.read(record);
    const expected = 2 * labels * this.source.width;
    if (bytes.byteLength !== expected) {
      throw new DistilWhisperError(
        'ERR_TEACHER_CACHE',
        `${file.path}: record ${record}: expected ${labels} rows of ${expected} bytes together, got ${bytes.byteLength} bytes`,
      );
    }
    return new Uint16Array(new Uint8Array(bytes).buffer);
  }

  /**
   * Adds rows behind those that were added before; those of a key that is there are left as they are. What goes wrong is told by
   * the next `flush`.
   */
  add(key: string, rows: Promise<Uint16Array>): void {
    rows.catch(() => {});
    this.enqueue(async () => this.append(key, await rows));
  }

  /** Has all that was added on the disk, in whole files. Errors: ERR_DISK_FULL, ERR_FILE_WRITE, and those of the rows themselves. */
  async flush(): Promise<void> {
    this.enqueue(() => this.finish());
    await this.queue;
    if (this.failure !== null) throw this.failure.error;
  }

  /** Finishes what was added and lets go of the files. */
  async close(): Promise<void> {
    try {
      if (this.lock) await this.flush();
    } finally {
      await this.writer?.discard();
      const isEmpty = this.files.length === 0;
      for (const file of this.files.splice(0)) await file.close();
      await this.lock?.release();
      // Where it was opened to be filled and nobody said anything, as by a run that is refused, no folder is left behind.
      if (this.lock && isEmpty) await rmdir(this.path).catch(() => {});
    }
  }

  private enqueue(work: () => Promise<void>): void {
    this.queue = this.queue.then(async () => {
      if (this.failure !== null) return;
      try {
        await work();
      } catch (error) {
        this.failure = { error };
      }
    });
  }

  private async append(key: string, rows: Uint16Array): Promise<void> {
    if (this.places.has(key) || this.unfinished.has(key)) return;
    this.writer ??= await PackedWriter.create(join(this.path, fileName(this.next)), {
      kind: KIND,
      header: { ...this.source },
    });
    await this.writer.append(key, new Uint8Array(rows.buffer, rows.byteOffset, rows.byteLength));
    this.unfinished.add(key);
    if (this.writer.byteLength >= FILE_BYTES) await this.finish();
  }

  private async finish(): Promise<void> {
    const { writer } = this;
    if (!writer) return;
    this.writer = null;
    await writer.finish();
    this.next++;
    const file = await PackedReader.open(writer.path, { kind: KIND });
    this.files.push(file);
    this.include(file);
    this.unfinished.clear();
  }

  /** Throws ERR_TEACHER_CACHE. */
  private include(file: PackedReader): void {
    const { source } = this;
    for (const name of Object.keys(MEANING) as (keyof CacheSource)[]) {
      const got = file.header[name];
      if (got === source[name]) continue;
      throw new DistilWhisperError(
        'ERR_TEACHER_CACHE',
        `${file.path}: it has rows of ${MEANING[name]}: expected ${name} ${source[name]}, got ${JSON.stringify(got) ?? 'none'}`,
      );
    }
    for (let record = 0; record < file.length; record++) this.places.set(file.key(record), { file, record });
  }
}

async function made(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
  } catch (error) {
    throw fileWriteError(error, path);
  }
}

/** Names of a cache's files in their order. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_TEACHER_CACHE (something else is there). */
async function filesOf(path: string): Promise<string[]> {
  let names: string[];
  try {
    const kind = await ifThere(stat(path));
    if (!kind?.isDirectory()) {
      throw new DistilWhisperError(
        'ERR_FILE_NOT_FOUND',
        `teacher cache ${path}: there is no such folder; 'distilwhisper cache-teacher' makes one`,
      );
    }
    names = await readdir(path);
  } catch (error) {
    throw fileReadError(error, path);
  }
  const other = names.find((name) => !FILE.test(name) && name !== LOCK && !isRemnant(name));
  if (other !== undefined) {
    throw new DistilWhisperError(
      'ERR_TEACHER_CACHE',
      `teacher cache ${path}: expected the files of a teacher cache or nothing, got other files, such as ${other}`,
    );
  }
  return names.filter((name) => FILE.test(name)).sort();
}

/** What a killed process left half-written; what cannot be removed is in nobody's way. */
async function removeRemnants(path: string): Promise<void> {
  for (const name of await readdir(path)) {
    if (isRemnant(name)) await rm(join(path, name), { force: true }).catch(() => {});
  }
}

/**
 * The keys of utterances: digests of their audio, byte by byte, and of what the decoder hears: the start token and the labels. Errors:
 * those of `Dataset.audio`; ERR_INTERRUPTED.
 */
export async function teacherKeys(
  utterances: { length: number; audio(i: number): Promise<RowAudio>; labelsOf(i: number): readonly number[] },
  start: number,
  {
    signal,
    onProgress,
  }: { signal?: AbortSignal | undefined; onProgress?: ((done: number) => unknown) | undefined } = {},
): Promise<string[]> {
  const keys: string[] = [];
  while (keys.length < utterances.length) {
    if (signal?.aborted) throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted while the audio was read');
    const numbers = Array.from(
      { length: Math.min(AT_ONCE, utterances.length - keys.length) },
      (_, i) => keys.length + i,
    );
    keys.push(
      ...(await Promise.all(
        numbers.map(async (i) => {
          const heard = JSON.stringify([await digestOfAudio(await utterances.audio(i)), start, utterances.labelsOf(i)]);
          return createHash('sha256').update(heard).digest('hex').slice(0, 32);
        }),
      )),
    );
    await onProgress?.(keys.length);
  }
  return keys;
}

/** Of a file's bytes, wherever they lie; of samples as they are. */
async function digestOfAudio(audio: RowAudio): Promise<string> {
  if (typeof audio === 'string') return digestOfFile(audio);
  const hash = createHash('sha256');
  if (audio instanceof Uint8Array) return hash.update(audio).digest('hex');
  const { samples, sampleRate } = audio;
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  return hash.update(`${sampleRate}\n`).update(bytes).digest('hex');
}

async function digestOfFile(path: string): Promise<string> {
  const hash = createHash('sha256');
  try {
    for await (const piece of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(piece as Uint8Array);
  } catch (error) {
    throw fileReadError(error, path);
  }
  return hash.digest('hex');
}
