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
import { endHelp, jsonOption } from './options.js';
import { type CommandContext, errorLine, printJson, run } from './run.js';
import { FORMATS, type Format, formatTranscript, outputFiles } from './transcript-output.js';

interface Options extends DecodingOptions {
  language?: string;
  task: Task;
  timestamps?: boolean;
  format: Format;
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
    .option('--timestamps', 'say when each part of the text begins and ends, where the model has timestamps')
    .addOption(
      new Option('--format <format>', 'srt, vtt: subtitles, by the timestamps; for JSON there is --json')
        .choices(FORMATS)
        .default('text')
        .conflicts('json'),
    )
    .option(
      '--output <file>',
      'write the result there instead of to standard output; a folder for srt or vtt of several files',
    )
    .addOption(jsonOption('an array of {file, text, language, seconds, segments, gateShare}'))
    .action((files: string[], options: Options) => run(options, (context) => transcribe(files, options, context)));
  endHelp(command, {
    notes:
      'One file gives its text; several give a line each: the file, a tab, its text. A file that is refused is reported on\n' +
      'standard error (with --json in its place too, as {file, error}), the others go on, and the exit code is 1.\n' +
      'With --timestamps a line is a part of the text, as [00:00.000 --> 00:03.200]  text. Subtitles of several files go to a\n' +
      'folder, talk.srt for talk.mp3.',
    examples: [
      'distilwhisper transcribe talk.mp3 --language ca',
      'distilwhisper transcribe talk.mp3 --model whisper-small --expert runs/ca/expert.catalan.safetensors --language ca',
      'distilwhisper transcribe talk.mp3 --model whisper-small --language ca --beam-size 5',
      'distilwhisper transcribe talk.mp3 --model whisper-small --format srt --output talk.srt',
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
  const timestamps = options.timestamps === true || options.format !== 'text';
  const outputs = await outputFiles(files, options.format, options.output);
  const lines = (file: string, transcript: Transcript): string =>
    formatTranscript(transcript, options, files.length > 1 ? `${file}\t` : '');
  const outcomes: Outcome[] = [];
  await withTranscriber(options, context, (transcriber) =>
    transcriber.transcribe(files, {
      language: options.language ?? 'auto',
      task: options.task,
      timestamps,
      ...searchOptions(options),
      signal,
      onProgress: ({ done, total, seconds }) =>
        display.progress('transcribing', done, total, `files, ${seconds.toFixed(1)} s of audio`),
      onTranscript: (source, transcript) => {
        const file = files[source]!;
        outcomes[source] = { file, transcript };
        if (!options.json && options.output === undefined) process.stdout.write(lines(file, transcript));
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
    : outcomes.map((outcome) => ('error' in outcome ? '' : lines(outcome.file, outcome.transcript))).join('');
  if (options.output === undefined) {
    if (options.json) printJson(outcomes.map(plain));
  } else if (outputs) {
    for (const [i, outcome] of outcomes.entries()) {
      if ('transcript' in outcome) await write(outputs[i]!, lines(outcome.file, outcome.transcript));
    }
  } else if (failed < files.length) {
    await write(options.output, result);
  }
  if (failed > 0 && files.length > 1) display.note(`${failed} of ${files.length} files were refused`);
  return failed > 0 ? 'failed' : undefined;
}

const write = (path: string, text: string): Promise<unknown> =>
  writeFileAtomic(path, (sink) => sink.append(Buffer.from(text)));

function plain(outcome: Outcome): Record<string, unknown> {
  const { file } = outcome;
  if ('error' in outcome) return { file, error: { code: outcome.error.code, message: outcome.error.message } };
  const { text, language, duration, segments, gateShare } = outcome.transcript;
  return { file, text, language, seconds: duration, segments, gateShare };
}
