/** What a path that is to be written stands for. */
import type { Stats } from 'node:fs';
import { readlink, realpath, stat } from 'node:fs/promises';
import { dirname, isAbsolute, join, resolve } from 'node:path';
import { DistilWhisperError, systemCode } from '../errors/index.js';
import { ifThere } from './read.js';

/** As many as Linux follows. */
const LINKS = 40;
const STREAMS: Record<string, number> = { stdin: 0, stdout: 1, stderr: 2 };

/** The open file of this process that a path names: /dev/stdout, /dev/fd/3, /proc/self/fd/3, and '-' for standard output. */
function descriptorOf(path: string): number | null {
  if (path === '-') return 1;
  const [, stream, , number] = /^\/dev\/(std\w+)$|^\/(dev|proc\/(?:self|\d+))\/fd\/(\d+)$/.exec(path) ?? [];
  if (stream !== undefined) return STREAMS[stream] ?? null;
  const own = !path.startsWith('/proc/') || /^\/proc\/(self|\d+)\//.exec(path)?.[1] === 'self';
  return number !== undefined && (own || path.startsWith(`/proc/${process.pid}/`)) ? Number(number) : null;
}

export interface Target {
  /** Behind all links; there may be nothing of that name. */
  readonly path: string;
  /** The open file of this process that it is. */
  readonly descriptor: number | null;
  /** What is there; null where there is nothing, and for `descriptor`. */
  readonly kind: Stats | null;
}

/** Follows links, also one that points to nothing yet. Throws ERR_FILE_WRITE (links in a circle) and the system's errors. */
export async function targetOf(path: string): Promise<Target> {
  let at = path;
  for (let hops = 0; hops < LINKS; hops++) {
    const descriptor = descriptorOf(at);
    if (descriptor !== null) return { path: at, descriptor, kind: null };
    at = resolve(at);
    let next: string;
    try {
      next = await readlink(at);
    } catch (error) {
      // EINVAL: there is something, and it is no link.
      if (!['EINVAL', 'ENOENT'].includes(systemCode(error) ?? '')) throw error;
      return { path: at, descriptor: null, kind: await ifThere(stat(at)) };
    }
    // As the system reads it: from where the link really lies.
    at = isAbsolute(next) ? next : join(await realpath(dirname(at)), next);
  }
  throw new DistilWhisperError('ERR_FILE_WRITE', `${path}: expected a file, got links that lead in a circle`);
}
