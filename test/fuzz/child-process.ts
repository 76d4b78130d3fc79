/** A child that reads inputs, watched from outside: how long the input under way takes, how far the process has grown, how it ends. */
import { type ChildProcess, fork } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type Fault, MOST_GROWTH, type Reply, type Request } from './faults.js';

/** Milliseconds between two looks at a child. */
const LOOK_EVERY = 50;
const PAGE_BYTES = 4096;

/** What came of a request: the child's last reply, or how it died and at which input (-1: at none). */
export type Outcome = { reply: Reply } | { fault: Fault; index: number };

/** Bytes of a process in memory; undefined where the system does not tell. */
function residentBytes(pid: number): number | undefined {
  try {
    return Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]) * PAGE_BYTES;
  } catch {
    return undefined;
  }
}

/** Seconds that a process has computed; undefined where the system does not tell. */
function computedSeconds(pid: number): number | undefined {
  try {
    // Behind the name, which may hold anything: state, 10 numbers, then user and system time in hundredths of a second.
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ').at(-1)!.split(' ');
    return (Number(fields[11]) + Number(fields[12])) / 100;
  } catch {
    return undefined;
  }
}

/** On a busy machine an input waits for its turn: it may take so many times its seconds, as long as it does not compute for more. */
const PATIENCE = 4;

export class WatchedChild {
  private child: ChildProcess | undefined;
  private readonly statusPath: string;
  private readonly status: number;
  private readonly record = new Float64Array(3);
  private stderr = '';
  private settle: ((outcome: Outcome) => void) | undefined;
  private onReply: (reply: Reply) => void = () => {};
  private killedFor: Fault | undefined;
  /** The input that was seen last, and what the process had computed by then. */
  private seen = { index: -1, since: 0, computed: 0 };

  /** `folder`: for what the child needs, best in memory; `module`: the readers. */
  constructor(
    private readonly folder: string,
    private readonly module: string,
    private readonly env: NodeJS.ProcessEnv = process.env,
  ) {
    mkdirSync(folder, { recursive: true });
    this.statusPath = join(folder, 'status');
    writeFileSync(this.statusPath, new Uint8Array(24));
    this.status = openSync(this.statusPath, 'r');
  }

  /** Sends a request and watches the child until it has answered or is dead; an input may take `seconds`. */
  async ask(request: Request, seconds: number, onReply: (reply: Reply) => void = () => {}): Promise<Outcome> {
    const child = this.child ?? (await this.start());
    this.onReply = onReply;
    const asked = Date.now();
    const timer = setInterval(() => this.look(child, seconds, asked), LOOK_EVERY);
    try {
      return await new Promise<Outcome>((resolve) => {
        this.settle = resolve;
        if (child.exitCode !== null || child.signalCode !== null) this.died(child.exitCode, child.signalCode);
        else child.send(request);
      });
    } finally {
      clearInterval(timer);
      this.settle = undefined;
    }
  }

  /** Starts the child before it is needed. */
  async ready(): Promise<void> {
    if (!this.child) await this.start();
  }

  /** Ends the child; the next request gets a fresh one. */
  end(): void {
    this.child?.kill('SIGKILL');
    this.child = undefined;
  }

  close(): void {
    this.end();
    closeSync(this.status);
    rmSync(this.folder, { recursive: true, force: true });
  }

  private async start(): Promise<ChildProcess> {
    writeFileSync(this.statusPath, new Uint8Array(new Float64Array([-1, 0, 0]).buffer));
    this.stderr = '';
    this.killedFor = undefined;
    const script = fileURLToPath(new URL('./child.ts', import.meta.url));
    const child = fork(script, [this.module, this.statusPath, join(this.folder, 'scratch')], {
      env: this.env,
      execArgv: ['--import=tsx', '--max-old-space-size=2048'],
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.child = child;
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr = (this.stderr + text).slice(-4000);
    });
    await new Promise<void>((resolve, reject) => {
      child.once('message', () => resolve());
      child.once('exit', () => reject(new Error(`the readers could not be loaded: ${this.stderr}`)));
    });
    child.removeAllListeners('exit');
    child.on('message', (reply: Reply) => {
      if (reply.type === 'found' || reply.type === 'said') this.onReply(reply);
      else this.settle?.({ reply });
    });
    // 'close' comes when standard error has been read to its end.
    child.on('close', (code, signal) => {
      if (this.child === child) this.died(code, signal);
    });
    return child;
  }

  private look(child: ChildProcess, seconds: number, asked: number): void {
    if (this.killedFor || child.pid === undefined) return;
    readSync(this.status, this.record, 0, 24, 0);
    const [index, since, before] = this.record as unknown as [number, number, number];
    if (index < 0 || since < asked) return;
    const computed = computedSeconds(child.pid);
    if (this.seen.index !== index || this.seen.since !== since) this.seen = { index, since, computed: computed ?? 0 };
    const took = (Date.now() - since) / 1000;
    const grown = (residentBytes(child.pid) ?? 0) - before;
    const late = computed === undefined ? took > seconds : computed - this.seen.computed > seconds;
    if (late || took > PATIENCE * seconds) this.killedFor = { kind: 'time', what: `no answer within ${seconds} s` };
    else if (grown > MOST_GROWTH)
      this.killedFor = { kind: 'memory', what: `it grew by ${Math.round(grown / 2 ** 20)} MiB` };
    if (this.killedFor) child.kill('SIGKILL');
  }

  private died(code: number | null, signal: NodeJS.Signals | null): void {
    this.child = undefined;
    readSync(this.status, this.record, 0, 24, 0);
    const lines = this.stderr.split('\n').filter((line) => line.trim() !== '');
    const said = lines.find((line) => /error|abort|fault|assert|out of memory/i.test(line)) ?? lines.at(-1) ?? '';
    const how = signal ? `ended by ${signal}` : `exit status ${code}`;
    const fault = this.killedFor ?? { kind: 'death', what: said ? `${how}: ${said.trim().slice(0, 200)}` : how };
    this.settle?.({ fault, index: this.record[0]! });
  }
}
