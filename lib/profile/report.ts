/** What a trace says, summed up: how long each kernel ran, how near to the machine's ceilings, and why nothing ran. */
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { DistilWhisperError, fileReadError } from '../errors/index.js';
import { parseJson } from '../files/index.js';
import { stepParts, typeName } from '../tensor/index.js';
import { adviceOf } from './advice.js';
import { type Ceilings, ceilingNames } from './ceilings.js';
import { END, FORMAT, HEAD } from './profile.js';
import type { KernelSummary, ProfileReport, StreamSummary } from './summary.js';

interface Event {
  ph: string;
  tid?: number;
  ts?: number;
  dur?: number;
  cat?: string;
  name: string;
  // biome-ignore lint/suspicious/noExplicitAny: of many shapes
  args?: any;
}

interface Sum extends Pick<KernelSummary, 'name' | 'type' | 'shape' | 'calls'> {
  us: number;
  flop: number;
  bytes: number;
  /** At the ceilings: operations and bytes on their own, and the longer of the two of each call. */
  compute: number;
  memory: number;
  least: number;
}

interface Lane {
  name: string;
  device: string;
  isa: string;
  threads: number;
  sums: Map<string, Sum>;
  parts: Map<string, { us: number; flop: number }>;
  kernels: number;
  transfers: number;
  end: number;
  /** Begin and end of every stretch without work, in µs. */
  gaps: number[];
}

const object = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null;
const numbers = (...values: unknown[]): boolean => values.every(Number.isFinite);

/** Whether all is there that the sums are made of. */
function isEvent(value: unknown): value is Event {
  if (!object(value) || typeof value.name !== 'string') return false;
  const { ph, cat, name, ts, dur } = value;
  const args = object(value.args) ? value.args : {};
  if (ph === 'M' && name === HEAD) return isHead(args);
  if (ph === 'M' && name === END) return numbers(args.seconds, args.lost);
  if (ph === 'M') return value.args === args;
  if (ph === 'C') return numbers(ts, args.busy);
  if (ph !== 'X') return typeof ph === 'string' && numbers(ts);
  if (cat !== 'kernel' && cat !== 'transfer') return numbers(ts, dur);
  return numbers(ts, dur, args.flop, args.bytes) && typeof args.type === 'string';
}

/** Traces have called the ceiling of fp32 f32. */
const named = (ceilings: object): Record<string, unknown> =>
  Object.fromEntries(Object.entries(ceilings).map(([name, value]) => [typeName(name), value]));

function isHead({ format, machine, ceilings }: Record<string, unknown>): boolean {
  if (format !== FORMAT || !object(machine) || !object(ceilings)) return false;
  const known = named(ceilings);
  return ceilingNames.every((name) => Number(known[name]) > 0);
}

/** Shorter pauses between two calls are not looked at one by one: they are idle time. */
const GAP = 20;

/**
 * Reads a trace that `Profile` wrote, also one of a run that was interrupted. `byShape`: a kernel's shapes apart.
 * Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ; ERR_TRACE when the file is something else.
 */
export async function readProfile(path: string, options: { byShape?: boolean } = {}): Promise<ProfileReport> {
  const reader = new Reader(path, options.byShape ?? false);
  try {
    for await (const line of createInterface({ input: createReadStream(path), crlfDelay: Number.POSITIVE_INFINITY })) {
      reader.line(line);
    }
  } catch (error) {
    throw fileReadError(error, path);
  }
  return reader.report();
}

class Reader {
  private number = 0;
  private bad: string | null = null;
  private head: { machine: ProfileReport['machine']; ceilings: Ceilings } | null = null;
  private end: { seconds: number; lost: number } | null = null;
  private readonly streams = new Map<number, Lane>();
  private readonly busy = new Map<string, { lanes: Set<number>; us: number }>();
  /** Begin and end of every wait for data, in µs. */
  private readonly waits: [begin: number, end: number][] = [];
  private last = 0;
  private garbage = 0;
  private readonly thread = { us: 0, busy: 0, last: 0 };

