/**
 * Loads the native addon, once, or says clearly why it cannot.
 */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';
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
  /** Bytes of mapped files that tensors are parts of: in memory as they are touched, and given back when it is short. */
  mapped: number;
  /** Of the process beside tensors: packed forms of frozen weights, of all streams, and scratch memory of this stream's kernels. */
  packed: number;
  scratch: number;
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
  /** Positions, from one multiple of this to the next, at which one recording of a token gives the bits of calls; 0: no graphs here. */
  graphSpan(): number;
  /** The recording goes, and the tensors that its calls made. */
  forget(id: number): void;
  read(id: number, behind: boolean): Promise<ArrayBuffer>;
  sync(): Promise<void>;
  freeze(id: number): void;
  dispose(id: number): void;
  endStep(): void;
  memory(): NativeMemory;
  close(): void;
  /** What is queued from here on belongs to a part of a training step, by its number in `stepParts`. */
  part(number: number): void;
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

export interface CudaDevice {
  index: number;
  /** "NVIDIA H200"; absent when the driver could not say. */
  name?: string;
  /** "9.0" */
  computeCapability?: string;
  /** Streaming multiprocessors. */
  processors?: number;
  memoryBytes?: number;
  /** Why this device cannot be used. */
  problem?: string;
}

/** What the addon's pluginReport returns. */
export interface PluginReport {
  architectures: string;
  driverVersion: number;
  driverMessage: string;
  runtimeVersion: number;
  gemmVersion: number;
  gemmLibrary: string;
  devices: CudaDevice[];
}

export interface Addon {
  ops: string[];
  isas: { name: string; supported: boolean }[];
  /** (isa, threads, whether it only plans), isa -1 for the oracle; or (path of a plugin, device). */
  NativeStream: new (
    isaOrPlugin: number | string,
    threadsOrDevice: number,
    plans?: boolean,
  ) => NativeStream;
  pluginReport(plugin: string): PluginReport;
  /** The number of a mapping of an open file's first bytes; `name` is the file in an error; `copied`: it is read, not mapped. */
  map(file: number, bytes: number, name: string, copied: boolean): Promise<number>;
  unmap(mapping: number): void;
  /** Whether an open file is locked now, until it is closed; null: its file system has no locks. */
  lock(file: number): boolean | null;
  /** Nanoseconds of the clock that records are stamped with. */
  clock(): number;
  /** (number of the instruction set, number of the ceiling, threads, bytes of the buffer that is read). */
  ceiling(isa: number, which: number, threads: number, bytes: number): Promise<number>;
}

const BUNDLED =
  "Where this package was bundled into other code, leave it out ('external'), or put the path of its distilwhisper.node into " +
  'DISTILWHISPER_ADDON.';

const NAME = 'distilwhisper';

function isPackage(folder: string): boolean {
  try {
    return (JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as { name?: unknown }).name === NAME;
  } catch {
    return false;
  }
}

/** This module; in a CommonJS bundle, which does not know where it is, the script that was started. */
const here = (): string => (import.meta.url ? fileURLToPath(import.meta.url) : resolve(process.argv[1] ?? 'index.js'));

/**
 * The folder of the package, where package.json, prebuilds/ and build/ are: around this module, or, where it was bundled, the one
 * that is installed beside the bundle. Errors: ERR_NATIVE_LOAD.
 */
export function packageRoot(): string {
  for (let folder = dirname(here()); ; folder = dirname(folder)) {
    if (isPackage(folder)) return folder;
    if (dirname(folder) === folder) break;
  }
  try {
    return dirname(createRequire(here()).resolve(`${NAME}/package.json`));
  } catch {
    throw new DistilWhisperError(
      'ERR_NATIVE_LOAD',
      `cannot find the package folder of ${NAME} around ${here()}. ${BUNDLED}`,
    );
  }
}

let addon: Addon | undefined;
let file: string | undefined;

/** The addon's file that DISTILWHISPER_ADDON names, or undefined. */
function namedFile(): string | undefined {
  const named = process.env.DISTILWHISPER_ADDON;
  if (!named) return undefined;
  const path = resolve(named);
  if (!existsSync(path)) {
    throw new DistilWhisperError('ERR_NATIVE_LOAD', `DISTILWHISPER_ADDON: there is no file '${path}'`);
  }
  return path;
}

const platform = (): string => `${process.platform}-${process.arch} on Node ${process.version}`;

const isAddon = (loaded: Partial<Addon>): loaded is Addon => Array.isArray(loaded.ops) && 'NativeStream' in loaded;

/** Loads a named addon. */
function loadNamed(path: string): Addon {
  let loaded: Partial<Addon>;
  try {
    loaded = createRequire(path)(path) as Partial<Addon>;
  } catch (cause) {
    const why = (cause as Error).message.split('\n')[0];
    throw new DistilWhisperError('ERR_NATIVE_LOAD', `DISTILWHISPER_ADDON: it does not load for ${platform()}: ${why}`, {
      cause,
    });
  }
  if (isAddon(loaded)) return loaded;
  throw new DistilWhisperError('ERR_NATIVE_LOAD', `DISTILWHISPER_ADDON: '${path}' is not ${NAME}'s addon`);
}

/** The addon: the file that DISTILWHISPER_ADDON names, or that of the package. Errors: ERR_NATIVE_LOAD. */
export function load(): Addon {
  if (addon) return addon;
  const named = namedFile();
  if (named !== undefined) {
    addon = loadNamed(named);
    file = named;
    return addon;
  }
  const root = packageRoot();
  const require = createRequire(join(root, 'package.json'));
  try {
    const find = require('node-gyp-build') as { path(folder: string): string };
    file = find.path(root);
    addon = require(file) as Addon;
  } catch (cause) {
    throw new DistilWhisperError(
      'ERR_NATIVE_LOAD',
      `the native addon does not load for ${platform()}: ` +
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
