/** Manifests: the list of utterances that training and evaluation run on, as JSON lines or a TSV table. */
import { existsSync, readFileSync, statSync } from 'node:fs';
import { dirname, extname, resolve } from 'node:path';
import { DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { resolveLanguage } from '../text/index.js';

export type Task = 'transcribe' | 'translate';

export interface ManifestEntry {
  /** From the id column, else the audio path as written (with the line number if it occurs again). */
  id: string;
  /** Absolute path. */
  audio: string;
  text: string;
  /** Whisper's code of the language, as `resolveLanguage` gives it. */
  language: string;
  split?: string;
  domain?: string;
  /** In seconds. */
  duration?: number;
  speaker?: string;
  task?: Task;
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
  | 'task';

export interface ManifestOptions {
  /** By default told by the ending (.jsonl, .ndjson, .tsv), else by the first character. */
  format?: 'jsonl' | 'tsv';
  /** Names of the manifest's own columns, where they differ from the known ones. */
  columns?: Partial<Record<ManifestColumn, string>>;
  /** Folder that relative audio paths start from; the manifest's own by default. */
  audioRoot?: string;
  /** Language of rows that do not name one. */
  defaultLanguage?: string;
  /** Keep only rows of these splits, domains or languages. A row without the value is not kept. */
  split?: string | readonly string[];
  domain?: string | readonly string[];
  language?: string | readonly string[];
  /** Rows whose text is there but empty: an error (the default), or left out. */
  emptyText?: 'error' | 'skip';
  /** Check that every kept audio file exists (true by default), so that a long run does not find out late. */
  checkFiles?: boolean;
}

/** Names that a column is known by, the first one preferred. */
const ALIASES: Record<ManifestColumn, readonly string[]> = {
  audio: ['audio', 'path'],
  text: ['text', 'transcript', 'sentence'],
  language: ['language', 'locale'],
  id: ['id'],
  split: ['split'],
  domain: ['domain'],
  duration: ['duration', 'seconds'],
  speaker: ['speaker'],
  task: ['task'],
};
const COLUMNS = Object.keys(ALIASES) as ManifestColumn[];

type Row = { line: number; values: Map<string, unknown> };

/**
 * Reads a manifest. Columns: audio (or path), text (or transcript, sentence), language (or locale); optional id, split, domain,
 * duration (or seconds), speaker, task. All rows are checked; then the filters apply.
 * @throws ERR_FILE_NOT_FOUND, ERR_FILE_READ for the manifest; ERR_MANIFEST, with the line, for a bad row (missing column, bad
 * JSON, unknown language, empty text, duplicated id, bad duration or task) and when nothing is left; ERR_FILE_NOT_FOUND, with
 * the line, for a missing audio file; ERR_LANGUAGE for an unknown language in the options
 */
export function readManifest(path: string, options: ManifestOptions = {}): ManifestEntry[] {
  const text = readText(path);
  const format = options.format ?? formatOf(path, text);
  const lines = text.split(/\r?\n/);
  const rows = format === 'jsonl' ? jsonRows(lines, path) : tsvRows(lines, path, options);
  const keep = {
    split: wanted(options.split),
    domain: wanted(options.domain),
    language: wanted(options.language, (name) => resolveLanguage(name).code),
  };
  const defaultLanguage = options.defaultLanguage && resolveLanguage(options.defaultLanguage).code;
  const ids = new Map<string, number>();
  const entries: ManifestEntry[] = [];
  let total = 0;
  for (const row of rows) {
    total++;
    const entry = toEntry(row, path, options, defaultLanguage, ids);
    if (entry.text === '') continue;
    if (keep.split && !keep.split.has(entry.split ?? '')) continue;
    if (keep.domain && !keep.domain.has(entry.domain ?? '')) continue;
    if (keep.language && !keep.language.has(entry.language)) continue;
    if (options.checkFiles !== false && !isFile(entry.audio))
      throw new DistilWhisperError(
        'ERR_FILE_NOT_FOUND',
        `${path} line ${entry.line}: there is no audio file ${entry.audio}`,
      );
    entries.push(entry);
  }
  if (entries.length === 0) {
    const filters = (['split', 'domain', 'language'] as const).flatMap((key) =>
      keep[key] ? `${key} ${[...keep[key]].join(' or ')}` : [],
    );
    const has = filters.join(' and ') || 'text';
    const why = total === 0 ? 'it has no rows' : `none of its ${total} rows has ${has}`;
    throw new DistilWhisperError('ERR_MANIFEST', `${path}: the manifest gives no example: ${why}`);
  }
  return entries;
}

function readText(path: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new DistilWhisperError('ERR_FILE_NOT_FOUND', `${path}: there is no such manifest`, { cause: error });
    const why = code === 'EISDIR' ? 'expected a manifest, got a directory' : `the manifest cannot be read (${message})`;
    throw new DistilWhisperError('ERR_FILE_READ', `${path}: ${why}`, { cause: error });
  }
  const decoder = new TextDecoder('utf-8', { fatal: true });
  try {
    return decoder.decode(bytes);
  } catch {
    let line = 1;
    for (let from = 0; from < bytes.length; line++) {
      const end = bytes.indexOf(10, from);
      const to = end < 0 ? bytes.length : end;
      try {
        decoder.decode(bytes.subarray(from, to));
      } catch {
        break;
      }
      from = to + 1;
    }
    throw new DistilWhisperError('ERR_MANIFEST', `${path} line ${line}: expected UTF-8 text, got other bytes`);
  }
}

function formatOf(path: string, text: string): 'jsonl' | 'tsv' {
  const ending = extname(path).toLowerCase();
  if (ending === '.jsonl' || ending === '.ndjson') return 'jsonl';
  if (ending === '.tsv') return 'tsv';
  return /^\s*[{[]/.test(text) ? 'jsonl' : 'tsv';
}

const fail = (path: string, line: number, what: string, cause?: unknown): never => {
  throw new DistilWhisperError(
    'ERR_MANIFEST',
    `${path} line ${line}: ${what}`,
    cause === undefined ? undefined : { cause },
  );
};

function* jsonRows(lines: string[], path: string): Generator<Row> {
  for (const [index, text] of lines.entries()) {
    if (text.trim() === '') continue;
    const line = index + 1;
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (error) {
      fail(path, line, `expected a JSON object on this line, got bad JSON (${(error as Error).message})`, error);
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value))
      fail(path, line, `expected one JSON object a line, got ${text.trim().slice(0, 40)}`);
    yield { line, values: new Map(Object.entries(value as object)) };
  }
}

function* tsvRows(lines: string[], path: string, options: ManifestOptions): Generator<Row> {
  const start = lines.findIndex((text) => text.trim() !== '');
  if (start < 0) return;
  const header = lines[start]!.split('\t').map((name) => unquote(name).trim());
  const twice = header.find((name, at) => name !== '' && header.indexOf(name) !== at);
  if (twice !== undefined) fail(path, start + 1, `the header names column ${JSON.stringify(twice)} twice`);
  for (const column of ['audio', 'text', 'language'] as const) {
    if (column === 'language' && options.defaultLanguage) continue;
    const names = namesOf(column, options);
    if (!names.some((name) => header.includes(name)))
      fail(path, start + 1, `missing column ${names.join(' or ')}; the header has ${header.join(', ')}`);
  }
  for (let index = start + 1; index < lines.length; index++) {
    const text = lines[index]!;
    if (text.trim() === '') continue;
    const fields = text.split('\t');
    if (fields.length > header.length)
      fail(
        path,
        index + 1,
        `expected ${header.length} columns as in the header, got ${fields.length} (a tab within a value?)`,
      );
    yield { line: index + 1, values: new Map(fields.map((field, at) => [header[at]!, unquote(field)])) };
  }
}

/** A field that is quoted as a whole, with its inner quotes doubled, loses the quoting; any other quote is text. */
function unquote(field: string): string {
  const inner = /^"((?:[^"]|"")*)"$/.exec(field)?.[1];
  return inner === undefined ? field : inner.replaceAll('""', '"');
}

