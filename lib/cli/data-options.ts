/** Options of the commands that read corpora. */
import { type Command, Option } from 'commander';
import { SUBSETS, type Subset, TEXT_FORMS, type TextForm } from '../data/index.js';
import { audioRootOption, positive, real, skipBadOption, strictOption, whole } from './options.js';
import { again } from './repeats.js';

export interface DataOptions {
  data?: string[];
  minDuration?: number;
  maxLabels?: number;
  limit?: number;
  subset?: Subset;
  normalizeText?: TextForm;
}

/** Of the commands that take the rows that a run trains on. */
export interface RowsOptions extends DataOptions {
  manifest?: string;
  split?: string[];
  audioRoot?: string;
  skipEmptyText?: boolean;
  skipBad?: boolean;
  strict?: boolean;
  maxDuration?: number;
  languages?: string[];
  timestamps?: boolean;
  timestampShare?: number;
}

/** Which rows a run trains on, by `RowsOptions`; `use`: what becomes of them ("train on"). */
export function addRows(command: Command, use: string): Command {
  return addFilters(
    command
      .addOption(dataOption(`corpora to ${use}`))
      .addOption(manifestOption())
      .option(
        '--split <name>',
        `rows to ${use}; give it again for more, or all for every row (default: every row, and refused where some are marked as tests or validation)`,
        again,
      )
      .addOption(audioRootOption())
      .option('--skip-empty-text', 'leave out rows without a text instead of refusing them')
      .addOption(skipBadOption())
      .addOption(strictOption())
      .option('--max-duration <seconds>', 'leave out rows that last longer', positive)
      .option('--max-labels <n>', 'leave out rows whose labels are more tokens', whole(1))
      .option('--languages <language>', 'without --language: only rows of this one; give it again for more', again)
      .addOption(normalizeTextOption())
      .option(
        '--timestamps',
        "labels have timestamps: of the rows' segments where they have them, else where the utterance begins and ends",
      )
      .option('--timestamp-share <share>', 'only of a share of the utterances, such as 0.5 (default: 1)', real),
  );
}

/** The data sets, which may be several. */
export const dataOption = (meaning: string): Option =>
  new Option('--data <data>', `${meaning}; give it again for several; see below`).argParser(again);

/** The older name of `--data`, of a manifest alone: it works, and has no place in the help. */
export const manifestOption = (): Option => new Option('--manifest <file>', 'a manifest').hideHelp();

/** Which rows of the data sets. */
export function addFilters(command: Command): Command {
  return command
    .option('--min-duration <seconds>', 'leave out rows that last less', positive)
    .option('--limit <n>', 'only the first rows of each data set', whole(1))
    .addOption(
      new Option(
        '--subset <size>',
        "of Common Voice the clips with the most votes, as many as the paper's runs: 3k, 10k or 28k to train on, 500 or 1000 to validate on",
      ).choices(Object.keys(SUBSETS)),
    );
}

/** What becomes of the texts. */
export const normalizeTextOption = (): Option =>
  new Option(
    '--normalize-text <name>',
    "what becomes of the texts besides Unicode's composed form (NFC): nothing, Whisper's basic normaliser, or extended (letters of unspaced scripts count as words)",
  )
    .choices(TEXT_FORMS)
    .default('none');
