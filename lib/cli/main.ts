#!/usr/bin/env node
/**
 * The command line: finds the command and hands over. Only that command's module is loaded, so that help is quick and `doctor`
 * runs where the rest cannot.
 */
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { refuseRepeats } from './repeats.js';
import { printJson, watchStreams } from './streams.js';

interface CommandModule {
  define(command: Command): void;
}

const COMMANDS: [name: string, summary: string, load: () => Promise<CommandModule>][] = [
  ['transcribe', 'turn audio files into text', () => import('./transcribe.js')],
  [
    'train',
    'teach a model a language: its expert, or all parameters, with or without a teacher',
    () => import('./train.js'),
  ],
  [
    'cache-teacher',
    'what a teacher says of every utterance, kept for training runs',
    () => import('./cache-teacher.js'),
  ],
  ['prepare', 'corpora as packed shards, which train at full speed from slow disks', () => import('./prepare.js')],
  ['evaluate', 'word and character error rates by language and domain', () => import('./evaluate.js')],
  ['compare', 'whether one evaluation is better than another', () => import('./compare.js')],
  [
    'benchmark',
    'methods against each other: every one trained and evaluated on the same data, with several seeds',
    () => import('./benchmark.js'),
  ],
  ['push', 'upload an expert to the hub, with a model card', () => import('./push.js')],
  ['export', 'write a model for other runtimes: ONNX', () => import('./export.js')],
  ['convert', "a model in other programs' files or another type: hf, ggml, ctranslate2", () => import('./convert.js')],
  ['profile', 'where the time of a run went: sums up a trace of --profile', () => import('./profile.js')],
  ['doctor', 'what was loaded, which CPU path runs, what is missing and why', () => import('./doctor.js')],
  ['demo', 'the whole method in minutes, on embedded pocket models and synthetic speech', () => import('./demo.js')],
];

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};
const args = process.argv.slice(2);
const program = new Command('distilwhisper')
  .description('Teach a small Whisper a language that it is weak in, and run the result.')
  .version(version, '-v, --version', 'print the version')
  .helpOption('-h, --help', 'print help')
  .showHelpAfterError('(add --help for the options and examples)')
  .exitOverride()
  .addHelpText(
    'after',
    '\nWith distilwhisper <command> --help every command shows its options, examples and exit codes.',
  );

watchStreams();
try {
  for (const [name, summary, load] of COMMANDS) {
    const command = program.command(name).summary(summary);
    if (!args.includes(name)) continue;
    (await load()).define(command);
    refuseRepeats(command);
  }
  await program.parseAsync(args, { from: 'user' });
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  // Commander has printed the help that was asked for, or what is wrong.
  process.exitCode = error.exitCode === 0 ? 0 : 2;
  if (error.exitCode !== 0 && args.includes('--json')) {
    const message = error.message.replace(/^error: /, '');
    printJson({ error: { code: 'ERR_ARGUMENT', message } });
  }
}
