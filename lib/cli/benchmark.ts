import { type Command, Option } from 'commander';
import {
  type BenchmarkSpec,
  benchmark,
  benchmarkMarkdown,
  planBenchmark,
  readBenchmark,
  WAYS,
} from '../recipes/index.js';
import { endHelp, jsonOption, offlineOption, threadsOption, whole } from './options.js';
import { hubOptions, run } from './run.js';
import { print, printJson } from './streams.js';

interface Options {
  output: string;
  parallel: number;
  threads?: number;
  seeds?: number[];
  methods?: string[];
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
    .addOption(
      new Option('--parallel <n>', 'cells that run at once, each with its share of the threads')
        .argParser(whole(1))
        .default(1),
    )
    .addOption(threadsOption())
    .addOption(offlineOption())
    .option('--dry-run', 'check the file, say how many runs it is, and write nothing')
    .addOption(jsonOption('the numbers'))
    .action((file: string, options: Options) =>
      run(options, async (context) => {
        const { display, signal } = context;
        const spec = chosen(await readBenchmark(file), options);
        const { cells, rates } = planBenchmark(spec);
        display.note(`${cells} runs${rates > 0 ? `, ${rates} of them to choose learning rates` : ''}`);
        if (options.dryRun) {
          if (options.json) printJson({ cells, rates });
          return undefined;
        }
        const { output, parallel, threads } = options;
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
      'each with what it has of its own (learningRates, options, lora, epochs or steps), {} for nothing; seeds; train, validation and test,\n' +
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

/** The benchmark, or the part of it that is asked for. */
function chosen(spec: BenchmarkSpec, { methods, seeds = [...spec.seeds] }: Options): BenchmarkSpec {
  const own = Object.entries(spec.methods).filter(([name]) => methods === undefined || methods.includes(name));
  return { ...spec, seeds, methods: Object.fromEntries(own) };
}
