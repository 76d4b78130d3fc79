/** Opens corpora as they are shipped. */
import { existsSync } from 'node:fs';
import { DecodePool } from '../audio/index.js';
import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { type HubOptions, resolveDataset } from '../hub/index.js';
import { basicNormalizer, extendedNormalizer, type Normalizer, type WhisperTokenizer } from '../text/index.js';
import { type BadRow, BadRowsError, badRow, blamesRow, sortRows } from './bad-rows.js';
import { isDirectory } from './confined.js';
import {
  BlockMemory,
  type CorpusReader,
  chosenShards,
  Gathered,
  isAudioFolder,
  isCommonVoice,
  isFleurs,
  isPacked,
  isParquet,
  readAudioFolder,
  readCommonVoice,
  readFleurs,
  readPacked,
  readParquet,
  SUBSETS,
  type Subset,
  throwIfAborted,
} from './corpora/index.js';
import { Dataset, fileSource, type RowSource } from './dataset.js';
import { PrefetchLoader } from './loader.js';
import { type ManifestEntry, type ManifestOptions, scanManifest } from './manifest.js';
import { RowStore } from './row-store.js';
import { alignedSegments } from './segments.js';
import { type CorpusKind, type DatasetSpec, parseSpec } from './spec.js';

/** Ways to rewrite texts before they are labels, by name. */
const TEXTS: Record<'none' | 'basic' | 'extended', Normalizer> = {
  none: (text) => text,
  basic: basicNormalizer(),
  extended: extendedNormalizer({ splitLetters: true }),
};
export type TextForm = keyof typeof TEXTS;
export const TEXT_FORMS = Object.keys(TEXTS) as TextForm[];

export interface DatasetOptions
  extends Pick<
    ManifestOptions,
    'format' | 'columns' | 'audioRoot' | 'defaultLanguage' | 'domain' | 'emptyText' | 'segments'
  > {
  /** Rows of these splits, of data sets whose name says none ('all': every one). Default: all that a corpus counts as its own. */
  split?: string | readonly string[] | undefined;
  /** The same for corpora that have a split of this name (dev and validation are one): a manifest's rows are not chosen by it. */
  defaultSplit?: string | undefined;
  /** Only rows of these languages; a single one is also that of rows that name none. */
  languages?: string | readonly string[] | undefined;
  /** Only rows that last so many seconds. Rows that do not say how long they are, are decoded once for it. */
  minDuration?: number | undefined;
  maxDuration?: number | undefined;
  /** Only rows whose labels are at most so many tokens; it needs `tokenizer`. */
  maxLabels?: number | undefined;
  tokenizer?: WhisperTokenizer | undefined;
  /** The first so many rows of each data set. */
  limit?: number | undefined;
  /** Of Common Voice: the clips with the most votes, as many as the reference trains and validates on. */
  subset?: Subset | undefined;
  /**
   * What becomes of texts: nothing but NFC ('none', the default), Whisper's basic normaliser ('basic'), the reference's with letters of
   * unspaced scripts apart ('extended'). Rows that it leaves nothing of are bad rows.
   */
  text?: TextForm | undefined;
  /** A row that cannot be used ends the call, all of them in one BadRowsError. Default: it is left out and listed in `badRows`. */
  strict?: boolean | undefined;
  /** Takes each bad row as it is found; a data set of which nothing is left is no error then. */
  onBadRow?: ((row: BadRow) => void) | undefined;
  /** How names of the hub are found and fetched. */
  hub?: HubOptions | undefined;
  signal?: AbortSignal | undefined;
  /** While rows are decoded to learn how long they are. */
  onProgress?: ((done: number, total: number) => unknown) | undefined;
}

const OPTIONS: Record<keyof DatasetOptions, true> = {
  format: true,
  columns: true,
  audioRoot: true,
  defaultLanguage: true,
  domain: true,
  emptyText: true,
  segments: true,
  split: true,
  defaultSplit: true,
  languages: true,
  minDuration: true,
  maxDuration: true,
  maxLabels: true,
  tokenizer: true,
  limit: true,
  subset: true,
  text: true,
  strict: true,
  onBadRow: true,
  hub: true,
  signal: true,
  onProgress: true,
};

const readManifestRows: CorpusReader = async ({ path, splits, table, into }) => {
  const rows = new RowStore();
  scanManifest(path, { ...table, split: splits, onBadRow: into.onBadRow }, (entry) => into.take(rows, entry));
  return [fileSource(rows)];
};

const READERS: Record<CorpusKind, CorpusReader> = {
  cv: readCommonVoice,
  fleurs: readFleurs,
  parquet: readParquet,
  audiofolder: readAudioFolder,
  packed: readPacked,
  manifest: readManifestRows,
};

