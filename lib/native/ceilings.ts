/** What this machine can do at most, measured by the addon. */
import { freemem } from 'node:os';
import { DistilWhisperError } from '../errors/index.js';
import { load, typed } from './addon.js';
import { chooseIsa, defaultThreads, type Isa, isaNames } from './isa.js';

/**
 * What a kernel can be held against: fused multiply-adds in f32 and products of bf16 in GFLOP/s, with the instructions that
 * the kernels of the instruction set use; reading memory in GB/s.
 */
export const ceilingNames = ['f32', 'bf16', 'read'] as const;
export type CeilingName = (typeof ceilingNames)[number];

export interface CeilingOptions {
  /** Default: the processors that this process may use. */
  threads?: number;
  /** Default: the best of this machine, or DISTILWHISPER_CPU. */
  isa?: Isa;
}

export interface Ceilings extends Record<CeilingName, number> {
  isa: Isa;
  threads: number;
}

/** Read over and over: more than caches hold. On a machine with little memory, a quarter of what is free. */
const READ_BYTES = 2 ** 30;

/**
 * One ceiling on all threads: GFLOP/s, or GB/s for 'read'. It takes a tenth of a second and does not block this thread;
 * 'read' needs up to 1 GiB of memory for that time. Errors: ERR_ARGUMENT (instruction set, threads), ERR_NATIVE_LOAD,
 * ERR_OUT_OF_MEMORY.
 */
export async function measureCeiling(which: CeilingName, options: CeilingOptions = {}): Promise<number> {
  const { threads, isa } = settled(options);
  const bytes = Math.min(READ_BYTES, Math.floor(freemem() / 4));
  try {
    return await load().ceiling(isaNames.indexOf(isa), ceilingNames.indexOf(which), threads, bytes);
  } catch (error) {
    throw typed(error);
  }
}

/**
 * All ceilings, each the best of three, so that what else the machine does for a moment does not lower them: about a second.
 * Errors: as `measureCeiling`.
 */
export async function measureCeilings(options: CeilingOptions = {}): Promise<Ceilings> {
  const best = { ...settled(options), f32: 0, bf16: 0, read: 0 };
  for (let i = 0; i < 3; i++) {
    for (const which of ceilingNames) best[which] = Math.max(best[which], await measureCeiling(which, best));
  }
  return best;
}

function settled(options: CeilingOptions): Required<CeilingOptions> {
  const threads = options.threads ?? defaultThreads();
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
    throw new DistilWhisperError('ERR_ARGUMENT', `threads: expected an integer from 1 to 1024, got ${threads}`);
  }
  return { threads, isa: chooseIsa(options.isa) };
}
