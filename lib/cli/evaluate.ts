import type { Command } from 'commander';
import { type BadRow, openDataset } from '../data/index.js';
import { DistilWhisperError } from '../errors/index.js';
import { evaluate, formatHypotheses, formatTable, toJSON } from '../evaluate/index.js';
import { openOutput } from '../files/index.js';
import { embedded } from '../recipes/index.js';
import { addFilters, type DataOptions, dataOption, manifestOption } from './data-options.js';
import {
  addDecodingOptions,
  addModelOptions,
  type DecodingOptions,
  searchOptions,
  withTranscriber,
} from './decoding.js';
import { NORMALIZERS, normalizerOption } from './normalizers.js';
import {
  audioOptions,
  audioRootOption,
  DATA,
  endHelp,
  hintingSkipBad,
  jsonOption,
  leavesOut,
  leftOutNote,
  MANIFESTS,
  maxDurationOption,
  NAMES,
  skipBadOption,
  strictOption,
} from './options.js';
import { again } from './repeats.js';
import { type CommandContext, hubOptions, run } from './run.js';
import { print, printJson } from './streams.js';
import { WarningNotes } from './warnings.js';

interface Options extends DecodingOptions, DataOptions {
  manifest?: string;
  split?: string[];
  language?: string[];
  domain?: string[];
  audioRoot?: string;
  skipEmptyText?: boolean;
  skipBad?: boolean;
  strict?: boolean;
  maxDuration?: number;
  normalizer: string;
  hypotheses?: string;
  json?: boolean;
}

export function define(command: Command): void {
  command.description(
    'Transcribe the utterances of corpora, each in its own language, and count word and character errors by language and domain.',
  );
  addModelOptions(command)
    .addOption(dataOption('corpora (default: the embedded one)'))
    .addOption(manifestOption())
    .option('--split <name>', 'only rows of this split; give it again for more', again)
    .option('--language <language>', 'only rows of this language; give it again for more', again)
    .option('--domain <name>', 'only rows of this domain; give it again for more', again)
    .addOption(audioRootOption())
    .option('--skip-empty-text', 'leave out rows without a text instead of refusing them')
    .addOption(skipBadOption())
    .addOption(strictOption())
    .addOption(maxDurationOption())
    .addOption(normalizerOption());
  addDecodingOptions(addFilters(command), 'utterances')
    .option(
      '--hypotheses <file>',
      "write what was heard of every utterance there, as JSON lines with its language, domain and wer: 'distilwhisper compare' takes them",
    )
    .addOption(jsonOption('the report'))
    .action((options: Options) =>
      run(options, (context) => hintingSkipBad(options, () => evaluateManifest(options, context))),
    );
  endHelp(command, {
    notes: `${DATA}\n${MANIFESTS}\n\n${NAMES}`,
    examples: [
      'distilwhisper evaluate --model pocket-student --split test --language ca',
      'distilwhisper evaluate --model small --expert runs/ca --data fleurs:fleurs/ca_es',
      'distilwhisper evaluate --model small --data words.tsv --skip-empty-text --hypotheses heard.jsonl --json',
    ],
  });
}

async function evaluateManifest(options: Options, context: CommandContext): Promise<'failed' | undefined> {
  const { signal, display } = context;
  const hypotheses = options.hypotheses === undefined ? null : await openOutput(options.hypotheses, { signal });
  const normalizer = NORMALIZERS[options.normalizer]!;
  const { split, domain, language, audioRoot } = options;
  // A corpus is as others made it; a manifest is one's own.
  const skipBad = leavesOut(options);
  const badRows: BadRow[] = [];
  const warnings = new WarningNotes(display);
  const { data, manifest, minDuration, limit, subset } = options;
  if (data !== undefined && manifest !== undefined)
    throw new DistilWhisperError('ERR_ARGUMENT', 'manifest: expected either data or a manifest, got both');
  const own = data === undefined;
  await using dataset = await openDataset(
    data ?? { kind: 'manifest', path: manifest ?? embedded().manifest, splits: undefined, weight: 1 },
    {
      split,
      defaultSplit: 'test',
      domain,
      languages: language,
      audioRoot,
      emptyText: options.skipEmptyText ? 'skip' : 'error',
      minDuration,
      // Of a manifest that is named alone what is too long is refused.
      maxDuration: own ? undefined : options.maxDuration,
      limit,
      subset,
      hub: hubOptions(context, options),
      signal,
      onBadRow: (row) => badRows.push(row),
      onProgress: (done, total) => display.progress('measuring audio', done, total),
    },
  );
  const report = await withTranscriber(options, context, (transcriber) =>
    evaluate(transcriber, dataset, {
      normalizer,
      ...searchOptions(options),
      signal,
      ...audioOptions(options),
      skipBad,
      badRows,
      onWarning: warnings.add,
      onCheck: (done, total) => display.progress('checking audio', done, total),
      onProgress: ({ done, total, seconds }) =>
        display.progress('evaluating', done, total, `utterances, ${seconds.toFixed(1)} s of audio`),
    }),
  );
  warnings.end();
  await hypotheses?.append(formatHypotheses(report, normalizer));
  await hypotheses?.close();
  if (report.skipped > 0) display.note(`${report.skipped} utterances left out: the normaliser leaves no reference`);
  const left = report.badRows;
  if (left.length > 0) display.note(leftOutNote(left));
  if (options.json) {
    const { hypotheses: _, ...rest } = toJSON(report);
    printJson(rest);
  } else {
    print(formatTable(report));
  }
  // Audio that was lost after it had been tried: the others count, but nobody asked to go on without these.
  return left.length > 0 && !skipBad ? 'failed' : undefined;
}
