/**
 * The native addon: its streams, instruction sets and devices. Nothing above lib/tensor talks to it.
 */
import { DistilWhisperError } from '../errors/index.js';
import { addonFile, load, type NativeStream, typed } from './addon.js';
import { type Isa, isaNames } from './isa.js';

export type { CudaDevice, NativeMemory, NativeOutput, NativeStream } from './addon.js';
export { packageRoot, typed } from './addon.js';
export { clockOrigin } from './clock.js';
export {
  type CudaReport,
  createCudaStream,
  cudaDeviceNumber,
  cudaReport,
  isCudaDevice,
} from './cuda.js';
export { cgroupProcessors, chooseIsa, defaultThreads, type Isa, isaNames } from './isa.js';
export { type AvailableMemory, availableMemory, type MemoryLimit } from './limits.js';

let opNumbers: Map<string, number> | undefined;

/** The number under which the addon knows a kernel. */
export function opNumber(name: string): number {
  opNumbers ??= new Map(load().ops.map((op, i) => [op, i]));
  const n = opNumbers.get(name);
  if (n === undefined) throw new DistilWhisperError('ERR_ARGUMENT', `no kernel is called '${name}'`);
  return n;
}

/** `plans`: it runs nothing and holds nothing. */
export function createNativeStream(isa: Isa | 'oracle', threads: number, plans: boolean): NativeStream {
  const { NativeStream } = load();
  return new NativeStream(isa === 'oracle' ? -1 : isaNames.indexOf(isa), threads, plans);
}

/**
 * Maps the first `bytes` bytes of an open file, which may be closed afterwards, read-only; `name` is the file in an error. With
 * `copied` nothing is mapped: tensors are read from the file, when they are made. Returns the mapping's number, for `unmapFile`. Errors: ERR_NATIVE_LOAD, ERR_FILE_READ, ERR_OUT_OF_MEMORY.
 */
export async function mapFile(file: number, bytes: number, name: string, copied: boolean): Promise<number> {
  try {
    return await load().map(file, bytes, name, copied);
  } catch (error) {
    throw typed(error);
  }
}

/** Tensors that lie in the mapping keep it. */
export function unmapFile(mapping: number): void {
  load().unmap(mapping);
}

/**
 * Locks an open file against other processes that lock it (flock(2), exclusive) until it is closed, without waiting: whether that
 * could be done now, or null where its file system has no such locks. Errors: ERR_NATIVE_LOAD, ERR_FILE_WRITE.
 */
export function lockFile(file: number): boolean | null {
  try {
    return load().lock(file);
  } catch (error) {
    throw typed(error);
  }
}

/**
 * What the processor can do at most, by the number of the ceiling in native/binding/ceiling.h, measured on a buffer of `bytes` where it
 * is of memory. Errors: ERR_NATIVE_LOAD, ERR_OUT_OF_MEMORY.
 */
export async function cpuCeiling(isa: Isa, which: number, threads: number, bytes: number): Promise<number> {
  try {
    return await load().ceiling(isaNames.indexOf(isa), which, threads, bytes);
  } catch (error) {
    throw typed(error);
  }
}

/** The addon's file, and the instruction sets that it and this machine have. Errors: ERR_NATIVE_LOAD. */
export function nativeInfo(): { file: string; isas: { name: string; supported: boolean }[] } {
  const { isas } = load();
  return { file: addonFile(), isas };
}
