/** Runs readers in children, replaces those that hang or die, and keeps each new fault with the smallest input that shows it. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type Outcome, WatchedChild } from './child-process.js';
import { type Fault, MOST_SECONDS, signature } from './faults.js';
import { minimise } from './minimise.js';
import type { Reader } from './reader.js';

export interface FuzzOptions {
  readers: readonly Reader[];
  /** URL of the module that exports them. */
  module: string;
  /** Together, over all readers by their shares. Both are bounds; one of them is needed. */
  seconds?: number;
  inputs?: number;
  seed: number;
  /** Children at once. */
  jobs: number;
  /** Where finds are written; made when the first one comes. */
  finds: string;
  log?: (line: string) => void;
  /** Seconds for making the inputs of a find smaller. */
  minimiseSeconds?: number;
}

export interface Find {
  reader: string;
  seed: number;
  index: number;
  fault: Fault;
  /** How often it came. */
  times: number;
  /** Whether a fresh process shows it with this input alone. */
  alone: boolean;
  bytes: number;
  file: string;
}

export interface ReaderReport {
  reader: string;
  inputs: number;
  seconds: number;
  finds: Find[];
}

/** A temporary folder, in memory where the system has one. */
export const scratchFolder = (): string =>
  mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'distilwhisper-fuzz-'));

/** Inputs with the same fault that are tried alone, where the first ones do not show it. */
const MOST_TRIED = 8;

/** Fuzzes the readers one after the other. */
export async function fuzz(options: FuzzOptions): Promise<ReaderReport[]> {
  const scratch = scratchFolder();
  const children = Array.from(
    { length: options.jobs },
    (_, i) => new WatchedChild(join(scratch, `job-${i}`), options.module),
  );
  const spare = new WatchedChild(join(scratch, 'spare'), options.module);
  const whole = options.readers.reduce((sum, { share = 1 }) => sum + share, 0);
  const reports: ReaderReport[] = [];
  // Also when the process is told to end: a child that hangs would stay behind.
  const sweep = (): void => {
    for (const child of [...children, spare]) child.end();
    rmSync(scratch, { recursive: true, force: true });
  };
  process.once('exit', sweep);
  try {
    await Promise.all(children.map((child) => child.ready()));
    for (const reader of options.readers) {
      const part = (reader.share ?? 1) / whole;
      reports.push(await new Campaign(reader, part, options, children, spare).run());
    }
  } finally {
    for (const child of [...children, spare]) child.close();
    sweep();
    process.off('exit', sweep);
  }
  return reports;
}

/** One reader's turn. */
class Campaign {
  private readonly limit: number;
  private readonly known = new Map<string, Find>();
  /** Inputs with a known fault that none has shown alone yet. */
  private readonly waiting = new Map<string, number[]>();
  private inputs = 0;
  /** Finds are looked into one at a time. */
  private looking: Promise<void> = Promise.resolve();

  constructor(
    private readonly reader: Reader,
    private readonly part: number,
    private readonly options: FuzzOptions,
    private readonly children: readonly WatchedChild[],
    private readonly spare: WatchedChild,
  ) {
    this.limit = reader.seconds ?? MOST_SECONDS;
  }

  async run(): Promise<ReaderReport> {
    const { options, part, children } = this;
    const begin = Date.now();
    const until = options.seconds === undefined ? Number.POSITIVE_INFINITY : begin + options.seconds * 1000 * part;
    const inputs =
      options.inputs === undefined ? Number.POSITIVE_INFINITY : Math.ceil((options.inputs * part) / children.length);
    await Promise.all(children.map((child, job) => this.job(child, job, inputs, until)));
    const seconds = (Date.now() - begin) / 1000;
    await this.looking;
    return { reader: this.reader.name, inputs: this.inputs, seconds, finds: [...this.known.values()] };
  }

  /** Inputs number `job`, `job` + jobs, …: which process reads an input changes nothing of it. */
  private async job(child: WatchedChild, job: number, inputs: number, until: number): Promise<void> {
    const { reader, options, children } = this;
    let from = job;
    let left = inputs;
    while (left > 0 && Date.now() < until) {
      const request = { type: 'loop', reader: reader.name, seed: options.seed, from, step: children.length } as const;
      const outcome = await child.ask({ ...request, inputs: left, until }, this.limit, (reply) => {
        if (reply.type === 'found') this.found(reply.index, reply.fault);
      });
      if ('reply' in outcome) {
        if (outcome.reply.type !== 'ended') throw new Error(`unexpected answer of a child: ${outcome.reply.type}`);
        this.inputs += outcome.reply.inputs;
        left -= outcome.reply.inputs;
        from = outcome.reply.next;
        if (outcome.reply.tired) child.end();
        continue;
      }
      if (outcome.index < 0) throw new Error(`${reader.name}: a child died without an input: ${outcome.fault.what}`);
      this.found(outcome.index, outcome.fault);
      const done = (outcome.index - from) / children.length + 1;
      this.inputs += done;
      left -= done;
      from = outcome.index + children.length;
    }
  }

