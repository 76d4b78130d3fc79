import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism, freemem, totalmem } from 'node:os';
import { join } from 'node:path';
import type { Command } from 'commander';
import { isDistilWhisperError } from '../errors/index.js';
import {
  type CudaReport,
  cgroupProcessors,
  chooseIsa,
  cudaReport,
  defaultThreads,
  nativeInfo,
  packageRoot,
} from '../native/index.js';
import { kernels, Stream, typeName } from '../tensor/index.js';
import { endHelp, jsonOption } from './options.js';
import { run } from './run.js';
import { print, printJson } from './streams.js';

export function define(command: Command): void {
  command
    .description('Tell what was loaded, which CPU path runs, what is missing and why. Nothing is changed.')
    .addOption(jsonOption('the findings'))
    .action((options: { json?: boolean }) =>
      run(options, async () => {
        const findings = await diagnose();
        if (options.json) printJson(findings);
        else print(format(findings));
        return findings.ok ? undefined : 'failed';
      }),
    );
  endHelp(command, {
    examples: ['distilwhisper doctor', 'distilwhisper doctor --json', 'DISTILWHISPER_CPU=avx2 distilwhisper doctor'],
    exit: {
      0: 'everything that is needed works; what is optional may be missing',
      1: 'something that is needed does not work, such as the native addon; it is marked with !',
    },
  });
}

/** A part that is there (`value`), or is not, and why (`problem`). */
type Part<T = string> = { value: T } | { problem: string };

type Whence = 'prebuilt' | 'compiled here' | 'named by DISTILWHISPER_ADDON';

interface Findings {
  /** Everything that is needed works. */
  ok: boolean;
  package: { version: string; folder: string };
  node: { version: string; napi: string; platform: string };
  addon: Part<{ file: string; from: Whence }>;
  cpu: Part<{ inUse: string; override: string | null; machineHas: string[]; machineLacks: string[] }>;
  /** A kernel ran and gave the right numbers. */
  compute: Part;
  threads: { default: number; processors: number; cgroupLimit: number | null };
  memory: { totalBytes: number; freeBytes: number; limitBytes: number | null };
  /** How weights lie in memory, and what that asks of their files. */
  weights: string;
  decoders: Record<string, Part>;
  ffmpeg: Part;
  embedded: Record<'teacher' | 'student' | 'manifest', Part>;
  /** What was found of CUDA, with its `problem` when it cannot be used. */
  cuda: Part<CudaReport>;
}

function whence(file: string, root: string): Whence {
  if (process.env.DISTILWHISPER_ADDON) return 'named by DISTILWHISPER_ADDON';
  return file.startsWith(join(root, 'prebuilds')) ? 'prebuilt' : 'compiled here';
}

const WEIGHTS =
  'mapped from their files while a model is in use: replace such a file by renaming another over it (as every command here does); ' +
  'one that is cut short ends the process (SIGBUS), one that is written into changes the model; --copy-weights reads them into memory';

async function diagnose(): Promise<Findings> {
  const root = packageRoot();
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const addon = part(() => {
    const { file } = nativeInfo();
    return {
      file,
      from: whence(file, root),
    };
  });
  const cpu = part(() => {
    const { isas } = nativeInfo();
    const names = (supported: boolean): string[] =>
      isas.filter((isa) => isa.supported === supported).map((isa) => isa.name);
    const override = process.env.DISTILWHISPER_CPU || null;
    return { inUse: chooseIsa() as string, override, machineHas: names(true), machineLacks: names(false) };
  });
  const compute = 'value' in cpu ? await tryKernel() : { problem: 'not tried: see above' };
  const decoders = await tryDecoders();
  const needed: Part<unknown>[] = [addon, cpu, compute, ...Object.values(decoders)];
  const limit = process.constrainedMemory();
  return {
    ok: needed.every((found) => 'value' in found),
    package: { version, folder: root },
    node: {
      version: process.version,
      napi: process.versions.napi ?? 'unknown',
      platform: `${process.platform}-${process.arch}`,
    },
    addon,
    cpu,
    compute,
    threads: { default: defaultThreads(), processors: availableParallelism(), cgroupLimit: cgroupProcessors() },
    memory: {
      totalBytes: totalmem(),
      freeBytes: freemem(),
      limitBytes: limit > 0 && limit < totalmem() ? limit : null,
    },
    weights: WEIGHTS,
    decoders,
    ffmpeg: tryFfmpeg(),
    embedded: await tryEmbedded(),
    cuda: part(cudaReport),
  };
}

const sentence = (error: unknown): string => {
  const message = error instanceof Error ? error.message : String(error);
  return isDistilWhisperError(error) ? message : message.split('\n')[0]!;
};

function part<T>(find: () => T): Part<T> {
  try {
    return { value: find() };
  } catch (error) {
    return { problem: sentence(error) };
  }
}

async function tryKernel(): Promise<Part> {
  let stream: Stream | null = null;
  try {
    stream = new Stream({ threads: defaultThreads() });
    const one = stream.tensor(Float32Array.of(1, 2, 3), [3]);
    const { y } = kernels.add(stream, { a: one, b: one, beta: 0.5, out: 'f32' });
    const got = await y.floats();
    if (got.join() !== '1.5,3,4.5') return { problem: `1.5 · (1, 2, 3) gave ${got.join(', ')}` };
    const type = typeName(stream.fastType);
    return {
      value: `a kernel ran on ${stream.threads} threads and gave the right numbers; --compute-type auto is ${type}`,
    };
  } catch (error) {
    return { problem: sentence(error) };
  } finally {
    stream?.close();
  }
}

