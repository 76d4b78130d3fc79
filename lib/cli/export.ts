import { type Command, InvalidArgumentError, Option } from 'commander';
import type { OnnxDtype } from '../export/onnx/index.js';
import { exportOnnx } from '../recipes/index.js';
import { endHelp, jsonOption, NAMES, offlineOption } from './options.js';
import { type CommandContext, hubOptions, run } from './run.js';
import { print, printJson } from './streams.js';

interface Options {
  onnx?: boolean;
  output: string;
  expert?: string;
  language?: string;
  dtype: OnnxDtype[];
  hidden?: boolean;
  offline?: boolean;
  json?: boolean;
}

const MEBIBYTE = 1 << 20;

function dtypes(text: string): OnnxDtype[] {
  const types = text.split(',');
  if (types.every((type) => type === 'fp32' || type === 'int8')) return types as OnnxDtype[];
  throw new InvalidArgumentError('Expected fp32, int8 or fp32,int8.');
}

export function define(command: Command): void {
  command
    .description(
      "Write a model, with a language's expert if one is given, as a folder of ONNX that onnxruntime, Optimum and transformers.js load: encoder_model.onnx, and decoder_model_merged.onnx with caches.",
    )
    .argument('<model>', 'model folder or name, see below')
    .addOption(new Option('--onnx', 'the format').makeOptionMandatory())
    .requiredOption('--output <folder>', 'the folder that is made; it must not be there')
    .option(
      '--expert <name>',
      "a language's expert, a file, a folder or a name: its gates and its FFNs are in the graphs",
    )
    .option('--language <language>', 'of a model folder with experts of several languages inside: whose')
    .addOption(
      new Option(
        '--dtype <types>',
        'fp32, int8 (matrices in int8, rows quantised as they come; files are named *_quantized.onnx), or both as fp32,int8',
      )
        .argParser(dtypes)
        .default(['fp32'], 'fp32'),
    )
    .option('--hidden', "the decoder gives its last hidden rows too, for 'distilwhisper train --teacher'")
    .addOption(offlineOption())
    .addOption(jsonOption('what was written'))
    .action((model: string, options: Options) => run(options, (context) => write(model, options, context)));
  endHelp(command, {
    notes:
      'A graph takes no language, so that an export holds the expert of one: its gates see every row, whatever the language. A row\n' +
      'runs the FFN that its gate chooses, and no other. Tensors of more than 2 GiB lie in a file beside their graph (.onnx_data).\n\n' +
      NAMES,
    examples: [
      'distilwhisper export whisper-small --onnx --output whisper-small-onnx',
      'distilwhisper export whisper-small --onnx --expert runs/ca/expert.catalan.safetensors --dtype int8 --output whisper-small-ca-onnx',
    ],
  });
}

async function write(model: string, options: Options, context: CommandContext): Promise<undefined> {
  const { signal, display } = context;
  const { output, expert, language, dtype, hidden } = options;
  const written = await exportOnnx({
    ...{ model, output, expert, language, dtypes: dtype, hidden, signal },
    hub: hubOptions(context, options),
    onProgress: (done, total) =>
      display.progress('writing, MiB', Math.ceil(done / MEBIBYTE), Math.ceil(total / MEBIBYTE)),
  });
  display.end();
  if (written.expert !== null) display.note(`with the ${written.expert} expert inside; its gates see every row`);
  if (options.json) printJson(written);
  else print(`${written.output}\n`);
  return undefined;
}
