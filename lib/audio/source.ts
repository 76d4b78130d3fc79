/** Where audio comes from: a file, a pipe, standard input or memory, opened as bytes that are read forward. */
import { constants, createReadStream, fstatSync, open as openDescriptor, type Stats } from 'node:fs';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { Socket } from 'node:net';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { retried } from '../files/index.js';
import { ByteReader } from './bytes.js';

/** A path ('-' is standard input) or a file's bytes. */
export type AudioInput = string | Uint8Array;

export interface OpenSource {
  reader: ByteReader;
  /** Where a program that is asked instead finds the same bytes again; null for what can be read only once. */
  path: string | null;
  /** Everything that was read so far, then the rest; null when that is not held any more. Nothing else may be read after it. */
  again(): AsyncIterable<Uint8Array> | null;
  /** Bytes that `again()` would need are held no longer. */
  settle(): void;
  close(): Promise<void>;
}

/** Bytes of one read. */
const PIECE = 1 << 18;
/** What is held of a pipe until its format has been told; beyond this only the own readers are left. */
const LARGEST_REPLAY = 1 << 24;
/** Names of standard input: a socket there cannot be opened by its path. */
const STANDARD_INPUT = new Set(['-', '/dev/stdin', '/dev/fd/0', '/proc/self/fd/0']);

/** @throws ERR_FILE_NOT_FOUND, ERR_FILE_READ (a directory, a device, no permission) */
export async function openSource(input: AudioInput, name: string): Promise<OpenSource> {
  if (typeof input !== 'string') return inMemory(input);
  try {
    if (STANDARD_INPUT.has(input)) return standardInput(name);
    const info = await stat(input);
    refuseUnreadable(info, name);
    if (info.isFIFO()) {
      // Without waiting for a writer: a thread that waits in open() could not be ended.
      const fd = await promisify(openDescriptor)(input, constants.O_RDONLY | constants.O_NONBLOCK);
      return once(new Socket({ fd, readable: true, writable: false }));
    }
    return regular(await open(input), input, info.size);
  } catch (error) {
    if (isDistilWhisperError(error)) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new DistilWhisperError('ERR_FILE_NOT_FOUND', `${name}: there is no such file`, { cause: error });
    throw new DistilWhisperError('ERR_FILE_READ', `${name}: the file cannot be read (${message})`, { cause: error });
  }
}

function refuseUnreadable(info: Stats, name: string): void {
  const got = info.isDirectory() ? 'a directory' : info.isFile() || info.isFIFO() ? null : 'a device or socket';
  if (got) throw new DistilWhisperError('ERR_FILE_READ', `${name}: expected an audio file, got ${got}`);
}

function inMemory(bytes: Uint8Array): OpenSource {
  return {
    reader: ByteReader.of(bytes),
    path: null,
    again: () => ByteReader.pieces(bytes),
    settle() {},
    async close() {},
  };
}

function regular(file: FileHandle, path: string, size: number): OpenSource {
  let closed: Promise<void> | undefined;
  return {
    reader: new ByteReader(fileBytes(file), size),
    path,
    again: () => null,
    settle() {},
    close() {
      closed ??= file.close();
      return closed;
    },
  };
}

async function* fileBytes(file: FileHandle): AsyncGenerator<Uint8Array, void, undefined> {
  for (;;) {
    const piece = Buffer.allocUnsafeSlow(PIECE);
    const { bytesRead } = await retried(() => file.read(piece, 0, PIECE, null));
    if (bytesRead === 0) return;
    yield piece.subarray(0, bytesRead);
  }
}

function standardInput(name: string): OpenSource {
  const info = fstatSync(0);
  if (info.isFile()) return once(createReadStream('', { fd: 0, autoClose: false, highWaterMark: PIECE }));
  if (!info.isFIFO() && !info.isSocket() && !info.isCharacterDevice()) refuseUnreadable(info, name);
  return once(new Socket({ fd: 0, readable: true, writable: false }));
}

/** A stream that can be read only once: what it gave is held until `settle()`. */
function once(stream: Readable): OpenSource {
  const given: Uint8Array[] = [];
  let held: number | null = 0;
  const settle = (): void => {
    given.length = 0;
    held = null;
  };
  const bytes = stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  const recorded = (async function* () {
    for (let next = await bytes.next(); !next.done; next = await bytes.next()) {
      if (held !== null) {
        given.push(next.value);
        held += next.value.length;
        if (held > LARGEST_REPLAY) settle();
      }
      yield next.value;
    }
  })();
  return {
    reader: new ByteReader(recorded),
    path: null,
    again: () =>
      held === null
        ? null
        : (async function* () {
            yield* given;
            for (let next = await bytes.next(); !next.done; next = await bytes.next()) yield next.value;
          })(),
    settle,
    async close() {
      stream.destroy();
    },
  };
}
