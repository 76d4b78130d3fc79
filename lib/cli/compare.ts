import { type Command, Option } from 'commander';
import { formatComparison } from '../evaluate/index.js';
import { compareFiles } from '../recipes/index.js';
import { NORMALIZERS, normalizerOption } from './normalizers.js';
import { endHelp, jsonOption, whole } from './options.js';
import { run } from './run.js';
import { print, printJson } from './streams.js';

interface Options {
  against?: string[];
  metric: 'wer' | 'cer';
  normalizer: string;
  resamples: number;
  seed: number;
  json?: boolean;
}

export function define(command: Command): void {
  command
    .description(
      'Say whether one evaluation is better than another, from what both heard of the same utterances: by language and domain, with intervals over utterances and, where there are several runs of each, over runs.',
    )
    .argument('<hypotheses...>', "files of 'evaluate --hypotheses': a and b, or all runs of a")
    .option('--against <hypotheses...>', 'all runs of b')
    .addOption(new Option('--metric <name>', 'word or character errors').choices(['wer', 'cer']).default('wer'))
    .addOption(normalizerOption())
    .option('--resamples <n>', 'draws of the bootstrap', whole(100), 10_000)
    .option('--seed <n>', 'of the draws', whole(0), 0)
    .addOption(jsonOption('the comparison'))
    .action((files: string[], options: Options, self: Command) => {
      if (options.against === undefined && files.length !== 2)
        self.error(`error: expected two files, or runs of a --against runs of b, got ${files.length}`);
      const [a, b] = options.against ? [files, options.against] : [files.slice(0, 1), files.slice(1)];
      return run(options, async () => {
        const { metric, resamples, seed } = options;
        const normalizer = NORMALIZERS[options.normalizer]!;
        const comparison = await compareFiles(a, b, { metric, normalizer, resamples, seed });
        if (options.json) printJson(comparison);
        else print(formatComparison(comparison));
        return undefined;
      });
    });
  endHelp(command, {
    notes:
      'b is called better, or a, where both intervals leave out 0. With one run of a side the second cannot be told: another seed of the\n' +
      'same training may move an error rate further than the test set can show.',
    examples: [
      'distilwhisper compare before.jsonl after.jsonl',
      'distilwhisper compare experts-*.jsonl --against distilled-*.jsonl',
    ],
  });
}
