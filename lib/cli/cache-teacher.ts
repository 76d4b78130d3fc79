import type { Command } from 'commander';
import { Option } from 'commander';
import { cacheTeacher, gibibytes } from '../recipes/index.js';
import { addRows, type RowsOptions } from './data-options.js';
import {
  computeTypeOption,
  copyWeightsOption,
  DATA,
  deviceOption,
  endHelp,
  hintingSkipBad,
  jsonOption,
  MANIFESTS,
  NAMES,
  offlineOption,
  positive,
  profileOption,
  threadsOption,
} from './options.js';
import { type CommandContext, hubOptions, run, withProfile, withStream } from './run.js';
import { print, printJson } from './streams.js';
import { noteRows } from './training-output.js';
import { WarningNotes } from './warnings.js';

interface Options extends RowsOptions {
  teacher: string;
  output: string;
  language?: string;
  maxMemory?: number;
  copyWeights?: boolean;
  computeType: 'fp32' | 'bf16';
  device: string;
  threads?: number;
  offline?: boolean;
  profile?: string;
  json?: boolean;
}

export function define(command: Command): void {
  command
    .description(
      "Keep what a teacher says of every utterance: its last hidden row for each label, in bf16. Training runs take it from there ('train --teacher-cache') and never load the teacher's layers, as often as one likes.",
    )
    .requiredOption('--teacher <name>', 'the teacher: model folder or name, see below')
    .requiredOption('--output <folder>', 'where it is kept; what is there already is not asked for again')
    .option('--language <language>', 'only rows of this language, by code or name');
  addRows(command, 'keep it for')
    .addOption(
      new Option('--max-memory <GiB>', 'memory that it may take (default: what this process may)').argParser(positive),
    )
    .addOption(copyWeightsOption())
    .addOption(computeTypeOption(['fp32', 'bf16'], 'fp32', 'type of the products'))
    .addOption(deviceOption())
    .addOption(threadsOption())
    .addOption(offlineOption())
    .addOption(profileOption())
    .addOption(jsonOption('the report'))
    .action((options: Options) =>
      run(options, (context) => hintingSkipBad(options, () => runRecipe(options, context))),
    );
  endHelp(command, {
    notes:
      'Rows are found by the weights of the teacher, the bytes of the audio, and the labels: a run whose utterances are others is told which\n' +
      'are missing. Interrupted or killed, the same command goes on. On standard output comes the path of the folder.\n' +
      `${DATA}\n${MANIFESTS}\n\n${NAMES}`,
    examples: [
      'distilwhisper cache-teacher --teacher large-v2 --data cv:cv-corpus-13.0/ca --language ca --output teacher-ca',
      'distilwhisper train --model small --teacher large-v2 --teacher-cache teacher-ca --data cv:cv-corpus-13.0/ca --language ca --output runs/ca',
    ],
    exit: { 130: 'interrupted by Ctrl-C; the same command goes on (a second Ctrl-C quits at once)' },
  });
}

async function runRecipe(options: Options, context: CommandContext): Promise<undefined> {
  const { signal, display } = context;
  const {
    threads: _,
    device: __,
    profile: ___,
    json: ____,
    computeType: type,
    maxMemory,
    offline,
    normalizeText: text,
    ...recipe
  } = options;
  const warnings = new WarningNotes(display);
  const result = await withProfile(options.profile, options, context, () =>
    withStream(options, (stream) =>
      cacheTeacher({
        ...recipe,
        text,
        compute: type,
        maxMemory: maxMemory === undefined ? undefined : Math.floor(maxMemory * 2 ** 30),
        stream,
        hub: hubOptions(context, { offline }),
        signal,
        onWarning: warnings.add,
        onCheck: (done, total) => display.progress('checking audio', done, total),
        onStart: ({ utterances, missing, bytes, badRows, heldOut }) => {
          warnings.end();
          noteRows(display, { badRows, heldOut });
          display.note(
            `plan: ${missing.toLocaleString('en')} of ${utterances.toLocaleString('en')} utterances are missing; ${gibibytes(bytes)} on the disk`,
          );
        },
        onProgress: (done, total) => display.progress('asking the teacher', done, total),
      }),
    ),
  );
  display.note(`done: ${result.missing.toLocaleString('en')} utterances in ${result.seconds.toFixed(1)} s`);
  if (options.json) printJson(result);
  else print(`${result.cache}\n`);
  return undefined;
}
