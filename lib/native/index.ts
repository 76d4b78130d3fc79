/**
 * The native addon: its streams, instruction sets and devices. Nothing above lib/tensor talks to it.
 */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { DistilWhisperError } from '../errors/index.js';
import { addonFile, load, type NativeStream } from './addon.js';

export type { NativeMemory, NativeOutput, NativeStream } from './addon.js';
export { packageRoot, typed } from './addon.js';
export { type CudaDevice, type CudaReport, createCudaStream, cudaDeviceNumber, cudaReport } from './cuda.js';

/** The instruction sets of the CPU kernels, weakest first. */
export const isaNames = ['portable', 'avx2', 'avx512', 'avx512bf16', 'amx'] as const;
export type Isa = (typeof isaNames)[number];

let opNumbers: Map<string, number> | undefined;

/** The number under which the addon knows a kernel. */
export function opNumber(name: string): number {
  opNumbers ??= new Map(load().ops.map((op, i) => [op, i]));
  const n = opNumbers.get(name);
  if (n === undefined) throw new DistilWhisperError('ERR_ARGUMENT', `no kernel is called '${name}'`);
  return n;
}

/** The instruction set in use: the best of this machine, or what DISTILWHISPER_CPU asks for. */
export function chooseIsa(wanted: string | undefined = process.env.DISTILWHISPER_CPU): Isa {
  const { isas } = load();
  if (wanted === undefined || wanted === '' || wanted === 'auto')
    return isas.findLast((isa) => isa.supported)!.name as Isa;
  const found = isas.find((isa) => isa.name === wanted);
  if (!found) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `DISTILWHISPER_CPU: expected one of ${isaNames.join(', ')}, got '${wanted}'`,
    );
  }
  if (!found.supported) {
    const can = isas.filter((isa) => isa.supported).map((isa) => isa.name);
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `DISTILWHISPER_CPU: this machine runs ${can.join(', ')}, not '${wanted}'`,
    );
  }
  return found.name as Isa;
}

/** The control group's quota in processors (Linux, version 2), or null where there is none. */
export function cgroupProcessors(): number | null {
  try {
    const [quota, period] = readFileSync('/sys/fs/cgroup/cpu.max', 'utf8').trim().split(' ');
    return quota === 'max' ? null : Number(quota) / Number(period);
  } catch {
    return null;
  }
}

/** Processors this process may use: affinity and the control group's quota. */
export function defaultThreads(): number {
  const quota = cgroupProcessors();
  return Math.min(availableParallelism(), quota === null ? Number.POSITIVE_INFINITY : Math.max(1, Math.ceil(quota)));
}

export function createNativeStream(isa: Isa | 'oracle', threads: number): NativeStream {
  const { NativeStream } = load();
  return new NativeStream(isa === 'oracle' ? -1 : isaNames.indexOf(isa), threads);
}

/** The addon's file, and the instruction sets that it and this machine have. Errors: ERR_NATIVE_LOAD. */
export function nativeInfo(): { file: string; isas: { name: string; supported: boolean }[] } {
  const { isas } = load();
  return { file: addonFile(), isas };
}
