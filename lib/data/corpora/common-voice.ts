/** Releases of Common Voice: a folder a language, a table a split, clips as mp3 in clips/. */
import { closeSync, openSync, readSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { DistilWhisperError, fileReadError } from '../../errors/index.js';
import { Confined, firstOf, isFile } from '../confined.js';
import { fileSource } from '../dataset.js';
import { type ManifestEntry, scanRows } from '../manifest.js';
import { RowStore } from '../row-store.js';
import { type Row, type Rows, readRows } from '../rows.js';
import { type CorpusReader, chosenSplits, SUBSETS, splitName, throwIfAborted } from './corpus.js';

/** The splits of a release that do not overlap; the others are looked for too. */
const OFFICIAL = ['train', 'dev', 'test'];
const OTHERS = ['validated', 'invalidated', 'other'];

/** Whether a folder has a table as each release has it. */
export function isCommonVoice(folder: string): boolean {
  const table = firstOf(
    folder,
    [...OFFICIAL, ...OTHERS].map((name) => `${name}.tsv`),
  );
  if (table === undefined) return false;
  const columns = firstLine(table).split('\t');
  return ['client_id', 'path', 'sentence'].every((name) => columns.includes(name));
}

function firstLine(path: string): string {
  let file: number | undefined;
  try {
    file = openSync(path, 'r');
    const bytes = Buffer.alloc(4096);
    return bytes.toString('utf8', 0, readSync(file, bytes)).split('\n', 1)[0]!.trim();
  } catch (error) {
    throw fileReadError(error, path);
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

const isPath = (name: string): boolean => name === 'path';

/**
 * Reads a release, `path` being a language's folder or one of its tables. Errors: ERR_FILE_NOT_FOUND (no table), those of tables
 * (`readManifest`), ERR_ARGUMENT (a split that is not there).
 */
export const readCommonVoice: CorpusReader = async (wanted) => {
  const { path, into, table, subset, signal } = wanted;
  const kept = new RowStore();
  const single = isFile(path) ? basename(path, '.tsv') : undefined;
  const folder = single === undefined ? path : dirname(path);
  const there =
    single === undefined ? [...OFFICIAL, ...OTHERS].filter((name) => isFile(join(folder, `${name}.tsv`))) : [single];
  if (there.length === 0) {
    throw new DistilWhisperError(
      'ERR_FILE_NOT_FOUND',
      `${path}: expected a language's folder of Common Voice (with train.tsv, dev.tsv, test.tsv and clips), as in cv-corpus-13.0/ca`,
    );
  }
  const own = there.filter((name) => OFFICIAL.includes(name));
  const splits = chosenSplits(wanted, there, own.length > 0 ? own : there);
  const clips = new Confined(folder, ['clips', '.']);
  const find = (name: string): string | null =>
    clips.find(name) ?? (name.includes('.') ? null : clips.find(`${name}.mp3`));
  const durations = clipDurations(join(folder, 'clip_durations.tsv'));
  for (const split of splits) {
    throwIfAborted(signal);
    const tsv = join(folder, `${split}.tsv`);
    const rows = (): Rows => readRows(tsv, 'tsv', isPath);
    const most =
      subset && splitName(split) in SUBSETS[subset] ? SUBSETS[subset][splitName(split) as 'train'] : undefined;
    const lines = most === undefined ? null : mostVoted(rows(), most, tsv);
    const inSubset = (line: number): boolean => lines === null || lines.has(line);
    const read = rows();
    scanRows(
      tsv,
      { ...read, rows: some(read.rows, inSubset) },
      { ...table, onBadRow: into.onBadRow },
      (entry, values) => into.take(kept, described(entry, values, durations)),
      { find, split, mayBeEmpty: true },
    );
  }
  return [fileSource(kept)];
};

function* some(rows: Iterable<Row>, wanted: (line: number) => boolean): Generator<Row> {
  for (const row of rows) if (wanted(row.line)) yield row;
}

function described(
  entry: ManifestEntry,
  values: ReadonlyMap<string, unknown>,
  durations: ReadonlyMap<string, number> | null,
): ManifestEntry {
  const speaker = values.get('client_id');
  const duration = entry.duration ?? durations?.get(basename(entry.audio));
  return {
    ...entry,
    ...(typeof speaker === 'string' && speaker !== '' && { speaker }),
    ...(duration !== undefined && duration > 0 && { duration }),
  };
}

/**
 * The reference's rule: of a split with more than `most` clips those with the most votes for them, of equals those with the fewest against
 * them, of equals those that come first. Returns their lines; null where all are taken.
 */
function mostVoted({ rows, header }: Rows, most: number, path: string): Set<number> | null {
  const missing = ['up_votes', 'down_votes'].find((name) => !header?.names.includes(name));
  if (missing !== undefined)
    throw new DistilWhisperError('ERR_MANIFEST', `${path}: missing column ${missing}, by which a subset is chosen`);
  const votes: { line: number; up: number; down: number }[] = [];
  for (const row of rows) {
    // A row that cannot be read has no votes; it is told when the rows are.
    const values = 'values' in row ? row.values : new Map<string, unknown>();
    const of = (name: string): number => Number(values.get(name)) || 0;
    votes.push({ line: row.line, up: of('up_votes'), down: of('down_votes') });
  }
  if (votes.length <= most) return null;
  votes.sort((a, b) => b.up - a.up || a.down - b.down);
  return new Set(votes.slice(0, most).map(({ line }) => line));
}

/** Seconds of each clip, where a release lists them in milliseconds (from version 12 on); null where it does not. */
function clipDurations(path: string): Map<string, number> | null {
  if (!isFile(path)) return null;
  const { rows, header } = readRows(path, 'tsv', (name) => name === 'clip');
  const column = header?.names.find((name) => /^duration ?\[ms\]$/.test(name));
  if (column === undefined) return null;
  const seconds = new Map<string, number>();
  for (const row of rows) {
    if ('problem' in row) continue;
    const [clip, value] = [row.values.get('clip'), Number(row.values.get(column))];
    if (typeof clip === 'string' && value > 0) seconds.set(clip, value / 1000);
  }
  return seconds;
}
