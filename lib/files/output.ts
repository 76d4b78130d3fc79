/** Outputs of every kind: regular files, devices, pipes, sockets, standard output. */
import { constants, open as openDescriptor } from 'node:fs';
import { access, type FileHandle, mkdir, open, rmdir, stat } from 'node:fs/promises';
import { connect, Socket } from 'node:net';
import { dirname, resolve } from 'node:path';
import type { Writable } from 'node:stream';
import { setTimeout as delay } from 'node:timers/promises';
import { isatty } from 'node:tty';
import { promisify } from 'node:util';
import { DistilWhisperError, fileWriteError, systemCode } from '../errors/index.js';
import { ifThere } from './read.js';
import { besideName, type FileSink, Replacement, typed, writeAll } from './replacement.js';
import { type Target, targetOf } from './target.js';

/** `Output.path` of standard output. */
export const STANDARD_OUTPUT = 'standard output';

/** Seconds in which a process must begin to read a pipe that is to be written. */
const READER_WITHIN = 5;

/**
 * An output that grows. What is first appended to a regular file replaces what was there, whole; what follows goes behind it, so
 * that the file holds what is done whenever the process ends, and after a full disk too.
 */
export interface Output extends FileSink {
  /** As it was asked for, or the stream's name. */
  readonly path: string;
  /** Whether what is appended is seen by a person at a terminal. */
  readonly terminal: boolean;
  /**
   * Puts `bytes` behind what is there, and `ending` behind them, which the next `append` writes over (where nothing can be written
   * over it comes last, with `close`). After a failure a file holds what it held before. Errors: ERR_DISK_FULL, ERR_FILE_WRITE.
   */
  append(bytes: Uint8Array | string, ending?: string): Promise<void>;
  /** Nothing is left of an output that nothing was appended to. Errors: as `append`. */
  close(): Promise<void>;
}

/**
 * Opens what `path` names for writing, before there is anything to write: a file that could not be written is refused now, and
 * untouched until there is. '-' is standard output. A pipe that no process reads is waited for; `signal` ends the wait, and lets
 * go of a reader that does not read. Errors: ERR_FILE_WRITE, ERR_DISK_FULL, ERR_INTERRUPTED.
 */
export async function openOutput(path: string, options: { signal?: AbortSignal } = {}): Promise<Output> {
  return typed(path, async () => {
    const target = await targetOf(path);
    const { descriptor, kind } = target;
    if (descriptor !== null) return openDescriptorOutput(path, descriptor, options.signal);
    if (!kind || kind.isFile() || kind.isDirectory()) {
      await proveOutput(path);
      return new FileOutput(path);
    }
    if (kind.isFIFO()) {
      return new StreamOutput(path, await openPipe(path, target.path, options.signal), options.signal);
    }
    if (kind.isSocket()) return new StreamOutput(path, await openSocket(target.path), options.signal);
    const device = await open(target.path, 'r+').catch(() => open(target.path, constants.O_WRONLY));
    return new DeviceOutput(path, device);
  });
}

/**
 * Proves that `path` can be written, and leaves nothing behind: a file is made beside it and removed. A pipe or device is asked for
 * its permissions only. Errors: ERR_FILE_WRITE (a folder, no permission, a read-only file system, no such folder), ERR_DISK_FULL.
 */
export async function proveOutput(path: string): Promise<void> {
  await typed(path, async () => {
    const { path: target, descriptor, kind }: Target = await targetOf(path);
    if (descriptor !== null) return;
    const folder = dirname(target);
    if (!kind && !(await ifThere(stat(folder)))?.isDirectory()) {
      throw new DistilWhisperError('ERR_FILE_WRITE', `${path}: expected an existing folder for it, got ${folder}`);
    }
    if (kind?.isDirectory()) {
      throw new DistilWhisperError('ERR_FILE_WRITE', `${path}: expected the name of a file, got a folder`);
    }
    if (kind && !kind.isFile()) return access(target, constants.W_OK);
    await (await Replacement.begin(path)).discard();
  });
}

/** The same for a folder, which need not exist: files, or it and its parents, can be made. Errors: as `proveOutput`. */
export async function proveFolder(path: string): Promise<void> {
  await typed(path, async () => {
    let at = resolve(path);
    for (;;) {
      const kind = await ifThere(stat(at));
      if (kind && !kind.isDirectory()) {
        throw new DistilWhisperError('ERR_FILE_WRITE', `${path}: expected a folder, got a file, ${at}`);
      }
      if (kind || dirname(at) === at) break;
      at = dirname(at);
    }
    const probe = besideName(`${at}/probe`, 'tmp');
    await mkdir(probe);
    await rmdir(probe);
  });
}

const bytesOf = (content: Uint8Array | string): Uint8Array =>
  typeof content === 'string' ? Buffer.from(content) : content;

class FileOutput implements Output {
  readonly terminal = false;
  private file: Replacement | null = null;
  private end = 0;
  private ending: Uint8Array = new Uint8Array(0);

  constructor(readonly path: string) {}

  async append(content: Uint8Array | string, ending = ''): Promise<void> {
    const bytes = bytesOf(content);
    const next = Buffer.concat([bytes, bytesOf(ending)]);
    if (!this.file) {
      const file = await Replacement.begin(this.path);
      try {
        await file.write(next, 0);
        await file.commit();
      } catch (error) {
        await file.discard();
        throw error;
      }
      this.file = file;
    } else {
      try {
        await this.file.write(next, this.end);
      } catch (error) {
        await this.restore();
        throw partial(error, this.path);
      }
    }
    this.end += bytes.byteLength;
    this.ending = bytesOf(ending);
  }

