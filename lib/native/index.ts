/**
 * Loads the native addon, once, or says clearly why it cannot.
 * Nothing above lib/tensor talks to it.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DistilWhisperError } from '../errors/index.js';

/** [id, dtype, ...shape] of an output tensor. */
export type NativeOutput = [id: number, dtype: number, ...shape: number[]];

export interface NativeMemory {
  /** Bytes of the step arena: held, in use now, most in use so far. */
  stepReserved: number;
  stepUsed: number;
  stepPeak: number;
  /** Bytes of persistent tensors: parameters, optimiser state, caches. */
  persistent: number;
}

export interface NativeStream {
  call(op: number, tensors: readonly number[], numbers: readonly number[]): NativeOutput[];
  create(dtype: number, shape: readonly number[], persistent: boolean): number;
  view(id: number, offset: number, shape: readonly number[]): number;
  write(id: number, bytes: Uint8Array, fresh: boolean): void;
  read(id: number): Promise<ArrayBuffer>;
  sync(): Promise<void>;
  freeze(id: number): void;
  dispose(id: number): void;
  endStep(): void;
  memory(): NativeMemory;
  close(): void;
}

interface Addon {
  ops: string[];
  isas: { name: string; supported: boolean }[];
  NativeStream: new (isa: number, threads: number) => NativeStream;
}

/** The instruction sets of the CPU kernels, weakest first. */
export const isaNames = ['portable', 'avx2', 'avx512', 'avx512bf16', 'amx'] as const;
export type Isa = (typeof isaNames)[number];

/** The folder of the package: where package.json, prebuilds/ and build/ are. */
export function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'binding.gyp'))) {
    const parent = dirname(folder);
    if (parent === folder)
      throw new DistilWhisperError('ERR_NATIVE_LOAD', 'cannot find the package folder of distilwhisper');
    folder = parent;
  }
  return folder;
}

let addon: Addon | undefined;
let addonFile: string | undefined;

function load(): Addon {
  if (addon) return addon;
  const require = createRequire(import.meta.url);
  const root = packageRoot();
  try {
    const find = require('node-gyp-build') as { path(folder: string): string };
    addonFile = find.path(root);
    addon = require(addonFile) as Addon;
  } catch (cause) {
    throw new DistilWhisperError(
      'ERR_NATIVE_LOAD',
      `the native addon does not load for ${process.platform}-${process.arch} on Node ${process.version}: ` +
        `${(cause as Error).message.split('\n')[0]}. Looked in ${join(root, 'prebuilds')} and ${join(root, 'build')}; ` +
        "'npm rebuild distilwhisper' compiles it (needs Python 3, make and a C++17 compiler).",
      { cause },
    );
  }
  return addon;
}

/** Turns an error of the addon into the package's own. */
export function typed(error: unknown): unknown {
  if (error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_')) {
    return new DistilWhisperError(error.code as never, error.message, { cause: error });
  }
  return error;
}

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
  return { file: addonFile!, isas };
}
