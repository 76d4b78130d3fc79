import type { Command } from 'commander';
import { Option } from 'commander';
import { convert, FORMAT_TYPES, type ModelFormat, type WeightType } from '../export/index.js';
import { endHelp, jsonOption, NAMES, offlineOption } from './options.js';
import { type CommandContext, hubOptions, run } from './run.js';
import { print, printJson } from './streams.js';

interface Options {
  to: string;
  format: ModelFormat;
  dtype?: WeightType;
  tokenizer?: string;
  adapter?: string;
  replace?: boolean;
  offline?: boolean;
  json?: boolean;
}

const types = [...new Set(Object.values(FORMAT_TYPES).flat())];

export function define(command: Command): void {
  command
    .description(
      "Write a model in another program's files or in another type: from a folder of Hugging Face's (safetensors or pytorch_model.bin), a checkpoint of OpenAI's or the reference's, or an expert's pickle.",
    )
    .argument('<model>', 'model folder or name, .pt of OpenAI, or expert file')
    .requiredOption('--to <path>', 'where it is written: a folder, for ggml and an expert a file')
    .addOption(
      new Option('--format <name>', "whose files: Hugging Face's folder, whisper.cpp's file, CTranslate2's folder")
        .choices(Object.keys(FORMAT_TYPES))
        .default('hf'),
    )
    .addOption(new Option('--dtype <type>', 'type of the weights (default: as they are; for ggml fp16)').choices(types))
    .option(
      '--tokenizer <path>',
      "a tokenizer's folder, a tokenizer.json, or OpenAI's ranks (multilingual.tiktoken, gpt2.tiktoken), for a model that has none",
    )
    .option('--adapter <name>', 'a LoRA adapter to merge into the weights: its folder as PEFT writes it, or a name')
    .option('--replace', 'replace what is there (default: refuse)')
    .addOption(offlineOption())
    .addOption(jsonOption('what was written'))
    .action((model: string, options: Options) => run(options, (context) => convertModel(model, options, context)));
  endHelp(command, {
    notes:
      'int8 is for ggml (q8_0) and ctranslate2; bf16 for hf and ctranslate2. Language experts have a place in hf alone, as files of\n' +
      'their own beside the weights. The output is written whole or not at all.\n\n' +
      NAMES,
    examples: [
      'distilwhisper convert whisper-large-v2 --to large-v2-bf16 --dtype bf16',
      'distilwhisper convert small.pt --tokenizer multilingual.tiktoken --to whisper-small',
      'distilwhisper convert runs/ca-full --to ggml-ca.bin --format ggml',
      'distilwhisper convert runs/ca-full --to ca-ct2 --format ctranslate2 --dtype int8',
      'distilwhisper convert small --adapter runs/ca/adapter --to whisper-small-ca',
      'distilwhisper convert expert.catalan.bin --to expert.catalan.safetensors',
    ],
  });
}

const MIB = 2 ** 20;

async function convertModel(model: string, options: Options, context: CommandContext): Promise<undefined> {
  const { signal, display } = context;
  const { to, format, dtype, tokenizer, adapter, replace } = options;
  const converted = await convert(model, {
    to,
    format,
    dtype,
    tokenizer,
    adapter,
    replace,
    signal,
    hub: hubOptions(context, options),
    onProgress: ({ done, total }) =>
      display.progress('converting', Math.ceil(done / MIB), Math.ceil(total / MIB), 'MiB read'),
  });
  display.end();
  for (const note of converted.notes) display.note(note);
  if (options.json) printJson({ ...converted, format });
  else print(`${converted.output}\n`);
  return undefined;
}
