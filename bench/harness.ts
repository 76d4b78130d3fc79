/**
 * How everything here is measured: the cases of a group take turns, so that what disturbs the machine disturbs all of them
 * alike; the machine's ceilings, and a peer, take their turn in the same round. Shown are minimum, median and maximum.
 */
import type { ComputeType } from '../lib/model/index.js';
import type { Isa } from '../lib/native/index.js';
import { type CeilingName, countWork, measureCeiling } from '../lib/profile/index.js';
import type { Stream } from '../lib/tensor/index.js';
import type { Peers } from './peers.js';
import { type Spread, spread } from './spread.js';

export interface Context {
  readonly stream: Stream;
  readonly threads: number;
  /** Timed samples of every case. */
  readonly repeats: number;
  /** What is asked for; a question answers for those that it knows. */
  readonly types: readonly ComputeType[];
  readonly peers: Peers;
}

/** One thing to time. Exactly one of `queue`, `run` and `peer` says what. */
export interface Case {
  readonly name: string;
  /** Puts the work on the context's stream; short work is queued several times for one sample. */
  queue?(): void;
  /** Does the work and waits for it. */
  run?(): Promise<void>;
  /** Times another program in a process of its own. */
  readonly peer?: (repeats: number, warmup: number) => Spread;
  /** Names of cases that do the same work: they get a note of how many times as fast they are as this one. */
  readonly against?: readonly string[];
  /** Before every sample, not timed. */
  prepare?(): Promise<void>;
  /** When the group has been measured. */
  dispose?(): void;
  /** What the rate is held against. Operations are counted as the work is queued; of 'read' the bytes are given. */
  readonly ceiling?: CeilingName;
  readonly bytes?: number;
  /** More to show, from the median in ms. */
  notes?(ms: number): Notes;
}

export interface Group {
  readonly title: string;
  readonly cases: readonly Case[];
}

export type Notes = Record<string, string | number>;

export interface Row {
  name: string;
  ms?: Spread;
  rate?: { value: number; unit: 'GFLOP/s' | 'GB/s' };
  /** The ceiling in the same minute, in the rate's unit, and the share of it that was reached. */
  ceiling?: { name: CeilingName; value: number; share: number };
  notes?: Notes;
}

export interface Table {
  title: string;
  rows: Row[];
}

export interface Question {
  readonly name: string;
  readonly question: string;
  measure(context: Context): AsyncGenerator<Table>;
}

const SAMPLE_MS = 60;
const PEER_ROUNDS = 3;
const PEER_WARMUP = 2;

/** Warms every case up, then times all of them in turns. */
export async function measureGroup(context: Context, group: Group): Promise<Table> {
  const { stream, threads, repeats } = context;
  const { cases } = group;
  const calls = new Map<Case, number>();
  const flop = new Map<Case, number>();
  const prepared = async (c: Case, count: number): Promise<number> => {
    const start = performance.now();
    if (c.queue) {
      for (let i = 0; i < count; i++) c.queue();
      await stream.sync();
    } else await c.run!();
    const ms = (performance.now() - start) / count;
    stream.endStep();
    return ms;
  };
  const once = async (c: Case, count: number): Promise<number> => {
    await c.prepare?.();
    return prepared(c, count);
  };
  for (const c of cases) {
    if (c.peer) continue;
    await c.prepare?.();
    const work = await countWork(stream, async () => void (await prepared(c, 1)));
    flop.set(c, work.flop);
    const ms = await once(c, 1);
    calls.set(c, c.queue ? Math.max(1, Math.ceil(SAMPLE_MS / ms)) : 1);
  }
  const samples = new Map<Case, Spread[]>(cases.map((c) => [c, []]));
  const limits = new Map<CeilingName, number[]>();
  // A peer is a process that starts and warms up: it gets few rounds of several samples each.
  const withPeer = cases.some((c) => c.peer);
  const rounds = withPeer ? Math.min(PEER_ROUNDS, repeats) : repeats;
  const perRound = Math.ceil(repeats / rounds);
  for (let round = 0; round < rounds; round++) {
    for (const name of new Set(cases.map((c) => c.ceiling))) {
      // The ceilings are the processor's.
      if (!name || stream.device !== 'cpu') continue;
      const value = await measureCeiling(name, { threads, isa: stream.isa as Isa });
      limits.set(name, [...(limits.get(name) ?? []), value]);
    }
    for (const c of cases) {
      const list = samples.get(c)!;
      if (c.peer) {
        list.push(c.peer(perRound, PEER_WARMUP));
        continue;
      }
      for (let i = 0; i < perRound; i++) list.push(spread([await once(c, calls.get(c)!)]));
    }
  }
  const rows = cases.map((c) => row(c, samples, limits, flop.get(c)));
  for (const c of cases) c.dispose?.();
  return { title: group.title, rows };
}

function row(
  c: Case,
  samples: ReadonlyMap<Case, Spread[]>,
  limits: ReadonlyMap<CeilingName, number[]>,
  flop: number | undefined,
): Row {
  const total = (list: readonly Spread[]): Spread => ({
    min: Math.min(...list.map((s) => s.min)),
    median: spread(list.map((s) => s.median)).median,
    max: Math.max(...list.map((s) => s.max)),
  });
  const ms = total(samples.get(c)!);
  const result: Row = { name: c.name, ms };
  const notes: Notes = c.notes?.(ms.median) ?? {};
  for (const [other, list] of samples) {
    if (other.against?.includes(c.name)) notes[`times as fast as ${other.name}`] = total(list).median / ms.median;
  }
  const memory = c.ceiling === 'read';
  const work = memory ? c.bytes : c.ceiling && flop;
  if (work !== undefined) {
    const value = work / ms.median / 1e6;
    result.rate = { value, unit: memory ? 'GB/s' : 'GFLOP/s' };
    const limit = c.ceiling && limits.get(c.ceiling);
    if (limit) {
      const top = spread(limit).median;
      result.ceiling = { name: c.ceiling!, value: top, share: value / top };
    }
  }
  if (Object.keys(notes).length > 0) result.notes = notes;
  return result;
}
