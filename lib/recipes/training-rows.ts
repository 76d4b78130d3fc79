/** What a run trains and validates on: the rows of its data sets, those that cannot be used, and what it left out before. */
import { existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import {
  type BadRow,
  BadRowsError,
  badRow,
  blamesRow,
  type Dataset,
  type DatasetSpec,
  type ManifestEntry,
  openDataset,
  parseSpec,
  sortRows,
} from '../data/index.js';
import { DistilWhisperError, type ErrorCode } from '../errors/index.js';
import { checkAudio } from '../evaluate/index.js';
import { readJsonObject } from '../files/index.js';
import type { WhisperTokenizer } from '../text/index.js';
import type { AudioBatches } from '../train/index.js';
import type { Closers } from './closers.js';
import type { TrainRecipe } from './recipe.js';

export interface TrainingRows {
  training: Dataset;
  /** The same files as `training` may hold them. */
  validation: Dataset | null;
  /** Splits of tests or validation that training rows are of: they were asked for. */
  heldOut: string[];
  bad: BadRow[];
  /** Tables that the training rows are of. */
  files: ReadonlySet<string>;
}

/** Names of splits that are kept from training: test, test-clean, dev, devel, valid, validation, eval; not validated. */
const HELD_OUT = /^(tests?|testing|eval|evaluation|dev|devel|development|val|valid|validation)(?![a-z])/i;

/** What of a recipe says which rows are meant, and how they are read. */
export type RowsRecipe = Pick<
  TrainRecipe,
  | 'data'
  | 'manifest'
  | 'language'
  | 'split'
  | 'languages'
  | 'minDuration'
  | 'maxDuration'
  | 'maxLabels'
  | 'limit'
  | 'subset'
  | 'text'
  | 'timestamps'
  | 'timestampShare'
  | 'audioRoot'
  | 'skipEmptyText'
  | 'skipBad'
  | 'strict'
  | 'hub'
  | 'signal'
  | 'onWarning'
  | 'onCheck'
>;

export const ROWS: Record<keyof RowsRecipe, true> = {
  data: true,
  manifest: true,
  language: true,
  split: true,
  languages: true,
  minDuration: true,
  maxDuration: true,
  maxLabels: true,
  limit: true,
  subset: true,
  text: true,
  timestamps: true,
  timestampShare: true,
  audioRoot: true,
  skipEmptyText: true,
  skipBad: true,
  strict: true,
  hub: true,
  signal: true,
  onWarning: true,
  onCheck: true,
};

interface RowsOptions {
  /** Code: only its rows. */
  language: string | undefined;
  /** `maxLabels` needs it. */
  tokenizer: WhisperTokenizer | undefined;
  /** Take what closes the data sets. */
  closers: Closers;
}

/** A recipe's data, as it names them. */
export const namesOfData = ({ data, manifest }: Pick<TrainRecipe, 'data' | 'manifest'>): readonly string[] =>
  [data ?? manifest ?? []].flat();

/** Data sets of a recipe: those that `data` names, or one manifest. */
const specsOf = ({ data, manifest }: Pick<TrainRecipe, 'data' | 'manifest'>): (string | DatasetSpec)[] | undefined => {
  if (manifest !== undefined) return [{ kind: 'manifest', path: manifest, splits: undefined, weight: 1 }];
  return data === undefined ? undefined : [data].flat();
};

const splitsIn = (data: Dataset): Set<string | undefined> => {
  const splits = new Set<string | undefined>();
  for (const { split } of data.entries()) splits.add(split);
  return splits;
};

/**
 * Reads the rows of a recipe; bad ones are gathered. Errors: those of `openDataset` that are no row's; ERR_ARGUMENT when rows that
 * are marked as tests or validation would be trained on without being asked for.
 */
export async function openTrainingRows(
  recipe: RowsRecipe & Pick<TrainRecipe, 'validation'>,
  { language, tokenizer, closers }: RowsOptions,
): Promise<TrainingRows> {
  const bad = new Map<string, BadRow>();
  const open = async (
    specs: (string | DatasetSpec)[],
    split: TrainRecipe['split'],
    usual: string,
  ): Promise<Dataset> => {
    const dataset = await openDataset(specs, {
      split,
      defaultSplit: usual,
      languages: language ?? recipe.languages,
      audioRoot: recipe.audioRoot,
      emptyText: recipe.skipEmptyText ? 'skip' : 'error',
      minDuration: recipe.minDuration,
      maxDuration: recipe.maxDuration,
      maxLabels: recipe.maxLabels,
      tokenizer: recipe.maxLabels === undefined ? undefined : tokenizer,
      limit: recipe.limit,
      subset: recipe.subset,
      text: recipe.text,
      segments: recipe.timestamps,
      // That is the model's.
      hub: { ...recipe.hub, revision: undefined },
      signal: recipe.signal,
      // What cannot be read at all may belong to both.
      onBadRow: (row) => bad.set(`${row.line} ${row.manifest}`, row),
      onProgress: recipe.onCheck,
    });
    closers.add(() => dataset.close());
    return dataset;
  };
  const { split, validation } = recipe;
  const specs = specsOf(recipe)!;
  const own = validation && specsOf(validation);
  const training = await open(specs, split, 'train');
  const files = new Set([...bad.values()].map(({ manifest }) => manifest));
  for (const { manifest } of training.entries()) files.add(manifest);
  const validating = validation ? await open(own ?? specs, validation.split, 'validation') : null;
  const same =
    !own ||
    (recipe.manifest !== undefined &&
      validation.manifest !== undefined &&
      resolve(validation.manifest) === resolve(recipe.manifest));
  const validates = same && validating ? splitsIn(validating) : new Set();
  const asked =
    split !== undefined ||
    specs.every((spec) => typeof spec === 'string' && !existsSync(spec) && parseSpec(spec).splits !== undefined);
  const isHeldOut = (name: string | undefined): name is string =>
    name !== undefined && (HELD_OUT.test(name) || (!asked && validates.has(name)));
  const splits = [...splitsIn(training)];
  const heldOut = splits.filter(isHeldOut);
  if (!asked && heldOut.length > 0) {
    const quoted = (names: readonly (string | undefined)[]): string =>
      names.map((name) => (name === undefined ? 'none' : JSON.stringify(name))).join(', ');
    const others = splits.filter((name): name is string => name !== undefined && !isHeldOut(name));
    const some = others.length > 0 ? `--split ${others.join(' --split ')}, or ` : '';
    const names = specs.map((spec) => (typeof spec === 'string' ? spec : spec.path)).join(', ');
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `split: ${names} has rows of the splits ${quoted(splits)}, and training on ${quoted(heldOut)} must be asked for: give ${some}--split all for every row (split in a script)`,
    );
  }
  return { training, validation: validating, heldOut, bad: [...bad.values()], files };
}

