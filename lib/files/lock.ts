/** A lock on a folder, by a file in it that says which process has it. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { link, open, readFile, rename, rm } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { threadId } from 'node:worker_threads';
import { DistilWhisperError, fileReadError, systemCode } from '../errors/index.js';
import { ifThere, retried } from './read.js';
import { besideName, typed, writeAll } from './replacement.js';

interface Owner {
  pid: number;
  host: string;
  /** When the process started, in ticks since the machine did: another process may get the same number. Empty where unknown. */
  started: string;
  /** Which start of the machine; empty where unknown. */
  boot: string;
  /** The thread of the process. */
  thread: number;
  /** Different for every lock. */
  key: string;
  since: string;
}

const held = new Set<string>();

function textOf(path: string): string {
  try {
    return readFileSync(path, 'latin1').trim();
  } catch {
    return '';
  }
}

/** Field 22 of /proc/PID/stat, behind the name, which may hold anything. */
const startOf = (pid: number): string => {
  const stat = textOf(`/proc/${pid}/stat`);
  return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? '';
};

const here = (): Omit<Owner, 'key' | 'since'> => ({
  pid: process.pid,
  host: hostname(),
  started: startOf(process.pid),
  boot: textOf('/proc/sys/kernel/random/boot_id'),
  thread: threadId,
});

function parse(text: string): Owner | null {
  try {
    const { pid, host, started, boot, thread, key, since } = JSON.parse(text) as Owner;
    const sound = Number.isSafeInteger(pid) && pid > 0 && Number.isSafeInteger(thread);
    const strings = [host, started, boot, key, since].every((value) => typeof value === 'string');
    return sound && strings ? { pid, host, started, boot, thread, key, since } : null;
  } catch {
    return null;
  }
}

/** Whether the process that wrote a lock is certainly gone. */
function isGone(owner: Owner): boolean {
  const now = here();
  if (owner.host !== now.host) return false;
  if (owner.boot !== now.boot) return owner.boot !== '' && now.boot !== '';
  if (owner.pid === now.pid && owner.started === now.started) {
    // Left by this thread, when the file could not be removed.
    return owner.thread === now.thread && !held.has(owner.key);
  }
  try {
    process.kill(owner.pid, 0);
  } catch (error) {
    // EPERM: there is one, of another user.
    return systemCode(error) === 'ESRCH';
  }
  const started = startOf(owner.pid);
  return started !== '' && owner.started !== '' && started !== owner.started;
}

/**
 * That one process, and one thread of it, works in a folder. A lock of a process that is gone (killed, or from before the machine
 * started again) is taken over; of a process on another host nobody here can know, and its lock is to be removed by hand.
 */
export class FolderLock {
  private constructor(
    private readonly file: string,
    private readonly key: string,
  ) {}

  /** Refuses a folder that another process works in: ERR_RUN, naming it. Nothing is touched. */
  static async refuseIfHeld(folder: string, name: string): Promise<void> {
    await living(join(folder, name), folder);
  }

  /** Takes the lock `name` of an existing folder. Errors: ERR_RUN (another process has it), ERR_FILE_WRITE, ERR_DISK_FULL. */
  static async take(folder: string, name: string): Promise<FolderLock> {
    const file = join(folder, name);
    const key = randomBytes(8).toString('hex');
    const owner: Owner = { ...here(), key, since: new Date().toISOString() };
    for (;;) {
      const stale = await living(file, folder);
      if (stale !== null) await takeAway(file, stale);
      if (await make(file, `${JSON.stringify(owner)}\n`)) break;
    }
    held.add(key);
    return new FolderLock(file, key);
  }

  /** Lets go. A lock that cannot be removed is recognised as left behind. */
  async release(): Promise<void> {
    if (!held.delete(this.key)) return;
    await rm(this.file, { force: true }).catch(() => {});
  }
}

/** The text of a lock whose process is gone; null where there is none. Throws ERR_RUN where the process is or may be there. */
async function living(file: string, folder: string): Promise<string | null> {
  let text: string | null;
  try {
    text = await ifThere(retried(() => readFile(file, 'utf8')));
  } catch (error) {
    throw fileReadError(error, file);
  }
  if (text === null) return null;
  const owner = parse(text);
  if (!owner) {
    throw new DistilWhisperError(
      'ERR_RUN',
      `${file}: expected the lock of a process, got something else; delete it if no process works in ${folder}`,
    );
  }
  if (isGone(owner)) return text;
  const { host, pid, thread, since } = owner;
  const own = pid === process.pid && host === hostname();
  const process_ = own ? `process ${pid} (this one${thread === threadId ? '' : ', another thread'})` : `process ${pid}`;
  throw new DistilWhisperError(
    'ERR_RUN',
    `${folder} is in use by ${process_} on host ${host} since ${since}; if that is no more, delete ${file}`,
  );
}

/** Removes a lock that was found stale, unless another process has just done so and taken its own. */
async function takeAway(file: string, stale: string): Promise<void> {
  await typed(file, async () => {
    const aside = besideName(file, 'old');
    if ((await ifThere(rename(file, aside).then(() => true))) === null) return;
    if ((await readFile(aside, 'utf8')) !== stale) {
      await link(aside, file).catch((error: unknown) => {
        if (systemCode(error) !== 'EEXIST') throw error;
      });
    }
    await rm(aside, { force: true });
  });
}

/** Makes the lock with its content in one step; false where there is one already. */
async function make(file: string, content: string): Promise<boolean> {
  return typed(file, async () => {
    const temporary = besideName(file, 'tmp');
    try {
      const made = await open(temporary, 'wx');
      try {
        await writeAll(made, Buffer.from(content), null);
        await made.sync();
      } finally {
        await made.close();
      }
      try {
        await link(temporary, file);
        return true;
      } catch (error) {
        const code = systemCode(error) ?? '';
        if (code === 'EEXIST') return false;
        if (!['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes(code)) throw error;
      }
      // A file system without hard links (FAT): there is a moment in which the lock is there without its content.
      let direct: Awaited<ReturnType<typeof open>>;
      try {
        direct = await open(file, 'wx');
      } catch (error) {
        if (systemCode(error) === 'EEXIST') return false;
        throw error;
      }
      try {
        await writeAll(direct, Buffer.from(content), null);
      } finally {
        await direct.close();
      }
      return true;
    } finally {
      await rm(temporary, { force: true }).catch(() => {});
    }
  });
}
