/** What no reader of this project knows (m4a, WebM, AAC, …) goes through the system's ffmpeg, if there is one. */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { DistilWhisperError, fileWriteError } from '../errors/index.js';
import { ByteReader } from './bytes.js';
import type { AudioPieces } from './reader.js';
import { openWav } from './wav.js';

export interface FfmpegInput {
  /** A file that ffmpeg opens itself, or bytes that it is given. */
  from: string | AsyncIterable<Uint8Array>;
  /** What the file was found to be, for messages. */
  label: string;
  /** Whether the format's own reader refused it: then ffmpeg checks what it can check, instead of covering damage up. */
  damaged: boolean;
}

/**
 * The audio of a file by ffmpeg, as it comes. The program ends with the pieces, with `return()`, when `signal` is aborted, and
 * with this process, whose pipes it writes to.
 * @throws ERR_AUDIO_FORMAT if ffmpeg cannot read the file, here or from the pieces; ERR_DISK_FULL and ERR_FILE_WRITE for the
 * temporary file of what has to be jumped about in; FfmpegMissing if there is no ffmpeg
 */
export async function openFfmpeg(input: FfmpegInput, name: string, signal: AbortSignal): Promise<AudioPieces> {
  const { from, label } = input;
  const checks = input.damaged ? ['-err_detect', 'crccheck+bitstream+buffer+explode'] : [];
  const { child, ended } =
    typeof from === 'string'
      ? start(`file:${from}`, 'ignore', checks)
      : await (STREAMED.test(label) ? piped(from, checks) : spooled(from, checks));
  const kill = (): void => {
    child.kill('SIGKILL');
    // What it has written and nobody reads would keep it from having ended.
    child.stdout?.destroy();
  };
  signal.addEventListener('abort', kill, { once: true });
  void ended.then(() => signal.removeEventListener('abort', kill));
  if (signal.aborted) kill();
  const judge = async (): Promise<void> => {
    const why = await ended;
    if (why instanceof FfmpegMissing) throw why;
    if (why !== null) throw refused(name, `ffmpeg could not decode the file (${label}): ${why}`);
  };
  if (!child.stdout) await judge();
  const bytes = new ByteReader((child.stdout as Readable)[Symbol.asyncIterator]());
  try {
    const wav = await openWav(bytes, { name, warn() {} });
    const pieces = (async function* () {
      let whole = false;
      try {
        yield* wav.pieces;
        while ((await bytes.some(1 << 16)).length > 0);
        whole = true;
      } finally {
        if (!whole) kill();
        await ended;
      }
      await judge();
    })();
    return { sampleRate: wav.sampleRate, channels: wav.channels, pieces };
  } catch (error) {
    // There is no header: what ffmpeg says comes first.
    child.stdout?.resume();
    await judge();
    throw error;
  }
}

/** Formats that are made to be read forward. In others ffmpeg jumps about: bytes that are no file pass through one. */
const STREAMED = /^(AAC|AC-3|AU|FLV|MPEG|Ogg|WebM)/;

/** There is no ffmpeg that could be asked; the message says why. */
export class FfmpegMissing extends Error {}

interface Run {
  child: ChildProcess;
  /** null when all went well, else what was wrong. */
  ended: Promise<string | FfmpegMissing | null>;
}

function start(url: string, input: 'ignore' | 'pipe' | number, checks: string[]): Run {
  const args = ['-nostdin', '-hide_banner', '-v', 'error', '-xerror', '-protocol_whitelist', 'file,pipe,crypto,data'];
  args.push(...checks, '-i', url, '-map', '0:a:0', '-c:a', 'pcm_f32le', '-f', 'wav', 'pipe:1');
  const child = spawn('ffmpeg', args, { stdio: [input, 'pipe', 'pipe'] });
  let messages = '';
  child.stderr!.on('data', (chunk: Buffer) => {
    messages = (messages + chunk).slice(-2000);
  });
  const ended = new Promise<string | FfmpegMissing | null>((resolve) => {
    child.on('error', (error: NodeJS.ErrnoException) => {
      const absent = error.code === 'ENOENT';
      resolve(
        new FfmpegMissing(absent ? 'no ffmpeg was found on the PATH' : `ffmpeg did not start (${error.message})`),
      );
    });
    child.on('close', (code, signal) => {
      const line = messages.trim().split('\n').pop();
      resolve(code === 0 ? null : line || (signal ? `it was ended by ${signal}` : `exit status ${code}`));
    });
  });
  return { child, ended };
}

function piped(bytes: AsyncIterable<Uint8Array>, checks: string[]): Run {
  const run = start('pipe:0', 'pipe', checks);
  if (run.child.stdin) void pour(bytes, run.child.stdin);
  return run;
}

/** Through a file, which has no name any more when ffmpeg reads it: whatever ends this process, nothing is left behind. */
async function spooled(bytes: AsyncIterable<Uint8Array>, checks: string[]): Promise<Run> {
  const named = process.platform === 'win32';
  const folder = await mkdtemp(join(tmpdir(), 'distilwhisper-audio-'));
  const forget = (): Promise<void> => rm(folder, { recursive: true, force: true });
  const path = join(folder, 'input');
  try {
    const sink = await open(path, 'wx', 0o600);
    const file = await open(path, 'r');
    try {
      if (!named) await forget();
      for await (const piece of bytes)
        await sink.appendFile(piece).catch((error) => {
          throw fileWriteError(error, path);
        });
      const run = named ? start(`file:${path}`, 'ignore', checks) : start('file:/dev/stdin', file.fd, checks);
      void run.ended.then(forget);
      return run;
    } finally {
      await sink.close();
      await file.close();
    }
  } catch (error) {
    await forget();
    throw error;
  }
}

/** Gives the bytes to a program that may stop reading at any time. */
async function pour(bytes: AsyncIterable<Uint8Array>, sink: Writable): Promise<void> {
  let open = true;
  const gone = new Promise<void>((resolve) => {
    sink.on('error', () => resolve());
    sink.on('close', () => resolve());
  }).then(() => {
    open = false;
  });
  try {
    for await (const piece of bytes) {
      if (!open) break;
      if (!sink.write(piece)) await Promise.race([new Promise((resolve) => sink.once('drain', resolve)), gone]);
    }
    sink.end();
  } catch {
    // A pipe that fails ends here; ffmpeg then says that its input is cut short.
    sink.end();
  }
}

const refused = (name: string, what: string): DistilWhisperError =>
  new DistilWhisperError('ERR_AUDIO_FORMAT', `${name}: ${what}`);