/** A row that a run leaves out, as its run.json keeps it: audio is not decoded again when a run goes on. */
export interface LeftOut {
  manifest: 'training' | 'validation';
  /** Of a corpus of several tables, the table: its name and its folder's; its path, where those are another's too. */
  file?: string | undefined;
  line: number;
  code: ErrorCode;
}

/** What the run in a folder left out; null where there is no run. Errors: ERR_RUN (run.json is damaged), ERR_FILE_READ. */
async function leftOutBefore(output: string): Promise<LeftOut[] | null> {
  const path = join(output, 'run.json');
  if (!(await stat(path).catch(() => null))) return null;
  const { leftOut = [] } = await readJsonObject(path, 'ERR_RUN');
  const isLeftOut = (row: Partial<LeftOut> | null): row is LeftOut =>
    typeof row === 'object' &&
    row !== null &&
    (row.manifest === 'training' || row.manifest === 'validation') &&
    (row.file === undefined || typeof row.file === 'string') &&
    Number.isSafeInteger(row.line) &&
    typeof row.code === 'string';
  if (Array.isArray(leftOut) && leftOut.every(isLeftOut)) return leftOut;
  throw new DistilWhisperError('ERR_RUN', `${path}: expected leftOut to list rows by manifest, line and code`);
}

export interface CheckedRows {
  batches: AudioBatches;
  validation: Dataset | null;
  /** Every bad row; there is none without `skipBad`. */
  bad: BadRow[];
  /** The same as a part of the run's identity. */
  leftOut: LeftOut[];
}

/**
 * Tries every row that training and validation want: labels, languages, and, unless a run goes on, audio, which is decoded once.
 * A run that goes on leaves out what it left out before. Errors: BadRowsError with all bad rows, with `skipBad` when none is
 * left; ERR_INTERRUPTED; ERR_RUN.
 */