  constructor(
    private readonly path: string,
    private readonly byShape: boolean,
  ) {}

  line(text: string): void {
    this.number++;
    // Only the last line of a trace whose process was killed can be cut off.
    if (this.bad !== null) this.refuse(this.bad);
    if (this.number === 1 && text.replace(/^\ufeff/, '') !== '[')
      this.refuse('line 1: expected the array that a profile begins with');
    const line = text.endsWith(',') ? text.slice(0, -1) : text;
    if (this.number === 1 || line === '' || line === ']') return;
    let event: unknown;
    try {
      event = parseJson(line);
    } catch {
      this.bad = `line ${this.number}: expected an event, got '${line.slice(0, 40)}'`;
      return;
    }
    if (!isEvent(event))
      this.refuse(`line ${this.number}: expected an event with all its fields, got '${line.slice(0, 40)}'`);
    if (!this.head && event.name !== HEAD) this.refuse(`line ${this.number}: expected the head of a profile`);
    this.event(event);
  }

  private refuse(why: string): never {
    throw new DistilWhisperError('ERR_TRACE', `${this.path} is no trace that this package wrote: ${why}`);
  }

  private event(event: Event): void {
    const { ph, tid = 0, ts = 0, dur = 0, cat = '', name, args } = event;
    if (ph === 'M' && name === HEAD) this.head = { ...args, ceilings: named(args.ceilings) };
    else if (ph === 'M' && name === END) this.end = args;
    else if (ph === 'M' && name === 'thread_name') this.lane(tid, args);
    this.last = Math.max(this.last, ts + dur);
    if (ph === 'C') {
      this.thread.busy += args.busy * (ts - this.thread.last);
      this.thread.us = this.thread.last = ts;
    }
    if (ph !== 'X') return;
    const stream = this.streams.get(tid);
    if (stream) {
      this.call(stream, event, ts, dur);
      return;
    }
    if (name === 'garbage collection') this.garbage += dur;
    if (cat === 'waiting for data') this.waits.push([ts, ts + dur]);
    if (cat === 'javascript') return;
    let sum = this.busy.get(cat);
    if (!sum) {
      sum = { lanes: new Set(), us: 0 };
      this.busy.set(cat, sum);
    }
    sum.lanes.add(tid);
    sum.us += dur;
  }

  private lane(tid: number, args: { name: string; device?: string; isa: string; threads: number }): void {
    const { name, device, isa, threads } = args;
    if (device === undefined) return;
    const none = { sums: new Map(), parts: new Map(), kernels: 0, transfers: 0, end: 0, gaps: [] };
    this.streams.set(tid, { name, device, isa, threads, ...none });
  }

  private call(lane: Lane, { cat, name, args }: Event, ts: number, dur: number): void {
    if (ts - lane.end > GAP) lane.gaps.push(lane.end, ts);
    lane.end = ts + dur;
    if (cat === 'kernel') lane.kernels += dur;
    else lane.transfers += dur;
    const { flop, bytes, part } = args as { flop: number; bytes: number; part?: string };
    const type = typeName(args.type as string);
    const shape = this.byShape ? (args.shape as string) : null;
    const key = `${name} ${type} ${shape ?? ''}`;
    let sum = lane.sums.get(key);
    if (!sum) {
      const none = { calls: 0, us: 0, flop: 0, bytes: 0, compute: 0, memory: 0, least: 0 };
      sum = { name, type, shape, ...none };
      lane.sums.set(key, sum);
    }
    if (part !== undefined) {
      const sofar = lane.parts.get(part) ?? { us: 0, flop: 0 };
      lane.parts.set(part, { us: sofar.us + dur, flop: sofar.flop + flop });
    }
    sum.calls++;
    sum.us += dur;
    sum.flop += flop;
    sum.bytes += bytes;
    const { fp32, bf16, read } = this.head!.ceilings;
    // 1e9 operations a second are 1e3 a microsecond.
    const compute = flop / (type === 'bf16' ? bf16 : fp32) / 1e3;
    const memory = bytes / read / 1e3;
    sum.compute += compute;
    sum.memory += memory;
    sum.least += Math.max(compute, memory);
  }

