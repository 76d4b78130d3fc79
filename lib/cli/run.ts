/** What all commands share: signals, errors, exit codes, the stream. */
import { basename, relative, sep } from 'node:path';
import { BadRowsError } from '../data/index.js';
import { isDistilWhisperError } from '../errors/index.js';
import type { HubOptions } from '../hub/index.js';
import { Profile } from '../profile/index.js';
import { Stream } from '../tensor/index.js';
import { Display } from './display.js';
import { errorLine, hasPrinted, markTold, printed, printJson } from './streams.js';

/** Exit codes by what ended the process; 2, wrong usage, is given in main.ts. */
const EXIT = { failed: 1, SIGINT: 130, SIGTERM: 143 } as const;

export interface CommandContext {
  /** Aborted by Ctrl-C or SIGTERM. */
  signal: AbortSignal;
  display: Display;
}

/**
 * Runs the body of a command and turns what comes of it into output and an exit code. The body answers 'failed' when it has
 * said itself what went wrong. The first Ctrl-C or SIGTERM aborts the signal, the second ends the process.
 */
export async function run(
  options: { json?: boolean },
  body: (context: CommandContext) => Promise<'failed' | undefined>,
): Promise<void> {
  const abort = new AbortController();
  const display = new Display();
  let stopped: 'SIGINT' | 'SIGTERM' | null = null;
  const stop = (name: 'SIGINT' | 'SIGTERM'): void => {
    stopped = name;
    // From here on the system's own action ends the process: process.exit() would wait for threads that may be stuck in a read.
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
    display.note('stopping at the next safe point; Ctrl-C again quits at once');
    abort.abort();
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  try {
    const outcome = await body({ signal: abort.signal, display });
    await printed();
    if (outcome === 'failed') process.exitCode = EXIT.failed;
  } catch (error) {
    display.end();
    const { code, message } = described(error);
    const interrupted = code === 'ERR_INTERRUPTED';
    if (isDistilWhisperError(error)) display.note(interrupted ? `interrupted: ${message}` : errorLine(error));
    else display.note(error instanceof Error ? (error.stack ?? message) : message);
    markTold();
    // Behind what is there already it would be no JSON.
    if (options.json && !hasPrinted()) {
      printJson({ error: { code, message, rows: error instanceof BadRowsError ? error.rows : undefined } });
    }
    process.exitCode = interrupted ? EXIT[stopped ?? 'SIGINT'] : EXIT.failed;
  } finally {
    display.end();
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}

function described(error: unknown): { code: string; message: string } {
  if (isDistilWhisperError(error)) return { code: error.code, message: error.message };
  return { code: 'ERR_UNEXPECTED', message: error instanceof Error ? error.message : String(error) };
}

/** How a command finds and fetches what names stand for. */
export function hubOptions(
  { signal, display }: CommandContext,
  { offline }: { offline?: boolean | undefined },
): HubOptions {
  return {
    // Not given, HF_HUB_OFFLINE decides.
    offline: offline || undefined,
    signal,
    onProgress: ({ repository, done, total }) => display.bytes(`fetching ${repository}`, done, total),
    onNote: (note) => display.note(`note: ${note}`),
  };
}

/** Where a command computes, as `deviceOption` and `threadsOption` give it. */
export interface StreamChoice {
  device: string;
  threads?: number | undefined;
}

/** Runs `body` with a stream on that device, of so many threads (default: all that this process may use), and closes it. */
export async function withStream<T>(
  { device, threads }: StreamChoice,
  body: (stream: Stream) => Promise<T>,
): Promise<T> {
  const stream = new Stream({ device, threads });
  try {
    return await body(stream);
  } finally {
    stream.close();
  }
}

/**
 * Runs `body` under a profile that is written to `path`; without a path it just runs it. A trace that cannot be written is
 * refused before; one that the disk refuses later ends early, and the error comes when `body` is done.
 */
export async function withProfile<T>(
  path: string | undefined,
  { device, threads }: StreamChoice,
  { display }: CommandContext,
  body: () => Promise<T>,
): Promise<T> {
  if (path === undefined) return body();
  const profile = await Profile.start(path, { device, threads });
  let result: T;
  try {
    result = await body();
  } catch (error) {
    try {
      profile.stop();
    } catch (second) {
      // The body's own error is the one that counts.
      display.note(second instanceof Error ? second.message : String(second));
    }
    throw error;
  }
  profile.stop();
  display.note(`profile: ${path}; 'distilwhisper profile ${shellWord(path)}' sums it up`);
  return result;
}

/** How this process was started, as words to start it again with. */
export function invocation(): string {
  const script = process.argv[1] ?? 'distilwhisper';
  if (script.includes(`${sep}node_modules${sep}.bin${sep}`)) return 'npx distilwhisper';
  if (basename(script) !== 'main.js') return basename(script);
  return `node ${shellWord(relative(process.cwd(), script) || script)}`;
}

/** A word as a POSIX shell reads it back. */
export const shellWord = (word: string): string =>
  /^[\w./:@%+=,-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