  private found(index: number, fault: Fault): void {
    const key = signature(this.reader.name, fault);
    const earlier = this.known.get(key);
    if (earlier) {
      earlier.times++;
      if (!earlier.alone && this.waiting.get(key)!.length < MOST_TRIED) this.waiting.get(key)!.push(index);
      return;
    }
    const { options, reader } = this;
    const find: Find = {
      reader: reader.name,
      seed: options.seed,
      index,
      fault,
      times: 1,
      alone: false,
      bytes: 0,
      file: '',
    };
    this.known.set(key, find);
    this.waiting.set(key, [index]);
    this.looking = this.looking.then(() => this.lookInto(find, key));
  }

  /** Looks for an input that shows the fault alone, makes it smaller and writes it down. */
  private async lookInto(find: Find, key: string): Promise<void> {
    const { reader, spare, limit, options } = this;
    const attempt = async (input: Uint8Array): Promise<Fault | null> =>
      tried(await spare.ask({ type: 'try', reader: reader.name, input }, limit));
    let input: Uint8Array = new Uint8Array();
    for (let index = this.waiting.get(key)!.shift(); index !== undefined; index = this.waiting.get(key)!.shift()) {
      input = await this.make(index);
      // What an input leaves behind in its process is not there for the next.
      spare.end();
      const alone = await attempt(input);
      find.index = index;
      if (!alone) continue;
      find.alone = true;
      const shown = signature(reader.name, alone);
      const still = async (smaller: Uint8Array): Promise<boolean> => {
        const fault = await attempt(smaller);
        return fault !== null && signature(reader.name, fault) === shown;
      };
      const until = Date.now() + 1000 * (options.minimiseSeconds ?? 20);
      input = await minimise(input, still, { tries: 3000, until });
      break;
    }
    if (!find.alone && find.fault.kind === 'time') {
      // It was the machine that was slow.
      this.known.delete(key);
      options.log?.(
        `${reader.name}: input ${find.index} took longer than ${limit} s once, and not when it was tried alone`,
      );
      return;
    }
    find.bytes = input.length;
    find.file = join(options.finds, reader.name, `${options.seed}-${find.index}`);
    mkdirSync(dirname(find.file), { recursive: true });
    writeFileSync(find.file, input);
    options.log?.(describe(find));
  }

  private async make(index: number): Promise<Uint8Array> {
    const { reader, options } = this;
    const made = await this.spare.ask({ type: 'make', reader: reader.name, seed: options.seed, index }, this.limit);
    if ('reply' in made && made.reply.type === 'made') return made.reply.input;
    throw new Error(`${reader.name}: input ${index} could not be made again`);
  }
}

function tried(outcome: Outcome): Fault | null {
  if (!('reply' in outcome)) return outcome.fault;
  return outcome.reply.type === 'tried' ? outcome.reply.fault : null;
}

/** Reads given inputs, each in a child that the one before may have left; gives what was wrong with each. */
export async function replay(
  module: string,
  inputs: readonly { reader: Reader; input: Uint8Array }[],
): Promise<(Fault | null)[]> {
  const scratch = scratchFolder();
  const child = new WatchedChild(scratch, module);
  const faults: (Fault | null)[] = [];
  try {
    for (const { reader, input } of inputs) {
      const request = { type: 'try', reader: reader.name, input } as const;
      faults.push(tried(await child.ask(request, reader.seconds ?? MOST_SECONDS)));
    }
  } finally {
    child.close();
  }
  return faults;
}

export function describe({ reader, seed, index, fault, alone, bytes, file }: Find): string {
  const where = fault.where ? ` (${fault.where})` : '';
  const state = alone ? '' : ', not by this input alone';
  return `${reader}: ${fault.kind}: ${fault.what}${where}; seed ${seed}, input ${index}${state}; ${bytes} bytes in ${file}`;
}
