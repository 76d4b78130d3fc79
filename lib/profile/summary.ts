/** What a trace says, summed up. */
import type { StepPart } from '../tensor/index.js';
import type { Ceilings } from './ceilings.js';

/** Calls of a kernel that computed in one type. */
export interface KernelSummary {
  name: string;
  type: string;
  /** With `byShape`: as in the trace. */
  shape: string | null;
  calls: number;
  seconds: number;
  /** Of the profile's time. */
  share: number;
  /** Of the calls together: GFLOP/s and GB/s; null where the calls took no time that the clock shows. */
  gflops: number | null;
  gbs: number | null;
  /**
   * The least time that these calls could take at the machine's ceilings (each the longer of its operations at the type's
   * rate and of its bytes at the rate of reading memory), by the time that they took. More than 1: the bytes came from a
   * cache. null where the trace does not tell: streams on another device or of other threads than the ceilings were measured for.
   */
  ofCeiling: number | null;
  /** Which of the two takes longer at the ceilings. */
  boundBy: 'compute' | 'memory' | null;
}

/** A part of all training steps together. */
export interface PartSummary {
  name: StepPart;
  seconds: number;
  /** Of the profile's time. */
  share: number;
  gflops: number | null;
}

export interface StreamSummary {
  /** As the trace names it. */
  name: string;
  threads: number;
  /** `waitingForData`: nothing ran while the model waited for its next batch; told of the busiest stream, 0 of the others. */
  seconds: { kernels: number; transfers: number; waitingForData: number; idle: number };
  /** The longest first; transfers are 'read' and 'write'. */
  kernels: KernelSummary[];
  /** Of training steps: how long each of their parts ran, in their order; empty where nothing trained. */
  parts: PartSummary[];
}

export interface ProfileReport {
  file: string;
  /** Of the whole profile; of an interrupted one, until its last event. */
  seconds: number;
  /** The trace has no end: its process was killed. */
  interrupted: boolean;
  /** Calls that are not in the trace, because the JavaScript thread was busy for too long. */
  lost: number;
  /** `gpu`: that of the ceilings, where they are a GPU's. */
  machine: { cpu: string; processors: number; gpu?: string; node: string };
  ceilings: Ceilings;
  /** Those that ran something, the busiest first. */
  streams: StreamSummary[];
  /** Busy seconds of the other lanes, together by kind, and how many lanes of a kind there were. */
  lanes: { name: string; lanes: number; seconds: number }[];
  /** The JavaScript thread, as a share of the time, and seconds that it collected garbage; null in a very short profile. */
  javascript: { busy: number | null; garbageCollection: number };
  /** What would make it faster, a sentence each, the most first. */
  advice: string[];
}