/**
 * Opens one data set or several as one: releases of Common Voice, FLEURS, parquet with embedded audio, audio folders with metadata, manifests,
 * packed shards; `data` names them as `parseSpec` says ('cv:cv-corpus-13.0/ca#train', 'shards:0.5'), or says it in parts. What it is, is told by
 * what lies there unless the name says it. What is not there is a name of the hub ('org/name', 'org/name@revision'), whose parquet files of the
 * wanted splits and languages are fetched into its cache. It reads the index of the rows, not their audio. Texts are brought to NFC.
 *
 * Errors: ERR_FILE_NOT_FOUND (nothing there, no table, a missing shard), ERR_MANIFEST (a table or file that cannot be read, no row that is
 * wanted), those of `resolveDataset`, ERR_PACKED (a damaged shard), BadRowsError (with `strict`, or where no row is left), ERR_ARGUMENT, ERR_INTERRUPTED.
 */
export async function openDataset(
  data: string | DatasetSpec | readonly (string | DatasetSpec)[],
  options: DatasetOptions = {},
): Promise<Dataset> {
  checkDatasetOptions(options);
  const list = Array.isArray(data) ? (data as readonly (string | DatasetSpec)[]) : [data as string | DatasetSpec];
  if (list.length === 0) throw new DistilWhisperError('ERR_ARGUMENT', 'data: expected a data set, got none');
  const specs = list.map((one) => (typeof one === 'string' ? specOf(one) : one));
  const bad: BadRow[] = [];
  const report = (row: BadRow): void => {
    bad.push(row);
    options.onBadRow?.(row);
  };
  const sources: RowSource[] = [];
  const kept = new Set<number>();
  const { limit = Number.POSITIVE_INFINITY, minDuration, maxDuration } = options;
  const byDuration = minDuration !== undefined || maxDuration !== undefined;
  try {
    for (const [set, spec] of specs.entries()) {
      const opened = await openOne(spec, set, options, byDuration ? Number.POSITIVE_INFINITY : limit, report);
      const first = sources.reduce((sum, { rows }) => sum + rows.length, 0);
      sources.push(...opened);
      const part = Dataset.over(opened);
      const wanted = byDuration ? await longEnough(part, options, report) : part.numbers();
      for (const i of [...wanted].slice(0, limit)) kept.add(first + i);
    }
    const sorted = sortRows(bad);
    if (sorted.length > 0 && (options.strict || (kept.size === 0 && !options.onBadRow))) throw new BadRowsError(sorted);
    if (kept.size === 0 && sorted.length === 0) {
      const names = specs.map(({ path }) => path).join(', ');
      throw new DistilWhisperError(
        'ERR_MANIFEST',
        `${names}: no row is of the splits, languages and lengths that are wanted`,
      );
    }
    return Dataset.over(sources, sorted, kept);
  } catch (error) {
    for (const source of sources) await source.close();
    throw error;
  }
}

/** A path that is there is taken as it is, whatever characters it has. */
const specOf = (name: string): DatasetSpec =>
  existsSync(name) ? { kind: undefined, path: name, splits: undefined, weight: 1 } : parseSpec(name);

async function openOne(
  { kind, path: name, splits, weight }: DatasetSpec,
  set: number,
  options: DatasetOptions,
  limit: number,
  report: (row: BadRow) => void,
): Promise<RowSource[]> {
  throwIfAborted(options.signal);
  const asked = typeof options.split === 'string' ? [options.split] : options.split;
  const path = await placeOf({ kind, path: name, splits: splits ?? asked }, options);
  const found = kind ?? kindOf(path);
  if (options.subset !== undefined && found !== 'cv')
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `subset: expected a release of Common Voice, got ${path}, which has no votes`,
    );
  const { format, columns, audioRoot, defaultLanguage, domain, emptyText, segments } = options;
  const opened = await READERS[found]({
    path,
    splits: splits ?? asked,
    defaultSplit: options.defaultSplit,
    subset: options.subset,
    table: { format, columns, audioRoot, defaultLanguage, domain, emptyText, segments, language: options.languages },
    into: new Gathered(editor(options), limit, report),
    memory: new BlockMemory(),
    signal: options.signal,
  });
  for (const source of opened) {
    source.weight = weight;
    source.set = set;
  }
  return opened;
}

/** Where a data set lies: of a name of the hub the files of the splits and languages that are wanted are fetched. Errors: those of `resolveDataset`. */
async function placeOf(
  { kind, path, splits }: Pick<DatasetSpec, 'kind' | 'path' | 'splits'>,
  { defaultSplit, languages, hub, signal }: DatasetOptions,
): Promise<string> {
  if (existsSync(path) || (kind !== undefined && kind !== 'parquet')) return path;
  const keep = (paths: readonly string[]): string[] =>
    chosenShards(paths, { path, splits, defaultSplit, languages }).map((shard) => shard.path);
  return resolveDataset(path, { signal, ...hub, keep });
}

