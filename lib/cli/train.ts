import type { Command } from 'commander';
import { Option } from 'commander';
import { loraDefaults } from '../model/index.js';
import {
  planTraining,
  recipeDefaults,
  type SaveType,
  saveTypes,
  type TrainMethod,
  type TrainRecipe,
  type TrainResult,
  train,
} from '../recipes/index.js';
import type { FloatName, Stream } from '../tensor/index.js';
import { type TrainingOptions, trainingDefaults } from '../train/index.js';
import { type AugmentationOptions, addAugmentation, augmentationOf } from './augmentation-options.js';
import { addRows, type RowsOptions } from './data-options.js';
import {
  autoOr,
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
  pair,
  positive,
  profileOption,
  real,
  threadsOption,
  typeOption,
  whole,
} from './options.js';
import { again } from './repeats.js';
import { type CommandContext, hubOptions, run, withProfile, withStream } from './run.js';
import { print, printJson } from './streams.js';
import { noteRows, planText, timeText, trainingOutput } from './training-output.js';

type Options = Omit<TrainingOptions, 'steps'> &
  RowsOptions &
  AugmentationOptions & {
    model: string;
    output: string;
    teacher?: string;
    teacherCache?: string;
    method: TrainMethod;
    language?: string;
    languageTemperature?: number;
    freeze?: string[];
    fromScratch?: boolean;
    continueFrom?: string[];
    loraRank?: number;
    loraAlpha?: number;
    loraTargets?: string;
    loraDropout?: number;
    rslora?: boolean;
    validationSplit?: string[];
    validationData?: string[];
    validationManifest?: string;
    validateEvery?: number;
    batchSize: number | 'auto';
    maxMemory?: number;
    dryRun?: boolean;
    epochs?: number;
    steps?: number;
    checkpointEvery?: number;
    tensorboard?: boolean;
    gateHistograms?: number;
    gradientCheckpointing?: boolean;
    copyWeights?: boolean;
    offline?: boolean;
    computeType: 'auto' | FloatName;
    saveAs: SaveType;
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
  ['learningRate', '--learning-rate <x>', 'peak of the learning rate, behind a linear warm-up', real],
  [
    'schedule',
    '--schedule <kind>',
    'decay behind it: linear or cosine to 0, or constant',
    ['linear', 'cosine', 'constant'],
  ],
  ['gateRate', '--gate-rate <x>', 'learning rate of the gates, times that of all else', real],
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
  [
    'gateBudgetOf',
    '--gate-budget-of <which>',
    "whose share: the soft gates' mean, or that of the rows whose hard gate chooses the expert",
    ['soft', 'hard'],
  ],
  [
    'gateForward',
    '--gate-forward <which>',
    'what mixes on the way forward: the soft gates, or their hard choice (straight-through)',
    ['soft', 'hard'],
  ],
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
    .requiredOption('--model <name>', 'the student: model folder or name, see below')
    .requiredOption('--output <folder>', 'run folder: log, checkpoints, and the result')
    .option(
      '--teacher <name>',
      'the teacher, with the same vocabulary: model folder or name, or a folder or decoder of ONNX in fp32, run by onnxruntime-node (default: no distillation)',
    )
    .option(
      '--teacher-cache <folder>',
      "what the teacher says of every utterance, as 'distilwhisper cache-teacher' keeps it: its layers are not loaded then; auto: the run keeps it itself, in its folder, the first time that an utterance comes",
    )
    .addOption(
      choice(
        '--method <which>',
        "'experts': the language's expert; 'distil': the same, from a teacher that must be named; 'lora': low-rank adapters; 'full': all parameters",
        ['experts', 'distil', 'lora', 'full'],
        recipeDefaults.method,
      ),
    )
    .option(
      '--language <language>',
      "code or name of the expert's language, whose rows alone are used; experts need it, or --languages, of which each gets an expert, trained side by side",
    )
    .option(
      '--freeze <part>',
      "with --method full: what stays as it is: encoder, decoder, embeddings, or the beginning of parameters' names, such as encoder.layers.0-3; give it again for more",
      again,
    )
    .option(
      '--from-scratch',
      'with --method full: from random weights; of the model the config and the tokenizer are used',
    )
    .addOption(
      new Option(
        '--continue-from <name>',
        "begin with what was trained before: an expert's file, folder or name (again for more), or with --method lora an adapter's",
      ).argParser(again),
    )
    .option('--lora-rank <n>', `rank of the adapters (default: ${loraDefaults.rank})`, whole(1))
    .option('--lora-alpha <x>', `their scale times the rank (default: ${loraDefaults.alpha})`, positive)
    .option(
      '--lora-targets <names>',
      `ends of the names of the layers that get one, with commas, or a pattern of whole names between slashes (default: ${[loraDefaults.targets].flat().join(',')})`,
    )
    .option('--lora-dropout <p>', `dropout on what they read (default: ${loraDefaults.dropout})`, real)
    .option('--rslora', 'scale by alpha / √rank instead of alpha / rank')
    .optionsGroup('Data:');
  addRows(command, 'train on')
    .option(
      '--language-temperature <T>',
      'sample languages in proportion to n^(1/T) of the n rows that each has: 1 as the data are, more for the small ones to come more often (default: 1)',
      positive,
    )
    .option(
      '--validation-split <name>',
      'rows to validate on; the parameters with the best word error rate are kept; give it again for more',
      again,
    )
    .addOption(
      new Option(
        '--validation-data <data>',
        'where the validation rows are (default: in the same data sets)',
      ).argParser(again),
    )
    .addOption(new Option('--validation-manifest <file>', 'a manifest').hideHelp())
    .option('--validate-every <n>', 'updates between validations (default: an epoch)', whole(1))
    .optionsGroup('Length and pace:')
    .addOption(
      new Option(
        '--batch-size <n>',
        `utterances in a batch; auto: ${recipeDefaults.batchSize}, and run in parts, with layers run again in the backward pass, in bf16, as far as the memory asks for it`,
      )
        .argParser(autoOr(whole(1)))
        .default('auto'),
    )
    .addOption(
      new Option('--max-memory <GiB>', 'memory that the run may take (default: what this process may)').argParser(
        positive,
      ),
    )
    .option('--epochs <n>', `passes over the data (default: ${recipeDefaults.epochs})`, real)
    .option('--steps <n>', 'updates, instead of --epochs', whole(1))
    .option('--checkpoint-every <n>', 'updates between checkpoints (default: a tenth of the run)', whole(0))
    .option(
      '--gradient-checkpointing',
      'run every layer again in the backward pass instead of keeping what it made: less memory, the same numbers, about a third more time',
    )
    .addOption(copyWeightsOption())
    .addOption(
      computeTypeOption(
        ['auto', 'fp32', 'bf16'],
        'auto',
        'type of the products; what trains is held in fp32; auto: fp32, or bf16 where a batch size of auto needs it',
      ),
    )
    .addOption(deviceOption())
    .addOption(threadsOption())
    .addOption(offlineOption())
    .addOption(profileOption())
    .optionsGroup("Objective (the defaults are the paper's):");
  for (const [name, flags, meaning, read] of OBJECTIVE) {
    const value = trainingDefaults[name];
    const option = new Option(flags, meaning).default(value, String(value));
    command.addOption(Array.isArray(read) ? option.choices(read) : option.argParser(read));
  }
  addAugmentation(command);
  command
    .optionsGroup('Result:')
    .addOption(typeOption('--save-as <type>', 'type of the weights that are written', saveTypes, recipeDefaults.saveAs))
    .option(
      '--tensorboard',
      "write the curves of the run as TensorBoard's event files too, in the output's tensorboard/",
    )
    .option('--gate-histograms <n>', "updates between histograms of the gates in the run's log.jsonl", whole(0))
    .option('--dry-run', 'say what the run would take, measured on two updates, and write nothing')
    .addOption(jsonOption('the report'))
    .action((options: Options) =>
      run(options, (context) => hintingSkipBad(options, () => runRecipe(options, context))),
    );
  endHelp(command, {
    notes:
      'Everything is checked before anything is written. On standard output comes the path of the result: an expert file (of several\n' +
      "languages the run folder with all of them), with --method lora an adapter's folder as PEFT writes it, with full a model folder. A\n" +
      'run that was interrupted or killed goes on from its last checkpoint when the same command is given again, with the numbers it would\n' +
      'have had. With other --epochs or --steps it goes on to that length, also when it had ended; less than it has done is refused.\n' +
      `${DATA}\n${MANIFESTS}\n\n${NAMES}`,
    examples: [
      'distilwhisper train --model small --teacher large-v2 --data cv:cv-corpus-13.0/ca --subset 10k --language ca --validation-split dev --output runs/ca',
      'distilwhisper train --model tiny --data words.jsonl --language pl --split train --validation-split dev --steps 500 --output runs/pl',
      'distilwhisper train --model small --teacher large-v2 --teacher-cache auto --data ca.tsv --language ca --output runs/ca --dry-run',
      'distilwhisper train --model config-and-tokenizer --method full --from-scratch --data shards --data fleurs:data/ca_es#train:0.3 --epochs 20 --output runs/scratch',
    ],
    exit: {
      130: 'interrupted by Ctrl-C: a checkpoint is written, and the same command resumes (a second Ctrl-C quits at once)',
    },
  });
}

