/** Manifests: the list of utterances that training and evaluation run on, in the forms that corpora come in. */
import { basename, dirname, extname, isAbsolute, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { checkOptions, DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { resolveLanguage } from '../text/index.js';
import { type BadRow, BadRowsError, badRow } from './bad-rows.js';
import { isFile } from './confined.js';
import { MAX_BYTES, type ManifestFormat, type Row, type Rows, readRows } from './rows.js';
import { alignedSegments, parseSegments, type TextSegment } from './segments.js';

export type Task = 'transcribe' | 'translate';

export interface ManifestEntry {
  /** From the id column, else the audio path as written (with the line number if it occurs again). */
  id: string;
  /** Absolute path. */
  audio: string;
  /** In Unicode's composed form (NFC). */
  text: string;
  /** Whisper's code of the language, as `resolveLanguage` gives it. */
  language: string;
  split?: string;
  domain?: string;
  /** In seconds. */
  duration?: number;
  speaker?: string;
  task?: Task;
  /** When the parts of the text are spoken; joined their texts are it. Read where the options ask for it. */
  segments?: readonly TextSegment[];
  manifest: string;
  /** 1-based line in the manifest. */
  line: number;
}

export type ManifestColumn =
  | 'audio'
  | 'text'
  | 'language'
  | 'id'
  | 'split'
  | 'domain'
  | 'duration'
  | 'speaker'
  | 'task'
  | 'segments';

export interface ManifestOptions {
  /** By default told by the ending (.jsonl, .ndjson, .json, .tsv, .csv), else by the first character. */
  format?: ManifestFormat | undefined;
  /** Names of the manifest's own columns, where they differ from the known ones. */
  columns?: Partial<Record<ManifestColumn, string>> | undefined;
  /** Folder that relative audio paths start from; the manifest's own by default. */
  audioRoot?: string | undefined;
  /** Language of rows that do not name one. */
  defaultLanguage?: string | undefined;
  /**
   * Keep only rows of these splits, domains or languages. A row without the value is not kept. The split 'all' means every row;
   * a single language is also that of the rows, where none of them names one.
   */
  split?: string | readonly string[] | undefined;
  domain?: string | readonly string[] | undefined;
  language?: string | readonly string[] | undefined;
  /** Rows whose text is there but empty: an error (the default), or left out. */
  emptyText?: 'error' | 'skip' | undefined;
  /** Read the column segments: lists of start, end (in seconds) and text, or JSON of them. Default false: it is not looked at. */
  segments?: boolean | undefined;
  /** Check that every kept audio file exists (true by default), so that a long run does not find out late. */
  checkFiles?: boolean | undefined;
  /**
   * Takes the rows that cannot be used, which are left out then. Without it they end the call, all in one error. With it the
   * call returns no entry where every row was bad.
   */
  onBadRow?: ((row: BadRow) => void) | undefined;
}

const OPTIONS: Record<keyof ManifestOptions, true> = {
  format: true,
  columns: true,
  audioRoot: true,
  defaultLanguage: true,
  split: true,
  domain: true,
  language: true,
  emptyText: true,
  segments: true,
  checkFiles: true,
  onBadRow: true,
};

/** Names that a column is known by, the first one preferred. */
const ALIASES: Record<ManifestColumn, readonly string[]> = {
  audio: ['audio', 'path', 'file_name', 'audio_filepath'],
  text: ['text', 'transcript', 'sentence', 'transcription', 'raw_transcription'],
  language: ['language', 'locale'],
  id: ['id'],
  split: ['split'],
  domain: ['domain'],
  duration: ['duration', 'seconds'],
  speaker: ['speaker'],
  task: ['task'],
  segments: ['segments'],
};
const COLUMNS = Object.keys(ALIASES) as ManifestColumn[];
const FORMATS: readonly string[] = ['jsonl', 'json', 'tsv', 'csv'] satisfies ManifestFormat[];
/** Characters of a value: an hour of speech has some 60,000. */
const MAX_VALUE = 2 ** 20;

/** What a filter means: undefined keeps everything. */
type Filter = ReadonlySet<string> | undefined;

/**
 * Reads a manifest: JSON lines, a JSON array of objects, TSV, CSV (RFC 4180), or the TSV of FLEURS, which has no header and whose
 * language, unless the options say it, is its folder's name. Columns: audio (or path, file_name, audio_filepath; a path, a
 * file:// URL, or Hugging Face's {"path": …}), text (or transcript, sentence, transcription, raw_transcription), language (or
 * locale); optional id, split, domain, duration (or seconds), speaker, task, segments. Audio is looked for from `audioRoot` on, then in
 * clips/ (Common Voice), audio/, and the folders named after the manifest (FLEURS).
 * @throws ERR_FILE_NOT_FOUND, ERR_FILE_READ for the manifest; ERR_MANIFEST when it is no manifest, when its header lacks a
 * column, and when nothing is left; BadRowsError for bad rows of the kept splits and domains, all of them: ERR_MANIFEST (missing
 * column, bad JSON, unknown language, empty text, duplicated id, bad duration, task or segments), ERR_FILE_NOT_FOUND (no such audio file);
 * ERR_LANGUAGE for an unknown language in the options; ERR_ARGUMENT for other options
 */
export function readManifest(path: string, options: ManifestOptions = {}): ManifestEntry[] {
  const entries: ManifestEntry[] = [];
  scanManifest(path, options, (entry) => entries.push(entry), { maxBytes: MAX_BYTES });
  return entries;
}

/** How the tables of a corpus differ from a manifest's. */
export interface TableSettings {
  /** Where a row's audio lies; null where it is nowhere. Throws what is wrong with its name. Default: as `readManifest` looks for it. */
  find?: ((audio: string) => string | null) | undefined;
  /** Split of the rows that name none. */
  split?: string | undefined;
  /** Refuse a larger file; any size by default. */
  maxBytes?: number | undefined;
  /** A table without any row that is wanted is no error. */
  mayBeEmpty?: boolean | undefined;
}

type Take = (entry: ManifestEntry, values: ReadonlyMap<string, unknown>) => void;

/** Names that a column of audio is known by. */
export const audioNames = (options: ManifestOptions): readonly string[] => namesOf('audio', options);

/** All names that are read. */
export const knownNames = (options: ManifestOptions): ReadonlySet<string> =>
  new Set(COLUMNS.flatMap((column) => namesOf(column, options)));

/** Hands over the entries of a manifest one after the other, with the values of their rows. Errors: as `readManifest`. */
export function scanManifest(path: string, options: ManifestOptions, take: Take, settings: TableSettings = {}): void {
  checkManifestOptions(path, options);
  const isAudio = (name: string): boolean => audioNames(options).includes(name);
  scanRows(path, readRows(path, options.format, isAudio, settings.maxBytes), options, take, settings);
}

/** The same for rows that were read already. */
export function scanRows(
  path: string,
  { rows, header, fleurs }: Rows,
  options: ManifestOptions,
  take: Take,
  settings: TableSettings = {},
): void {
  const names = Object.fromEntries(COLUMNS.map((column) => [column, namesOf(column, options)])) as Names;
  const keep = {
    split: wanted(options.split),
    domain: wanted(options.domain),
    language: wanted(options.language, (name) => resolveLanguage(name).code),
  };
  if (keep.split?.has('all')) keep.split = undefined;
  const given = options.defaultLanguage && resolveLanguage(options.defaultLanguage).code;
  // Of rows that name no language, unless others do.
  const implied = keep.language?.size === 1 ? [...keep.language][0] : undefined;
  const folder = fleurs && !given ? folderLanguage(path, implied === undefined) : undefined;
  if (header) {
    for (const column of ['audio', 'text', 'language'] as const) {
      if (names[column].some((name) => header.names.includes(name))) continue;
      if (column === 'language' && (given ?? implied)) continue;
      const has = header.names.join(', ').slice(0, 400);
      throw new DistilWhisperError(
        'ERR_MANIFEST',
        `${path} line ${header.line}: missing column ${names[column].join(' or ')}; the header has ${has}`,
      );
    }
  }

  const bad: BadRow[] = [];
  const report = options.onBadRow ?? ((row: BadRow) => bad.push(row));
  const reader = new RowReader(path, options, names, keep, given ?? folder, settings);
  let [total, taken, refused] = [0, 0, 0];
  const refuse = (line: number, error: unknown): void => {
    if (!isDistilWhisperError(error)) throw error;
    refused++;
    report(badRow({ manifest: path, line }, error));
  };
  const accept = ({ entry, missing }: Read, language: string, values: ReadonlyMap<string, unknown>): void => {
    if (keep.language && !keep.language.has(language)) return;
    if (options.checkFiles !== false && missing) {
      const shown = JSON.stringify(entry.audio).slice(1, -1);
      refuse(entry.line, new DistilWhisperError('ERR_FILE_NOT_FOUND', `there is no audio file ${shown}`));
      return;
    }
    take({ ...entry, language }, values);
    taken++;
  };
  // Rows without a language, until one names its own: none of them counts then.
  let nameless: { read: Read; values: ReadonlyMap<string, unknown> }[] | null = [];
  const unnamed = (line: number): void => refuse(line, missing(names.language));
  for (const row of rows) {
    total++;
    let read: Read | null = null;
    try {
      read = reader.read(row);
    } catch (error) {
      refuse(row.line, error);
    }
    if (reader.named && nameless) {
      for (const { read } of nameless) unnamed(read.entry.line);
      nameless = null;
    }
    if (!read || 'problem' in row) continue;
    const { language } = read.entry;
    if (language !== undefined) accept(read, language, row.values);
    else if (nameless && implied !== undefined) nameless.push({ read, values: row.values });
    else unnamed(row.line);
  }
  for (const { read, values } of nameless ?? []) accept(read, implied!, values);
  if (bad.length > 0) throw new BadRowsError(bad.sort((a, b) => a.line - b.line));
  if (taken === 0 && refused === 0 && !settings.mayBeEmpty) {
    const filters = (['split', 'domain', 'language'] as const).flatMap((key) =>
      keep[key] ? `${key} ${[...keep[key]].join(' or ')}` : [],
    );
    const has = filters.join(' and ') || 'text';
    const why = total === 0 ? 'it has no rows' : `none of its ${total} rows has ${has}`;
    throw new DistilWhisperError('ERR_MANIFEST', `${path}: the manifest gives no example: ${why}`);
  }
}

function checkManifestOptions(path: string, options: ManifestOptions): void {
  const refuse = (what: string, got: unknown): never => {
    throw new DistilWhisperError('ERR_ARGUMENT', `readManifest: expected ${what}, got ${typeof got}`);
  };
  if (typeof path !== 'string') refuse('the path of a manifest', path);
  checkOptions('readManifest', options, OPTIONS);
  if (options.columns) checkOptions('readManifest, columns', options.columns, COLUMN_NAMES);
  const { format, audioRoot, emptyText, onBadRow } = options;
  if (format !== undefined && !FORMATS.includes(format))
    throw new DistilWhisperError('ERR_ARGUMENT', `format: expected ${FORMATS.join(' or ')}, got ${String(format)}`);
  if (audioRoot !== undefined && typeof audioRoot !== 'string') refuse('audioRoot to be a path', audioRoot);
  if (emptyText !== undefined && emptyText !== 'error' && emptyText !== 'skip')
    throw new DistilWhisperError('ERR_ARGUMENT', `emptyText: expected error or skip, got ${String(emptyText)}`);
  if (onBadRow !== undefined && typeof onBadRow !== 'function') refuse('onBadRow to be a function', onBadRow);
}

const COLUMN_NAMES = Object.fromEntries(COLUMNS.map((column) => [column, true])) as Record<ManifestColumn, true>;

type Names = Record<ManifestColumn, readonly string[]>;

const namesOf = (column: ManifestColumn, options: ManifestOptions): readonly string[] =>
  options.columns?.[column] === undefined ? ALIASES[column] : [options.columns[column]];

const fault = (what: string): DistilWhisperError => new DistilWhisperError('ERR_MANIFEST', what);
const missing = (names: readonly string[]): DistilWhisperError => fault(`missing column ${names.join(' or ')}`);

/** A row that is whole but perhaps for its language and its audio's file. */
interface Read {
  entry: Omit<ManifestEntry, 'language'> & { language?: string | undefined };
  missing: boolean;
}

/** Makes entries of rows, one after the other: ids are told apart. */
class RowReader {
  /** Whether the last row named a language. */
  named = false;
  private readonly ids = new Map<string, number>();
  private readonly root: string;

  constructor(
    private readonly path: string,
    private readonly options: ManifestOptions,
    private readonly names: Names,
    private readonly keep: { split: Filter; domain: Filter },
    private readonly defaultLanguage: string | undefined,
    private readonly settings: TableSettings,
  ) {
    this.root = options.audioRoot ?? dirname(path);
  }

  /** The row's entry, or null where it is left out. Throws what is wrong with it. */
  read(row: Row): Read | null {
    this.named = false;
    if ('problem' in row) throw fault(row.problem);
    const { values, line } = row;
    const split = this.value('split', values) || this.settings.split;
    const domain = this.value('domain', values);
    if (this.keep.split && !this.keep.split.has(split ?? '')) return null;
    if (this.keep.domain && !this.keep.domain.has(domain ?? '')) return null;
    const audio = this.audio(values);
    const text = this.need('text', values).normalize('NFC');
    const language = this.language(values);
    if (text === '') return null;
    const given = this.value('id', values);
    let id = given || audio;
    const before = this.ids.get(id);
    if (before !== undefined) {
      // Corpora as others made them repeat ids: two data sets in one shard, a sentence that several read.
      if (given && !this.settings.find) throw fault(`id ${JSON.stringify(id)} was already used on line ${before}`);
      id = `${id}:${line}`;
    }
    const { find } = this.settings;
    const found = find ? find(audio) : locate(audio, this.root, this.path);
    const entry: Read['entry'] = {
      id,
      audio: found ?? resolve(this.root, audio),
      text,
      language,
      manifest: this.path,
      line,
      ...(split && { split }),
      ...(domain && { domain }),
      ...this.optional(values),
      ...this.segments(text, values),
    };
    this.ids.set(id, line);
    return { entry, missing: found === null };
  }

  /** A column's text; undefined where the row has none. */
  private value(column: ManifestColumn, values: ReadonlyMap<string, unknown>): string | undefined {
    for (const name of this.names[column]) {
      let value = values.get(name);
      if (column === 'audio' && typeof value === 'object' && value !== null) value = pathOf(value, name);
      if (value === undefined || value === null) continue;
      if (typeof value !== 'string' && typeof value !== 'number')
        throw fault(`column ${name} must be text or a number, got ${JSON.stringify(value).slice(0, 40)}`);
      const text = String(value).trim();
      if (text.length <= MAX_VALUE) return text;
      const [most, got] = [MAX_VALUE, text.length].map((n) => n.toLocaleString('en'));
      throw fault(`column ${name} must have at most ${most} characters, got ${got}`);
    }
    return undefined;
  }

  private need(column: 'audio' | 'text', values: ReadonlyMap<string, unknown>): string {
    const value = this.value(column, values);
    if (value === undefined) throw missing(this.names[column]);
    if (value === '' && !(column === 'text' && this.options.emptyText === 'skip'))
      throw fault(`column ${column} is empty`);
    return value;
  }

  private audio(values: ReadonlyMap<string, unknown>): string {
    const audio = this.need('audio', values);
    if (!/^[a-z][a-z0-9+.-]*:\/\//i.test(audio)) return audio;
    const shown = JSON.stringify(audio.slice(0, 80));
    if (!/^file:/i.test(audio)) throw fault(`column audio must be a path or a file:// URL, got ${shown}`);
    try {
      return fileURLToPath(audio);
    } catch (error) {
      throw fault(`column audio is no URL of a file here: ${shown} (${(error as Error).message})`);
    }
  }

  private language(values: ReadonlyMap<string, unknown>): string | undefined {
    const name = this.value('language', values);
    if (name === undefined || (name === '' && this.defaultLanguage)) return this.defaultLanguage;
    if (name === '') throw fault('column language is empty');
    this.named = true;
    try {
      return resolveLanguage(name).code;
    } catch (error) {
      throw isDistilWhisperError(error) ? fault(error.message) : error;
    }
  }

  private segments(text: string, values: ReadonlyMap<string, unknown>): Pick<ManifestEntry, 'segments'> {
    if (!this.options.segments) return {};
    const name = this.names.segments.find((one) => values.get(one) !== undefined && values.get(one) !== null);
    const segments = name === undefined ? undefined : parseSegments(values.get(name));
    return segments ? { segments: alignedSegments(text, segments) } : {};
  }

  private optional(values: ReadonlyMap<string, unknown>): Pick<ManifestEntry, 'speaker' | 'duration' | 'task'> {
    const [speaker, duration, task] = [
      this.value('speaker', values),
      this.value('duration', values),
      this.value('task', values),
    ];
    const seconds = Number(duration);
    if (duration && !(seconds > 0 && seconds < Number.POSITIVE_INFINITY))
      throw fault(`duration must be a positive number of seconds, got ${JSON.stringify(duration.slice(0, 40))}`);
    if (task && task !== 'transcribe' && task !== 'translate')
      throw fault(`task must be transcribe or translate, got ${JSON.stringify(task.slice(0, 40))}`);
    return {
      ...(speaker && { speaker }),
      ...(duration && { duration: seconds }),
      ...(task && { task: task as Task }),
    };
  }
}

/** The path of an audio object as Hugging Face's data sets write it, {"path": …, "bytes": …}. */
function pathOf(value: object, column: string): unknown {
  const { path, bytes, array } = value as Record<string, unknown>;
  if (typeof path === 'string') return path;
  if ((path ?? undefined) === undefined && (bytes ?? array ?? undefined) === undefined) return undefined;
  if ((path ?? undefined) === undefined)
    throw fault(`column ${column} holds the audio itself: expected the path of a file`);
  return value;
}

/** Where a row's audio lies: as written, or in a folder where corpora keep it beside their tables; null where it is not. */
function locate(audio: string, root: string, manifest: string): string | null {
  const plain = resolve(root, audio);
  if (isFile(plain)) return plain;
  if (isAbsolute(audio)) return null;
  const stem = basename(manifest, extname(manifest));
  const folders = ['clips', join('audio', stem), stem, 'audio'];
  return folders.map((folder) => resolve(root, folder, audio)).find(isFile) ?? null;
}

/** The language of FLEURS' folders (ca_es/train.tsv); undefined where the name is none and it is not `needed`. */
function folderLanguage(path: string, needed: boolean): string | undefined {
  try {
    return resolveLanguage(basename(dirname(resolve(path)))).code;
  } catch (error) {
    if (!needed) return undefined;
    throw new DistilWhisperError(
      'ERR_MANIFEST',
      `${path}: a table of FLEURS does not name its language: expected a folder named after it, or an option (${(error as Error).message})`,
      { cause: error },
    );
  }
}

function wanted(filter: string | readonly string[] | undefined, map = (name: string) => name): Filter {
  if (filter === undefined) return undefined;
  const list = typeof filter === 'string' ? [filter] : filter;
  if (!Array.isArray(list) || !list.every((name) => typeof name === 'string'))
    throw new DistilWhisperError('ERR_ARGUMENT', `readManifest: expected filters to be names, got ${typeof filter}`);
  return new Set(list.map(map));
}