/** Loaded one by one, so that a package that is missing shows here and nowhere else. */
async function tryDecoders(): Promise<Record<string, Part>> {
  const loads: Record<string, () => Promise<unknown>> = {
    flac: () => import('@audio/decode-flac'),
    mp3: () => import('@audio/decode-mp3'),
    vorbis: () => import('@audio/decode-vorbis'),
    opus: () => import('@audio/decode-opus'),
  };
  const found: Record<string, Part> = {};
  for (const [name, load] of Object.entries(loads)) {
    try {
      await load();
      found[name] = { value: 'loaded' };
    } catch (error) {
      found[name] = { problem: sentence(error) };
    }
  }
  return found;
}

function tryFfmpeg(): Part {
  const { error, stdout, status } = spawnSync('ffmpeg', ['-version'], { encoding: 'utf8' });
  if (!error && status === 0) return { value: stdout.split('\n')[0]! };
  const missing = error && 'code' in error && error.code === 'ENOENT';
  const why = missing ? 'not on the PATH' : `it does not run (${error ? error.message : `exit status ${status}`})`;
  return { problem: `${why}; needed only for formats besides wav, flac, mp3, ogg vorbis and opus` };
}

async function tryEmbedded(): Promise<Findings['embedded']> {
  const there = (path: string, marker = path): Part =>
    existsSync(marker) ? { value: path } : { problem: `there is no ${marker}: the demo cannot run` };
  try {
    const { embedded } = await import('../recipes/index.js');
    const { teacher, student, manifest } = embedded();
    return {
      teacher: there(teacher, join(teacher, 'model.safetensors')),
      student: there(student, join(student, 'model.safetensors')),
      manifest: there(manifest),
    };
  } catch (error) {
    const problem = { problem: sentence(error) };
    return { teacher: problem, student: problem, manifest: problem };
  }
}

function format(f: Findings): string {
  const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const lines: string[] = [];
  const line = (mark: '+' | '-' | '!', name: string, text: string): void => {
    lines.push(`${mark} ${name.padEnd(10)} ${text}`);
  };
  const tell = <T>(name: string, found: Part<T>, text: (value: T) => string, needed = true): void => {
    if ('value' in found) line('+', name, text(found.value));
    else line(needed ? '!' : '-', name, found.problem);
  };
  line('+', 'package', `distilwhisper ${f.package.version} in ${f.package.folder}`);
  line('+', 'node', `${f.node.version}, Node-API ${f.node.napi}, ${f.node.platform}`);
  tell('addon', f.addon, ({ file, from }) => `${from}: ${file}`);
  tell('cpu', f.cpu, ({ inUse, override, machineHas, machineLacks }) => {
    const chosen = override ? `chosen by DISTILWHISPER_CPU=${override}` : 'the best here';
    const lacks =
      machineLacks.length > 0 ? `; not on this machine, or not in this build: ${machineLacks.join(', ')}` : '';
    return `${inUse} (${chosen}); this machine runs ${machineHas.join(', ')}${lacks}`;
  });
  tell('compute', f.compute, (text) => text);
  const { default: threads, processors, cgroupLimit } = f.threads;
  const group = cgroupLimit === null ? '' : `, control group limit ${cgroupLimit}`;
  line('+', 'threads', `${threads} by default (${processors} processors${group})`);
  const { totalBytes, freeBytes, limitBytes } = f.memory;
  const limit = limitBytes === null ? '' : `, limited to ${gib(limitBytes)} for this process`;
  line('+', 'memory', `${gib(totalBytes)}, ${gib(freeBytes)} free${limit}`);
  line('+', 'weights', f.weights);
  for (const [name, found] of Object.entries(f.decoders)) tell(name, found, () => 'audio decoder loaded');
  tell('ffmpeg', f.ffmpeg, (text) => text, false);
  for (const [name, found] of Object.entries(f.embedded)) tell(name, found, (path) => path, false);
  if ('problem' in f.cuda) {
    line('-', 'cuda', f.cuda.problem);
  } else {
    const { devices, driver, runtime, cublasLt, plugin, problem: first } = f.cuda.value;
    for (const { index, name, computeCapability, memoryBytes, problem } of devices) {
      const what = `${name}, compute capability ${computeCapability}, ${gib(memoryBytes ?? 0)}`;
      line(problem ? '-' : '+', `cuda:${index}`, problem ?? what);
    }
    // Whatever is missing, what was found is told.
    const parts = plugin
      ? `plugin ${plugin} of CUDA ${runtime}; ${driver ? `driver for CUDA ${driver}` : 'no driver'}`
      : '';
    const untold = first === cublasLt.problem || devices.length > 0 ? null : first;
    line(first ? '-' : '+', 'cuda', [untold, parts].filter(Boolean).join('; '));
    if (plugin && cublasLt.path) line('+', 'cublasLt', `${cublasLt.version} in ${cublasLt.path}`);
    else if (plugin) line('-', 'cublasLt', cublasLt.problem ?? '');
  }
  const end = f.ok ? 'everything that is needed works' : 'what is marked with ! is needed and does not work';
  return `${lines.join('\n')}\n${end}\n`;
}
