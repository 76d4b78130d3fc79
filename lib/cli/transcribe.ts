import type { Command } from 'commander';
import { Option } from 'commander';
import type { Transcript } from '../decode/index.js';
import type { DistilWhisperError } from '../errors/index.js';
import type { Task } from '../text/index.js';
import { writeFileAtomic } from '../weights/index.js';
import {
  addDecodingOptions,
  addModelOptions,
  type DecodingOptions,
  searchOptions,
  withTranscriber,
} from './decoding.js';
import { checkOutputFile, endHelp, jsonOption } from './options.js';
import { type CommandContext, errorLine, printJson, run } from './run.js';

interface Options extends DecodingOptions {
  language?: string;
  task: Task;
  output?: string;
  json?: boolean;
}

export function define(command: Command): void {
  command
    .description(
      'Turn audio files into text: wav, flac, mp3, ogg vorbis, opus, and whatever ffmpeg reads where it is installed. Audio longer than the model hears at once is cut at pauses.',
    )
    .argument('<files...>', 'audio files');
  addModelOptions(command)
    .option('--language <language>', 'code or name of the language (default: detected for each file)')
    .addOption(
      new Option('--task <task>', 'translate: into English, where the model can')
        .choices(['transcribe', 'translate'])
        .default('transcribe'),
    );
  addDecodingOptions(command, 'windows')
    .option('--output <file>', 'write the result there instead of to standard output')
    .addOption(jsonOption('an array of {file, text, language, seconds, segments, gateShare}'))
    .action((files: string[], options: Options) => run(options, (context) => transcribe(files, options, context)));
  endHelp(command, {
    notes:
      'One file gives its text; several give a line each: the file, a tab, its text. A file that is refused is reported on\n' +
      'standard error (with --json in its place too, as {file, error}), the others go on, and the exit code is 1.',
    examples: [
      'distilwhisper transcribe talk.mp3 --language ca',
      'distilwhisper transcribe talk.mp3 --model whisper-small --expert runs/ca/expert.catalan.safetensors --language ca',
      'distilwhisper transcribe talk.mp3 --model whisper-small --language ca --beam-size 5',
      'distilwhisper transcribe recordings/*.flac --json --output transcripts.json',
    ],
  });
}

type Outcome = { file: string } & ({ transcript: Transcript } | { error: DistilWhisperError });

async function transcribe(
  files: readonly string[],
  options: Options,
  context: CommandContext,
): Promise<'failed' | undefined> {
  const { signal, display } = context;
  await checkOutputFile(options.output);
  const line = (file: string, { text }: Transcript): string => `${files.length > 1 ? `${file}\t` : ''}${text}\n`;
  const outcomes: Outcome[] = [];
  await withTranscriber(options, context, (transcriber) =>
    transcriber.transcribe(files, {
      language: options.language ?? 'auto',
      task: options.task,
      ...searchOptions(options),
      signal,
      onProgress: ({ done, total, seconds }) =>
        display.progress('transcribing', done, total, `files, ${seconds.toFixed(1)} s of audio`),
      onTranscript: (source, transcript) => {
        const file = files[source]!;
        outcomes[source] = { file, transcript };
        if (!options.json && options.output === undefined) process.stdout.write(line(file, transcript));
      },
      onError: (source, error) => {
        outcomes[source] = { file: files[source]!, error };
        display.note(errorLine(error));
      },
    }),
  );
  const failed = outcomes.filter((outcome) => 'error' in outcome).length;
  const result = options.json
    ? `${JSON.stringify(outcomes.map(plain), null, 2)}\n`
    : outcomes.map((outcome) => ('error' in outcome ? '' : line(outcome.file, outcome.transcript))).join('');
  if (options.output === undefined) {
    if (options.json) printJson(outcomes.map(plain));
  } else if (failed < files.length) {
    await writeFileAtomic(options.output, (sink) => sink.append(Buffer.from(result)));
  }
  if (failed > 0 && files.length > 1) display.note(`${failed} of ${files.length} files were refused`);
  return failed > 0 ? 'failed' : undefined;
}

function plain(outcome: Outcome): Record<string, unknown> {
  const { file } = outcome;
  if ('error' in outcome) return { file, error: { code: outcome.error.code, message: outcome.error.message } };
  const { text, language, duration, segments, gateShare } = outcome.transcript;
  return { file, text, language, seconds: duration, segments, gateShare };
}
