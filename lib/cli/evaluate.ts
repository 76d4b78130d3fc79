import type { Command } from 'commander';
import { Option } from 'commander';
import { type BadRow, readManifest } from '../data/index.js';
import { defaultNormalizer, evaluate, formatHypotheses, formatTable, toJSON } from '../evaluate/index.js';
import { openOutput } from '../files/index.js';
import { embedded } from '../recipes/index.js';
import { basicNormalizer, type Normalizer } from '../text/index.js';
import {
  addDecodingOptions,
  addModelOptions,
  type DecodingOptions,
  searchOptions,
  withTranscriber,
} from './decoding.js';
import {
  audioOptions,
  audioRootOption,
  endHelp,
  hintingSkipBad,
  jsonOption,
  leftOutNote,
  MANIFESTS,
  maxDurationOption,
  skipBadOption,
  strictOption,
} from './options.js';
import { again } from './repeats.js';
import { type CommandContext, run } from './run.js';
import { print, printJson } from './streams.js';
import { WarningNotes } from './warnings.js';

const NORMALIZERS: Record<string, Normalizer> = {
  extended: defaultNormalizer,
  basic: basicNormalizer(),
  none: (text) => text,
};

interface Options extends DecodingOptions {
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
    'Transcribe the utterances of a manifest, each in its own language, and count word and character errors by language and domain.',
  );
  addModelOptions(command)
    .option('--manifest <file>', 'utterances (default: the embedded corpus)')
    .option('--split <name>', 'only rows of this split; give it again for more', again)
    .option('--language <language>', 'only rows of this language; give it again for more', again)
    .option('--domain <name>', 'only rows of this domain; give it again for more', again)
    .addOption(audioRootOption())
    .option('--skip-empty-text', 'leave out rows without a text instead of refusing them')
    .addOption(skipBadOption())
    .addOption(strictOption())
    .addOption(maxDurationOption())
    .addOption(
      new Option(
        '--normalizer <name>',
        "applied to both sides: Whisper's basic one, extended (letters of unspaced scripts count as words), or none",
      )
        .choices(Object.keys(NORMALIZERS))
        .default('extended'),
    );
  addDecodingOptions(command, 'utterances')
    .option('--hypotheses <file>', 'write id, reference, hypothesis and wer of every utterance there, as JSON lines')
    .addOption(jsonOption('the report'))
    .action((options: Options) =>
      run(options, (context) => hintingSkipBad(options.skipBad, () => evaluateManifest(options, context))),
    );
  endHelp(command, {
    notes: MANIFESTS,
    examples: [
      'distilwhisper evaluate --split test --language ca',
      'distilwhisper evaluate --model whisper-small --expert runs/ca/expert.catalan.safetensors --manifest fleurs/ca_es/test.tsv',
      'distilwhisper evaluate --manifest words.tsv --skip-empty-text --hypotheses heard.jsonl --json',
    ],
  });
}

async function evaluateManifest(options: Options, context: CommandContext): Promise<'failed' | undefined> {
  const { signal, display } = context;
  const hypotheses = options.hypotheses === undefined ? null : await openOutput(options.hypotheses, { signal });
  const normalizer = NORMALIZERS[options.normalizer]!;
  const { split, domain, language, audioRoot, skipBad = false } = options;
  const badRows: BadRow[] = [];
  const warnings = new WarningNotes(display);
  const entries = readManifest(options.manifest ?? embedded().manifest, {
    split,
    domain,
    language,
    audioRoot,
    emptyText: options.skipEmptyText ? 'skip' : 'error',
    onBadRow: (row) => badRows.push(row),
  });
  const report = await withTranscriber(options, context, (transcriber) =>
    evaluate(transcriber, entries, {
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
