import type { Command } from 'commander';
import { Option } from 'commander';
import {
  DEMO_EPOCHS,
  DEMO_LANGUAGE,
  type DemoResult,
  type DemoSettings,
  type DemoStage,
  demo,
  formatDemo,
} from '../recipes/index.js';
import { endHelp, jsonOption, offlineOption, real, threadsOption } from './options.js';
import { type CommandContext, hubOptions, invocation, run, shellWord, withStream } from './run.js';
import { print, printJson } from './streams.js';
import { trainingOutput } from './training-output.js';

const STAGES: Record<DemoStage, string> = {
  before: 'the student before: every language, in and out of domain',
  train: "training the language's expert, by distillation from the teacher",
  after: 'the student with its expert: every language again',
};

type Options = Pick<DemoSettings, 'student' | 'teacher' | 'manifest' | 'language' | 'epochs'> & {
  output: string;
  threads?: number;
  offline?: boolean;
  json?: boolean;
};

export function define(command: Command): void {
  command
    .description(
      'The method at work in minutes: evaluate a pocket student in all languages, teach it one by distillation from a pocket teacher, evaluate again, and print one table. The embedded models and their corpus are synthetic speech: it shows how the method behaves, and says nothing about real speech.',
    )
    .option('--output <folder>', 'run folder', 'distilwhisper-demo')
    .addOption(new Option('--epochs <n>', 'passes over the training data').argParser(real).default(DEMO_EPOCHS))
    .addOption(threadsOption())
    .addOption(jsonOption('the result'))
    .optionsGroup('On models and data of your own (default: the embedded ones):')
    .option('--student <name>', 'model folder or name of the hub')
    .option('--teacher <name>', 'model folder or name of the hub')
    .addOption(offlineOption())
    .option('--manifest <file>', 'with splits named train, validation and test')
    .option('--language <language>', `code or name of the language that is taught (default: ${DEMO_LANGUAGE})`)
    .action((options: Options) => run(options, (context) => runDemo(options, context)));
  endHelp(command, {
    notes:
      'Given again with the same folder it goes on where it was interrupted, and after a finished run it trains nothing and prints\n' +
      'the table again. With other options, or to train anew, name another --output.',
    examples: [
      'distilwhisper demo',
      'distilwhisper demo --epochs 3 --output quick',
      'distilwhisper demo --json > demo.json',
    ],
    exit: { 130: 'interrupted by Ctrl-C; the same command resumes (a second Ctrl-C quits at once)' },
  });
}

async function runDemo(options: Options, context: CommandContext): Promise<undefined> {
  const { display } = context;
  const { threads, json: _, offline: __, ...settings } = options;
  const result = await withStream({ device: 'cpu', threads }, (stream) =>
    demo({
      ...settings,
      stream,
      hub: hubOptions(context, options),
      ...trainingOutput(context),
      onStage: (started) => {
        display.end();
        display.note(`* ${STAGES[started]}`);
      },
      onProgress: (done, total) => display.progress('evaluating', done, total),
    }),
  );
  if (result.training.updates === 0) {
    display.note(`${options.output} holds a finished run: nothing was trained; name another --output to train anew`);
  }
  const command = transcribeCommand(options, result);
  if (options.json) printJson({ ...result, command });
  else print(report(options, result, command));
  return undefined;
}

/** The command that transcribes the example with the expert, as it was transcribed here. */
function transcribeCommand(options: Options, { example, expert, language }: DemoResult): string {
  const model = options.student ?? 'pocket-student';
  const words = ['transcribe', example.audio, '--model', model, '--expert', expert, '--language', language];
  return `${invocation()} ${words.map(shellWord).join(' ')}`;
}

function report(options: Options, result: DemoResult, command: string): string {
  const { training, parameters, example, expert, seconds } = result;
  const count = (n: number): string => n.toLocaleString('en');
  const trained = training.updates === 0 ? '' : `, ${training.seconds.toFixed(0)} s of them training`;
  const lines = [
    ...(options.manifest === undefined ? ['The speech is synthetic: see corpus/README.md.'] : []),
    `parameters  ${count(parameters)} in the student, ${count(training.trainable)} trained, ${count(training.active)} active for a row`,
    `time        ${seconds.toFixed(0)} s${trained}`,
    `expert      ${expert}`,
    '',
    `said        ${example.reference}`,
    `before      ${example.before}`,
    `after       ${example.after}`,
    '',
    'Hear it again with the expert:',
    `  ${command}`,
  ];
  return `\n${formatDemo(result)}\n${lines.join('\n')}\n`;
}
