/** What this machine can do at most, measured by the addon. */
import { freemem } from 'node:os';
import { DistilWhisperError } from '../errors/index.js';
import { chooseIsa, cpuCeiling, cudaDeviceNumber, defaultThreads, type Isa } from '../native/index.js';
import { chosenType, kernels, Stream, type Tensor } from '../tensor/index.js';

/**
 * What a kernel can be held against. On the processor: fused multiply-adds in fp32 and products of bf16 in GFLOP/s, with the
 * instructions that the kernels of the instruction set use; reading memory in GB/s. On a GPU: one large product of cuBLASLt in
 * either type; memory, while two long vectors are added.
 */
export const ceilingNames = ['fp32', 'bf16', 'read'] as const;
export type CeilingName = (typeof ceilingNames)[number];

export interface CeilingOptions {
  /** 'cpu' (default), 'cuda' or 'cuda:N': a GPU has no threads and instruction sets to choose. */
  device?: string | undefined;
  /** Default: the processors that this process may use. */
  threads?: number | undefined;
  /** Default: the best of this machine, or DISTILWHISPER_CPU. */
  isa?: Isa | undefined;
}

export interface Ceilings extends Record<CeilingName, number> {
  /** 'cpu' or 'cuda:N'. */
  device: string;
  isa: Isa | 'cuda';
  threads: number;
}

/** Read over and over: more than caches hold. On a machine with little memory, a quarter of what is free. */
const READ_BYTES = 2 ** 30;

/**
 * One ceiling: GFLOP/s, or GB/s for 'read'. It takes a tenth of a second and does not block this thread, and needs up to 1 GiB
 * of memory for that time. Errors: ERR_ARGUMENT (name, device, instruction set, threads), ERR_NATIVE_LOAD, ERR_OUT_OF_MEMORY; of a
 * GPU those of opening a stream on it.
 */
export async function measureCeiling(which: CeilingName, options: CeilingOptions = {}): Promise<number> {
  const { device, threads, isa } = settled(options);
  const name = chosenType('which', which, ceilingNames);
  if (isa === 'cuda') return deviceCeiling(name, device);
  const bytes = Math.min(READ_BYTES, Math.floor(freemem() / 4));
  return cpuCeiling(isa, ceilingNames.indexOf(name), threads, bytes);
}

/**
 * All ceilings, each the best of three, so that what else the machine does for a moment does not lower them: about a second.
 * Errors: as `measureCeiling`.
 */
export async function measureCeilings(options: CeilingOptions = {}): Promise<Ceilings> {
  const known = settled(options);
  const best = { ...known, fp32: 0, bf16: 0, read: 0 };
  for (let i = 0; i < 3; i++) {
    for (const which of ceilingNames) best[which] = Math.max(best[which], await measureCeiling(which, options));
  }
  return best;
}

/** Edges of the matrices: the first, and the largest, which take a GPU longer than starting a kernel does. */
const [FIRST_EDGE, LAST_EDGE] = [128, 8192];
const LONG_MS = 1;
const SAMPLE_MS = 20;

/**
 * By a stream of its own: what `which` says, on matrices of an edge that doubles until a call takes long, or memory is full.
 * Values are random, because a GPU runs faster where they are all the same.
 */
async function deviceCeiling(which: CeilingName, device: string): Promise<number> {
  const stream = new Stream({ device, label: 'ceilings' });
  const type = which === 'bf16' ? 'bf16' : 'f32';
  let best = 0;
  try {
    for (let edge = FIRST_EDGE; edge <= LAST_EDGE; edge *= 2) {
      const matrix = (seed: number): Tensor => {
        const { values: drawn } = kernels.randomNormal(stream, { count: edge * edge, seed, step: 0, op: 0 });
        const x = drawn.reshape([edge, edge]);
        const { y } = kernels.cast(stream, { x, out: type });
        for (const tensor of [drawn, x]) tensor.dispose();
        return y;
      };
      const [a, b] = [matrix(1), matrix(2)];
      const work = which === 'read' ? 3 * 4 * edge ** 2 : 2 * edge ** 3;
      const call = (): { y: Tensor } =>
        which === 'read'
          ? kernels.add(stream, { a, b, out: 'f32' })
          : kernels.linear(stream, { x: a, weight: b, compute: type, out: type });
      /** Milliseconds of a call, of so many that are queued together. */
      const time = async (calls: number): Promise<number> => {
        const start = performance.now();
        for (let i = 0; i < calls; i++) call().y.dispose();
        await stream.sync();
        return (performance.now() - start) / calls;
      };
      await time(1);
      // What holds the host up for a moment must not end it at matrices that lie in a cache.
      const once = Math.min(await time(1), await time(1), await time(1));
      if (once >= LONG_MS || edge === LAST_EDGE) return work / (await time(Math.ceil(SAMPLE_MS / once))) / 1e6;
      best = work / once / 1e6;
      stream.endStep();
    }
  } catch (error) {
    if (best === 0 || (error as { code?: string }).code !== 'ERR_OUT_OF_MEMORY') throw error;
  } finally {
    stream.close();
  }
  return best;
}

function settled(options: CeilingOptions): Omit<Ceilings, CeilingName> {
  const threads = options.threads ?? defaultThreads();
  if (!Number.isInteger(threads) || threads < 1 || threads > 1024) {
    throw new DistilWhisperError('ERR_ARGUMENT', `threads: expected an integer from 1 to 1024, got ${threads}`);
  }
  const device = options.device ?? 'cpu';
  if (device === 'cpu') return { device, threads, isa: chooseIsa(options.isa) };
  return { device: `cuda:${cudaDeviceNumber(device)}`, threads, isa: 'cuda' };
}
