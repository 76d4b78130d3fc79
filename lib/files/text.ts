/** Text files as people's programs leave them: with and without a byte-order mark, or a Git LFS pointer in their place. */
import { readFile, stat } from 'node:fs/promises';
import { DistilWhisperError, type ErrorCode, fileReadError } from '../errors/index.js';
import { retried } from './read.js';

/** A model's largest text file, its tokenizer.json, has 2.5 MB; this bounds what a wrong file can make us hold. */
const MAX_TEXT_BYTES = 32 * 1024 * 1024;

/** Something is wrong with the text itself; the caller says in which file. */
export class TextError extends Error {}

/** The text of UTF-8 bytes, or of UTF-16 behind its byte-order mark; marks are left out. Throws TextError. */
export function decodeText(bytes: Uint8Array): string {
  const [first, second] = bytes;
  const encoding =
    first === 0xff && second === 0xfe ? 'utf-16le' : first === 0xfe && second === 0xff ? 'utf-16be' : 'utf-8';
  try {
    return new TextDecoder(encoding, { fatal: true }).decode(bytes);
  } catch {
    throw new TextError(`is not valid ${encoding.toUpperCase()}`);
  }
}

const LFS_POINTER = new TextEncoder().encode('version https://git-lfs.github.com/spec/');

/** Whether a file that begins with these bytes is what Git LFS leaves in a clone in the place of a large file. */
export function isLfsPointer(bytes: Uint8Array): boolean {
  return LFS_POINTER.every((byte, i) => bytes[i] === byte);
}

/** What is said of one, behind the file's name. */
export const LFS_POINTER_SENTENCE =
  "is a Git LFS pointer, not the file itself: fetch it with 'git lfs pull' in its folder, or download it again";

/**
 * Reads a text file of at most 32 MiB. Throws ERR_FILE_NOT_FOUND or ERR_FILE_READ where it cannot be read (also a folder, a
 * pipe), and `code` where it is too large, no valid text or a Git LFS pointer, with the file in the sentence.
 */
export async function readTextFile(path: string, code: ErrorCode): Promise<string> {
  const bytes = await readBytes(path, code);
  const refuse = (what: string, cause?: unknown): never => {
    throw new DistilWhisperError(code, `${path} ${what}`, { cause });
  };
  if (isLfsPointer(bytes)) return refuse(LFS_POINTER_SENTENCE);
  try {
    return decodeText(bytes);
  } catch (error) {
    if (!(error instanceof TextError)) throw error;
    return refuse(error.message, error);
  }
}

async function readBytes(path: string, code: ErrorCode): Promise<Uint8Array> {
  let size: number;
  try {
    // Asked before it is opened, because opening a pipe would wait for its other end.
    const kind = await stat(path);
    if (!kind.isFile()) {
      const what = kind.isDirectory() ? 'a folder' : 'no regular file';
      throw new DistilWhisperError('ERR_FILE_READ', `${path} could not be read: it is ${what}, expected a file`);
    }
    size = kind.size;
    if (size <= MAX_TEXT_BYTES) return await retried(() => readFile(path));
  } catch (error) {
    throw fileReadError(error, path);
  }
  throw new DistilWhisperError(
    code,
    `${path} has ${size} bytes, expected at most ${MAX_TEXT_BYTES}: it cannot be what it should be`,
  );
}
