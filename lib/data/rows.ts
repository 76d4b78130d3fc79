/** The rows of a manifest's file, whatever their format: JSON lines, a JSON array, TSV, CSV, or FLEURS' table without a header. */
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { extname } from 'node:path';
import { DistilWhisperError, fileReadError } from '../errors/index.js';
import { parseJson, TextError } from '../files/index.js';

export type ManifestFormat = 'jsonl' | 'json' | 'tsv' | 'csv';

/** A row's values by the names of their columns, or what is wrong with it. */
export type Row = { line: number } & ({ values: ReadonlyMap<string, unknown> } | { problem: string });

export interface Rows {
  rows: Iterable<Row>;
  /** Line and names of a table's header. */
  header?: { line: number; names: readonly string[] };
  /** A table of FLEURS as it is downloaded: no header, and the folder's name is its language. */
  fleurs?: true;
}

/** Of what is held as a whole: far more than training on one machine needs, and far less than what would take its memory. */
export const MAX_BYTES = 2 ** 28;
/** Rows of a table: the durations of a large corpus have some millions. */
const MAX_ROWS = 2 ** 24;
/** Characters of a row. */
const MAX_ROW = 2 ** 24;
const MAX_COLUMNS = 1024;

const count = (n: number): string => n.toLocaleString('en');

/**
 * Reads a manifest's rows; lines of a file of at most `maxBytes` in pieces. `isAudio` tells the name of a column of audio, which a
 * header must have. Errors, which end it all: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_MANIFEST (no text, too large, an array or a quote that is never closed). What is wrong
 * with one row stands in its place.
 */
export function readRows(
  path: string,
  format: ManifestFormat | undefined,
  isAudio: (name: string) => boolean,
  maxBytes = Number.POSITIVE_INFINITY,
): Rows {
  const ending = extname(path).toLowerCase();
  const begins = beginOfLarge(path, maxBytes);
  if (begins !== null) {
    const opens = /[^\s\ufeff]/.exec(begins)?.[0];
    const kind = format ?? formatOf(ending, opens);
    if (kind === 'tsv') return tableRows(path, () => tabRecords(pieces(path)), isAudio);
    if (kind !== 'csv' && opens !== '[') return { rows: lineRows(pieces(path), path, ending === '.json') };
  }
  const text = readText(path);
  const opens = /[^\s\ufeff]/.exec(text)?.[0];
  switch (format ?? formatOf(ending, opens)) {
    case 'jsonl':
    case 'json':
      return { rows: opens === '[' ? arrayRows(text, path) : lineRows([text], path, ending === '.json') };
    case 'tsv':
      return tableRows(path, () => tabRecords([text]), isAudio);
    case 'csv':
      return tableRows(path, () => quotedRecords(text, delimiterOf(text, isAudio), path), isAudio);
  }
}

function formatOf(ending: string, opens: string | undefined): ManifestFormat {
  if (ending === '.jsonl' || ending === '.ndjson' || ending === '.json') return 'jsonl';
  if (ending === '.tsv' || ending === '.csv') return ending === '.tsv' ? 'tsv' : 'csv';
  return opens === '{' || opens === '[' ? 'jsonl' : 'tsv';
}

// ---- the text ----

/** How files begin that are taken for manifests now and then. */
const MAGIC: readonly [bytes: string, what: string][] = [
  ['PAR1', 'a Parquet file'],
  ['ARROW1', 'an Arrow file'],
  ['\x1f\x8b', 'a gzip file: unpack it first'],
  ['PK\x03\x04', 'a ZIP file (or a workbook: save it as CSV)'],
  ['RIFF', 'a WAV file'],
  ['OggS', 'an Ogg file'],
  ['fLaC', 'a FLAC file'],
  ['ID3', 'an MP3 file'],
];

