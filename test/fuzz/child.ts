/**
 * The process that reads inputs: child.ts <module of the readers> <status file> <scratch folder>. Before every input it writes its
 * number and the time into the status file, so that whoever watches knows what it was doing when it hung or died.
 */
import { mkdirSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { type Fault, faultOf, LAST_CALL, MOST_GROWTH, type Reply, type Request } from './faults.js';
import { Random } from './random.js';
import type { Reader, Session } from './reader.js';

/** test/fuzz/kernels.ts: random calls of the native kernels. */
interface Kernels {
  run(options: {
    seconds: number;
    seed: number;
    report(line: string): void;
    trace(line: string): void;
  }): Promise<{ calls: number; faults: readonly string[] }>;
}

const [, , module, statusPath, scratch] = process.argv as [string, string, string, string, string];
// The kernels' random calls need no readers.
const { readers } = module ? ((await import(module)) as { readers: readonly Reader[] }) : { readers: [] };
const status = openSync(statusPath, 'r+');
const record = new Float64Array(3);
let rejected: Fault | null = null;
let open: { reader: Reader; session: Session } | undefined;
/** Inputs before a process asks how large it is. */
const LOOK_EVERY = 256;
/** Grown by so much, it makes place for a fresh one. */
const TIRED = 700 * 2 ** 20;
const born = process.memoryUsage.rss();

const reply = (message: Reply): void => {
  process.send!(message);
};

process.on('unhandledRejection', (reason) => {
  rejected = { ...(faultOf(reason) ?? { what: `${reason}` }), kind: 'rejection' };
});
process.on('uncaughtException', (error) => {
  rejected = { ...(faultOf(error) ?? { what: `${error}` }), kind: 'rejection' };
});
process.on('disconnect', () => process.exit());

/** The index of the input that is being read, since when, and the process's size then; -1: none. */
function watch(index: number, resident: number): void {
  record[0] = index;
  record[1] = Date.now();
  record[2] = resident;
  writeSync(status, record, 0, 24, 0);
}

async function sessionOf(name: string): Promise<Session> {
  if (open?.reader.name === name) return open.session;
  await open?.session.close?.();
  open = undefined;
  const reader = readers.find((each) => each.name === name);
  if (!reader) throw new Error(`no reader is called ${name}`);
  const folder = join(scratch, name);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  open = { reader, session: await reader.open(folder) };
  return open.session;
}

let resident = born;
let peak = 0;

/** Reads one input and tells what was wrong. */
async function attempt(session: Session, index: number, input: Uint8Array): Promise<Fault | null> {
  let fault: Fault | null = null;
  watch(index, resident);
  try {
    const result = session.read(input);
    if (result instanceof Promise) {
      await result;
      // Rejections that nobody waits for are told between two turns of the event loop.
      await turn();
    }
  } catch (error) {
    fault = faultOf(error);
  }
  const highest = process.resourceUsage().maxRSS * 1024;
  if (highest > peak) {
    if (peak > 0 && highest - Math.max(resident, 0) > MOST_GROWTH) {
      fault ??= { kind: 'memory', what: `it grew by ${Math.round((highest - resident) / 2 ** 20)} MiB` };
    }
    peak = highest;
  }
  fault ??= rejected;
  rejected = null;
  return fault;
}

async function loop({ seed, from, step, inputs, until, reader }: Extract<Request, { type: 'loop' }>): Promise<void> {
  const session = await sessionOf(reader);
  resident = process.memoryUsage.rss();
  peak = process.resourceUsage().maxRSS * 1024;
  let index = from;
  let done = 0;
  let tired = false;
  // One at least, however late it is.
  while (done < inputs && !tired && (done === 0 || Date.now() < until)) {
    const input = session.make(new Random(reader, seed, index));
    const fault = await attempt(session, index, input);
    if (fault) reply({ type: 'found', index, fault });
    index += step;
    done++;
    if (done % LOOK_EVERY === 0 || fault) {
      resident = process.memoryUsage.rss();
      tired = resident - born > TIRED;
      watch(-1, resident);
      await turn();
    }
  }
  watch(-1, resident);
  reply({ type: 'ended', inputs: done, next: index, tired });
}

async function answer(request: Request): Promise<void> {
  if (request.type === 'loop') return loop(request);
  if (request.type === 'kernels') {
    const { run } = (await import(new URL('./kernels.ts', import.meta.url).href)) as Kernels;
    const { seconds, seed } = request;
    mkdirSync(scratch, { recursive: true });
    const last = openSync(join(scratch, LAST_CALL), 'w');
    watch(0, resident);
    const { calls, faults } = await run({
      seconds,
      seed,
      report: (line) => reply({ type: 'said', line }),
      // What it was doing is read by the supervisor when the process has died.
      trace: (line) => writeSync(last, line.slice(0, 1000).padEnd(1000), 0),
    });
    for (const [index, what] of faults.entries()) reply({ type: 'found', index, fault: { kind: 'result', what } });
    watch(-1, resident);
    return reply({ type: 'ended', inputs: calls, next: calls, tired: true });
  }
  const session = await sessionOf(request.reader);
  if (request.type === 'make') {
    const { reader, seed, index } = request;
    return reply({ type: 'made', input: session.make(new Random(reader, seed, index)) });
  }
  resident = process.memoryUsage.rss();
  peak = process.resourceUsage().maxRSS * 1024;
  const fault = await attempt(session, 0, request.input);
  watch(-1, resident);
  reply({ type: 'tried', fault });
}

process.on('message', (request: Request) => {
  answer(request).catch((error: Error) => {
    process.stderr.write(`${error.stack}\n`);
    process.exit(70);
  });
});
reply({ type: 'ready' });
