/** The errors of the file system, typed. */
import { DistilWhisperError, isDistilWhisperError } from './error.js';

/** The system's own code of a failed call ('ENOENT'), or undefined for any other error. */
export function systemCode(error: unknown): string | undefined {
  if (!(error instanceof Error) || !('syscall' in error || 'errno' in error)) return undefined;
  return 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

/** The typed error for a failed read of `path`: ERR_FILE_NOT_FOUND or ERR_FILE_READ. Typed errors pass through. */
export function fileReadError(error: unknown, path: string): DistilWhisperError {
  if (isDistilWhisperError(error)) return error;
  const code = systemCode(error);
  if (code === 'ENOENT' || code === 'ENOTDIR') {
    return new DistilWhisperError('ERR_FILE_NOT_FOUND', `There is no file ${path}`, { cause: error });
  }
  const reason = code === 'EISDIR' ? 'it is a folder, expected a file' : (code ?? String(error));
  return new DistilWhisperError('ERR_FILE_READ', `${path} could not be read: ${reason}`, { cause: error });
}

const REASONS: Record<string, string> = {
  EACCES: 'no permission',
  EPERM: 'no permission',
  EROFS: 'the file system is read-only',
  ENOENT: 'there is no such folder',
  ENOTDIR: 'a part of the path is no folder',
  EIO: 'the device failed',
  ENXIO: 'nothing is at its other end',
};

/** The typed error for a failed write of `path`: ERR_DISK_FULL (also a full quota) or ERR_FILE_WRITE. */
export function fileWriteError(error: unknown, path: string): DistilWhisperError {
  if (isDistilWhisperError(error)) return error;
  const code = systemCode(error);
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new DistilWhisperError(
      'ERR_DISK_FULL',
      `The disk is full: ${path} was not written, and what was there is untouched`,
      {
        cause: error,
      },
    );
  }
  const reason = code === undefined ? String(error) : REASONS[code] ? `${REASONS[code]} (${code})` : code;
  return new DistilWhisperError('ERR_FILE_WRITE', `${path} could not be written: ${reason}`, { cause: error });
}
