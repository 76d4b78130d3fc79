import type { Command } from 'commander';
import { Option } from 'commander';
import { readManifest } from '../data/index.js';
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
import { again, endHelp, jsonOption } from './options.js';
import { type CommandContext, run } from './run.js';
import { print, printJson } from './streams.js';

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
  skipEmptyText?: boolean;
  normalizer: string;
  hypotheses?: string;
  json?: boolean;
}

export function define(command: Command): void {
  command.description(
    'Transcribe the utterances of a manifest, each in its own language, and count word and character errors by language and domain. A manifest is JSONL or TSV with the columns audio, text and language, and where wanted split and domain.',
  );
  addModelOptions(command)
    .option('--manifest <file>', 'utterances (default: the embedded corpus)')
    .option('--split <name>', 'only rows of this split; give it again for more', again)
    .option('--language <language>', 'only rows of this language; give it again for more', again)
    .option('--domain <name>', 'only rows of this domain; give it again for more', again)
    .option('--skip-empty-text', 'leave out rows without a text instead of refusing them')
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
    .action((options: Options) => run(options, (context) => evaluateManifest(options, context)));
  endHelp(command, {
    examples: [
      'distilwhisper evaluate --split test --language ca',
      'distilwhisper evaluate --model whisper-small --expert runs/ca/expert.catalan.safetensors --manifest fleurs-ca.jsonl',
      'distilwhisper evaluate --manifest words.tsv --skip-empty-text --hypotheses heard.jsonl --json',
    ],
  });
}

async function evaluateManifest(options: Options, context: CommandContext): Promise<undefined> {
  const { signal, display } = context;
  const hypotheses = options.hypotheses === undefined ? null : await openOutput(options.hypotheses, { signal });
  const normalizer = NORMALIZERS[options.normalizer]!;
  const { split, domain, language } = options;
  const entries = readManifest(options.manifest ?? embedded().manifest, {
    ...(split && { split }),
    ...(domain && { domain }),
    ...(language && { language }),
    emptyText: options.skipEmptyText ? 'skip' : 'error',
  });
  const report = await withTranscriber(options, context, (transcriber) =>
    evaluate(transcriber, entries, {
      normalizer,
      ...searchOptions(options),
      signal,
      onProgress: ({ done, total, seconds }) =>
        display.progress('evaluating', done, total, `utterances, ${seconds.toFixed(1)} s of audio`),
    }),
  );
  await hypotheses?.append(formatHypotheses(report, normalizer));
  await hypotheses?.close();
  if (report.skipped > 0) display.note(`${report.skipped} utterances left out: the normaliser leaves no reference`);
  if (options.json) {
    const { hypotheses: _, ...rest } = toJSON(report);
    printJson(rest);
  } else {
    print(formatTable(report));
  }
  return undefined;
}
