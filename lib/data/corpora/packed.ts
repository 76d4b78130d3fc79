/** Packed shards: speech at 16 kHz with its texts, as `prepare` writes them. */
import { basename, dirname, join } from 'node:path';
import { DistilWhisperError, isDistilWhisperError } from '../../errors/index.js';
import { isJsonObject, type JsonObject, parseJson, readJsonObject, TextError } from '../../files/index.js';
import { PackedReader } from '../../packed/index.js';
import { blockOf, blocksOf, type SourceBlocks } from '../block-order.js';
import { isFile } from '../confined.js';
import type { RowAudio, RowSource } from '../dataset.js';
import { type ManifestEntry, scanRows } from '../manifest.js';
import { RowStore } from '../row-store.js';
import type { Row } from '../rows.js';
import { type Block, BlockCache, type BlockMemory } from './block-cache.js';
import { type CorpusReader, chosenSplits, throwIfAborted, type Wanted } from './corpus.js';

/** `kind` of a packed file of speech. */
export const SHARD_KIND = 'speech';
export const SHARD_ENDING = '.packed';
/** Says which shards a folder has, and whether they are all. */
export const SHARDS_FILE = 'shards.json';
export const SHARD_RATE = 16000;

export const isPacked = (path: string): boolean =>
  isFile(path) ? path.endsWith(SHARD_ENDING) : isFile(join(path, SHARDS_FILE));

export const shardName = (number: number): string => `shard-${String(number).padStart(5, '0')}${SHARD_ENDING}`;

/** What a record's key says of a row. */
export function keyOf({ id, text, language, split, domain, duration, speaker, task, segments }: ManifestEntry): string {
  return JSON.stringify({ id, text, language, split, domain, duration, speaker, task, segments });
}

/** What a folder of shards says of itself. */
export interface Shards {
  shards: readonly { file: string; rows: number }[];
  /** False while they are being written. */
  complete: boolean;
}

/** Reads it. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_MANIFEST. */
export async function readShards(folder: string): Promise<Shards & JsonObject> {
  const path = join(folder, SHARDS_FILE);
  const value = await readJsonObject(path, 'ERR_MANIFEST');
  const { shards, complete } = value;
  const isShard = (one: unknown, number: number): boolean =>
    isJsonObject(one) && one.file === shardName(number) && Number.isSafeInteger(one.rows);
  if (!Array.isArray(shards) || !shards.every(isShard) || typeof complete !== 'boolean')
    throw new DistilWhisperError(
      'ERR_MANIFEST',
      `${path}: expected a list of shards, by file and rows, and whether it is complete`,
    );
  return { ...value, shards, complete };
}

/**
 * Reads a folder of shards, or one shard. Errors: ERR_FILE_NOT_FOUND, ERR_PACKED (cut short, damaged), ERR_MANIFEST (unfinished, other
 * rows than it says), ERR_ARGUMENT (a split that is not there).
 */
export const readPacked: CorpusReader = async (wanted) => {
  const { path, signal } = wanted;
  const single = isFile(path);
  const told = single ? null : await readShards(path);
  if (told && !told.complete) {
    throw new DistilWhisperError(
      'ERR_MANIFEST',
      `${path} is not finished: the same 'distilwhisper prepare' command goes on with it`,
    );
  }
  const files = told ? told.shards.map(({ file }) => join(path, file)) : [path];
  const splits = new Set<string>();
  const sources: ShardSource[] = [];
  try {
    for (const [i, file] of files.entries()) {
      throwIfAborted(signal);
      const source = await ShardSource.open(file, wanted.memory);
      sources.push(source);
      const rows = told?.shards[i]?.rows ?? source.length;
      if (rows !== source.length)
        throw new DistilWhisperError(
          'ERR_MANIFEST',
          `${file}: expected ${rows} rows as ${SHARDS_FILE} says, got ${source.length}`,
        );
      for (const split of source.splits()) splits.add(split);
    }
    const chosen = splits.size > 0 ? chosenSplits(wanted, [...splits]) : null;
    for (const source of sources) source.index(chosen, wanted);
    return sources;
  } catch (error) {
    for (const source of sources) await source.close();
    throw error;
  }
};

/** A shard. The place of a row: its record's number. */
class ShardSource implements RowSource {
  weight = 1;
  set = 0;
  readonly rows = new RowStore();
  blocks: SourceBlocks = { starts: [], bytes: [], sequential: false };
  private readonly cache: BlockCache;