  report(): ProfileReport {
    if (!this.head) this.refuse('it has no head of a profile');
    const { machine, ceilings } = this.head;
    const us = this.end ? this.end.seconds * 1e6 : this.last;
    this.waits.sort((a, b) => a[0] - b[0]);
    const streams = [...this.streams.values()]
      .filter((lane) => lane.sums.size > 0)
      .sort((a, b) => b.kernels - a.kernels)
      .map((lane, i) => this.stream(lane, us, ceilings, i === 0 ? this.waits : []));
    const { thread } = this;
    const report = {
      file: this.path,
      seconds: us / 1e6,
      interrupted: this.end === null,
      lost: this.end?.lost ?? 0,
      machine,
      ceilings,
      streams,
      lanes: [...this.busy].map(([name, { lanes, us: busy }]) => ({ name, lanes: lanes.size, seconds: busy / 1e6 })),
      javascript: {
        busy: thread.us > 0 ? thread.busy / thread.us / 100 : null,
        garbageCollection: this.garbage / 1e6,
      },
    };
    return { ...report, advice: adviceOf(report) };
  }

  private stream(lane: Lane, us: number, ceilings: Ceilings, waits: [number, number][]): StreamSummary {
    const gaps = us - lane.end > GAP ? [...lane.gaps, lane.end, us] : lane.gaps;
    const waiting = overlap(gaps, waits);
    const idle = Math.max(0, us - lane.kernels - lane.transfers - waiting);
    const same = lane.isa === 'cuda' ? lane.device === ceilings.device : lane.threads === ceilings.threads;
    const known = lane.isa === ceilings.isa && same;
    const kernels = [...lane.sums.values()].map((sum): KernelSummary => {
      const { name, type, shape, calls, us: took } = sum;
      const rate = (n: number): number | null => (took > 0 ? n / took / 1e3 : null);
      const held = known && name !== 'read' && name !== 'write' && type !== 'f64' && took > 0;
      return {
        name,
        type,
        shape,
        calls,
        seconds: took / 1e6,
        share: us > 0 ? took / us : 0,
        gflops: rate(sum.flop),
        gbs: rate(sum.bytes),
        ofCeiling: held ? sum.least / took : null,
        boundBy: held ? (sum.compute > sum.memory ? 'compute' : 'memory') : null,
      };
    });
    return {
      name: lane.name,
      threads: lane.threads,
      seconds: {
        kernels: lane.kernels / 1e6,
        transfers: lane.transfers / 1e6,
        waitingForData: waiting / 1e6,
        idle: idle / 1e6,
      },
      kernels: kernels.sort((a, b) => b.seconds - a.seconds),
      parts: stepParts.flatMap((name) => {
        const part = lane.parts.get(name);
        if (!part) return [];
        const gflops = part.us > 0 ? part.flop / part.us / 1e3 : null;
        return [{ name, seconds: part.us / 1e6, share: us > 0 ? part.us / us : 0, gflops }];
      }),
    };
  }
}

/** How much of the gaps (begin and end in turns, ascending) lies in one of the stretches (ascending by their begin). */
function overlap(gaps: readonly number[], stretches: readonly (readonly [number, number])[]): number {
  const merged: [number, number][] = [];
  for (const [begin, end] of stretches) {
    const before = merged.at(-1);
    if (before && begin <= before[1]) before[1] = Math.max(before[1], end);
    else merged.push([begin, end]);
  }
  let sum = 0;
  let at = 0;
  for (let i = 0; i < gaps.length; i += 2) {
    const [begin, end] = [gaps[i]!, gaps[i + 1]!];
    while (at < merged.length && merged[at]![1] <= begin) at++;
    for (let k = at; k < merged.length && merged[k]![0] < end; k++) {
      sum += Math.min(end, merged[k]![1]) - Math.max(begin, merged[k]![0]);
    }
  }
  return sum;
}