  async close(): Promise<void> {
    const { file } = this;
    this.file = null;
    if (!file) return;
    try {
      await file.sync();
    } finally {
      await file.discard();
    }
  }

  /** Cuts off what a failed write left; where even that fails, there is nothing more to be done. */
  private async restore(): Promise<void> {
    try {
      await this.file!.truncate(this.end);
      await this.file!.write(this.ending, this.end);
    } catch {}
  }
}

function partial(error: unknown, path: string): DistilWhisperError {
  const { code, message } = fileWriteError(error, path);
  if (code !== 'ERR_DISK_FULL') return new DistilWhisperError(code, message, { cause: error });
  return new DistilWhisperError(code, `The disk is full: ${path} ends with what was written before`, { cause: error });
}

class DeviceOutput implements Output {
  readonly terminal: boolean;
  private ending = '';

  constructor(
    readonly path: string,
    private readonly device: FileHandle,
  ) {
    this.terminal = isatty(device.fd);
  }

  async append(content: Uint8Array | string, ending = ''): Promise<void> {
    this.ending = ending;
    await typed(this.path, () => writeAll(this.device, bytesOf(content), null)).catch((error: unknown) => {
      throw partial(error, this.path);
    });
  }

  async close(): Promise<void> {
    try {
      if (this.ending !== '') await this.append(this.ending);
    } finally {
      await this.device.close();
    }
  }
}

class StreamOutput implements Output {
  readonly terminal: boolean;
  private ending = '';
  private failure: Error | null = null;

  /** `owned`: it is closed with this output. */
  constructor(
    readonly path: string,
    private readonly stream: Writable,
    private readonly signal: AbortSignal | undefined,
    private readonly owned = true,
  ) {
    this.terminal = (stream as { isTTY?: boolean }).isTTY === true;
    if (owned) {
      stream.on('error', (error) => {
        this.failure ??= error;
      });
    }
  }

  async append(content: Uint8Array | string, ending = ''): Promise<void> {
    this.ending = ending;
    await this.write(content);
  }

  async close(): Promise<void> {
    if (this.ending !== '' && !this.failure) await this.write(this.ending);
    if (!this.owned) return;
    try {
      if (!this.failure) await this.untilAborted((done) => this.stream.end(done));
    } finally {
      this.stream.destroy();
    }
  }

  private async write(content: Uint8Array | string): Promise<void> {
    try {
      if (this.failure) throw this.failure;
      await this.untilAborted((done) => this.stream.write(content, done));
    } catch (error) {
      this.failure ??= error as Error;
      throw partial(error, this.path);
    }
  }

  /** A reader that does not read must not keep an interrupted command. */
  private untilAborted(start: (done: (error?: Error | null) => void) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const { signal } = this;
      let timer: NodeJS.Timeout | undefined;
      const settle = (error?: Error | null): void => {
        clearTimeout(timer);
        signal?.removeEventListener('abort', abort);
        if (error) reject(error);
        else resolve();
      };
      const abort = (): void => {
        // What the reader has room for is on its way.
        const unread = new DistilWhisperError('ERR_INTERRUPTED', `interrupted while nothing read ${this.path}`);
        timer = setTimeout(() => settle(unread), 500);
      };
      signal?.addEventListener('abort', abort, { once: true });
      if (signal?.aborted) abort();
      start(settle);
    });
  }
}

async function openDescriptorOutput(
  path: string,
  descriptor: number,
  signal: AbortSignal | undefined,
): Promise<Output> {
  if (descriptor === 1) return new StreamOutput(STANDARD_OUTPUT, process.stdout, signal, false);
  if (descriptor === 2) return new StreamOutput('standard error', process.stderr, signal, false);
  const kind = await stat(`/dev/fd/${descriptor}`);
  if (kind.isSocket()) {
    return new StreamOutput(path, new Socket({ fd: descriptor, readable: false, writable: true }), signal);
  }
  if (kind.isFIFO()) return new StreamOutput(path, await openPipe(path, `/dev/fd/${descriptor}`, signal), signal);
  return new DeviceOutput(path, await open(`/dev/fd/${descriptor}`, 'a'));
}

async function openPipe(path: string, target: string, signal: AbortSignal | undefined): Promise<Socket> {
  const until = performance.now() + 1000 * READER_WITHIN;
  for (;;) {
    try {
      // Without O_NONBLOCK this would wait for a reader, and neither time nor Ctrl-C would end it.
      const fd = await promisify(openDescriptor)(target, constants.O_WRONLY | constants.O_NONBLOCK);
      return new Socket({ fd, readable: false, writable: true });
    } catch (error) {
      if (systemCode(error) !== 'ENXIO') throw error;
      if (signal?.aborted) {
        throw new DistilWhisperError('ERR_INTERRUPTED', `interrupted while nothing read ${path}`, { cause: error });
      }
      if (performance.now() > until) {
        throw new DistilWhisperError(
          'ERR_FILE_WRITE',
          `${path}: expected a pipe that a process reads, got one that none has opened within ${READER_WITHIN} s`,
          { cause: error },
        );
      }
      await delay(50);
    }
  }
}

function openSocket(target: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(target, () => {
      socket.off('error', reject);
      // What the other side says is nothing to us; unread, it would keep the end of the connection away.
      resolve(socket.resume());
    });
    socket.once('error', reject);
  });
}
