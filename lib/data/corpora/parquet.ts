/** Parquet with embedded audio, as Hugging Face's `datasets` writes it: a struct {bytes, path}, shards named train-00000-of-00002.parquet. */
import { readdirSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import type { AsyncBuffer, Compressors, FileMetaData } from 'hyparquet';
import { DistilWhisperError, fileReadError, isDistilWhisperError, shown } from '../../errors/index.js';
import { openRegularFile, readExactly } from '../../files/index.js';
import { resolveLanguage } from '../../text/index.js';
import { badRow } from '../bad-rows.js';
import { blockOf, type SourceBlocks } from '../block-order.js';
import { isDirectory, isFile } from '../confined.js';
import type { RowSource } from '../dataset.js';
import { audioNames, knownNames, scanRows } from '../manifest.js';
import { RowStore } from '../row-store.js';
import type { Row } from '../rows.js';
import { type Block, BlockCache, type BlockMemory } from './block-cache.js';
import { type CorpusReader, chosenSplits, splitName, throwIfAborted, type Wanted } from './corpus.js';
import { checkPages, MAX_PAGE_BYTES } from './parquet-pages.js';

const ENDING = '.parquet';
const MAX_ROWS = 2 ** 21;
/** Folders below the one that is named: data/, ca/train/. */
const MAX_DEPTH = 3;

function filesIn(folder: string, depth = 0): string[] {
  let entries: { name: string; folder: boolean }[];
  try {
    entries = readdirSync(folder).map((name) => ({ name, folder: isDirectory(join(folder, name)) }));
  } catch (error) {
    throw fileReadError(error, folder);
  }
  const sorted = entries.sort((a, b) => (a.name < b.name ? -1 : 1));
  const here = sorted
    .filter(({ name, folder }) => !folder && name.endsWith(ENDING))
    .map(({ name }) => join(folder, name));
  if (here.length > 0 || depth === MAX_DEPTH) return here;
  return sorted
    .filter(({ name, folder }) => folder && !name.startsWith('.'))
    .flatMap(({ name }) => filesIn(join(folder, name), depth + 1));
}

export const isParquet = (path: string): boolean => (isFile(path) ? path.endsWith(ENDING) : filesIn(path).length > 0);

interface Shard {
  path: string;
  split: string;
}

/** A shard's name: its set's, its number, how many there are, and from earlier versions of `datasets` a hash. */
const SHARD = /^(.+)-(\d+)-of-(\d+)(?:-[0-9a-f]+)?\.parquet$/;

/** A shard's split: a word of its name (train-00000-of-00002), or its folder (train/0000.parquet); else 'train', as `datasets` has it. */
function splitOf(path: string): string {
  const known = (name: string): boolean => ['train', 'validation', 'test'].includes(splitName(name));
  const name = basename(path);
  const word = basename(path, ENDING)
    .split(/[^a-z]+/i)
    .find(known);
  const folders = path.split(SEPARATOR).slice(0, -1).reverse();
  return word ?? SHARD.exec(name)?.[1] ?? folders.find(known) ?? 'train';
}

const SEPARATOR = /[\\/]/;

/** The language whose folder a shard lies in, as in ca_es/train/0000.parquet; undefined where no folder is named after one. */
function languageOf(path: string): string | undefined {
  for (const folder of path.split(SEPARATOR).slice(0, -1)) {
    try {
      return resolveLanguage(folder).code;
    } catch {}
  }
  return undefined;
}

/**
 * Of the paths of shards, relative to their data set, those of the splits and languages that are wanted, with their splits; folders that are
 * named after no language are of all. Throws ERR_ARGUMENT where a split is not there, ERR_LANGUAGE for an unknown one that is wanted.
 */
export function chosenShards(
  paths: readonly string[],
  wanted: Pick<Wanted, 'path' | 'splits' | 'defaultSplit'> & { languages: string | readonly string[] | undefined },
): Shard[] {
  const languages = wanted.languages && [wanted.languages].flat().map((name) => resolveLanguage(name).code);
  const shards = paths
    .filter((path) => {
      const language = languages && languageOf(path);
      return language === undefined || languages!.includes(language);
    })
    .map((path) => ({ path, split: splitOf(path) }));
  if (shards.length === 0) return [];
  const splits = chosenSplits(wanted, [...new Set(shards.map(({ split }) => split))]);
  return shards.filter(({ split }) => splits.includes(split));
}

/** Refuses a set of shards of which some are missing. */
function checkShards(shards: readonly Shard[]): void {
  const seen = new Map<string, { of: number; there: Set<number> }>();
  for (const { path } of shards) {
    const [, name, number, of] = SHARD.exec(path) ?? [];
    if (name === undefined) continue;
    const key = `${name}-of-${of}`;
    const set = seen.get(key) ?? { of: Number(of), there: new Set() };
    seen.set(key, set);
    set.there.add(Number(number));
  }
  for (const [name, { of, there }] of seen) {
    if (there.size < of)
      throw new DistilWhisperError(
        'ERR_FILE_NOT_FOUND',
        `${name}: expected ${of} shards, got ${there.size}: some are missing`,
      );
  }
}

/**
 * Reads parquet files: one, a folder of shards, or a data set's folder with data/. The texts of a row group are read at once, audio when it
 * is asked for, a row group at a time. Errors: ERR_FILE_NOT_FOUND (none, a missing shard), ERR_MANIFEST (no parquet, no column of audio
 * or text), ERR_ARGUMENT (a split that is not there). Rows of a damaged row group are bad rows.
 */
export const readParquet: CorpusReader = async (wanted) => {
  const { path } = wanted;
  const files = isFile(path) ? [path] : filesIn(path);
  if (files.length === 0)
    throw new DistilWhisperError('ERR_FILE_NOT_FOUND', `${path}: expected parquet files, got none`);
  // From above, so that the folder's own name may say the split (test/0000.parquet).
  const root = dirname(resolve(isFile(path) ? dirname(path) : path));
  const chosen = chosenShards(
    files.map((file) => relative(root, file)),
    { ...wanted, languages: wanted.table.language },
  ).map(({ path: file, split }) => ({ path: join(root, file), split }));
  if (chosen.length === 0)
    throw new DistilWhisperError(
      'ERR_MANIFEST',
      `${path}: expected parquet files of a language that is wanted, got none`,
    );
  if (!isFile(path)) checkShards(chosen);
  const sources: RowSource[] = [];
  try {
    for (const shard of chosen) sources.push(await ParquetSource.open(shard, wanted));
  } catch (error) {
    for (const source of sources) await source.close();
    throw error;
  }
  return sources;
};

type Library = typeof import('hyparquet');

/** A shard. The place of a row: its number in the file. */
class ParquetSource implements RowSource {
  weight = 1;
  set = 0;
  readonly rows = new RowStore();
  readonly blocks: SourceBlocks = { starts: [], bytes: [], sequential: false };
  /** Row group of each block, since those without a wanted row are none. */
  private readonly groups: number[] = [];
  private readonly cache: BlockCache;

  private constructor(
    private readonly path: string,
    private readonly library: Library,
    private readonly compressors: Compressors,
    private readonly file: FileHandle,
    private readonly size: number,
    private readonly buffer: AsyncBuffer,
    private readonly metadata: FileMetaData,
    private readonly audioColumn: string,
    memory: BlockMemory,
  ) {
    this.cache = new BlockCache(async (block) => new Map([[block, await this.load(block)]]), memory);
  }

  static async open({ path, split }: Shard, wanted: Wanted): Promise<ParquetSource> {
    const library = await import('hyparquet');
    const { compressors } = await import('hyparquet-compressors');
    const file = await openRegularFile(path);
    try {
      const { size } = await file.stat();
      const buffer: AsyncBuffer = {
        byteLength: size,
        slice: (start, end = size) => {
          const bytes = readColumn(file, path, size, start, end);
          // The library asks for several at once and waits for the first that fails.
          bytes.catch(() => {});
          return bytes;
        },
      };
      let metadata: FileMetaData;
      try {
        metadata = await library.parquetMetadataAsync(buffer);
      } catch (error) {
        throw damaged(path, 'its metadata', error);
      }
      const columns = checkMetadata(metadata, path);
      const audio = audioNames(wanted.table).find((name) => columns.includes(name));
      if (audio === undefined) {
        const has = columns.join(', ').slice(0, 400);
        throw new DistilWhisperError(
          'ERR_MANIFEST',
          `${path}: missing a column of audio (${audioNames(wanted.table).join(' or ')}); it has ${has}`,
        );
      }
      const source = new ParquetSource(
        path,
        library,
        limited(compressors),
        file,
        size,
        buffer,
        metadata,
        audio,
        wanted.memory,
      );
      await source.index(split, columns, wanted);
      return source;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async audio(row: number): Promise<Uint8Array> {
    const block = blockOf(this.blocks, row);
    const { audio } = await this.cache.get(block);
    const found = audio[row - this.blocks.starts[block]!]!;
    if (found instanceof Uint8Array) return found;
    throw found;
  }

  identity(row: number): readonly [string, number] {
    return [`${basename(this.path)}#${this.rows.get(row).place[0]}`, this.size];
  }

  async close(): Promise<void> {
    await this.cache.close();
    await this.file.close();
  }

  /** Reads the columns that rows are made of but audio, a row group at a time. */
  private async index(split: string, columns: readonly string[], { table, into, signal }: Wanted): Promise<void> {
    const known = knownNames(table);
    const others = columns.filter((name) => name !== this.audioColumn && known.has(name));
    let first = 0;
    for (const [group, { num_rows, total_byte_size }] of this.metadata.row_groups.entries()) {
      throwIfAborted(signal);
      if (into.full) return;
      const count = Number(num_rows);
      const before = this.rows.length;
      const number = first;
      first += count;
      let read: Record<string, unknown>[];
      try {
        read = await this.read(group, number, count, others);
      } catch (error) {
        const why = damaged(this.path, `row group ${group}`, error);
        for (let i = 0; i < count; i++) into.onBadRow(badRow({ manifest: this.path, line: number + i + 1 }, why));
        continue;
      }
      scanRows(
        this.path,
        { rows: this.tableRows(read, number), header: { line: 0, names: columns } },
        { ...table, onBadRow: into.onBadRow },
        (entry) => into.take(this.rows, entry, [entry.line - 1]),
        { find: (name) => join(dirname(this.path), name), split, mayBeEmpty: true },
      );
      if (this.rows.length === before) continue;
      this.blocks.starts.push(before);
      this.blocks.bytes.push(Number(total_byte_size));
      this.groups.push(group);
    }
  }

  /** Rows as a table has them, with a name for the audio that they hold. */
  private *tableRows(read: readonly Record<string, unknown>[], first: number): Generator<Row> {
    for (const [i, columns] of read.entries()) {
      const values = new Map(Object.entries(columns).map(([name, value]) => [name, plain(value)]));
      values.set(this.audioColumn, `${basename(this.path)}#${first + i}`);
      yield { line: first + i + 1, values };
    }
  }

  private async load(block: number): Promise<Block> {
    const group = this.groups[block]!;
    let first = 0;
    for (const { num_rows } of this.metadata.row_groups.slice(0, group)) first += Number(num_rows);
    const count = Number(this.metadata.row_groups[group]!.num_rows);
    const start = this.blocks.starts[block]!;
    const end = this.blocks.starts[block + 1] ?? this.rows.length;
    let read: Record<string, unknown>[] | Error;
    try {
      read = await this.read(group, first, count, [this.audioColumn]);
    } catch (error) {
      read = damaged(this.path, `row group ${group}`, error);
    }
    const audio: (Uint8Array | Error)[] = [];
    let bytes = 0;
    for (let row = start; row < end; row++) {
      const value =
        read instanceof Error ? read : bytesOf(read[this.rows.get(row).place[0]! - first]?.[this.audioColumn]);
      const found = value ?? new DistilWhisperError('ERR_MANIFEST', `${this.path}: the row holds no bytes of audio`);
      // A copy: a part of a page would keep all of it.
      audio.push(found instanceof Uint8Array ? found.slice() : found);
      bytes += found instanceof Uint8Array ? found.byteLength : 0;
    }
    return { audio, bytes };
  }

  private async read(
    group: number,
    first: number,
    count: number,
    columns: readonly string[],
  ): Promise<Record<string, unknown>[]> {
    await checkPages(this.buffer, this.metadata, this.metadata.row_groups[group]!, columns, this.compressors);
    const rows = await this.library.parquetReadObjects({
      file: this.buffer,
      metadata: this.metadata,
      columns: [...columns],
      rowStart: first,
      rowEnd: first + count,
      compressors: this.compressors,
      utf8: columns[0] !== this.audioColumn,
    });
    if (rows.length !== count) throw new Error(`row group ${group} has ${rows.length} rows, expected ${count}`);
    return rows;
  }
}

async function readColumn(
  file: FileHandle,
  path: string,
  size: number,
  start: number,
  end: number,
): Promise<ArrayBuffer> {
  if (!(start >= 0 && end >= start && end <= size)) throw new Error(`it asks for bytes ${start} to ${end} of ${size}`);
  const bytes = await readExactly(file, start, end - start, path, 'a column', 'ERR_MANIFEST');
  return bytes.buffer as ArrayBuffer;
}

/** Names of the columns. Throws ERR_MANIFEST for numbers that cannot be meant. */
function checkMetadata({ schema, row_groups }: FileMetaData, path: string): string[] {
  let rows = 0;
  for (const { num_rows, total_byte_size } of row_groups) {
    const count = Number(num_rows);
    if (!(count >= 0) || Number(total_byte_size) < 0)
      throw damaged(path, 'its metadata', new Error(`a row group of ${num_rows} rows`));
    rows += count;
  }
  if (rows > MAX_ROWS)
    throw new DistilWhisperError('ERR_MANIFEST', `${path}: expected at most ${MAX_ROWS} rows, got ${rows}`);
  const columns: string[] = [];
  // The schema's tree, its root first, each part with the number of its own.
  let at = 1;
  const skip = (depth: number): void => {
    const { num_children = 0 } = schema[at++] ?? {};
    if (depth > 32 || at > schema.length) throw damaged(path, 'its schema', new Error('it is no tree'));
    for (let i = 0; i < num_children; i++) skip(depth + 1);
  };
  while (at < schema.length) {
    columns.push(schema[at]!.name);
    skip(0);
  }
  return columns;
}

/** What unpacks pages, within bounds: a page's head may ask for any size. */
function limited(compressors: Compressors): Compressors {
  return Object.fromEntries(
    Object.entries(compressors).map(([name, unpack]) => [
      name,
      (input: Uint8Array, length: number) => {
        if (!(length >= 0 && length <= MAX_PAGE_BYTES)) throw new Error(`a page of ${length} bytes`);
        return unpack!(input, length);
      },
    ]),
  ) as Compressors;
}

/** A value as rows of text have it. */
function plain(value: unknown): unknown {
  if (typeof value === 'bigint') return Number(value);
  if (value === null || ['string', 'number', 'undefined'].includes(typeof value)) return value;
  // Segments, where they are asked for.
  return Array.isArray(value) ? value : shown(value, 40);
}

/** The bytes of {bytes, path}, or of a column of bytes. */
function bytesOf(value: unknown): Uint8Array | undefined {
  if (value instanceof Uint8Array) return value;
  const bytes = typeof value === 'object' && value !== null ? (value as { bytes?: unknown }).bytes : undefined;
  return bytes instanceof Uint8Array ? bytes : undefined;
}

function damaged(path: string, part: string, cause: unknown): DistilWhisperError {
  if (isDistilWhisperError(cause)) return cause;
  const reason = (cause instanceof Error ? cause.message : String(cause)).slice(0, 200);
  return new DistilWhisperError('ERR_MANIFEST', `${path}: ${part} cannot be read (${reason})`, { cause });
}