export async function checkRows(
  { training, validation, bad: unread, files }: TrainingRows,
  recipe: RowsRecipe & Pick<TrainRecipe, 'output'>,
  tokenizer: WhisperTokenizer,
  batchesOf: (data: Dataset, onBadRow: (row: BadRow) => void) => AudioBatches,
): Promise<CheckedRows> {
  const { manifest, output, strict = false, signal, onCheck, onWarning } = recipe;
  // A corpus is as others made it; a manifest is one's own.
  const { skipBad = manifest === undefined && !strict } = recipe;
  const bad = [...unread];
  const refuse = (): BadRowsError => new BadRowsError(sortRows(bad));
  /** The batches know of their own bad rows alone, and end where none is left. */
  const tried = async <T>(work: () => T | Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw error instanceof BadRowsError ? refuse() : error;
    }
  };
  const nameOf = tableNames([training, validation], unread);
  const leftOutOf = (row: { manifest: string; line: number }): Omit<LeftOut, 'code'> => ({
    manifest: files.has(row.manifest) ? 'training' : 'validation',
    file: manifest === undefined ? nameOf(row.manifest) : undefined,
    line: row.line,
  });
  const keyOf = (row: Omit<LeftOut, 'code'>): string => `${row.manifest} ${row.file ?? ''} ${row.line}`;
  const earlier = await leftOutBefore(output);
  const before = new Map((skipBad ? (earlier ?? []) : []).map((row) => [keyOf(row), row]));
  const stillThere = (entry: ManifestEntry): boolean => {
    const found = before.get(keyOf(leftOutOf(entry)));
    if (found) bad.push(badRow(entry, { code: found.code, message: 'it was left out when the run began' }));
    return !found;
  };
  const wanted = rowsWhere(training, stillThere);
  if (wanted.length === 0) throw refuse();
  const batches = await tried(() => batchesOf(wanted, (row) => bad.push(row)));
  let kept =
    validation &&
    rowsWhere(rowsWhere(validation, stillThere), (entry) => {
      try {
        // An unknown language is found before anything is written.
        tokenizer.checkLanguage(entry.language);
        return true;
      } catch (error) {
        if (!blamesRow(error)) throw error;
        bad.push(badRow(entry, error));
        return false;
      }
    });
  // How long utterances are that do not tell it is a part of their labels.
  if (!earlier || batches.isOpen) {
    const first = batches.length;
    const total = first + (earlier ? 0 : (kept?.length ?? 0));
    await tried(() => batches.check({ signal, onProgress: (done) => onCheck?.(done, total) }));
    if (kept && !earlier) {
      const refused = await checkAudio(kept, {
        strict,
        signal,
        onWarning,
        onProgress: (done) => onCheck?.(first + done, total),
      });
      const places = new Set(refused.map(placeOf));
      kept = rowsWhere(kept, (entry) => !places.has(placeOf(entry)));
      bad.push(...refused);
    }
  }
  if (bad.length > 0 && !skipBad) throw refuse();
  if (kept?.length === 0) throw refuse();
  // A row of both parts is one row.
  const once = sortRows([...new Map(bad.map((row) => [placeOf(row), row])).values()]);
  const leftOut = once
    .map((row): LeftOut => ({ ...leftOutOf(row), code: row.code }))
    .sort((a, b) => order(a.manifest, b.manifest) || order(a.file ?? '', b.file ?? '') || a.line - b.line);
  return { batches, validation: kept, bad: once, leftOut };
}

/** Names by which the tables of the rows are told apart, the same wherever the corpora lie if they can be. */
function tableNames(sets: readonly (Dataset | null)[], bad: readonly BadRow[]): (path: string) => string {
  const short = (path: string): string => join(basename(dirname(path)), basename(path));
  const paths = new Set(bad.map(({ manifest }) => manifest));
  for (const set of sets) for (const { manifest } of set?.entries() ?? []) paths.add(manifest);
  const seen = new Map<string, number>();
  for (const path of paths) seen.set(short(path), (seen.get(short(path)) ?? 0) + 1);
  return (path) => ((seen.get(short(path)) ?? 0) > 1 ? path : short(path));
}

/** Of the utterances' labels, how many have timestamps. */
export const timestampShareOf = ({ timestamps, timestampShare = 1 }: RowsRecipe): number =>
  timestamps ? timestampShare : 0;

/** Of a row, in the whole of its table's path: tables of two corpora may have one name. */
const placeOf = (row: { manifest: string; line: number }): string => `${row.line} ${row.manifest}`;

const order = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function rowsWhere(data: Dataset, wanted: (entry: ManifestEntry) => boolean): Dataset {
  return data.select([...data.numbers()].filter((row) => wanted(data.entry(row))));
}
