/**
 * Finds the plugin of the CUDA backend and says what it sees. The addon loads it; this file only knows where it may lie.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { type CudaDevice, load, type NativeStream, type PluginReport, packageRoot, typed } from './addon.js';

const PACKAGE = '@distilwhisper/cuda-linux-x64';
const FILE = 'distilwhisper-cuda.so';

export interface CudaReport {
  /** Path of the plugin, or null when there is none that loads. */
  plugin: string | null;
  /** The first thing that keeps CUDA from being used here, as a sentence, or null. */
  problem: string | null;
  /** What the plugin has kernels for. */
  architectures: string | null;
  /** The newest CUDA that the driver runs ("13.0"), or null without a driver. */
  driver: string | null;
  /** The CUDA that the plugin was built with. */
  runtime: string | null;
  /** cuBLASLt: its path and version, or null and what is missing. */
  cublasLt: { path: string | null; version: string | null; problem: string | null };
  devices: CudaDevice[];
}

/**
 * Path of the plugin: DISTILWHISPER_CUDA_PLUGIN, the package @distilwhisper/cuda-linux-x64, or what `npm run build:cuda`
 * made in a clone. Errors: ERR_CUDA_PLUGIN, with what to do.
 */
export function findCudaPlugin(): string {
  const given = process.env.DISTILWHISPER_CUDA_PLUGIN;
  if (given) {
    if (existsSync(given)) return given;
    throw new DistilWhisperError('ERR_CUDA_PLUGIN', `DISTILWHISPER_CUDA_PLUGIN: there is no file '${given}'`);
  }
  const root = packageRoot();
  const candidates: string[] = [];
  try {
    const installed = createRequire(join(root, 'package.json')).resolve(`${PACKAGE}/package.json`);
    candidates.push(join(dirname(installed), FILE));
  } catch {
    // Not installed: the build folder may have it.
  }
  candidates.push(join(root, 'build-cuda', FILE));
  const found = candidates.find((path) => existsSync(path));
  if (found) return found;
  throw new DistilWhisperError(
    'ERR_CUDA_PLUGIN',
    `no CUDA plugin was found: install the package ${PACKAGE}, build it in a clone with 'npm run build:cuda' ` +
      `(needs nvcc), or set DISTILWHISPER_CUDA_PLUGIN to its path. Looked for ${candidates.join(' and ')}`,
  );
}

const CUDA_DEVICE = /^cuda(?::(\d{1,4}))?$/;

/** Whether this is how a GPU is named, be there one or not: 'cuda' or 'cuda:N'. */
export const isCudaDevice = (device: string): boolean => CUDA_DEVICE.test(device);

/** The number of a device's name: 0 for 'cuda', N for 'cuda:N'. Errors: ERR_ARGUMENT. */
export function cudaDeviceNumber(device: string): number {
  const match = CUDA_DEVICE.exec(device);
  if (!match) {
    throw new DistilWhisperError('ERR_ARGUMENT', `device: expected 'cpu', 'cuda' or 'cuda:N', got '${device}'`);
  }
  return Number(match[1] ?? 0);
}

/** Errors: ERR_NATIVE_LOAD, ERR_CUDA_PLUGIN, ERR_CUDA (driver, device, memory). */
export function createCudaStream(device: number): NativeStream {
  const { NativeStream } = load();
  const plugin = findCudaPlugin();
  try {
    return new NativeStream(plugin, device);
  } catch (error) {
    throw typed(error);
  }
}

const cudaVersion = (n: number): string | null => (n ? `${Math.floor(n / 1000)}.${Math.floor((n % 1000) / 10)}` : null);
/** cuBLASLt counts 130001 for 13.0.1. */
const gemmVersion = (n: number): string | null =>
  n ? `${Math.floor(n / 10000)}.${Math.floor((n % 10000) / 100)}.${n % 100}` : null;

/** What `doctor` tells about CUDA. Never throws for what is missing: it says so. Errors: ERR_NATIVE_LOAD. */
export function cudaReport(): CudaReport {
  const addon = load();
  let plugin: string | null = null;
  let r: PluginReport;
  try {
    plugin = findCudaPlugin();
    r = addon.pluginReport(plugin);
  } catch (error) {
    const cause = typed(error);
    if (!isDistilWhisperError(cause)) throw cause;
    return {
      plugin: null,
      problem: cause.message,
      architectures: null,
      driver: null,
      runtime: null,
      cublasLt: { path: null, version: null, problem: null },
      devices: [],
    };
  }
  const found = r.gemmVersion !== 0;
  const useless = r.devices.length > 0 && r.devices.every((d) => d.problem);
  return {
    plugin,
    problem:
      r.driverMessage ||
      (useless ? `cuda:${r.devices[0]!.index}: ${r.devices[0]!.problem}` : null) ||
      (found ? null : r.gemmLibrary),
    architectures: r.architectures,
    driver: cudaVersion(r.driverVersion),
    runtime: cudaVersion(r.runtimeVersion),
    cublasLt: {
      path: found ? r.gemmLibrary : null,
      version: gemmVersion(r.gemmVersion),
      problem: found ? null : r.gemmLibrary,
    },
    devices: r.devices,
  };
}
