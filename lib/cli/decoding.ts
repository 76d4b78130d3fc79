/** What the commands that decode share: the options of a transcriber, and a transcriber made of them. */
import { type Command, Option } from 'commander';
import type { BeamOptions } from '../decode/index.js';
import { SIZES } from '../hub/index.js';
import type { CacheType, ComputeType } from '../model/index.js';
import { Transcriber } from '../transcribe/index.js';
import {
  computeTypeOption,
  copyWeightsOption,
  deviceOption,
  offlineOption,
  profileOption,
  real,
  threadsOption,
  whole,
} from './options.js';
import { again } from './repeats.js';
import { type CommandContext, hubOptions, withProfile, withStream } from './run.js';

/** The model where none is named. */
const DEFAULT_MODEL = 'small';

export interface DecodingOptions {
  model?: string;
  expert?: string[];
  adapter?: string;
  beamSize: number;
  patience: number;
  lengthPenalty?: number;
  computeType: ComputeType;
  cacheType: CacheType;
  copyWeights?: boolean;
  offline?: boolean;
  batchSize: number;
  device: string;
  threads?: number;
  profile?: string;
}

/** The model, its experts and its adapter. */
export function addModelOptions(command: Command): Command {
  return command
    .option('--model <name>', `model folder or name, see below (default: ${DEFAULT_MODEL}, from the cache or the hub)`)
    .addOption(
      new Option('--expert <name>', "a language's expert: file, run folder or name; give it again for more").argParser(
        again,
      ),
    )
    .option(
      '--adapter <name>',
      "a LoRA adapter, merged into the model's weights: its folder as PEFT writes it, or a name",
    )
    .addOption(offlineOption());
}

/** How the text is searched for and computed; `what` is decoded together. */
export function addDecodingOptions(command: Command, what: string): Command {
  return command
    .addOption(
      new Option('--beam-size <n>', 'sequences that are followed at once: 1 is greedy, more is beam search')
        .argParser(whole(1))
        .default(1),
    )
    .addOption(
      new Option('--patience <x>', 'search until this many times the beam size have come to their end')
        .argParser(real)
        .default(1),
    )
    .addOption(
      new Option(
        '--length-penalty <alpha>',
        'from 0 to 1: take the likeliest by ((5 + length) / 6)^alpha (default: by its length)',
      ).argParser(real),
    )
    .addOption(
      computeTypeOption(
        ['auto', 'fp32', 'bf16', 'int8'],
        'auto',
        "type of the products; auto: bf16 where the processor has instructions for it, else fp32; int8: the decoder's weights, all else as auto",
      ),
    )
    .addOption(
      new Option(
        '--cache-type <type>',
        "keys and values of the cross-attention; compute: as the products are computed; int8: half of bf16's memory; auto: int8 on the processor where products run in bf16, else compute",
      )
        .choices(['auto', 'compute', 'int8'])
        .default('auto'),
    )
    .addOption(copyWeightsOption())
    .addOption(new Option('--batch-size <n>', `${what} decoded together`).argParser(whole(1)).default(16))
    .addOption(deviceOption())
    .addOption(threadsOption())
    .addOption(profileOption());
}

/** The search that the options ask for. */
export function searchOptions({ beamSize, patience, lengthPenalty }: DecodingOptions): BeamOptions {
  return { beamSize, patience, lengthPenalty };
}

/** Runs `body` with the transcriber that the options ask for, and closes it. */
export function withTranscriber<T>(
  options: DecodingOptions,
  context: CommandContext,
  body: (transcriber: Transcriber) => Promise<T>,
): Promise<T> {
  const { model = DEFAULT_MODEL, expert: experts = [], computeType: compute, cacheType: cache } = options;
  const { adapter, batchSize, copyWeights = false, profile } = options;
  if (options.model === undefined) {
    context.display.note(`note: no --model was given: taking ${DEFAULT_MODEL} (${SIZES[DEFAULT_MODEL]})`);
  }
  const hub = hubOptions(context, options);
  return withProfile(profile, options, context, () =>
    withStream(options, async (stream) => {
      const transcriber = await Transcriber.load(model, {
        stream,
        experts,
        adapter,
        compute,
        cache,
        batchSize,
        copyWeights,
        hub,
      });
      for (const warning of transcriber.warnings) context.display.note(`note: ${warning}`);
      try {
        return await body(transcriber);
      } finally {
        await transcriber.close();
      }
    }),
  );
}
