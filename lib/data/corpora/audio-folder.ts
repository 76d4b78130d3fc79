/** Audio folders as Hugging Face's `datasets` takes them: files beside a metadata.csv or metadata.jsonl, a folder a split. */
import { readdirSync } from 'node:fs';
import { basename, dirname, join, relative, sep } from 'node:path';
import { DistilWhisperError, fileReadError } from '../../errors/index.js';
import { Confined, firstOf, isFile } from '../confined.js';
import { fileSource } from '../dataset.js';
import { scanManifest } from '../manifest.js';
import { RowStore } from '../row-store.js';
import { type CorpusReader, chosenSplits, splitName, throwIfAborted } from './corpus.js';

const METADATA = ['metadata.csv', 'metadata.jsonl', 'metadata.tsv'];
/** Folders below the one that is named: data/train/metadata.csv. */
const MAX_DEPTH = 3;

/** The tables of metadata in a folder, the nearest ones. */
function tablesIn(folder: string, depth = 0): string[] {
  const here = firstOf(folder, METADATA);
  if (here !== undefined) return [here];
  if (depth === MAX_DEPTH) return [];
  try {
    return readdirSync(folder, { withFileTypes: true })
      .filter((one) => one.isDirectory() && !one.name.startsWith('.'))
      .sort((a, b) => (a.name < b.name ? -1 : 1))
      .flatMap(({ name }) => tablesIn(join(folder, name), depth + 1));
  } catch (error) {
    throw fileReadError(error, folder);
  }
}

export const isAudioFolder = (folder: string): boolean => tablesIn(folder).length > 0;

/** The split that a table's folders name, the nearest one first; undefined where none does. */
function splitOf(table: string, root: string): string | undefined {
  const folders = [...relative(root, dirname(table)).split(sep).reverse(), basename(root)];
  return folders.find((name) => ['train', 'validation', 'test'].includes(splitName(name)));
}

/**
 * Reads an audio folder; rows name their file by file_name, relative to their table. Errors: ERR_FILE_NOT_FOUND (no metadata), those of
 * manifests, ERR_ARGUMENT (a split that is not there).
 */
export const readAudioFolder: CorpusReader = async (wanted) => {
  const { path, into, table, splits, signal } = wanted;
  const root = isFile(path) ? dirname(path) : path;
  const tables = isFile(path) ? [path] : tablesIn(path);
  if (tables.length === 0) {
    throw new DistilWhisperError(
      'ERR_FILE_NOT_FOUND',
      `${path}: expected a folder of audio with ${METADATA.join(' or ')} (columns file_name and text)`,
    );
  }
  const named = tables.map((file) => ({ file, split: splitOf(file, root) }));
  const names = [...new Set(named.flatMap(({ split }) => split ?? []))];
  // Where no folder names a split, a column may.
  const chosen = names.length > 0 ? chosenSplits(wanted, names) : null;
  const rows = new RowStore();
  for (const { file, split } of named) {
    throwIfAborted(signal);
    if (chosen && !(split !== undefined && chosen.includes(split))) continue;
    const files = new Confined(dirname(file), ['.']);
    const options = { ...table, split: chosen ? undefined : splits, onBadRow: into.onBadRow };
    scanManifest(file, options, (entry) => into.take(rows, entry), {
      find: (name) => files.find(name),
      split,
      mayBeEmpty: true,
    });
  }
  return [fileSource(rows)];
};
