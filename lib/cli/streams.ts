/** Standard output and standard error: both may be full, or have lost their reader. */
import { DistilWhisperError, fileWriteError } from '../errors/index.js';
import { visible } from '../files/index.js';

let failure: DistilWhisperError | null = null;
let told = false;
let anything = false;
let waiting: Promise<unknown> = Promise.resolve();

/** To be called once, before anything is written. */
export function watchStreams(): void {
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    // `distilwhisper … | head` ends quietly.
    if (error.code === 'EPIPE') process.exit();
    failure ??= outputError(error);
  });
  // What commander prints has no command around it that would tell.
  process.on('exit', () => {
    if (!failure || told) return;
    process.stderr.write(`${errorLine(failure)}\n`);
    process.exitCode = 1;
  });
  // Notes and progress that nobody reads any more are no reason to end a training.
  process.stderr.on('error', () => {});
}

function outputError(error: Error): DistilWhisperError {
  const { code, message } = fileWriteError(error, 'standard output');
  const full = code === 'ERR_DISK_FULL';
  return new DistilWhisperError(code, full ? 'The disk is full: standard output was not written to its end' : message, {
    cause: error,
  });
}

/** A refusal as it is printed. */
export const errorLine = (error: { code: string; message: string }): string => `error ${error.code}: ${error.message}`;

/** Writes to standard output; whether that worked is told by `printed`. */
export function print(text: string): void {
  anything = true;
  const { stdout } = process;
  const write = new Promise<void>((resolve) => {
    stdout.write(stdout.isTTY ? visible(text) : text, (error) => {
      if (error) failure ??= outputError(error);
      resolve();
    });
  });
  waiting = Promise.all([waiting, write]);
}

/** Machine-readable output: the only thing on standard output. */
export function printJson(value: unknown): void {
  print(`${JSON.stringify(value, null, 2)}\n`);
}

/** Whether something was put on standard output. */
export const hasPrinted = (): boolean => anything;

/** For what writes to standard output by itself. */
export function markPrinted(): void {
  anything = true;
}

/** Waits until all is written. Errors: ERR_DISK_FULL, ERR_FILE_WRITE. */
export async function printed(): Promise<void> {
  await waiting;
  if (failure) throw failure;
}

/** An error has been told: that of standard output, if it has one, needs no line of its own. */
export function markTold(): void {
  told = true;
}
