/** What a run trains and validates on: the rows of its manifests, those that cannot be used, and what it left out before. */
import { stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import {
  type BadRow,
  BadRowsError,
  badRow,
  blamesRow,
  type ManifestEntry,
  readManifest,
  sortRows,
} from '../data/index.js';
import { DistilWhisperError, type ErrorCode } from '../errors/index.js';
import { checkAudio } from '../evaluate/index.js';
import { readJsonObject } from '../files/index.js';
import type { WhisperTokenizer } from '../text/index.js';
import type { AudioBatches } from '../train/index.js';
import type { TrainRecipe } from './recipe.js';

export interface TrainingRows {
  training: ManifestEntry[];
  validation: ManifestEntry[];
  /** Splits of tests or validation that training rows are of: they were asked for. */
  heldOut: string[];
  bad: BadRow[];
}

/** Names of splits that are kept from training: test, test-clean, dev, devel, valid, validation, eval; not validated. */
const HELD_OUT = /^(tests?|testing|eval|evaluation|dev|devel|development|val|valid|validation)(?![a-z])/i;

/**
 * Reads the rows of a recipe; `language`: code, only its rows. Bad ones are gathered. Errors: those of `readManifest` that are no
 * row's; ERR_ARGUMENT when rows that are marked as tests or validation would be trained on without being asked for.
 */
export function readTrainingRows(recipe: TrainRecipe, language: string | undefined): TrainingRows {
  const bad = new Map<string, BadRow>();
  const rows = (manifest: string, split: TrainRecipe['split']): ManifestEntry[] =>
    readManifest(manifest, {
      split,
      language,
      audioRoot: recipe.audioRoot,
      emptyText: recipe.skipEmptyText ? 'skip' : 'error',
      // What cannot be read at all may belong to both.
      onBadRow: (row) => bad.set(`${row.line} ${row.manifest}`, row),
    });
  const { manifest, split, validation } = recipe;
  const training = rows(manifest, split);
  const own = validation ? rows(validation.manifest ?? manifest, validation.split) : [];
  const sameFile = resolve(validation?.manifest ?? manifest) === resolve(manifest);
  const validates = new Set(sameFile ? own.map((entry) => entry.split) : []);
  const isHeldOut = (name: string | undefined): name is string =>
    name !== undefined && (HELD_OUT.test(name) || (split === undefined && validates.has(name)));
  const splits = [...new Set(training.map((entry) => entry.split))];
  const heldOut = splits.filter(isHeldOut);
  if (split === undefined && heldOut.length > 0) {
    const quoted = (names: readonly (string | undefined)[]): string =>
      names.map((name) => (name === undefined ? 'none' : JSON.stringify(name))).join(', ');
    const others = splits.filter((name): name is string => name !== undefined && !isHeldOut(name));
    const some = others.length > 0 ? `--split ${others.join(' --split ')}, or ` : '';
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `split: ${manifest} has rows of the splits ${quoted(splits)}, and training on ${quoted(heldOut)} must be asked for: give ${some}--split all for every row (split in a script)`,
    );
  }
  return { training, validation: own, heldOut, bad: [...bad.values()] };
}

/** A row that a run leaves out, as its run.json keeps it: audio is not decoded again when a run goes on. */
export interface LeftOut {
  manifest: 'training' | 'validation';
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
    Number.isSafeInteger(row.line) &&
    typeof row.code === 'string';
  if (Array.isArray(leftOut) && leftOut.every(isLeftOut)) return leftOut;
  throw new DistilWhisperError('ERR_RUN', `${path}: expected leftOut to list rows by manifest, line and code`);
}

export interface CheckedRows {
  batches: AudioBatches;
  validation: ManifestEntry[];
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
  { training, validation, bad: unread }: TrainingRows,
  { manifest, output, skipBad = false, strict = false, validation: validates, signal, onCheck, onWarning }: TrainRecipe,
  tokenizer: WhisperTokenizer,
  batchesOf: (entries: readonly ManifestEntry[], onBadRow: (row: BadRow) => void) => AudioBatches,
): Promise<CheckedRows> {
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
  const nameOf = (row: { manifest: string }): LeftOut['manifest'] =>
    row.manifest === manifest ? 'training' : 'validation';
  const earlier = await leftOutBefore(output);
  const before = new Map((skipBad ? (earlier ?? []) : []).map((row) => [`${row.manifest} ${row.line}`, row]));
  const stillThere = (entry: ManifestEntry): boolean => {
    const found = before.get(`${nameOf(entry)} ${entry.line}`);
    if (found) bad.push(badRow(entry, { code: found.code, message: 'it was left out when the run began' }));
    return !found;
  };
  const wanted = training.filter(stillThere);
  if (wanted.length === 0) throw refuse();
  const batches = await tried(() => batchesOf(wanted, (row) => bad.push(row)));
  let kept = validation.filter(stillThere).filter((entry) => {
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
  if (!earlier) {
    const first = batches.length;
    const total = first + kept.length;
    await tried(() => batches.check({ signal, onProgress: (done) => onCheck?.(done, total) }));
    const refused = await checkAudio(kept, {
      strict,
      signal,
      onWarning,
      onProgress: (done) => onCheck?.(first + done, total),
    });
    const lines = new Set(refused.map(({ line }) => line));
    kept = kept.filter(({ line }) => !lines.has(line));
    bad.push(...refused);
  }
  if (bad.length > 0 && !skipBad) throw refuse();
  if (validates && kept.length === 0) throw refuse();
  // A row of both parts is one row.
  const once = sortRows([...new Map(bad.map((row) => [`${nameOf(row)} ${row.line}`, row])).values()]);
  const leftOut = once
    .map((row) => ({ manifest: nameOf(row), line: row.line, code: row.code }))
    .sort((a, b) => (a.manifest === b.manifest ? a.line - b.line : a.manifest < b.manifest ? -1 : 1));
  return { batches, validation: kept, bad: once, leftOut };
}
