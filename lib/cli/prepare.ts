import { type Command, InvalidArgumentError, Option } from 'commander';
import { openDataset, type PrepareReport, prepare } from '../data/index.js';
import { addFilters, type DataOptions, normalizeTextOption } from './data-options.js';
import {
  audioRootOption,
  DATA,
  endHelp,
  jsonOption,
  leftOutNote,
  MANIFESTS,
  offlineOption,
  positive,
} from './options.js';
import { again } from './repeats.js';
import { type CommandContext, hubOptions, run } from './run.js';
import { print, printJson } from './streams.js';
import { WarningNotes } from './warnings.js';

interface Options extends DataOptions {
  output: string;
  split?: string[];
  language?: string[];
  maxDuration?: number;
  audioRoot?: string;
  skipEmptyText?: boolean;
  strict?: boolean;
  segments?: boolean;
  shardSize: number;
  offline?: boolean;
  json?: boolean;
}

const UNITS: Record<string, number> = { k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };

/** Bytes, with a unit: 256MiB, 1G. */
function bytes(text: string): number {
  const [, number, unit = ''] = /^(\d+(?:\.\d+)?) ?([kmg])?(?:i?b)?$/i.exec(text) ?? [];
  const value = Math.round(Number(number) * (UNITS[unit.toLowerCase()] ?? 1));
  if (value >= 1) return value;
  throw new InvalidArgumentError('Expected a size in bytes, such as 256MiB or 1GiB.');
}

export function define(command: Command): void {
  command
    .description(
      'Turn corpora into packed shards: speech at 16 kHz with text, language and split, in a few large files that are read forward, for training from slow or distant disks.',
    )
    .argument('<data...>', 'data sets; see below')
    .requiredOption('--output <folder>', 'folder for the shards')
    .option(
      '--split <name>',
      'only rows of this split; give it again for more (default: all that a corpus counts as its own)',
      again,
    )
    .option(
      '--language <language>',
      'only rows of this language, and that of rows that name none; give it again for more',
      again,
    )
    .addOption(audioRootOption())
    .option('--skip-empty-text', 'leave out rows without a text instead of telling of them')
    .option('--max-duration <seconds>', 'leave out rows that last longer', positive);
  addFilters(command)
    .addOption(normalizeTextOption())
    .option('--segments', "keep when the parts of the texts are spoken, of manifests' column segments")
    .addOption(
      new Option('--shard-size <size>', 'a shard ends with the row that makes it so large')
        .argParser(bytes)
        .default(2 ** 28, '256MiB'),
    )
    .option(
      '--strict',
      'a row that cannot be used, or whose audio is unusual, ends the work (default: it is left out and told)',
    )
    .addOption(offlineOption())
    .addOption(jsonOption('the report'))
    .action((data: string[], options: Options) => run(options, (context) => prepareData(data, options, context)));
  endHelp(command, {
    notes:
      'On standard output comes the path of the folder, which --data of train and evaluate takes. Each shard stands there whole or not at\n' +
      'all: work that was interrupted or killed goes on when the same command is given again, and ends with the same bytes.\n' +
      `${DATA}\n${MANIFESTS}`,
    examples: [
      'distilwhisper prepare cv:cv-corpus-13.0/ca --subset 10k --output shards/ca',
      'distilwhisper prepare fleurs:data/ca_es parquet:voxpopuli#train --max-duration 30 --output shards/mixed',
    ],
    exit: { 130: 'interrupted by Ctrl-C: the shards that are written stay, and the same command goes on' },
  });
}

async function prepareData(data: string[], options: Options, context: CommandContext): Promise<undefined> {
  const { signal, display } = context;
  const { output, split, language, strict, audioRoot, minDuration, maxDuration, limit, subset } = options;
  const warnings = new WarningNotes(display);
  await using dataset = await openDataset(data, {
    split,
    languages: language,
    audioRoot,
    emptyText: options.skipEmptyText ? 'skip' : 'error',
    minDuration,
    maxDuration,
    limit,
    subset,
    text: options.normalizeText,
    segments: options.segments,
    strict,
    hub: hubOptions(context, options),
    signal,
    onProgress: (done, total) => display.progress('measuring audio', done, total),
  });
  const report = await prepare(dataset, {
    output,
    shardBytes: options.shardSize,
    strict,
    signal,
    onWarning: warnings.add,
    onProgress: ({ done, total, seconds, shards }) =>
      display.progress('preparing', done, total, `${(seconds / 3600).toFixed(2)} h, ${shards} shards`),
  });
  warnings.end();
  const whole: PrepareReport = { ...report, badRows: [...dataset.badRows, ...report.badRows] };
  if (whole.badRows.length > 0) display.note(leftOutNote(whole.badRows));
  display.note(
    `${whole.rows.toLocaleString('en')} utterances, ${(whole.seconds / 3600).toFixed(2)} h, in ${whole.shards} shards of ${(whole.bytes / 2 ** 20).toFixed(1)} MiB in all`,
  );
  if (options.json) printJson(whole);
  else print(`${output}\n`);
  return undefined;
}