const namesOf = (column: ManifestColumn, options: ManifestOptions): readonly string[] =>
  options.columns?.[column] === undefined ? ALIASES[column] : [options.columns[column]];

function toEntry(
  { line, values }: Row,
  path: string,
  options: ManifestOptions,
  defaultLanguage: string | undefined,
  ids: Map<string, number>,
): ManifestEntry {
  const found: Partial<Record<ManifestColumn, string>> = {};
  for (const column of COLUMNS) {
    for (const name of namesOf(column, options)) {
      const value = values.get(name);
      if (value === undefined || value === null) continue;
      if (typeof value !== 'string' && typeof value !== 'number')
        fail(path, line, `column ${name} must be text or a number, got ${JSON.stringify(value).slice(0, 40)}`);
      found[column] = String(value).trim();
      break;
    }
  }
  const need = (column: 'audio' | 'text' | 'language'): string => {
    const value = found[column];
    if (value === undefined) fail(path, line, `missing column ${namesOf(column, options).join(' or ')}`);
    if (value === '' && !(column === 'text' && options.emptyText === 'skip'))
      fail(path, line, `column ${column} is empty`);
    return value!;
  };
  const audio = need('audio');
  const text = need('text');
  let language = defaultLanguage;
  if (!defaultLanguage || found.language) {
    const name = need('language');
    try {
      language = resolveLanguage(name).code;
    } catch (error) {
      if (!isDistilWhisperError(error)) throw error;
      fail(path, line, error.message, error);
    }
  }
  let id = found.id || audio;
  const before = ids.get(id);
  if (before !== undefined) {
    if (found.id) fail(path, line, `id ${JSON.stringify(id)} was already used on line ${before}`);
    id = `${audio}:${line}`;
  }
  ids.set(id, line);
  const entry: ManifestEntry = {
    id,
    audio: resolve(options.audioRoot ?? dirname(path), audio),
    text,
    language: language!,
    manifest: path,
    line,
  };
  for (const column of ['split', 'domain', 'speaker'] as const) if (found[column]) entry[column] = found[column];
  if (found.duration) {
    entry.duration = Number(found.duration);
    if (!(entry.duration > 0 && entry.duration < Number.POSITIVE_INFINITY))
      fail(path, line, `duration must be a positive number of seconds, got ${JSON.stringify(found.duration)}`);
  }
  if (found.task) {
    if (found.task !== 'transcribe' && found.task !== 'translate')
      fail(path, line, `task must be transcribe or translate, got ${JSON.stringify(found.task)}`);
    entry.task = found.task as Task;
  }
  return entry;
}

function wanted(filter: string | readonly string[] | undefined, map = (name: string) => name): Set<string> | undefined {
  if (filter === undefined) return undefined;
  return new Set((typeof filter === 'string' ? [filter] : filter).map(map));
}

const isFile = (path: string) => existsSync(path) && !statSync(path).isDirectory();