  private constructor(
    private readonly path: string,
    private readonly reader: PackedReader,
    memory: BlockMemory,
  ) {
    this.cache = new BlockCache(async (block) => new Map([[block, await this.load(block)]]), memory);
  }

  static async open(path: string, memory: BlockMemory): Promise<ShardSource> {
    const reader = await PackedReader.open(path, { kind: SHARD_KIND });
    const { sampleRate, encoding } = reader.header;
    if (sampleRate === SHARD_RATE && encoding === 'pcm16') return new ShardSource(path, reader, memory);
    await reader.close();
    throw new DistilWhisperError(
      'ERR_PACKED',
      `${path}: expected pcm16 at ${SHARD_RATE} Hz, got ${encoding} at ${sampleRate}`,
    );
  }

  get length(): number {
    return this.reader.length;
  }

  *splits(): Generator<string> {
    for (const row of this.tableRows()) {
      if (!('values' in row)) continue;
      const split = row.values.get('split');
      // A row may have none.
      yield typeof split === 'string' ? split : '';
    }
  }

  index(splits: readonly string[] | null, { table, into }: Wanted): void {
    scanRows(
      this.path,
      { rows: this.tableRows() },
      { ...table, split: splits ?? undefined, onBadRow: into.onBadRow },
      (entry) => into.take(this.rows, entry, [entry.line - 1]),
      { find: (name) => join(dirname(this.path), name), mayBeEmpty: true },
    );
    this.blocks = blocksOf(this.rows.length, (row) => this.reader.byteLength(this.rows.get(row).place[0]!));
  }

  async audio(row: number): Promise<RowAudio> {
    const block = blockOf(this.blocks, row);
    const audio = (await this.cache.get(block)).audio[row - this.blocks.starts[block]!]!;
    if (audio instanceof Error) throw audio;
    return { samples: fromPcm16(audio), sampleRate: SHARD_RATE };
  }

  identity(row: number): readonly [string, number] {
    const { entry, place } = this.rows.get(row);
    return [entry.id, this.reader.byteLength(place[0]!)];
  }

  async close(): Promise<void> {
    await this.cache.close();
    await this.reader.close();
  }

  private *tableRows(): Generator<Row> {
    for (let i = 0; i < this.reader.length; i++) {
      const line = i + 1;
      let value: unknown;
      try {
        value = parseJson(this.reader.key(i));
      } catch (error) {
        if (!(error instanceof TextError)) throw error;
      }
      if (!isJsonObject(value)) {
        yield { line, problem: 'expected a JSON object as its key' };
        continue;
      }
      yield { line, values: new Map(Object.entries({ ...value, audio: `${basename(this.path)}#${i}` })) };
    }
  }

  /** A block from the file in one go; those between its rows that are not wanted are read over. */
  private async load(block: number): Promise<Block> {
    const { starts, bytes } = this.blocks;
    const records = Array.from(
      { length: (starts[block + 1] ?? this.rows.length) - starts[block]! },
      (_, i) => this.rows.get(starts[block]! + i).place[0]!,
    );
    const audio: (Uint8Array | Error)[] = [];
    let wanted = 0;
    try {
      for await (const record of this.reader.records(records[0]!, records[records.length - 1]! + 1)) {
        if (record.index !== records[wanted]) continue;
        audio.push(record.bytes);
        wanted++;
      }
    } catch (error) {
      // Which one it is shows when each is read for itself.
      if (!isDistilWhisperError(error)) throw error;
      for (const record of records.slice(wanted)) audio.push(await this.reader.read(record).catch((one: Error) => one));
    }
    return { audio, bytes: bytes[block]! };
  }
}

/** Samples of whole 16-bit numbers, and back: nothing is lost on the way. */
export function toPcm16(samples: Float32Array): Uint8Array {
  const bytes = new Uint8Array(2 * samples.length);
  const view = new DataView(bytes.buffer);
  for (let i = 0; i < samples.length; i++) {
    const value = Math.round(samples[i]! * 32768);
    view.setInt16(2 * i, Math.max(-32768, Math.min(value, 32767)), true);
  }
  return bytes;
}

function fromPcm16(bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const samples = new Float32Array(bytes.byteLength >> 1);
  for (let i = 0; i < samples.length; i++) samples[i] = view.getInt16(2 * i, true) / 32768;
  return samples;
}
