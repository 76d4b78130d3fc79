/** Transcripts as `transcribe` writes them, and where: each as soon as its file is done. */
import { join, parse } from 'node:path';
import { DistilWhisperError } from '../errors/index.js';
import { type Output, openOutput, proveOutput, STANDARD_OUTPUT, visible, writeFileAtomic } from '../files/index.js';
import { formatSrt, formatTimed, formatVtt, oneLine, type Transcript } from '../transcribe/index.js';
import { isFolder } from './options.js';
import { markPrinted } from './streams.js';

export const FORMATS = ['text', 'srt', 'vtt'] as const;
export type Format = (typeof FORMATS)[number];

export type Outcome = { file: string } & ({ transcript: Transcript } | { error: DistilWhisperError });

export interface TranscriptOutputOptions {
  format: Format;
  timestamps?: boolean;
  output?: string;
  json?: boolean;
  signal: AbortSignal;
  /** Called before something is put on a terminal. */
  clear: () => void;
}

/** Where the outcomes of the files go, in the order of the files. */
export interface TranscriptOutput {
  /** How many transcripts (as JSON: outcomes) are written, and where: "out.txt". */
  readonly written: number;
  readonly place: string;
  /** Errors: ERR_DISK_FULL, ERR_FILE_WRITE. */
  add(outcome: Outcome): Promise<void>;
  /** Ends what was written; `error` is what ended the work before its end, where that is told in the output. */
  end(error?: DistilWhisperError): Promise<void>;
}

/**
 * The output that the options ask for, proven to be writable. Subtitles of several audio files are as many files, named as those,
 * in the folder `output`. Errors: ERR_ARGUMENT, ERR_FILE_WRITE, ERR_DISK_FULL, ERR_INTERRUPTED.
 */
export async function transcriptOutput(
  files: readonly string[],
  options: TranscriptOutputOptions,
): Promise<TranscriptOutput> {
  const { format, output: path, signal } = options;
  if (format !== 'text' && path !== undefined && (await isFolder(path))) {
    return new Subtitles(files, await subtitleFiles(files, format, path), path, options);
  }
  if (format !== 'text' && files.length > 1) {
    const place = path === undefined ? 'no --output' : `--output ${path}`;
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `--format ${format}: expected one file, or an existing folder as --output, got ${files.length} files and ${place}`,
    );
  }
  const output = await openOutput(path ?? '-', { signal });
  return options.json ? new JsonArray(output) : new Lines(output, files.length > 1, options);
}

async function subtitleFiles(files: readonly string[], format: Format, folder: string): Promise<string[]> {
  const paths = files.map((file) => join(folder, `${parse(file).name}.${format}`));
  const sources = new Map<string, string>();
  for (const [i, path] of paths.entries()) {
    const first = sources.get(path);
    if (first !== undefined) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `--output: expected files of different names, got ${first} and ${files[i]}, which would both be ${path}`,
      );
    }
    sources.set(path, files[i]!);
    await proveOutput(path);
  }
  return paths;
}

/** A name in a line of `file<TAB>text`: as it is, or in quotes and escapes where it would break the line. */
const nameInLine = (file: string): string => (/^"|[\t\r\n]/.test(file) ? JSON.stringify(file) : file);

/** As text, `lead` stands before each line. */
function formatted({ text, segments }: Transcript, { format, timestamps = false }: TranscriptOutputOptions, lead = '') {
  if (format === 'srt') return formatSrt(segments);
  if (format === 'vtt') return formatVtt(segments);
  const lines = timestamps ? segments.map(formatTimed) : [lead === '' ? text : oneLine(text)];
  return lines.map((line) => `${lead}${line}\n`).join('');
}

class Lines implements TranscriptOutput {
  written = 0;
  readonly place: string;

  constructor(
    private readonly output: Output,
    private readonly several: boolean,
    private readonly options: TranscriptOutputOptions,
  ) {
    this.place = output.path;
  }

  async add(outcome: Outcome): Promise<void> {
    if ('error' in outcome) return;
    const text = formatted(outcome.transcript, this.options, this.several ? `${nameInLine(outcome.file)}\t` : '');
    if (this.output.terminal) this.options.clear();
    await this.output.append(this.output.terminal ? visible(text) : text);
    this.written++;
  }

  end(): Promise<void> {
    return this.output.close();
  }
}

/** An array that is whole at any moment, where what it is written to can be written over. */
class JsonArray implements TranscriptOutput {
  written = 0;
  readonly place: string;
  private begun = false;
  /** Where only refusals have come so far, a file is left alone. */
  private held: object[] = [];

  private readonly standard: boolean;

  constructor(private readonly output: Output) {
    this.place = output.path;
    this.standard = output.path === STANDARD_OUTPUT;
  }

  async add(outcome: Outcome): Promise<void> {
    this.held.push(plain(outcome));
    if (this.standard || this.begun || 'transcript' in outcome) await this.flush();
  }

  async end(error?: DistilWhisperError): Promise<void> {
    if (this.standard) {
      if (error && !this.begun) return;
      if (error) this.held.push({ error: { code: error.code, message: error.message } });
      await this.flush();
      if (!this.begun) await this.append('[]\n', '');
    }
    await this.output.close();
  }

  private async flush(): Promise<void> {
    while (this.held.length > 0) {
      const item = JSON.stringify(this.held[0], null, 2).replaceAll('\n', '\n  ');
      await this.append(`${this.begun ? ',' : '['}\n  ${item}`, '\n]\n');
      this.held.shift();
      this.begun = true;
      this.written++;
    }
  }

  private async append(text: string, ending: string): Promise<void> {
    if (this.standard) markPrinted();
    await this.output.append(this.output.terminal ? visible(text) : text, ending);
  }
}

function plain(outcome: Outcome): object {
  const { file } = outcome;
  if ('error' in outcome) return { file, error: { code: outcome.error.code, message: outcome.error.message } };
  const { text, language, duration, segments, gateShare, warnings } = outcome.transcript;
  return { file, text, language, seconds: duration, segments, gateShare, warnings };
}

class Subtitles implements TranscriptOutput {
  written = 0;

  constructor(
    private readonly files: readonly string[],
    private readonly paths: readonly string[],
    readonly place: string,
    private readonly options: TranscriptOutputOptions,
  ) {}

  async add(outcome: Outcome): Promise<void> {
    if ('error' in outcome) return;
    const path = this.paths[this.files.indexOf(outcome.file)]!;
    await writeFileAtomic(path, (sink) => sink.append(Buffer.from(formatted(outcome.transcript, this.options))));
    this.written++;
  }

  async end(): Promise<void> {}
}
