/** A data set: an index of its rows; audio is read when it is asked for. */
import { stat } from 'node:fs/promises';
import { basename } from 'node:path';
import type { AudioInput } from '../audio/index.js';
import { DistilWhisperError, fileReadError } from '../errors/index.js';
import type { BadRow } from './bad-rows.js';
import { blockOf, type ItemBlocks, type SourceBlocks } from './block-order.js';
import type { ManifestEntry } from './manifest.js';
import { RowStore } from './row-store.js';

/** A row's audio: a file's path, a file's bytes, or mono samples, nominally -1..1. */
export type RowAudio = AudioInput | { samples: Float32Array; sampleRate: number };

/** What the rows of one source have in common: how their audio is read. */
export interface RowSource {
  readonly rows: RowStore;
  /** How often its rows come in an epoch; 1: once each. */
  weight: number;
  /** Number of the data set that it is a part of: a release's table, a shard. */
  set: number;
  /** Rows that are read together, one block behind the other; absent where each row is read for itself. */
  readonly blocks?: SourceBlocks | undefined;
  /** Audio of a row; the row's fault, such as a damaged record, is a typed error of it. */
  audio(row: number): Promise<RowAudio>;
  /** Name and size that tell a row's audio from another; by default those of its file. */
  identity?(row: number): readonly [name: string, size: number];
  close(): Promise<void>;
}

/** A source whose rows' audio lies in files of its own. */
export const fileSource = (rows: RowStore): RowSource => ({
  rows,
  weight: 1,
  set: 0,
  audio: async (row) => rows.get(row).entry.audio,
  close: async () => {},
});

/**
 * Rows of one or several corpora, in order. In memory is an index of them, some hundred bytes a row; audio is read from where it lies.
 * `openDataset` makes it; it is to be closed.
 */
export class Dataset {
  private constructor(
    private readonly sources: readonly RowSource[],
    /** Of each row its source and its number there. */
    private readonly source: Uint16Array,
    private readonly row: Int32Array,
    /** Rows that could not be used and were left out. */
    readonly badRows: readonly BadRow[],
    private readonly owner: boolean,
  ) {}

  /** Of sources that it owns from now on. */
  static over(sources: readonly RowSource[], badRows: readonly BadRow[] = [], keep?: ReadonlySet<number>): Dataset {
    const length = sources.reduce((sum, { rows }) => sum + rows.length, 0);
    const source = new Uint16Array(length);
    const row = new Int32Array(length);
    let at = 0;
    for (const [s, { rows }] of sources.entries()) {
      for (let i = 0; i < rows.length; i++, at++) [source[at], row[at]] = [s, i];
    }
    const wanted = (_: number, i: number): boolean => keep === undefined || keep.has(i);
    return new Dataset(sources, source.filter(wanted), row.filter(wanted), badRows, true);
  }

  /** Of a manifest's entries; it holds no file. */
  static of(entries: readonly ManifestEntry[]): Dataset {
    const rows = new RowStore();
    for (const entry of entries) rows.add(entry);
    return Dataset.over([fileSource(rows)]);
  }

  get length(): number {
    return this.row.length;
  }

  /** What row `i` says. Its `audio` is a file's path, or a name for what lies in an archive: `audio` below reads both. Errors: ERR_ARGUMENT. */
  entry(i: number): ManifestEntry {
    return this.at(i).rows.get(this.row[i]!).entry;
  }

  /** The numbers of all rows. */
  numbers(): Iterable<number> {
    return this.row.keys();
  }

  /** All entries, one at a time. */
  *entries(): Generator<ManifestEntry, void, undefined> {
    for (let i = 0; i < this.length; i++) yield this.entry(i);
  }

  /** The audio of row `i`, to be decoded. Errors: ERR_FILE_READ, ERR_MANIFEST, ERR_PACKED (what holds it is damaged); ERR_ARGUMENT. */
  audio(i: number): Promise<RowAudio> {
    return this.at(i).audio(this.row[i]!);
  }

  /** Name and size of the audio of row `i`, by which a run knows it again. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ. */
  async identity(i: number): Promise<readonly [name: string, size: number]> {
    const source = this.at(i);
    const row = this.row[i]!;
    if (source.identity) return source.identity(row);
    const { audio } = source.rows.get(row).entry;
    try {
      return [basename(audio), (await stat(audio)).size];
    } catch (error) {
      throw fileReadError(error, audio);
    }
  }

  /** The rows of these numbers, in their order. It shares what this one has open, and is let go of with it. */
  select(rows: Iterable<number>): Dataset {
    const numbers = Int32Array.from(rows);
    for (const i of numbers) this.at(i);
    return new Dataset(
      this.sources,
      Uint16Array.from(numbers, (i) => this.source[i]!),
      Int32Array.from(numbers, (i) => this.row[i]!),
      this.badRows,
      false,
    );
  }

  /** Whether the rows are best read in their order, because those that follow one another are read together. */
  get ordered(): boolean {
    return this.sources.some(({ blocks }) => blocks !== undefined);
  }

  /** How often the rows of each source come in an epoch; undefined where all come once. */
  get weights(): number[] | undefined {
    const weights = this.sources.map(({ weight }) => weight);
    return weights.some((weight) => weight !== 1) ? weights : undefined;
  }

  /** What the sampler needs to know to deal the rows. */
  get sampling(): {
    items: { language: string; duration?: number }[];
    blocks: ItemBlocks | undefined;
    sourceWeights: number[] | undefined;
  } {
    const items = Array.from({ length: this.length }, (_, i) => {
      const { language, duration } = this.entry(i);
      return duration === undefined ? { language } : { language, duration };
    });
    const { weights: sourceWeights } = this;
    const kinds = this.sources.map(({ blocks }) => blocks);
    const sets = this.sources.map(({ set }) => set);
    const blocks =
      this.ordered || sourceWeights ? { source: this.source, block: this.blockNumbers(), kinds, sets } : undefined;
    return { items, blocks, sourceWeights };
  }

  /** The block of each row within its source; 0 where there are none. */
  private blockNumbers(): Int32Array {
    return Int32Array.from(this.row, (row, i) => {
      const { blocks } = this.sources[this.source[i]!]!;
      return blocks ? blockOf(blocks, row) : 0;
    });
  }

  /** Lets go of all files. */
  async close(): Promise<void> {
    if (!this.owner) return;
    await Promise.all(this.sources.map((source) => source.close()));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  private at(i: number): RowSource {
    if (Number.isInteger(i) && i >= 0 && i < this.length) return this.sources[this.source[i]!]!;
    throw new DistilWhisperError('ERR_ARGUMENT', `expected the number of a row below ${this.length}, got ${i}`);
  }
}
