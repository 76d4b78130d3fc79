/**
 * What a profile under way gathers: calls of streams, work of threads, waits. There is one profile or none in a thread of
 * JavaScript; where there is none, whoever reports to it here pays one test.
 */
import { performance } from 'node:perf_hooks';
import { clockOrigin, type NativeStream } from '../native/index.js';
import type { TraceFile } from './trace-file.js';

/** Lanes of work that overlaps: each piece takes the first that is free, so that pieces on a lane never do. */
export type LaneGroup = 'waiting for data' | 'loader' | 'audio worker';

type Args = Record<string, string | number>;

/** Ends a piece of work. `hrtime`: when it really began and ended, in nanoseconds of process.hrtime, if not at these calls. */
export type EndOfWork = (name: string, args?: Args, hrtime?: { begin: number; end: number }) => void;

/** One of Chrome's trace events; times in microseconds. */
interface Event {
  ph: 'X' | 'b' | 'e' | 'C';
  pid: 1;
  tid: number;
  ts: number;
  dur?: number | undefined;
  cat?: string | undefined;
  id?: number | undefined;
  name: string;
  args?: Args | undefined;
}

/** A stream as a profile sees it. */
export interface ProfiledStream {
  readonly native: NativeStream;
  /** 'cpu' or 'cuda:N'. */
  readonly device: string;
  readonly isa: string;
  readonly threads: number;
  readonly label: string;
  /** Whether it runs nothing: no profile has it. */
  readonly plans: boolean;
}

/** Of a device's stream: when its kernels ran there, and when they were handed to it. One lane on the processor. */
interface StreamLanes {
  kernels: number;
  launches: number;
}

/** Lanes from top to bottom. */
const ORDER = { javascript: 0, stream: 100, 'waiting for data': 200, loader: 300, 'audio worker': 400 } as const;
const JAVASCRIPT = 1;
/** Microseconds between two writes: what a killed process loses at most. */
const DRAIN_EVERY = 1e6;
/** Bytes of a stream's events that are written at a time. */
const EVENTS = 1 << 18;
const nothing = (): void => {};

const streams = new Set<WeakRef<ProfiledStream>>();
let current: Recorder | null = null;

export class Recorder {
  private readonly origin = performance.now();
  /** The addon's clock and process.hrtime, in nanoseconds, at `origin`. */
  private readonly nativeOrigin = clockOrigin() + Math.round(this.origin * 1e6);
  private readonly hrtimeOrigin = Number(process.hrtime.bigint()) - (performance.now() - this.origin) * 1e6;
  private readonly lanes = new Map<ProfiledStream, StreamLanes>();
  private readonly groups = new Map<LaneGroup, { lane: number; busy: boolean }[]>();
  private lastLane = JAVASCRIPT;
  private streamCount = 0;
  private lastId = 0;
  private usage = performance.eventLoopUtilization();
  private lostBefore = 0;
  private drained = 0;
  /** What this thread did since it last wrote: it is at work, and writing can wait. */
  private readonly pending: Event[] = [];
  /** One for the whole profile: garbage of this size would have V8 collect it. */
  private readonly buffer = new Uint8Array(EVENTS);

  constructor(private readonly file: TraceFile) {
    this.nameLane(JAVASCRIPT, 'JavaScript', ORDER.javascript);
    for (const each of streams) {
      const stream = each.deref();
      if (stream) this.attach(stream);
    }
  }

  /** Microseconds since the profile began. */
  now(): number {
    return (performance.now() - this.origin) * 1e3;
  }

  /** The same of a moment by `performance.now()`, and by process.hrtime in nanoseconds. */
  fromPerformance(ms: number): number {
    return (ms - this.origin) * 1e3;
  }
  private fromHrtime(ns: number): number {
    return (ns - this.hrtimeOrigin) / 1e3;
  }

  attach(stream: ProfiledStream): void {
    const { device, isa, threads, label } = stream;
    const onDevice = device !== 'cpu';
    const what = onDevice ? device : `${isa}, ${threads} thread${threads > 1 ? 's' : ''}`;
    const number = ++this.streamCount;
    const name = `stream ${number}: ${label ? `${label}, ` : ''}${what}`;
    const kernels = ++this.lastLane;
    this.nameLane(kernels, name, ORDER.stream + number, { device, isa, threads });
    const launches = onDevice ? ++this.lastLane : kernels;
    if (onDevice) this.nameLane(launches, `stream ${number}: launches`, ORDER.stream + number + 0.5);
    this.lanes.set(stream, { kernels, launches });
    stream.native.profile(true, onDevice);
  }

  /** The stream closes, or the profile ends. */
  detach(stream: ProfiledStream): void {
    const lanes = this.lanes.get(stream);
    if (!lanes) return;
    this.drainStream(stream, lanes);
    this.lostBefore += stream.native.lost();
    stream.native.profile(false, false);
    this.lanes.delete(stream);
  }

  /** Writes when it is time to: writing takes a processor from a kernel that counts on it, so that few times are better. */
  tick(): void {
    const pressing = [...this.lanes.keys()].some((stream) => stream.native.level() > 0.25);
    if (pressing || this.now() - this.drained > DRAIN_EVERY) this.drain();
  }

