/** What the readers of all corpora share: what is wanted of them, and where their rows go. */
import { DistilWhisperError, isDistilWhisperError } from '../../errors/index.js';
import { type BadRow, badRow } from '../bad-rows.js';
import type { RowSource } from '../dataset.js';
import type { ManifestEntry, ManifestOptions } from '../manifest.js';
import type { RowStore } from '../row-store.js';
import type { BlockMemory } from './block-cache.js';

/** Names by which releases call the same part of themselves. */
const SPLITS: Record<string, string> = {
  train: 'train',
  training: 'train',
  dev: 'validation',
  devel: 'validation',
  development: 'validation',
  val: 'validation',
  valid: 'validation',
  validation: 'validation',
  test: 'test',
  testing: 'test',
  eval: 'test',
};

/** A split by the name that all of its names have in common: dev is validation. */
export const splitName = (name: string): string => SPLITS[name.toLowerCase()] ?? name.toLowerCase();

/** Clips of the training and the validation split that the reference takes of a release of Common Voice. */
export const SUBSETS = {
  '3k': { train: 3000, validation: 500 },
  '10k': { train: 10_000, validation: 1000 },
  '28k': { train: 28_000, validation: 1000 },
} as const;
export type Subset = keyof typeof SUBSETS;

/** What is wanted of one corpus. */
export interface Wanted {
  path: string;
  /** As asked for; undefined: all that the corpus counts as its own. */
  splits: readonly string[] | undefined;
  /** Split that is meant where none is asked for and the corpus has it. */
  defaultSplit: string | undefined;
  subset: Subset | undefined;
  /** For the rows of tables. */
  table: Omit<ManifestOptions, 'split' | 'onBadRow' | 'checkFiles'>;
  into: Gathered;
  /** For the audio that is read in blocks. */
  memory: BlockMemory;
  signal: AbortSignal | undefined;
}

/** Reads the index of a corpus; the sources are the caller's to close. */
export type CorpusReader = (wanted: Wanted) => Promise<RowSource[]>;

/** Which rows of a corpus are kept, and how many. */
export class Gathered {
  private count = 0;

  constructor(
    /** What becomes of an entry: null where it is not wanted. Throws what is wrong with it. */
    private readonly edit: (entry: ManifestEntry) => ManifestEntry | null,
    private readonly limit: number,
    private readonly report: (row: BadRow) => void,
  ) {}

  /** Whether as many rows are kept as were asked for. */
  get full(): boolean {
    return this.count >= this.limit;
  }

  /** Adds an entry to a source's rows where it is wanted. */
  take(rows: RowStore, entry: ManifestEntry, place: readonly number[] = []): void {
    if (this.full) return;
    let edited: ManifestEntry | null;
    try {
      edited = this.edit(entry);
    } catch (error) {
      if (!isDistilWhisperError(error)) throw error;
      this.onBadRow(badRow(entry, error));
      return;
    }
    if (!edited) return;
    rows.add(edited, place);
    this.count++;
  }

  /** Tells of a row that cannot be used; those behind the last one that is wanted are nobody's matter. */
  readonly onBadRow = (row: BadRow): void => {
    if (!this.full) this.report(row);
  };
}

/**
 * Which of a corpus' splits are wanted. Without any asked for: `defaultSplit` where it is among them, else `own`.
 * Throws ERR_ARGUMENT where one is not there.
 */
export function chosenSplits(
  { path, splits, defaultSplit }: Pick<Wanted, 'path' | 'splits' | 'defaultSplit'>,
  there: readonly string[],
  own: readonly string[] = there,
): string[] {
  const among = (name: string): string | undefined =>
    there.find((one) => one === name) ?? there.find((one) => splitName(one) === splitName(name));
  if (!splits) {
    const usual = defaultSplit === undefined ? undefined : among(defaultSplit);
    return usual === undefined ? [...own] : [usual];
  }
  if (splits.includes('all')) return [...own];
  const chosen = splits.map((name) => {
    const found = among(name);
    if (found !== undefined) return found;
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `split: ${path} has the splits ${there.join(', ') || 'none'}, got ${JSON.stringify(name)}`,
    );
  });
  return [...new Set(chosen)];
}

/** Ends with ERR_INTERRUPTED where nobody waits any more. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted)
    throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted while the data were read; nothing was written');
}
