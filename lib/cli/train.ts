import type { Command } from 'commander';
import { Option } from 'commander';
import { recipeDefaults, type TrainMethod, type TrainResult, train } from '../recipes/index.js';
import type { Stream } from '../tensor/index.js';
import { type TrainingOptions, trainingDefaults } from '../train/index.js';
import type { FloatDtype } from '../weights/index.js';
import {
  audioRootOption,
  computeType,
  computeTypeOption,
  copyWeightsOption,
  deviceOption,
  endHelp,
  hintingSkipBad,
  jsonOption,
  MANIFESTS,
  pair,
  profileOption,
  real,
  skipBadOption,
  strictOption,
  threadsOption,
  whole,
} from './options.js';
import { again } from './repeats.js';
import { type CommandContext, run, withProfile, withStream } from './run.js';
import { print, printJson } from './streams.js';
import { trainingOutput } from './training-output.js';

type Options = Omit<TrainingOptions, 'steps'> & {
  model: string;
  manifest: string;
  output: string;
  teacher?: string;
  method: TrainMethod;
  language?: string;
  fromScratch?: boolean;
  split?: string[];
  audioRoot?: string;
  validationSplit?: string[];
  validationManifest?: string;
  validateEvery?: number;
  skipEmptyText?: boolean;
  skipBad?: boolean;
  strict?: boolean;
  batchSize: number;
  epochs?: number;
  steps?: number;
  checkpointEvery?: number;
  gradientCheckpointing?: boolean;
  copyWeights?: boolean;
  computeType: 'fp32' | 'bf16';
  saveAs: FloatDtype;
  device: string;
  threads?: number;
  profile?: string;
  json?: boolean;
};

/** The options of `TrainingOptions`: flags, what they mean, how they are read. Their defaults are `trainingDefaults`. */
const OBJECTIVE: [
  name: keyof typeof trainingDefaults,
  flags: string,
  meaning: string,
  read: ((text: string) => unknown) | string[],
][] = [
  ['learningRate', '--learning-rate <x>', 'peak of the learning rate; linear warm-up, then linear decay to 0', real],
  ['warmup', '--warmup <share>', 'share of the updates that warm up', real],
  ['accumulation', '--accumulation <n>', 'batches whose gradients one update averages', whole(1)],
  ['betas', '--betas <b1,b2>', "AdamW's decay rates", pair],
  ['epsilon', '--epsilon <x>', "AdamW's epsilon", real],
  ['weightDecay', '--weight-decay <x>', "AdamW's weight decay", real],
  ['maxGradientNorm', '--max-gradient-norm <x>', 'gradients are scaled down to this global norm; 0: never', real],
  ['labelSmoothing', '--label-smoothing <x>', 'label smoothing of the cross-entropy', real],
  ['distillation', '--distillation <kind>', 'divergence from the teacher', ['js', 'kl', 'none']],
  ['temperature', '--temperature <x>', 'temperature of the divergence', real],
  ['sigma', '--sigma <s0,s1>', 'the loss is ((CE + budget)/s0² + KD/s1²)/2; without a teacher CE + budget', pair],
  ['gateBudget', '--gate-budget <share>', 'share of rows that should take the expert', real],
  ['skipGate', '--skip-gate <p>', 'probability that a layer leaves its expert out', real],
  ['gateDropout', '--gate-dropout <p>', "dropout on the gates' input", real],
  ['expertDropout', '--expert-dropout <p>', "dropout on the experts' output", real],
  ['gateNoise', '--gate-noise <x>', 'noise on the gates at the end of training; it grows from 0', real],
  ['seed', '--seed <n>', 'of the order of the data and of every random number', whole(0)],
  [
    'compat',
    '--compat <which>',
    "'reference' does what the published code does where the paper differs",
    ['paper', 'reference'],
  ],
  ['workspace', '--workspace <bytes>', 'scratch memory of the distillation loss; 0: 64 MiB, on a GPU 192', whole(0)],
];