  /** Writes what streams have run, and how busy this thread was since the last time. */
  drain(): void {
    this.drained = this.now();
    for (const [stream, lanes] of this.lanes) this.drainStream(stream, lanes);
    const usage = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(usage, this.usage);
    this.usage = usage;
    const busy = { busy: Math.round(1000 * utilization) / 10 };
    this.pending.push({
      ph: 'C',
      pid: 1,
      tid: JAVASCRIPT,
      ts: this.now(),
      name: 'JavaScript thread, % busy',
      args: busy,
    });
    for (const { ts, dur, ...event } of this.pending.splice(0)) {
      this.file.add(JSON.stringify({ ...event, ts: micro(ts), dur: dur === undefined ? undefined : micro(dur) }));
    }
    this.file.flush();
  }

  /** Records that were lost because this thread was busy for too long. */
  get lost(): number {
    return [...this.lanes.keys()].reduce((sum, stream) => sum + stream.native.lost(), this.lostBefore);
  }

  end(): void {
    for (const stream of [...this.lanes.keys()]) this.detach(stream);
  }

  /** A piece of work with its end; times in microseconds. */
  complete(tid: number, cat: string, name: string, begin: number, end: number, args?: Args): void {
    this.pending.push({
      ph: 'X',
      pid: 1,
      tid,
      ts: begin,
      dur: Math.max(0, end - begin),
      cat,
      name,
      args,
    });
  }

  /** Work on this thread that runs to its end without a wait. */
  onThread(name: string, begin: number, end: number, args?: Args): void {
    this.complete(JAVASCRIPT, 'javascript', name, begin, end, args);
  }

  /** A stretch that may overlap others: drawn above all lanes. */
  phase(name: string, args?: Args): () => void {
    const same = { pid: 1, tid: JAVASCRIPT, cat: 'phase', id: ++this.lastId, name } as const;
    this.pending.push({ ph: 'b', ts: this.now(), ...same, args });
    return () => this.pending.push({ ph: 'e', ts: this.now(), ...same });
  }

  /** Begins a piece of work on the first free lane of a group. */
  begin(group: LaneGroup): EndOfWork {
    let slots = this.groups.get(group);
    if (!slots) {
      slots = [];
      this.groups.set(group, slots);
    }
    let slot = slots.find(({ busy }) => !busy);
    if (!slot) {
      slot = { lane: ++this.lastLane, busy: false };
      slots.push(slot);
      this.nameLane(slot.lane, `${group} ${slots.length}`, ORDER[group] + slots.length);
    }
    slot.busy = true;
    const begin = this.now();
    const { lane } = slot;
    return (name, args, hrtime) => {
      slot.busy = false;
      const times = hrtime && [this.fromHrtime(hrtime.begin), this.fromHrtime(hrtime.end)];
      this.complete(lane, group, name, times?.[0] ?? begin, times?.[1] ?? this.now(), args);
    };
  }

  private nameLane(lane: number, name: string, order: number, more: Args = {}): void {
    const meta = (what: string, args: Args): void =>
      this.file.add(JSON.stringify({ ph: 'M', pid: 1, tid: lane, name: what, args }));
    meta('thread_name', { name, ...more });
    meta('thread_sort_index', { sort_index: order });
  }

  private drainStream(stream: ProfiledStream, { kernels, launches }: StreamLanes): void {
    for (;;) {
      const bytes = stream.native.trace(this.buffer, kernels, launches, this.nativeOrigin);
      if (bytes === 0) return;
      this.file.addEvents(this.buffer.subarray(0, bytes));
    }
  }
}

/** Microseconds to the nanosecond. */
const micro = (us: number): number => Math.round(us * 1e3) / 1e3;

export function recording(): Recorder | null {
  return current;
}

export function setRecorder(recorder: Recorder | null): void {
  current = recorder;
}

/** Every stream reports itself here when it is made, and again when it closes. */
export function streamOpened(stream: ProfiledStream): void {
  for (const each of streams) if (!each.deref()) streams.delete(each);
  streams.add(new WeakRef(stream));
  current?.attach(stream);
}

export function streamClosed(stream: ProfiledStream): void {
  for (const each of streams) if (each.deref() === stream) streams.delete(each);
  current?.detach(stream);
}

/** Runs `body`, which does not wait, and has it drawn on the JavaScript thread's lane. */
export function onThread<T>(name: string, body: () => T): T {
  const recorder = current;
  if (!recorder) return body();
  const begin = recorder.now();
  try {
    return body();
  } finally {
    recorder.onThread(name, begin, recorder.now());
  }
}

/** Awaits `body` and has it drawn on a lane of the group, under its name and with what `args` says. */
export async function onLane<T>(group: LaneGroup, name: string, body: () => Promise<T>, args?: () => Args): Promise<T> {
  const recorder = current;
  if (!recorder) return body();
  const end = recorder.begin(group);
  try {
    return await body();
  } finally {
    end(name, args?.());
  }
}

/** Begins a phase, such as an update or a validation; call what it returns at its end. */
export function phase(name: string, args?: Args): () => void {
  return current?.phase(name, args) ?? nothing;
}
