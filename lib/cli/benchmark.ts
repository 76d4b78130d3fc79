import { type Command, Option } from 'commander';
import { DistilWhisperError, shown } from '../errors/index.js';
import {
  type BenchmarkSpec,
  benchmark,
  benchmarkMarkdown,
  type CellPlan,
  estimateBenchmark,
  gibibytes,
  planBenchmark,
  readBenchmark,
  WAYS,
} from '../recipes/index.js';
import { clock } from './display.js';
import { autoOr, endHelp, jsonOption, offlineOption, threadsOption, whole } from './options.js';
import { hubOptions, run } from './run.js';
import { print, printJson } from './streams.js';

interface Options {
  output: string;
  parallel: number | 'auto';
  threads?: number;
  seeds?: number[];
  methods?: string[];
  languages?: string[];
  dryRun?: boolean;
  offline?: boolean;
  json?: boolean;
}

const list = (text: string): string[] => text.split(',').map((part) => part.trim());

export function define(command: Command): void {
  command
    .description(
      'Train and evaluate every method on the same data, with several seeds, and say which differences are differences: error rates of the language that is taught and of all others, learning rates chosen on validation, what it took, curves and gates, as Markdown, CSV, JSON and one HTML page.',
    )
    .argument('<file>', 'JSON: what is compared, see below')
    .requiredOption('--output <folder>', 'where cells and reports go; given again it goes on')
    .addOption(new Option('--methods <names>', "of the file's methods only these, with commas").argParser(list))
    .addOption(
      new Option('--seeds <numbers>', "instead of the file's, with commas").argParser((text) =>
        list(text).map(whole(0)),
      ),
    )
    .addOption(new Option('--languages <names>', "instead of the file's, with commas").argParser(list))
    .addOption(
      new Option(
        '--parallel <n>',
        'cells that run at once, each with its share of the threads; auto: as many as there are threads for, and memory',
      )
        .argParser(autoOr(whole(1)))
        .default(1),
    )
    .addOption(threadsOption())
    .addOption(offlineOption())
    .option(
      '--dry-run',
      'say which runs it is and what they take, measured on two updates of each kind, and write nothing',
    )
    .addOption(jsonOption('the numbers'))
    .action((file: string, options: Options) =>
      run(options, async (context) => {
        const { display, signal } = context;
        const spec = chosen(await readBenchmark(file), options);
        const { cells, rates } = planBenchmark(spec);
        display.note(`${cells} runs${rates > 0 ? `, ${rates} of them to choose learning rates` : ''}`);
        const { output, parallel, threads } = options;
        if (options.dryRun) {
          const plans = await estimateBenchmark({ spec, output, threads, signal, hub: hubOptions(context, options) });
          if (options.json) printJson({ cells, rates, plans });
          else print(plansText(plans));
          return undefined;
        }
        const result = await benchmark({
          spec,
          output,
          parallel,
          threads,
          signal,
          hub: hubOptions(context, options),
          onCell: (cell, what, done, total) =>
            display.note(`${done}/${total} ${what === 'train' ? 'training' : 'evaluating'} ${cell}`),
          onUpdate: (cell, { step, loss }) => display.progress(cell, step, step, `updates  loss ${loss.toFixed(3)}`),
          onEvaluated: (cell, done, total) => display.progress(`${cell}, evaluating`, done, total),
        });
        display.end();
        display.note(`report: ${result.files.html}`);
        const { curves: _, worst: __, files, ...numbers } = result;
        if (options.json) printJson({ ...numbers, files });
        else print(benchmarkMarkdown(result));
        return undefined;
      }),
    );
  endHelp(command, {
    notes:
      `The file is an object of: model; teacher; languages, each taught in runs of its own; methods, an object of ${Object.keys(WAYS).join(', ')},\n` +
      "each with what it has of its own (learningRates, options, lora, epochs or steps), {} for nothing, or of a name of one's own with its way\n" +
      '("calm": { "way": "distil", "options": { "gateNoise": 0.5 } }); seeds; train, validation and test,\n' +
      'each with data or a manifest, and split; epochs or steps; batchSize; compute; options, as the API names them (learningRate, …).\n' +
      'Several learningRates are tried with the first seed, and the one with the best validation goes on with the others. A benchmark that was\n' +
      'interrupted or killed goes on when the same command is given again; seeds, methods and languages may be added.',
    examples: [
      'distilwhisper benchmark compare.json --output runs/compare',
      'distilwhisper benchmark compare.json --output runs/compare --methods experts,distil --seeds 1,2 --parallel 2',
    ],
    exit: { 130: 'interrupted by Ctrl-C; the same command goes on (a second Ctrl-C quits at once)' },
  });
}

/** A line for each kind of run, and one for all. */
function plansText(plans: readonly CellPlan[]): string {
  const lines = plans.map(({ way, language, runs, memory, seconds }) => {
    const time = seconds === null ? 'too few utterances for an update' : `${clock(seconds)} of training each`;
    return `${way} ${language}: ${runs} ${runs === 1 ? 'run' : 'runs'}, ${gibibytes(memory)} at the peak, ${time}`;
  });
  const all = plans.reduce((sum, { runs, seconds }) => sum + runs * (seconds ?? 0), 0);
  return `${[...lines, `one after the other: ${clock(all)} of training, and validations and tests besides`].join('\n')}\n`;
}

/** The benchmark, or the part of it that is asked for. Throws ERR_ARGUMENT for a method that the file does not have. */
function chosen(spec: BenchmarkSpec, { methods, seeds, languages }: Options): BenchmarkSpec {
  const names = Object.keys(spec.methods);
  const unknown = methods?.find((name) => !names.includes(name));
  if (unknown !== undefined)
    throw new DistilWhisperError('ERR_ARGUMENT', `--methods: expected of ${names.join(', ')}, got ${shown(unknown)}`);
  const own = Object.entries(spec.methods).filter(([name]) => methods === undefined || methods.includes(name));
  return {
    ...spec,
    seeds: seeds ?? spec.seeds,
    languages: languages ?? spec.languages,
    methods: Object.fromEntries(own),
  };
}