export function define(command: Command): void {
  command
    .description(
      "Teach a model a language. By default its expert: every layer gains a gate and a feed-forward block for the language, which alone are trained, with a teacher's help if one is given; all other languages stay exactly as they are. With --method full all parameters are trained.",
    )
    .optionsGroup('What is trained:')
    .requiredOption('--model <folder>', 'model folder of the student (Hugging Face layout)')
    .requiredOption('--output <folder>', 'run folder: log, checkpoints, and the result')
    .option('--teacher <folder>', 'model folder of the teacher, with the same vocabulary (default: no distillation)')
    .addOption(
      choice(
        '--method <which>',
        "'experts': the language's expert; 'full': all parameters",
        ['experts', 'full'],
        recipeDefaults.method,
      ),
    )
    .option(
      '--language <language>',
      "code or name of the expert's language; needed for experts, and only its rows are used",
    )
    .option(
      '--from-scratch',
      'with --method full: from random weights; of the model the config and the tokenizer are used',
    )
    .optionsGroup('Data:')
    .requiredOption('--manifest <file>', 'utterances: audio, text and language; see below')
    .option(
      '--split <name>',
      'rows to train on; give it again for more, or all for every row (default: every row, and refused where some are marked as tests or validation)',
      again,
    )
    .addOption(audioRootOption())
    .option(
      '--validation-split <name>',
      'rows to validate on; the parameters with the best word error rate are kept; give it again for more',
      again,
    )
    .option('--validation-manifest <file>', 'where the validation rows are (default: in the same manifest)')
    .option('--validate-every <n>', 'updates between validations (default: an epoch)', whole(1))
    .option('--skip-empty-text', 'leave out rows without a text instead of refusing them')
    .addOption(skipBadOption())
    .addOption(strictOption())
    .optionsGroup('Length and pace:')
    .addOption(
      new Option('--batch-size <n>', 'utterances in a batch').argParser(whole(1)).default(recipeDefaults.batchSize),
    )
    .option('--epochs <n>', `passes over the data (default: ${recipeDefaults.epochs})`, real)
    .option('--steps <n>', 'updates, instead of --epochs', whole(1))
    .option('--checkpoint-every <n>', 'updates between checkpoints (default: a tenth of the run)', whole(0))
    .option(
      '--gradient-checkpointing',
      'run every layer again in the backward pass instead of keeping what it made: less memory, the same numbers, about a third more time',
    )
    .addOption(copyWeightsOption())
    .addOption(computeTypeOption(['fp32', 'bf16'], 'fp32', 'type of the products; what trains is held in fp32'))
    .addOption(deviceOption())
    .addOption(threadsOption())
    .addOption(profileOption())
    .optionsGroup("Objective (the defaults are the paper's):");
  for (const [name, flags, meaning, read] of OBJECTIVE) {
    const value = trainingDefaults[name];
    const option = new Option(flags, meaning).default(value, String(value));
    command.addOption(Array.isArray(read) ? option.choices(read) : option.argParser(read));
  }
  command
    .optionsGroup('Result:')
    .addOption(
      choice('--save-as <type>', 'type of the weights that are written', ['f32', 'bf16', 'f16'], recipeDefaults.saveAs),
    )
    .addOption(jsonOption('the report'))
    .action((options: Options) =>
      run(options, (context) => hintingSkipBad(options.skipBad, () => runRecipe(options, context))),
    );
  endHelp(command, {
    notes:
      'Everything is checked before anything is written. On standard output comes the path of the result: an expert file, or with\n' +
      '--method full a model folder. A run that was interrupted or killed goes on from its last checkpoint when the same command is\n' +
      'given again, with the numbers it would have had.\n' +
      MANIFESTS,
    examples: [
      'distilwhisper train --model whisper-small --teacher whisper-large-v2 --manifest cv-corpus/ca/train.tsv --language ca --output runs/ca',
      'distilwhisper train --model whisper-tiny --manifest words.jsonl --language pl --split train --validation-split dev --steps 500 --output runs/pl',
      'distilwhisper train --model config-and-tokenizer --method full --from-scratch --manifest speech.jsonl --epochs 20 --output runs/scratch',
    ],
    exit: {
      130: 'interrupted by Ctrl-C: a checkpoint is written, and the same command resumes (a second Ctrl-C quits at once)',
    },
  });
}

const choice = (flags: string, meaning: string, choices: string[], value: string): Option =>
  new Option(flags, meaning).choices(choices).default(value);

async function runRecipe(options: Options, context: CommandContext): Promise<undefined> {
  const given = <K extends keyof Options>(...names: K[]): Pick<Options, K> =>
    Object.fromEntries(names.flatMap((name) => (options[name] === undefined ? [] : [[name, options[name]]]))) as Pick<
      Options,
      K
    >;
  const validates = [options.validationSplit, options.validationManifest, options.validateEvery].some(
    (x) => x !== undefined,
  );
  const work = (stream: Stream): Promise<TrainResult> =>
    train({
      ...given('model', 'manifest', 'output', 'method', 'language', 'fromScratch', 'teacher', 'split', 'skipEmptyText'),
      ...given('batchSize', 'epochs', 'steps', 'checkpointEvery', 'saveAs', 'gradientCheckpointing', 'copyWeights'),
      ...given('audioRoot', 'skipBad', 'strict'),
      compute: computeType(options.computeType),
      options: given(...OBJECTIVE.map(([name]) => name)),
      ...(validates && {
        validation: {
          ...(options.validationManifest !== undefined && { manifest: options.validationManifest }),
          ...(options.validationSplit !== undefined && { split: options.validationSplit }),
          ...(options.validateEvery !== undefined && { every: options.validateEvery }),
        },
      }),
      stream,
      ...trainingOutput(context),
    });
  const result = await withProfile(options.profile, options, context, () => withStream(options, work));
  context.display.note(`done: ${result.updates} updates in ${result.seconds.toFixed(1)} s${bestOf(result.best)}`);
  if (options.json) printJson(result);
  else print(`${result.result}\n`);
  return undefined;
}

const bestOf = (best: { score: number; step: number } | null): string =>
  best ? `; best WER ${(100 * best.score).toFixed(1)}% after update ${best.step}` : '';