const choice = (flags: string, meaning: string, choices: string[], value: string): Option =>
  new Option(flags, meaning).choices(choices).default(value);

async function runRecipe(options: Options, context: CommandContext): Promise<undefined> {
  const pick = <K extends keyof Options>(...names: K[]): Pick<Options, K> =>
    Object.fromEntries(names.map((name) => [name, options[name]])) as Pick<Options, K>;
  const validates = [
    options.validationSplit,
    options.validationData,
    options.validationManifest,
    options.validateEvery,
  ].some((x) => x !== undefined);
  const recipe = (stream: Stream): TrainRecipe => ({
    ...pick('model', 'data', 'manifest', 'output', 'teacher', 'teacherCache', 'method', 'freeze', 'fromScratch'),
    ...pick('language', 'languages', 'continueFrom', 'languageTemperature', 'timestamps', 'timestampShare'),
    lora: loraOf(options),
    ...pick('split', 'audioRoot', 'skipEmptyText', 'skipBad', 'strict', 'batchSize', 'epochs', 'steps'),
    ...pick('checkpointEvery', 'tensorboard', 'gateHistograms', 'gradientCheckpointing', 'copyWeights', 'saveAs'),
    ...pick('minDuration', 'maxDuration', 'maxLabels', 'limit', 'subset'),
    text: options.normalizeText,
    compute: options.computeType === 'auto' ? undefined : options.computeType,
    maxMemory: options.maxMemory === undefined ? undefined : Math.floor(options.maxMemory * 2 ** 30),
    options: pick(...OBJECTIVE.map(([name]) => name)),
    augmentation: augmentationOf(options),
    validation: validates
      ? {
          data: options.validationData,
          manifest: options.validationManifest,
          split: options.validationSplit,
          every: options.validateEvery,
        }
      : undefined,
    stream,
    hub: hubOptions(context, options),
    ...trainingOutput(context),
  });
  if (options.dryRun) {
    const { time, ...plan } = await withProfile(options.profile, options, context, () =>
      withStream(options, (stream) => planTraining(recipe(stream))),
    );
    context.display.end();
    noteRows(context.display, plan);
    if (options.json) printJson({ ...plan, time });
    else print(`${[planText(plan), ...(time ? [timeText(time)] : [])].join('\n')}\n`);
    return undefined;
  }
  const work = (stream: Stream): Promise<TrainResult> => train(recipe(stream));
  const result = await withProfile(options.profile, options, context, () => withStream(options, work));
  context.display.note(`done: ${result.updates} updates in ${result.seconds.toFixed(1)} s${bestOf(result.best)}`);
  if (options.json) printJson(result);
  else print(`${result.result}\n`);
  return undefined;
}

function loraOf(options: Options): TrainRecipe['lora'] {
  const { loraRank: rank, loraAlpha: alpha, loraTargets: names, loraDropout: dropout, rslora: rsLora } = options;
  const targets = names === undefined ? undefined : (/^\/(.*)\/$/.exec(names)?.[1] ?? names.split(','));
  const given = Object.entries({ rank, alpha, targets, dropout, rsLora }).filter(([, value]) => value !== undefined);
  return given.length > 0 ? Object.fromEntries(given) : undefined;
}

const bestOf = (best: { score: number; step: number } | null): string =>
  best ? `; best WER ${(100 * best.score).toFixed(1)}% after update ${best.step}` : '';
