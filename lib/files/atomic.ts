/** Writing whole or not at all: beside, synced, then renamed. */
import { copyFile, mkdir, open, rename, rm } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { DistilWhisperError, systemCode } from '../errors/index.js';
import { openOutput } from './output.js';
import { isFile } from './read.js';
import { besideName, type FileSink, Replacement, syncFolder, typed, writeAll } from './replacement.js';
import { targetOf } from './target.js';

/**
 * Writes `path` through `fill`: a temporary file beside it takes the content, is synced, and is renamed over `path`;
 * the folder is synced last. After a failure the temporary file is gone and an earlier `path` is untouched. Mode and owner of an
 * earlier file are kept, links are followed, and what is no regular file (a device, a pipe) is written through.
 * Throws ERR_DISK_FULL or ERR_FILE_WRITE; whatever `fill` itself throws passes through.
 */
export async function writeFileAtomic(path: string, fill: (sink: FileSink) => Promise<void>): Promise<void> {
  const { kind, descriptor } = await typed(path, () => targetOf(path));
  if (descriptor !== null || (kind && !kind.isFile() && !kind.isDirectory())) {
    const output = await openOutput(path);
    try {
      await fill(output);
    } finally {
      await output.close();
    }
    return;
  }
  const file = await Replacement.begin(path);
  let at = 0;
  try {
    await fill({
      append: async (bytes) => {
        await file.write(bytes, at);
        at += bytes.byteLength;
      },
    });
    await file.commit();
  } finally {
    await typed(path, () => file.discard());
  }
}

/**
 * Writes the folder `path` through `fill`, which gets the path of a temporary folder beside it; that is synced and then
 * renamed. An earlier `path` is an error unless `replace` is set; then it is moved aside, and removed once the new one
 * stands (a process killed between the two renames leaves the old content in `path.<hex>.old`).
 * After a failure the temporary folder is gone and an earlier `path` is untouched.
 */
export async function writeFolderAtomic(
  path: string,
  fill: (temporary: string) => Promise<void>,
  options: { replace?: boolean } = {},
): Promise<void> {
  const { path: target, kind: earlier } = await typed(path, () => targetOf(resolve(path)));
  if (earlier && !(options.replace && earlier.isDirectory())) {
    const advice = earlier.isDirectory() ? 'ask for it to be replaced, or name another folder' : 'it is no folder';
    throw new DistilWhisperError('ERR_FILE_WRITE', `${path} exists already: ${advice}`);
  }
  const temporary = besideName(target, 'tmp');
  await typed(path, () => mkdir(dirname(target), { recursive: true }));
  await typed(path, () => mkdir(temporary));
  try {
    await fill(temporary);
    await typed(path, () => syncFolder(temporary));
    await typed(path, () => swapIn(temporary, target, earlier !== null));
  } catch (error) {
    // The error that counts is the one that brought us here.
    await rm(temporary, { recursive: true, force: true }).catch(() => {});
    throw error;
  }
}

async function swapIn(temporary: string, target: string, earlier: boolean): Promise<void> {
  if (!earlier) {
    // rename() replaces an empty folder silently, which is what a folder made meanwhile by someone else would be.
    await rename(temporary, target);
    await syncFolder(dirname(target));
    return;
  }
  const aside = besideName(target, 'old');
  await rename(target, aside);
  try {
    await rename(temporary, target);
  } catch (error) {
    await rename(aside, target).catch(() => {});
    throw error;
  }
  await syncFolder(dirname(target));
  await rm(aside, { recursive: true, force: true }).catch(() => {});
}

/**
 * Removes a folder so that, whenever the process is killed, it is there whole or not there: it is renamed first. Nothing there
 * is no error. Throws ERR_FILE_WRITE.
 */
export async function removeFolderAtomic(path: string): Promise<void> {
  await typed(path, async () => {
    const aside = besideName(resolve(path), 'old');
    try {
      await rename(path, aside);
    } catch (error) {
      if (systemCode(error) === 'ENOENT') return;
      throw error;
    }
    await rm(aside, { recursive: true, force: true });
  });
}

/** Writes a small file inside a folder that is itself still temporary: synced, not renamed. */
export async function writeSynced(folder: string, name: string, content: Uint8Array | string): Promise<void> {
  const path = join(folder, name);
  await typed(path, async () => {
    const file = await open(path, 'wx');
    try {
      await writeAll(file, typeof content === 'string' ? new TextEncoder().encode(content) : content, null);
      await file.sync();
    } finally {
      await file.close();
    }
  });
}

/** Copies a file into a folder that is itself still temporary. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_WRITE, ERR_DISK_FULL. */
export async function copySynced(from: string, to: string): Promise<void> {
  if (!(await isFile(from))) throw new DistilWhisperError('ERR_FILE_NOT_FOUND', `There is no file ${from}`);
  await typed(to, async () => {
    await copyFile(from, to);
    const file = await open(to, 'r');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  });
}
