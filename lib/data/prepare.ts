/** Turns corpora into packed shards: speech as it is trained on, in files that are read forward. */
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { DecodePool, SAMPLE_RATE } from '../audio/index.js';
import { checkOptions, DistilWhisperError, fileWriteError } from '../errors/index.js';
import { FolderLock, ifThere, isJsonObject, isRemnant, proveFolder, writeFileAtomic } from '../files/index.js';
import { PackedWriter } from '../packed/index.js';
import { type BadRow, BadRowsError, badRow, blamesRow } from './bad-rows.js';
import { keyOf, readShards, SHARD_KIND, SHARDS_FILE, shardName, toPcm16 } from './corpora/index.js';
import type { Dataset } from './dataset.js';
import { digestOfRows } from './digest.js';
import { PrefetchLoader } from './loader.js';
import type { ManifestEntry } from './manifest.js';

/** Of a shard: some two hours of speech. */
const SHARD_BYTES = 2 ** 28;
/** Rows of training last seconds. What lasts longer is no utterance. */
const MAX_SECONDS = 3600;
const LOCK = 'prepare.lock';

export interface PrepareOptions {
  /** Folder for the shards; it may hold a part of the same, which is gone on with. */
  output: string;
  /** A shard ends with the row that makes it so large, in bytes. Default 256 MiB. */
  shardBytes?: number | undefined;
  /** A row whose audio cannot be used, or is unusual, ends the work. Default: it is left out and told. */
  strict?: boolean | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: PrepareProgress) => unknown) | undefined;
  /** Audio that is unusual but was decoded. */
  onWarning?: ((audio: string, warning: string) => void) | undefined;
}

export interface PrepareProgress {
  /** Rows that were seen to, of `total`. */
  done: number;
  total: number;
  /** Of the audio that was written in this call. */
  seconds: number;
  shards: number;
}

/** What lies in a folder of shards. */
export interface PrepareReport {
  output: string;
  shards: number;
  rows: number;
  /** Of audio. */
  seconds: number;
  bytes: number;
  /** Rows by split and language; 'none': without a split. */
  counts: Record<string, Record<string, number>>;
  badRows: readonly BadRow[];
}

/** shards.json: what is in the folder, and how far the work has come. */
interface State {
  version: 1;
  complete: boolean;
  /** What the shards are made of; others are not mixed with it. */
  source: string;
  shardBytes: number;
  /** Rows of the source that were seen to. */
  done: number;
  shards: { file: string; rows: number; seconds: number; bytes: number }[];
  counts: Record<string, Record<string, number>>;
  badRows: BadRow[];
}

const OPTIONS: Record<keyof PrepareOptions, true> = {
  output: true,
  shardBytes: true,
  strict: true,
  signal: true,
  onProgress: true,
  onWarning: true,
};

interface Ready {
  entry: ManifestEntry;
  /** Its audio, or what is wrong with it. */
  audio: Uint8Array | BadRow;
}

/**
 * Writes the rows of a data set as packed shards (mono PCM of 16 bits at 16 kHz, with text, language and split; a checksum a row,
 * an index at the end of each shard), which `openDataset` reads. Each shard stands there whole or not at all, so that work that was
 * interrupted or killed goes on behind the last one when it is called again with the same rows, and ends with the same bytes. Rows
 * whose audio cannot be used are left out and told. Errors: ERR_FILE_WRITE (a folder of something else, or of other rows),
 * ERR_DISK_FULL, BadRowsError (with `strict`, or where no row is left), ERR_INTERRUPTED, ERR_RUN (another process is at it),
 * ERR_ARGUMENT.
 */
export async function prepare(data: Dataset, options: PrepareOptions): Promise<PrepareReport> {
  checkOptions('prepare', options, OPTIONS);
  const { output, shardBytes = SHARD_BYTES } = options;
  if (!(Number.isSafeInteger(shardBytes) && shardBytes >= 1))
    throw new DistilWhisperError('ERR_ARGUMENT', `shardBytes: expected a number of bytes from 1, got ${shardBytes}`);
  const fresh: State = {
    version: 1,
    complete: false,
    source: await digestOfRows(data, (entry) => [keyOf(entry)]),
    shardBytes,
    done: 0,
    shards: [],
    counts: {},
    badRows: [],
  };
  await proveFolder(output);
  await checkFolder(output);
  try {
    await mkdir(output, { recursive: true });
  } catch (error) {
    throw fileWriteError(error, output);
  }
  const lock = await FolderLock.take(output, LOCK);
  try {
    const state = await resumed(output, fresh);
    if (options.strict && state.badRows.length > 0) throw new BadRowsError(state.badRows);
    if (!state.complete) await new Preparation(data, state, options).run();
    return reportOf(output, state);
  } finally {
    await lock.release();
  }
}

/** Refuses a folder that holds something else. */
async function checkFolder(output: string): Promise<void> {
  const names = (await ifThere(readdir(output))) ?? [];
  const foreign = names.filter((name) => name !== LOCK && !isRemnant(name));
  if (foreign.length === 0 || foreign.includes(SHARDS_FILE)) return;
  throw new DistilWhisperError(
    'ERR_FILE_WRITE',
    `${output}: expected an empty folder or one of packed shards, got one that holds ${foreign.slice(0, 3).join(', ')}`,
  );
}