/** What lies at a path. Throws ERR_FILE_NOT_FOUND, ERR_MANIFEST. */
function kindOf(path: string): CorpusKind {
  if (!isDirectory(path))
    return isPacked(path) ? 'packed' : existsSync(path) && isParquet(path) ? 'parquet' : 'manifest';
  if (isPacked(path)) return 'packed';
  if (isCommonVoice(path)) return 'cv';
  if (isFleurs(path)) return 'fleurs';
  if (isAudioFolder(path)) return 'audiofolder';
  if (isParquet(path)) return 'parquet';
  throw new DistilWhisperError(
    'ERR_MANIFEST',
    `${path}: expected a data set, got a folder without one: no tables of Common Voice (train.tsv and clips) or FLEURS (train.tsv and audio), no metadata.csv or metadata.jsonl, no *.parquet, no packed shards`,
  );
}

function editor({ minDuration = 0, maxDuration = Number.POSITIVE_INFINITY, ...options }: DatasetOptions) {
  const { text: form = 'none', maxLabels = Number.POSITIVE_INFINITY, tokenizer } = options;
  const rewrite = TEXTS[form];
  return (entry: ManifestEntry): ManifestEntry | null => {
    const { duration, language, task = 'transcribe' } = entry;
    if (duration !== undefined && (duration < minDuration || duration > maxDuration)) return null;
    const text = form === 'none' ? entry.text : rewrite(entry.text).trim().normalize('NFC');
    if (text === '')
      throw new DistilWhisperError('ERR_MANIFEST', `the normaliser '${form}' leaves nothing of its text`);
    // The start token is no label.
    if (tokenizer && tokenizer.labels(text, { language, task }).length - 1 > maxLabels) return null;
    if (!entry.segments || form === 'none') return { ...entry, text };
    const rewritten = entry.segments.map((segment) => ({ ...segment, text: rewrite(segment.text) }));
    return { ...entry, text, segments: alignedSegments(text, rewritten) };
  };
}

/** Numbers of the rows that are as long as is wanted; those that do not say it are decoded. */
async function longEnough(
  dataset: Dataset,
  { minDuration = 0, maxDuration = Number.POSITIVE_INFINITY, signal, onProgress }: DatasetOptions,
  report: (row: BadRow) => void,
): Promise<number[]> {
  const unknown = [...dataset.numbers()].filter((i) => dataset.entry(i).duration === undefined);
  if (unknown.length === 0) return [...dataset.numbers()];
  const left = new Set(dataset.numbers());
  const pool = new DecodePool();
  const loader = new PrefetchLoader<number, number | null, (number | null)[]>({
    examples: unknown,
    batches: unknown.map((_, position) => ({ epoch: 0, position, indices: Int32Array.of(position) })),
    load: async (i) => {
      try {
        return await secondsOf(dataset, i, pool);
      } catch (error) {
        if (!blamesRow(error)) throw error;
        report(badRow(dataset.entry(i), error));
        return null;
      }
    },
    collate: (seconds) => seconds,
    onClose: () => pool.close(),
  });
  try {
    for await (const { position, data } of loader) {
      throwIfAborted(signal);
      const seconds = data[0]!;
      if (seconds === null || seconds < minDuration || seconds > maxDuration) left.delete(unknown[position]!);
      await onProgress?.(position + 1, unknown.length);
    }
  } finally {
    await loader.close();
  }
  return [...left];
}

async function secondsOf(dataset: Dataset, i: number, pool: DecodePool): Promise<number> {
  const audio = await dataset.audio(i);
  if (typeof audio !== 'string' && !(audio instanceof Uint8Array)) return audio.samples.length / audio.sampleRate;
  const stream = await pool.open(audio, { name: dataset.entry(i).audio });
  for await (const _ of stream.pieces);
  return stream.duration;
}

function checkDatasetOptions(options: DatasetOptions): void {
  checkOptions('openDataset', options, OPTIONS);
  const refuse = (name: string, expected: string, got: unknown): never => {
    throw new DistilWhisperError('ERR_ARGUMENT', `${name}: expected ${expected}, got ${String(got)}`);
  };
  const { text, subset, maxLabels, tokenizer, limit, minDuration, maxDuration } = options;
  if (text !== undefined && !TEXT_FORMS.includes(text)) refuse('text', TEXT_FORMS.join(' or '), text);
  if (subset !== undefined && !Object.hasOwn(SUBSETS, subset))
    refuse('subset', Object.keys(SUBSETS).join(' or '), subset);
  for (const [name, value] of Object.entries({ limit, maxLabels }))
    if (value !== undefined && !(Number.isSafeInteger(value) && value >= 1))
      refuse(name, 'a whole number from 1', value);
  for (const [name, value] of Object.entries({ minDuration, maxDuration }))
    if (value !== undefined && !(value >= 0)) refuse(name, 'a number of seconds', value);
  if (maxLabels !== undefined && !tokenizer) refuse('maxLabels', 'a tokenizer with it', 'none');
}