function readText(path: string): string {
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_MANIFEST', `${path}: expected a manifest, got ${what}`);
  };
  const bytes = readBytes(path);
  if (bytes.length > MAX_BYTES) refuse(`more than ${count(MAX_BYTES)} bytes`);
  const begins = bytes.subarray(0, 64).toString('latin1');
  if (begins.startsWith('version https://git-lfs.github.com/spec/'))
    refuse('a Git LFS pointer: fetch the file itself with git lfs pull');
  const known = MAGIC.find(([magic]) => begins.startsWith(magic));
  if (known) refuse(known[1]);
  const utf16 = begins.startsWith('\xff\xfe') ? 'utf-16le' : begins.startsWith('\xfe\xff') ? 'utf-16be' : null;
  const text = utf16 ? decode(bytes, utf16) : decode(bytes, 'utf-8');
  if (text === null) {
    if (utf16) refuse('broken UTF-16 text');
    throw new DistilWhisperError(
      'ERR_MANIFEST',
      `${path} line ${firstBrokenLine(bytes)}: expected UTF-8 text, got other bytes`,
    );
  }
  if (text.includes('\0')) refuse('a binary file (it holds NUL bytes)');
  // Lines that end with a carriage return alone, as old Macs wrote them.
  return text.includes('\n') ? text : text.replaceAll('\r', '\n');
}

