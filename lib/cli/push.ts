import type { Command } from 'commander';
import { push } from '../recipes/index.js';
import { endHelp, jsonOption } from './options.js';
import { type CommandContext, run } from './run.js';
import { print, printJson } from './streams.js';

interface Options {
  to: string;
  private?: boolean;
  dryRun?: boolean;
  evaluation?: string;
  baseModel?: string;
  json?: boolean;
}

export function define(command: Command): void {
  command
    .description(
      'Upload what a run has made (its expert, or with --method lora its adapter, with full its model) to a repository of the hub, with a model card that says how it was made, what it hears and how to use it. Others name it then: --expert org/name.',
    )
    .argument('<run>', 'run folder of a training that is done')
    .requiredOption('--to <org/name>', 'the repository; it is made where it is not')
    .option('--private', 'make a new repository private')
    .option('--dry-run', 'print what would be uploaded, and upload nothing')
    .option(
      '--evaluation <file>',
      "what 'evaluate --json' printed (default: the run's evaluation.json, if there is one)",
    )
    .option(
      '--base-model <org/name>',
      'the model that the expert or adapter belongs to, where the run was given a folder',
    )
    .addOption(jsonOption('the page, the files and the card'))
    .action((folder: string, options: Options) => run(options, (context) => pushRun(folder, options, context)));
  endHelp(command, {
    notes: 'It needs a token that may write, in HF_TOKEN or as a login has left it. HF_ENDPOINT names another hub.',
    examples: [
      'distilwhisper push runs/ca --to org/whisper-small-ca --dry-run',
      'distilwhisper evaluate --model small --expert runs/ca --data fleurs:fleurs/ca_es --json > runs/ca/evaluation.json',
      'distilwhisper push runs/ca --to org/whisper-small-ca --private',
    ],
  });
}

async function pushRun(folder: string, options: Options, { signal, display }: CommandContext): Promise<undefined> {
  const { json, ...settings } = options;
  const result = await push({
    ...settings,
    run: folder,
    signal,
    onProgress: ({ repository, done, total }) => display.bytes(`uploading to ${repository}`, done, total),
  });
  if (json) printJson(result);
  else if (result.url !== null) print(`${result.url}\n`);
  else {
    const files = result.files.map(({ path, bytes }) => `  ${path}  ${bytes.toLocaleString('en')} bytes`);
    print(`${options.to} would get:\n${files.join('\n')}\n\n${result.card}`);
  }
  return undefined;
}
