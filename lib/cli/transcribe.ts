import type { Command } from 'commander';
import { Option } from 'commander';
import { DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import type { Task } from '../text/index.js';
import {
  addDecodingOptions,
  addModelOptions,
  type DecodingOptions,
  searchOptions,
  withTranscriber,
} from './decoding.js';
import { audioOptions, endHelp, jsonOption, maxDurationOption, NAMES, strictOption } from './options.js';
import { type CommandContext, run } from './run.js';
import { errorLine } from './streams.js';
import { FORMATS, type Format, type Outcome, transcriptOutput } from './transcript-output.js';
import { WarningNotes } from './warnings.js';

interface Options extends DecodingOptions {
  language?: string;
  task: Task;
  timestamps?: boolean;
  format: Format;
  output?: string;
  strict?: boolean;
  maxDuration?: number;
  json?: boolean;
}

export function define(command: Command): void {
  command
    .description(
      'Turn audio files into text: wav, flac, mp3, ogg vorbis, opus, and, where ffmpeg is installed, all that it reads. Audio longer than the model hears at once is cut at pauses.',
    )
    .argument('<files...>', 'audio files; - is standard input');
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
      "write the result there, each file's as soon as it is done, instead of to standard output (-); a folder for srt or vtt of several files",
    )
    .addOption(strictOption())
    .addOption(maxDurationOption())
    .addOption(jsonOption('an array of {file, text, language, seconds, segments, gateShare, warnings}'))
    .action((files: string[], options: Options) => run(options, (context) => transcribe(files, options, context)));
  endHelp(command, {
    notes:
      'One file gives its text; several give a line each: the file, a tab, its text. A file that is refused is reported on\n' +
      'standard error (with --json in its place too, as {file, error}), the others go on, and the exit code is 1. Ctrl-C leaves\n' +
      'what is done: with --json an array too. File names with tabs or newlines come in quotes, with escapes.\n' +
      'With --timestamps a line is a part of the text, as [00:00.000 --> 00:03.200]  text. Subtitles of several files go to a\n' +
      `folder, talk.srt for talk.mp3.\n\n${NAMES}`,
    examples: [
      'distilwhisper transcribe talk.mp3 --language ca',
      'distilwhisper transcribe talk.mp3 --model small --expert runs/ca --language ca',
      'distilwhisper transcribe talk.mp3 --model large-v3 --language ca --beam-size 5',
      'distilwhisper transcribe talk.mp3 --model org/whisper-small-ca@v1 --offline --format srt --output talk.srt',
      'distilwhisper transcribe recordings/*.flac --json --output transcripts.json',
    ],
  });
}

async function transcribe(
  files: readonly string[],
  options: Options,
  context: CommandContext,
): Promise<'failed' | undefined> {
  const { signal, display } = context;
  const output = await transcriptOutput(files, { ...options, signal, clear: () => display.clear() });
  const warnings = new WarningNotes(display);
  const outcomes = new Map<number, Outcome>();
  // A failed write ends the work as Ctrl-C does.
  const stop = new AbortController();
  if (signal.aborted) stop.abort();
  signal.addEventListener('abort', () => stop.abort(), { once: true });
  let [next, failed] = [0, 0];
  let failure: unknown;
  let lost = false;
  let writing: Promise<void> = Promise.resolve();
  /** Writes what is whole, in the order of the files: a refusal may come before the transcripts of earlier ones. */
  const write = (from: Iterable<Outcome>): void => {
    for (const outcome of from) {
      writing = writing
        .then(() => (lost ? undefined : output.add(outcome)))
        .catch((error: unknown) => {
          lost = true;
          failure ??= error;
          stop.abort();
        });
    }
  };
  const done = (source: number, outcome: Outcome): void => {
    outcomes.set(source, outcome);
    const ready: Outcome[] = [];
    for (let at = outcomes.get(next); at; at = outcomes.get(++next)) {
      ready.push(at);
      outcomes.delete(next);
    }
    write(ready);
  };
  try {
    await withTranscriber(options, context, (transcriber) =>
      transcriber.transcribe(files, {
        language: options.language ?? 'auto',
        task: options.task,
        timestamps: options.timestamps === true || options.format !== 'text',
        ...searchOptions(options),
        ...audioOptions(options),
        signal: stop.signal,
        onProgress: ({ done, total, seconds }) =>
          display.progress('transcribing', done, total, `files, ${seconds.toFixed(1)} s of audio`),
        onTranscript: (source, transcript) => {
          for (const warning of transcript.warnings) warnings.add(files[source]!, warning);
          done(source, { file: files[source]!, transcript });
        },
        onError: (source, error) => {
          failed++;
          display.note(errorLine(error));
          done(source, { file: files[source]!, error });
        },
      }),
    );
  } catch (error) {
    failure ??= error;
  }
  warnings.end();
  // Behind an interruption: what was refused ahead of its turn.
  write([...outcomes].sort(([a], [b]) => a - b).map(([, outcome]) => outcome));
  await writing;
  const interrupted = signal.aborted && isDistilWhisperError(failure) && failure.code === 'ERR_INTERRUPTED';
  try {
    await output.end(!interrupted && isDistilWhisperError(failure) ? failure : undefined);
  } catch (error) {
    failure ??= error;
  }
  if (failure !== undefined && output.written > 0) {
    const what = `${output.written} of ${files.length} files are in ${output.place}`;
    if (interrupted) throw new DistilWhisperError('ERR_INTERRUPTED', what, { cause: failure });
    display.note(what);
  }
  if (failure !== undefined) throw failure;
  if (failed > 0 && files.length > 1) display.note(`${failed} of ${files.length} files were refused`);
  return failed > 0 ? 'failed' : undefined;
}