/** All bytes of a file or a pipe, or a few more than a manifest may have. */
function readBytes(path: string): Buffer {
  let file: number | undefined;
  try {
    const kind = statSync(path);
    if (kind.isDirectory())
      throw new DistilWhisperError('ERR_FILE_READ', `${path}: expected a manifest, got a directory`);
    if (!kind.isFile() && !kind.isFIFO())
      throw new DistilWhisperError('ERR_FILE_READ', `${path}: expected a manifest, got a device or socket`);
    file = openSync(path, 'r');
    const parts: Buffer[] = [];
    for (let total = 0; total <= MAX_BYTES; ) {
      const part = Buffer.allocUnsafe(Math.max(1 << 16, Math.min(kind.size - total + 1, 1 << 24)));
      const got = readSync(file, part);
      if (got === 0) break;
      parts.push(part.subarray(0, got));
      total += got;
    }
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  } catch (error) {
    if (error instanceof DistilWhisperError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new DistilWhisperError('ERR_FILE_NOT_FOUND', `${path}: there is no such manifest`, { cause: error });
    throw new DistilWhisperError('ERR_FILE_READ', `${path}: the manifest cannot be read (${message})`, {
      cause: error,
    });
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** Files of lines that are larger are read in pieces: the tables of large releases have more bytes than memory should hold. */
const LARGE = 2 ** 24;
const PIECE = 2 ** 20;

/** How a large UTF-8 file begins; null for what is read as a whole, or refused for its size: small, a pipe, UTF-16, or of another kind, which `readText` names. */
function beginOfLarge(path: string, maxBytes: number): string | null {
  try {
    const kind = statSync(path);
    if (!kind.isFile() || kind.size <= LARGE || kind.size > maxBytes) return null;
  } catch {
    // What is wrong with it is told when it is read.
    return null;
  }
  const bytes = piece(path, 0, 1 << 12);
  const begins = bytes.toString('latin1');
  const foreign =
    /^(\xff\xfe|\xfe\xff|version https:)/.test(begins) || MAGIC.some(([magic]) => begins.startsWith(magic));
  return foreign ? null : bytes.toString('utf8');
}

/** Bytes of a file from `from` on; it is open no longer than that. */
function piece(path: string, from: number, length: number): Buffer {
  let file: number | undefined;
  try {
    file = openSync(path, 'r');
    const bytes = Buffer.allocUnsafe(length);
    return bytes.subarray(0, readSync(file, bytes, 0, length, from));
  } catch (error) {
    throw fileReadError(error, path);
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

/** The text of a large file, in pieces of whole lines. Throws ERR_MANIFEST as `readText`, and for a line that never ends. */
function* pieces(path: string): Generator<string> {
  let rest = Buffer.alloc(0);
  let line = 1;
  for (let at = 0; ; ) {
    const more = piece(path, at, PIECE);
    at += more.length;
    const bytes = Buffer.concat([rest, more]);
    const end = more.length === 0 ? bytes.length : bytes.lastIndexOf(10) + 1;
    const whole = bytes.subarray(0, end);
    rest = bytes.subarray(end);
    if (rest.length > 4 * MAX_ROW) {
      const most = count(MAX_ROW);
      throw new DistilWhisperError(
        'ERR_MANIFEST',
        `${path} line ${line}: expected a row of at most ${most} characters`,
      );
    }
    const text = decode(whole, 'utf-8');
    if (text === null) {
      const broken = line - 1 + firstBrokenLine(whole);
      throw new DistilWhisperError('ERR_MANIFEST', `${path} line ${broken}: expected UTF-8 text, got other bytes`);
    }
    if (text.includes('\0'))
      throw new DistilWhisperError(
        'ERR_MANIFEST',
        `${path}: expected a manifest, got a binary file (it holds NUL bytes)`,
      );
    for (let newline = text.indexOf('\n'); newline >= 0; newline = text.indexOf('\n', newline + 1)) line++;
    if (text !== '') yield text;
    if (more.length === 0) return;
  }
}

/** The text without its byte-order mark; null where the bytes are no such text. */
function decode(bytes: Uint8Array, encoding: string): string | null {
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    return null;
  }
}

function firstBrokenLine(bytes: Buffer): number {
  let line = 1;
  for (let from = 0; from < bytes.length; line++) {
    const end = bytes.indexOf(10, from);
    const to = end < 0 ? bytes.length : end;
    if (decode(bytes.subarray(from, to), 'utf-8') === null) break;
    from = to + 1;
  }
  return line;
}

/** Lines that are not blank, with their numbers, of a text in pieces of whole lines. */
function* linesOf(texts: Iterable<string>): Generator<{ line: number; text: string }> {
  let line = 1;
  for (const text of texts) {
    for (let from = 0; from < text.length; line++) {
      const end = text.indexOf('\n', from);
      const to = end < 0 ? text.length : end;
      const one = text.slice(from, text.charCodeAt(to - 1) === 13 && to > from ? to - 1 : to);
      if (/\S/.test(one)) yield { line, text: one };
      from = to + 1;
    }
  }
}

const tooLong = (length: number): string =>
  `expected a row of at most ${count(MAX_ROW)} characters, got ${count(length)}`;

/** Ends with ERR_MANIFEST where there are more rows than a manifest may have. */
function* bounded<T>(rows: Iterable<T>, path: string): Generator<T> {
  let seen = 0;
  for (const row of rows) {
    if (++seen > MAX_ROWS)
      throw new DistilWhisperError('ERR_MANIFEST', `${path}: expected at most ${count(MAX_ROWS)} rows, got more`);
    yield row;
  }
}

// ---- JSON ----

function* lineRows(texts: Iterable<string>, path: string, mayBeWhole: boolean): Generator<Row> {
  let first = true;
  for (const { line, text: one } of bounded(linesOf(texts), path)) {
    const row = jsonRow(one.trim(), line, 'on this line');
    if (first && mayBeWhole && 'problem' in row && /^[{\s]*$/.test(one)) {
      throw new DistilWhisperError(
        'ERR_MANIFEST',
        `${path}: expected an array of objects or an object on each line, got one object over several lines`,
      );
    }
    first = false;
    yield row;
  }
}

/** The objects of an array, each parsed for itself: a bad one is one row. */
function* arrayRows(text: string, path: string): Generator<Row> {
  for (const { line, text: one } of bounded(elementsOf(text, path), path)) yield jsonRow(one.trim(), line, 'here');
}

function* elementsOf(text: string, path: string): Generator<{ line: number; text: string }> {
  let [depth, line, begin, beginLine] = [0, 1, -1, 1];
  const start = text.indexOf('[');
  for (let at = 0; at < text.length; at++) {
    const c = text.charCodeAt(at);
    if (c === 10) line++;
    if (at < start || c === 10 || c === 13 || c === 32 || c === 9) continue;
    if (depth === 0 && at > start) {
      throw new DistilWhisperError('ERR_MANIFEST', `${path} line ${line}: expected nothing behind the array`);
    }
    if (depth === 1 && begin < 0) [begin, beginLine] = [at, line];
    if (c === 0x22) {
      for (at++; at < text.length && text.charCodeAt(at) !== 0x22; at++) {
        if (text.charCodeAt(at) === 10) line++;
        if (text.charCodeAt(at) === 0x5c) at++;
      }
    } else if (c === 0x5b || c === 0x7b) {
      depth++;
    } else if (c === 0x5d || c === 0x7d || c === 0x2c) {
      const ends = depth === 1;
      if (c !== 0x2c) depth--;
      if (!ends) continue;
      const element = { line: beginLine, text: text.slice(begin, at) };
      const isEmptyArray = c !== 0x2c && begin === at && text.slice(start + 1, at).trim() === '';
      if (!isEmptyArray) yield element;
      begin = -1;
    }
  }
  if (depth > 0) throw new DistilWhisperError('ERR_MANIFEST', `${path} line ${line}: the array is never closed`);
}

function jsonRow(text: string, line: number, where: string): Row {
  if (text.length > MAX_ROW) return { line, problem: tooLong(text.length) };
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (error) {
    if (!(error instanceof TextError)) throw error;
    return { line, problem: `expected a JSON object ${where}, got what ${error.message}` };
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    return {
      line,
      problem: `expected one JSON object ${where === 'here' ? where : 'a line'}, got ${text.slice(0, 40)}`,
    };
  return { line, values: new Map(Object.entries(value)) };
}

// ---- tables ----

type TableRecord = { line: number } & ({ fields: string[] } | { problem: string });

/** The columns of FLEURS' tables, which have no header. */
const FLEURS = ['', 'file_name', 'raw_transcription', 'transcription', '', 'num_samples', ''];
const FLEURS_RATE = 16000;

const isFleurs = (fields: readonly string[]): boolean =>
  fields.length === FLEURS.length &&
  /^\d+$/.test(fields[0]!) &&
  /\.\w{2,5}$/.test(fields[1]!) &&
  /^\d+$/.test(fields[5]!) &&
  /^[A-Z]+$/.test(fields[6]!);

function tableRows(path: string, records: () => Iterable<TableRecord>, isAudio: (name: string) => boolean): Rows {
  const all = bounded(records(), path);
  const first = all.next();
  if (first.done) return { rows: [] };
  const head: TableRecord = first.value;
  const fail = (what: string): never => {
    throw new DistilWhisperError('ERR_MANIFEST', `${path} line ${head.line}: ${what}`);
  };
  if ('problem' in head) return fail(head.problem);
  const names = head.fields.map((name) => name.trim());
  if (!names.some(isAudio) && isFleurs(names)) {
    const again = bounded(records(), path);
    return { fleurs: true, rows: valuesOf(again, FLEURS, fleursRow) };
  }
  const twice = names.find((name, at) => name !== '' && names.indexOf(name) !== at);
  if (twice !== undefined) fail(`the header names column ${JSON.stringify(twice)} twice`);
  return { header: { line: head.line, names }, rows: valuesOf(all, names) };
}

/** The clip's length in place of its samples. */
function fleursRow(values: Map<string, unknown>): void {
  values.set('duration', String(Number(values.get('num_samples')) / FLEURS_RATE));
}

function* valuesOf(
  records: Iterable<TableRecord>,
  names: readonly string[],
  edit?: (values: Map<string, unknown>) => void,
): Generator<Row> {
  for (const record of records) {
    const { line } = record;
    if ('problem' in record) {
      yield { line, problem: record.problem };
      continue;
    }
    const { fields } = record;
    // Spreadsheets write empty fields behind the last column.
    if (fields.length > names.length && fields.slice(names.length).some((field) => field !== '')) {
      yield {
        line,
        problem: `expected ${names.length} columns as in the header, got ${fields.length} (a tab or comma within a value?)`,
      };
      continue;
    }
    const values = new Map<string, unknown>(names.map((name, at) => [name, fields[at]]));
    edit?.(values);
    yield { line, values };
  }
}

function* tabRecords(texts: Iterable<string>): Generator<TableRecord> {
  for (const { line, text: one } of linesOf(texts)) {
    if (one.length > MAX_ROW) yield { line, problem: tooLong(one.length) };
    else yield { line, fields: one.split('\t', MAX_COLUMNS + 1).map(unquote) };
  }
}

/** A field that is quoted as a whole, with its inner quotes doubled, loses the quoting; any other quote is text. */
function unquote(field: string): string {
  if (field.length < 2 || !field.startsWith('"') || !field.endsWith('"')) return field;
  const inner = field.slice(1, -1);
  return inner.replaceAll('""', '').includes('"') ? field : inner.replaceAll('""', '"');
}

/** What stands between a CSV file's columns: the first of the usual ones that gives it a column of audio. */
function delimiterOf(text: string, isAudio: (name: string) => boolean): string {
  const [head] = linesOf([text]);
  const gives = (delimiter: string): boolean =>
    head !== undefined &&
    head.text.length <= MAX_ROW &&
    head.text.split(delimiter, MAX_COLUMNS).some((name) => isAudio(unquote(name.trim())));
  return [',', ';', '\t'].find(gives) ?? ',';
}

/** RFC 4180: a field in quotes may hold anything, its own quotes doubled. Lines may end with LF alone. */
function* quotedRecords(text: string, delimiter: string, path: string): Generator<TableRecord> {
  const comma = delimiter.charCodeAt(0);
  const isEnd = (at: number): boolean =>
    at >= text.length || text.charCodeAt(at) === 10 || (text.charCodeAt(at) === 13 && text.charCodeAt(at + 1) === 10);
  for (let at = 0, line = 1; at < text.length; ) {
    const [begin, beginLine] = [at, line];
    const fields: string[] = [];
    let problem: string | null = null;
    const put = (field: string): void => {
      if (fields.length <= MAX_COLUMNS) fields.push(field);
    };
    for (;;) {
      const from = at;
      if (text.charCodeAt(at) === 0x22) {
        at = text.indexOf('"', at + 1);
        while (at >= 0 && text.charCodeAt(at + 1) === 0x22) at = text.indexOf('"', at + 2);
        if (at < 0)
          throw new DistilWhisperError('ERR_MANIFEST', `${path} line ${line}: a quote that opens here is never closed`);
        const inner = text.slice(from + 1, at++);
        for (let end = inner.indexOf('\n'); end >= 0; end = inner.indexOf('\n', end + 1)) line++;
        put(inner.replaceAll('""', '"'));
        if (!isEnd(at) && text.charCodeAt(at) !== comma)
          problem ??= `expected a comma or the line's end behind the closing quote of column ${fields.length}`;
      }
      const bare = at;
      while (!isEnd(at) && text.charCodeAt(at) !== comma) at++;
      if (bare === from) put(text.slice(from, at));
      if (isEnd(at)) break;
      at++;
    }
    const length = at - begin;
    at += text.charCodeAt(at) === 13 ? 2 : 1;
    line++;
    if (length > MAX_ROW) problem = tooLong(length);
    if (problem !== null) yield { line: beginLine, problem };
    else if (fields.some((field) => field.trim() !== '')) yield { line: beginLine, fields };
  }
}