/** What an earlier call has done of it; what it left unfinished is removed. */
async function resumed(output: string, fresh: State): Promise<State> {
  for (const name of await readdir(output)) {
    if (isRemnant(name) && name.startsWith('shard')) await rm(join(output, name), { force: true });
  }
  if (!(await ifThere(stat(join(output, SHARDS_FILE))))) {
    await save(output, fresh);
    return fresh;
  }
  const state = (await readShards(output)) as unknown as State;
  if (!(Number.isSafeInteger(state.done) && isJsonObject(state.counts) && Array.isArray(state.badRows))) {
    const path = join(output, SHARDS_FILE);
    throw new DistilWhisperError('ERR_MANIFEST', `${path}: expected how far the work has come, as 'prepare' writes it`);
  }
  if (state.source !== fresh.source || state.shardBytes !== fresh.shardBytes) {
    const what = state.source !== fresh.source ? 'of other rows' : `of ${state.shardBytes} bytes`;
    throw new DistilWhisperError('ERR_FILE_WRITE', `${output} holds shards ${what}: name another folder, or remove it`);
  }
  return state;
}

const save = (output: string, state: State): Promise<void> =>
  writeFileAtomic(join(output, SHARDS_FILE), (sink) => sink.append(Buffer.from(`${JSON.stringify(state, null, 1)}\n`)));

const reportOf = (output: string, { shards, counts, badRows }: State): PrepareReport => {
  const sum = (key: 'rows' | 'seconds' | 'bytes'): number => shards.reduce((total, shard) => total + shard[key], 0);
  return {
    output,
    shards: shards.length,
    rows: sum('rows'),
    seconds: sum('seconds'),
    bytes: sum('bytes'),
    counts,
    badRows,
  };
};

/** The work from where it stands. */
class Preparation {
  private writer: PackedWriter | null = null;
  /** Of the shard that is being written: what counts when it stands there. */
  private pending = { seconds: 0, entries: [] as { split: string; language: string }[], bad: [] as BadRow[] };
  private seconds = 0;

  constructor(
    private readonly data: Dataset,
    private readonly state: State,
    private readonly options: PrepareOptions,
  ) {}

  async run(): Promise<void> {
    const { state, data } = this;
    const { output, signal, strict, onProgress } = this.options;
    const total = data.length;
    const first = state.done;
    const pool = new DecodePool();
    const loader = new PrefetchLoader<number, Ready, Ready>({
      examples: [...data.numbers()],
      batches: Array.from({ length: total - first }, (_, position) => ({
        epoch: 0,
        position,
        indices: Int32Array.of(first + position),
      })),
      load: (row) => this.read(row, pool),
      collate: ([ready]) => ready!,
      lookAhead: 4 * pool.size,
      concurrency: 2 * pool.size,
      onClose: () => pool.close(),
    });
    try {
      for await (const { position, data: ready } of loader) {
        if (signal?.aborted)
          throw new DistilWhisperError(
            'ERR_INTERRUPTED',
            `${state.shards.length} shards are written; the same call goes on behind them`,
          );
        await this.add(ready, strict);
        const done = first + position + 1;
        if (this.writer && (this.writer.byteLength >= state.shardBytes || done === total)) await this.endShard(done);
        await onProgress?.({ done, total, seconds: this.seconds, shards: state.shards.length });
      }
      state.badRows.push(...this.pending.bad);
      if (state.shards.length === 0) throw new BadRowsError(state.badRows);
      state.complete = true;
      state.done = total;
      await save(output, state);
    } finally {
      await loader.close();
      await this.writer?.discard();
    }
  }

  private async read(row: number, pool: DecodePool): Promise<Ready> {
    const entry = this.data.entry(row);
    try {
      const audio = await this.data.audio(row);
      if (typeof audio !== 'string' && !(audio instanceof Uint8Array)) return ready(entry, audio.samples);
      const { strict, onWarning } = this.options;
      const decoding = { name: entry.audio, sampleRate: SAMPLE_RATE, maxDuration: MAX_SECONDS, strict };
      const { samples, warnings } = await pool.decode(audio, decoding);
      for (const warning of warnings) onWarning?.(entry.audio, warning);
      return ready(entry, samples);
    } catch (error) {
      if (!blamesRow(error)) throw error;
      return { entry, audio: badRow(entry, error) };
    }
  }

  private async add({ entry, audio }: Ready, strict = false): Promise<void> {
    const { pending, state } = this;
    if (!(audio instanceof Uint8Array)) {
      if (strict) throw new BadRowsError([audio]);
      pending.bad.push(audio);
      return;
    }
    this.writer ??= await PackedWriter.create(join(this.options.output, shardName(state.shards.length)), {
      kind: SHARD_KIND,
      header: { sampleRate: SAMPLE_RATE, encoding: 'pcm16', source: state.source },
    });
    await this.writer.append(keyOf(entry), audio);
    pending.seconds += entry.duration!;
    this.seconds += entry.duration!;
    pending.entries.push({ split: entry.split ?? 'none', language: entry.language });
  }

  private async endShard(done: number): Promise<void> {
    const { state, pending } = this;
    const writer = this.writer!;
    await writer.finish();
    this.writer = null;
    const { seconds, entries, bad } = pending;
    const file = shardName(state.shards.length);
    const { size: bytes } = await stat(writer.path);
    state.shards.push({ file, rows: entries.length, seconds, bytes });
    for (const { split, language } of entries) {
      const languages = state.counts[split] ?? {};
      languages[language] = (languages[language] ?? 0) + 1;
      state.counts[split] = languages;
    }
    state.badRows.push(...bad);
    state.done = done;
    this.pending = { seconds: 0, entries: [], bad: [] };
    await save(this.options.output, state);
  }
}

function ready(entry: ManifestEntry, samples: Float32Array): Ready {
  const duration = samples.length / SAMPLE_RATE;
  if (samples.length > 0) return { entry: { ...entry, duration }, audio: toPcm16(samples) };
  const empty = new DistilWhisperError('ERR_AUDIO_EMPTY', `${entry.audio}: expected audio, got 0 samples`);
  return { entry, audio: badRow(entry, empty) };
}
