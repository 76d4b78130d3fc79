/**
 * Loads the native addon, once, or says clearly why it cannot.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DistilWhisperError } from '../errors/index.js';
import type { PluginReport } from './cuda.js';

/** [id, dtype, ...shape] of an output tensor. */
export type NativeOutput = [id: number, dtype: number, ...shape: number[]];

export interface NativeMemory {
  /** Bytes of the step arena: held, in use now, most in use so far. */
  stepReserved: number;
  stepUsed: number;
  stepPeak: number;
  /** Bytes of persistent tensors: parameters, optimiser state, caches. */
  persistent: number;
  /** Of a GPU, with all that uses it: its memory, and what is free. */
  deviceTotal?: number;
  deviceAvailable?: number;
  /** What this process holds of it: steps, persistent tensors, workspace. Now, and the most so far. */
  deviceHeld?: number;
  devicePeak?: number;
}

export interface NativeStream {
  call(op: number, tensors: readonly number[], numbers: readonly number[]): NativeOutput[];
  create(dtype: number, shape: readonly number[], persistent: boolean): number;
  view(id: number, offset: number, shape: readonly number[]): number;
  /** `fresh`: a persistent tensor that no call knows yet. */
  write(id: number, bytes: Uint8Array, fresh: boolean): void;
  /** Of the values at a byte of a mapping, of type `from` (f64 0, f32 1, f16 2, bf16 3); `frozen`: in the mapping, if they can be. */
  stored(mapping: number, byte: number, from: number, dtype: number, shape: readonly number[], frozen: boolean): number;
  /** From here to `recorded` calls do not run, they are recorded. */
  record(): void;
  /** Ends it: the recording's number, or, unless it is kept, 0. */
  recorded(keep: boolean): number;
  replay(id: number): void;
  /** The recording goes, and the tensors that its calls made. */
  forget(id: number): void;
  read(id: number, behind: boolean): Promise<ArrayBuffer>;
  sync(): Promise<void>;
  freeze(id: number): void;
  dispose(id: number): void;
  endStep(): void;
  memory(): NativeMemory;
  close(): void;
  /** From here on what is queued is timed, or no longer. `device`: by the clock of the stream's device too. */
  profile(on: boolean, device: boolean): void;
  /**
   * Puts the calls that have run since the last time, oldest first and as many as fit, into `into` as JSON of trace events with
   * ",\n" before each, and returns how many bytes that are; 0: there are none. `launches`: the lane of the times in which
   * calls were handed to a device; `origin`: the clock when the trace began.
   */
  trace(into: Uint8Array, lane: number, launches: number, origin: number): number;
  /** What these calls were together, instead. */
  counted(): { flop: number; bytes: number; kernels: number };
  /** How much of the room for calls that are in neither yet is taken, from 0 to 1. */
  level(): number;
  /** Calls that are in neither, because it was asked for too late. */
  lost(): number;
}

export interface Addon {
  ops: string[];
  isas: { name: string; supported: boolean }[];
  /** (isa, threads), isa -1 for the oracle; or (path of a plugin, device). */
  NativeStream: new (
    isaOrPlugin: number | string,
    threadsOrDevice: number,
  ) => NativeStream;
  pluginReport(plugin: string): PluginReport;
  /** The number of a mapping of an open file's first bytes; `name` is the file in an error. */
  map(file: number, bytes: number, name: string): Promise<number>;
  unmap(mapping: number): void;
  /** Nanoseconds of the clock that records are stamped with. */
  clock(): number;
  /** (number of the instruction set, number of the ceiling, threads, bytes of the buffer that is read). */
  ceiling(isa: number, which: number, threads: number, bytes: number): Promise<number>;
}

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
let file: string | undefined;

export function load(): Addon {
  if (addon) return addon;
  const require = createRequire(import.meta.url);
  const root = packageRoot();
  try {
    const find = require('node-gyp-build') as { path(folder: string): string };
    file = find.path(root);
    addon = require(file) as Addon;
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

/** Where the addon that is loaded lies. */
export function addonFile(): string {
  load();
  return file!;
}
