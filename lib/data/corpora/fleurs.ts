/** FLEURS: a folder a language, a table a split without a header, wavs in a folder or still in their archive. */
import { readdirSync } from 'node:fs';
import { basename, dirname, extname, join } from 'node:path';
import { DistilWhisperError, fileReadError } from '../../errors/index.js';
import { badRow } from '../bad-rows.js';
import { Confined, checkRelative, firstOf, isDirectory, isFile } from '../confined.js';
import { fileSource, type RowSource } from '../dataset.js';
import { type ManifestEntry, scanRows } from '../manifest.js';
import { RowStore } from '../row-store.js';
import { type Rows, readRows } from '../rows.js';
import { ArchiveSource, type Member, readMembers } from './archive.js';
import { BlockMemory } from './block-cache.js';
import { type CorpusReader, chosenSplits, throwIfAborted, type Wanted } from './corpus.js';

const isAudio = (name: string): boolean => name === 'file_name';

const tablesOf = (folder: string): string[] =>
  ['train', 'dev', 'validation', 'test'].filter((name) => isFile(join(folder, `${name}.tsv`)));

/** Whether a folder has a table of FLEURS. Throws nothing: a table that cannot be read is none. */
export function isFleurs(folder: string): boolean {
  try {
    const [first] = tablesOf(folder);
    return first !== undefined && readRows(join(folder, `${first}.tsv`), 'tsv', isAudio).fleurs === true;
  } catch {
    return false;
  }
}

/**
 * Reads FLEURS, `path` being a language's folder (ca_es) or one of its tables; the folder's name is the language, unless the options say
 * it. Errors: ERR_FILE_NOT_FOUND (no table, no audio), those of tables, ERR_MANIFEST (a damaged archive), ERR_ARGUMENT (a split that is not there).
 */
export const readFleurs: CorpusReader = async (wanted) => {
  const { path, into, signal } = wanted;
  const single = isFile(path) ? basename(path, '.tsv') : undefined;
  const folder = single === undefined ? path : dirname(path);
  const there = single === undefined ? tablesOf(folder) : [single];
  if (there.length === 0) {
    throw new DistilWhisperError(
      'ERR_FILE_NOT_FOUND',
      `${path}: expected a language's folder of FLEURS (with train.tsv, dev.tsv, test.tsv and audio), as in data/ca_es`,
    );
  }
  const plain = new RowStore();
  const sources: RowSource[] = [fileSource(plain)];
  for (const split of chosenSplits(wanted, there)) {
    throwIfAborted(signal);
    const tsv = join(folder, `${split}.tsv`);
    const archive = firstOf(
      folder,
      ['tar.gz', 'tgz', 'tar'].flatMap((end) => [join('audio', `${split}.${end}`), `${split}.${end}`]),
    );
    const folders = [join('audio', split), split, 'audio', '.'].filter((name) => hasAudio(join(folder, name)));
    const rows = readRows(tsv, 'tsv', isAudio);
    if (folders.length > 0 || archive === undefined) {
      const files = new Confined(folder, folders);
      const find = (name: string): string | null => files.find(name);
      const options = { ...wanted.table, onBadRow: into.onBadRow };
      scanRows(tsv, rows, options, (entry) => into.take(plain, entry), { find, split, mayBeEmpty: true });
    } else {
      sources.push(await fromArchive(tsv, rows, split, archive, wanted));
    }
  }
  return sources;
};

function hasAudio(folder: string): boolean {
  if (!isDirectory(folder)) return false;
  try {
    return readdirSync(folder).some((name) => extname(name).toLowerCase() === '.wav');
  } catch (error) {
    throw fileReadError(error, folder);
  }
}

async function fromArchive(
  tsv: string,
  table: Rows,
  split: string,
  archive: string,
  wanted: Wanted,
): Promise<RowSource> {
  const { into, signal } = wanted;
  const byName = new Map<string, Member>();
  for (const member of await readMembers(archive, signal)) {
    const name = basename(member.name);
    // What is refused hides no sound one of its name.
    const known = byName.get(name);
    if (!known || known.refused !== null) byName.set(name, member);
  }
  const entries = new Map<Member, ManifestEntry>();
  const find = (name: string): string | null => {
    checkRelative(name);
    const member = byName.get(basename(name));
    if (!member) return null;
    if (member.refused !== null) throw new DistilWhisperError('ERR_MANIFEST', `${archive}: ${member.refused}`);
    return join(archive, member.name);
  };
  const options = { ...wanted.table, onBadRow: into.onBadRow };
  const keep = (entry: ManifestEntry): void => {
    const member = byName.get(basename(entry.audio))!;
    const earlier = entries.get(member);
    if (!earlier) entries.set(member, entry);
    else {
      const what = `its audio is that of line ${earlier.line} too, and an archive is read once`;
      into.onBadRow(badRow(entry, { code: 'ERR_MANIFEST', message: what }));
    }
  };
  scanRows(tsv, table, options, keep, { find, split, mayBeEmpty: true });
  // In the archive's order, in which alone it can be read.
  const inOrder = [...entries].sort(([a], [b]) => a.number - b.number);
  const rows = new RowStore();
  for (const [{ number, size }, entry] of inOrder) into.take(rows, entry, [number, size]);
  // Of its own: each archive is mixed by itself.
  return new ArchiveSource(archive, rows, new BlockMemory());
}
