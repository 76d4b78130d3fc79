/** Outputs as they are found: links, modes, devices, pipes, full and read-only disks; locks on folders. */
import { execFileSync, spawn } from 'node:child_process';
import {
  chmodSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { isDistilWhisperError } from '../../lib/errors/index.js';
import { FolderLock, openOutput, proveFolder, proveOutput, visible, writeFileAtomic } from '../../lib/files/index.js';

const folder = (t: ExecutionContext): string => {
  const path = mkdtempSync(join(tmpdir(), 'files-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
};
const write = (path: string, text: string): Promise<void> =>
  writeFileAtomic(path, (sink) => sink.append(Buffer.from(text)));
const read = (path: string): string => readFileSync(path, 'utf8');

/** Whether a command that needs rights or a tool could be run. */
function can(command: string, ...args: string[]): boolean {
  try {
    execFileSync(command, args, { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

function skipped(t: ExecutionContext, why: string): void {
  t.log(`skipped: ${why}`);
  t.pass();
}

/** A file system of its own, or null where mounting is not permitted. */
function smallDisk(t: ExecutionContext): string | null {
  const path = folder(t);
  if (!can('mount', '-t', 'tmpfs', '-o', 'size=256k', 'tmpfs', path)) return null;
  t.teardown(() => execFileSync('umount', ['-l', path]));
  return path;
}

const posix = process.platform === 'win32' ? test.skip : test;

posix('a file that is replaced keeps its mode and owner, and nothing lies beside it', async (t) => {
  const path = folder(t);
  const file = join(path, 'secret');
  writeFileSync(file, 'old');
  chmodSync(file, 0o640);
  const asRoot = can('chown', '1234:2345', file);
  const before = statSync(file);
  await write(file, 'new');
  const { mode, uid, gid } = statSync(file);
  t.deepEqual([mode, uid, gid], [before.mode, before.uid, before.gid]);
  if (asRoot) t.deepEqual([uid, gid], [1234, 2345]);
  t.is(read(file), 'new');
  t.deepEqual(readdirSync(path), ['secret']);
  // A new one gets what the process gives.
  await write(join(path, 'fresh'), 'x');
  t.is(statSync(join(path, 'fresh')).mode & 0o777, 0o666 & ~process.umask());
});

posix('links are followed, through others and to where nothing is yet; a circle is refused', async (t) => {
  const path = folder(t);
  mkdirSync(join(path, 'far'));
  writeFileSync(join(path, 'far', 'real'), 'old');
  symlinkSync('real', join(path, 'far', 'second'));
  symlinkSync(join('far', 'second'), join(path, 'first'));
  symlinkSync(join('far', 'none'), join(path, 'dangling'));
  await write(join(path, 'first'), 'new');
  await write(join(path, 'dangling'), 'made');
  t.is(readlinkSync(join(path, 'first')), join('far', 'second'));
  t.true(lstatSync(join(path, 'dangling')).isSymbolicLink());
  t.is(read(join(path, 'far', 'real')), 'new');
  t.is(read(join(path, 'far', 'none')), 'made');
  t.deepEqual(readdirSync(join(path, 'far')).sort(), ['none', 'real', 'second']);
  symlinkSync('b', join(path, 'a'));
  symlinkSync('a', join(path, 'b'));
  await t.throwsAsync(write(join(path, 'a'), 'x'), { code: 'ERR_FILE_WRITE', message: /circle/ });
});

posix('a name as long as the file system has them is written', async (t) => {
  const path = folder(t);
  const file = join(path, 'ü'.repeat(127));
  await write(file, 'x');
  await write(file, 'y');
  t.is(read(file), 'y');
});

posix('what cannot be written is refused before, by what it is, and nothing is left of the asking', async (t) => {
  const path = folder(t);
  writeFileSync(join(path, 'file'), 'old');
  mkdirSync(join(path, 'folder'));
  for (const [name, says] of [
    ['folder', /expected the name of a file, got a folder/],
    [join('none', 'x'), /expected an existing folder/],
    [join('file', 'x'), /file/],
  ] as const) {
    await t.throwsAsync(proveOutput(join(path, name)), { code: 'ERR_FILE_WRITE', message: says }, name);
    await t.throwsAsync(openOutput(join(path, name)), { code: 'ERR_FILE_WRITE', message: says }, name);
  }
  await t.throwsAsync(proveFolder(join(path, 'file', 'run')), { code: 'ERR_FILE_WRITE', message: /file/ });
  await proveOutput(join(path, 'file'));
  await proveOutput(join(path, 'new'));
  await proveFolder(join(path, 'a', 'b', 'c'));
  t.deepEqual(readdirSync(path).sort(), ['file', 'folder']);
  t.is(read(join(path, 'file')), 'old');
  const disk = smallDisk(t);
  if (!disk) return t.log('a read-only file system was not tried: mounting is not permitted here');
  writeFileSync(join(disk, 'x'), 'old');
  execFileSync('mount', ['-o', 'remount,ro', disk]);
  for (const prove of [() => proveOutput(join(disk, 'x')), () => proveOutput(join(disk, 'y')), () => proveFolder(disk)])
    await t.throwsAsync(prove(), { code: 'ERR_FILE_WRITE', message: /read-only/ });
});

posix('a file that may not be written is refused although its folder would let it be replaced', async (t) => {
  if (process.getuid!() === 0) return skipped(t, 'root may write every file');
  const path = folder(t);
  writeFileSync(join(path, 'kept'), 'old', { mode: 0o444 });
  await t.throwsAsync(write(join(path, 'kept'), 'new'), { code: 'ERR_FILE_WRITE', message: /no permission/ });
  mkdirSync(join(path, 'closed'), { mode: 0o555 });
  await t.throwsAsync(proveOutput(join(path, 'closed', 'x')), { code: 'ERR_FILE_WRITE', message: /no permission/ });
  await t.throwsAsync(proveFolder(join(path, 'closed', 'x')), { code: 'ERR_FILE_WRITE', message: /no permission/ });
  t.deepEqual(readdirSync(path).sort(), ['closed', 'kept']);
});

posix('a file that cannot be renamed over, as a mount point cannot, is written in place', async (t) => {
  const path = folder(t);
  const [file, other] = [join(path, 'file'), join(path, 'other')];
  writeFileSync(file, 'what was there, which is longer');
  writeFileSync(other, '');
  if (!can('mount', '--bind', other, file)) return skipped(t, 'mounting is not permitted here');
  t.teardown(() => execFileSync('umount', ['-l', file]));
  await write(file, 'first');
  t.is(read(other), 'first');
  const output = await openOutput(file);
  await output.append('one\n');
  await output.append('two\n');
  await output.close();
  t.is(read(other), 'one\ntwo\n');
  t.deepEqual(readdirSync(path).sort(), ['file', 'other']);
});

posix('devices are written through', async (t) => {
  const path = folder(t);
  const [zero, full] = [join(path, 'null'), join(path, 'full')];
  const made = can('mknod', zero, 'c', '1', '3') && can('mknod', full, 'c', '1', '7');
  if (!made || !can('sh', '-c', `: > ${zero}`)) return skipped(t, 'devices cannot be made here');
  await write(zero, 'away');
  await t.throwsAsync(write(full, 'x'), { code: 'ERR_DISK_FULL' });
  const output = await openOutput(full);
  await t.throwsAsync(output.append('x'), { code: 'ERR_DISK_FULL' });
  await output.close();
  for (const device of [zero, full]) t.true(statSync(device).isCharacterDevice());
  t.deepEqual(readdirSync(path).sort(), ['full', 'null']);
});

posix('a pipe is written through; one that nothing reads is refused after a while, or when interrupted', async (t) => {
  const pipe = join(folder(t), 'pipe');
  execFileSync('mkfifo', [pipe]);
  const reader = spawn('cat', [pipe]);
  let got = '';
  reader.stdout.setEncoding('utf8').on('data', (text: string) => {
    got += text;
  });
  const closed = new Promise((resolve) => reader.on('close', resolve));
  const output = await openOutput(pipe);
  await output.append('[1', ']\n');
  // More than a pipe holds.
  await output.append(`,"${'x'.repeat(300_000)}"`, ']\n');
  await output.close();
  await closed;
  t.is(got, `[1,"${'x'.repeat(300_000)}"]\n`);
  t.true(statSync(pipe).isFIFO());
  await t.throwsAsync(openOutput(pipe), { code: 'ERR_FILE_WRITE', message: /expected a pipe that a process reads/ });
  const abort = new AbortController();
  setTimeout(() => abort.abort(), 100);
  await t.throwsAsync(openOutput(pipe, { signal: abort.signal }), { code: 'ERR_INTERRUPTED' });
});

posix('a socket is written through', async (t) => {
  const path = join(folder(t), 'socket');
  let got = '';
  const ended = new Promise<void>((resolve) => {
    const server = createServer((connection) => {
      connection.setEncoding('utf8').on('data', (text: string) => {
        got += text;
      });
      connection.on('end', () => server.close(() => resolve()));
    }).listen(path);
  });
  await write(path, 'said');
  await ended;
  t.is(got, 'said');
});

test('an output that grows: whole from the first, an earlier file untouched until then, its end written over', async (t) => {
  const path = folder(t);
  const file = join(path, 'list.json');
  writeFileSync(file, 'old');
  const unused = await openOutput(file);
  t.is(read(file), 'old');
  await unused.close();
  t.is(read(file), 'old');
  const output = await openOutput(file);
  await output.append('[1', ']\n');
  t.deepEqual(JSON.parse(read(file)), [1]);
  await output.append(',2', ']\n');
  t.deepEqual(JSON.parse(read(file)), [1, 2]);
  await output.close();
  t.is(read(file), '[1,2]\n');
  t.deepEqual(readdirSync(path), ['list.json']);
});

test('a disk that fills up leaves what was written before, whole', async (t) => {
  const disk = smallDisk(t);
  if (!disk) return skipped(t, 'mounting a small file system is not permitted here');
  const file = join(disk, 'list.json');
  writeFileSync(file, 'old');
  const large = 'x'.repeat(400_000);
  await t.throwsAsync(write(file, large), { code: 'ERR_DISK_FULL', message: /what was there is untouched/ });
  const first = await openOutput(file);
  await t.throwsAsync(first.append(large), { code: 'ERR_DISK_FULL' });
  await first.close();
  t.is(read(file), 'old');
  const output = await openOutput(file);
  await output.append('["one"', ']\n');
  await t.throwsAsync(output.append(`,"${large}"`, ']\n'), { code: 'ERR_DISK_FULL', message: /written before/ });
  await output.close();
  t.is(read(file), '["one"]\n');
  t.deepEqual(readdirSync(disk), ['list.json']);
});

test('controls are made visible for a terminal, but for what makes lines and columns', (t) => {
  t.is(visible('a\tb\nc é 你 \u200f'), 'a\tb\nc é 你 \u200f');
  t.is(
    visible('\u001b]0;x\u0007\r\u007f\u009b2J\u202e\u2066'),
    '\\u001b]0;x\\u0007\\u000d\\u007f\\u009b2J\\u202e\\u2066',
  );
});

/** A lock of this process, and how it is written. */
async function ownLock(path: string): Promise<{ lock: FolderLock; owner: Record<string, unknown> }> {
  const lock = await FolderLock.take(path, 'lock');
  return { lock, owner: JSON.parse(read(join(path, 'lock'))) };
}

test('a lock is held by one, told with process and host, and free again when it is let go', async (t) => {
  const path = folder(t);
  const { lock, owner } = await ownLock(path);
  t.like(owner, { pid: process.pid, host: hostname() });
  const error = await t.throwsAsync(FolderLock.take(path, 'lock'), { code: 'ERR_RUN' });
  t.true(isDistilWhisperError(error) && error.message.includes(`in use by process ${process.pid}`));
  t.true(error!.message.includes(`on host ${hostname()}`) && error!.message.includes(join(path, 'lock')));
  await t.throwsAsync(FolderLock.refuseIfHeld(path, 'lock'), { code: 'ERR_RUN' });
  await lock.release();
  await lock.release();
  t.deepEqual(readdirSync(path), []);
  const taken = await Promise.allSettled(Array.from({ length: 8 }, () => FolderLock.take(path, 'lock')));
  t.is(taken.filter(({ status }) => status === 'fulfilled').length, 1, 'of eight at once');
});

test('a lock whose process is gone is taken over; one of another host, or that is none, is not', async (t) => {
  const path = folder(t);
  const { lock, owner } = await ownLock(path);
  await lock.release();
  const gone = spawn(process.execPath, ['-e', '']);
  await new Promise((resolve) => gone.on('exit', resolve));
  const file = join(path, 'lock');
  const cases: [string, Record<string, unknown> | string, boolean][] = [
    ['a process that is gone', { pid: gone.pid }, true],
    ['this process, which does not hold it', {}, true],
    ['another thread of this process', { thread: 99 }, false],
    ['a process on another host', { pid: gone.pid, host: 'elsewhere' }, false],
    ['nothing', '', false],
    ['no process', '{"pid":-1}', false],
  ];
  if (process.platform === 'linux') {
    cases.push(['its number given again', { pid: process.ppid, started: '1' }, true]);
    cases.push(['the machine started again', { pid: process.ppid, boot: 'another' }, true]);
  }
  for (const [what, change, free] of cases) {
    const text = typeof change === 'string' ? change : JSON.stringify({ ...owner, ...change });
    writeFileSync(file, text);
    if (free) {
      const taken = await FolderLock.take(path, 'lock');
      await taken.release();
      t.deepEqual(readdirSync(path), [], what);
    } else {
      const error = await t.throwsAsync(FolderLock.take(path, 'lock'), { code: 'ERR_RUN' }, what);
      t.regex(error!.message, /delete/, what);
      t.true(error!.message.includes(file), what);
      t.is(read(file), text, what);
    }
  }
});
