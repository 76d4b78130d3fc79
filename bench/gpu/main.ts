/** Everything that a GPU has to show, in one run: `npm run gpu-check -- --help`. Each stage is a process: one that fails, or whose GPU faults, leaves the others alone. */
import { spawnSync } from 'node:child_process';
import { createWriteStream, existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDistilWhisperError } from '../../lib/errors/index.js';
import { type CudaReport, cudaDeviceNumber, cudaReport, packageRoot } from '../../lib/native/index.js';
import { describeMachine } from '../machine.js';
import { curves, ladder, sanitizer, tests } from './checks.js';
import { passOnSignals, run } from './processes.js';
import { pytorch } from './pytorch.js';
import { type Add, bars, besidePyTorch, csv, describe, type GpuRow, readRows, report, rowWriter } from './results.js';
import { CAPS, HELP, type Settings, type StageName, settings } from './settings.js';
import { ceilings, decode, encoder, ffn, loss, training } from './speed.js';

const EXIT = { held: 0, failed: 1, usage: 2, noGpu: 3 } as const;

const RUN: Record<StageName, (add: Add, settings: Settings) => Promise<void>> = {
  ...{ tests, curves, ceilings, ffn, loss, encoder, decode, training, pytorch, ladder, sanitizer },
};

/** The row, and the line, of a stage that did not end. */
function failed(stage: StageName, note: string): GpuRow {
  const row: GpuRow = { stage, name: 'stage', ok: false, note };
  console.log(describe(row));
  return row;
}

/** Runs one stage in a process of its own, its output in <folder>/<stage>.log; says what became of it. */
async function stage(name: StageName, given: Settings, argv: readonly string[], leftMs: number): Promise<GpuRow[]> {
  const capMs = CAPS[name] * given.minutes * 60_000;
  const limitMs = Math.min(capMs, leftMs);
  const start = performance.now();
  const log = createWriteStream(join(given.folder, `${name}.log`));
  // Rows of an earlier run are not this one's.
  rowWriter(given.folder, name);
  const args = [...process.execArgv, fileURLToPath(import.meta.url), ...argv, '--stage', name];
  let rest = '';
  const write = (text: string): void => {
    log.write(text);
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    // Its rows as they come.
    for (const line of lines) if (line.startsWith(`${name.padEnd(10)} `)) console.log(line);
  };
  const { status, late } = await run(process.execPath, args, { limitMs, write });
  log.end();
  const rows = readRows(given.folder, name);
  if (status !== 0) {
    const slow = capMs < leftMs ? `after ${(capMs / 1000).toFixed(0)} s, its share of the time` : 'out of time';
    const why = late ? `stopped: ${slow}` : `the stage failed (code ${status})`;
    rows.push(failed(name, `${why}; see ${name}.log`));
  }
  console.log(`${name.padEnd(10)} ${((performance.now() - start) / 1000).toFixed(0)} s`);
  return rows;
}

/** What the GPU is, by the driver's own tool; null where there is no such tool. */
function driver(): string | null {
  const query = ['--query-gpu=name,driver_version,clocks.max.sm,power.limit', '--format=csv,noheader'];
  const { status, stdout } = spawnSync('nvidia-smi', query, { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : null;
}

/** Builds the plugin in a checkout that has none, where there is a GPU for it and no other plugin is chosen. */
function buildPlugin(): void {
  const at = (...parts: string[]): string => join(packageRoot(), ...parts);
  const script = at('scripts', 'build-cuda.mjs');
  const chosen = process.env.DISTILWHISPER_CUDA_PLUGIN ?? cudaReport().plugin;
  if (chosen || !existsSync(script) || driver() === null) return;
  spawnSync(process.execPath, [script, '--ladder'], { stdio: 'inherit' });
}

/** Takes the cuBLASLt that the peer's Python has, where it has one: the same products, and found wherever that Python lies. */
function takeCublasLt(python: string): void {
  if (process.env.DISTILWHISPER_CUDA_LIBS) return;
  const program =
    'import glob, sys\n' +
    'found = [f for p in sys.path for n in ("cu13", "cublas") for f in glob.glob(p + "/nvidia/" + n + "/lib/libcublasLt.so.1[23]")]\n' +
    'print(found[0] if found else "")';
  const { status, stdout } = spawnSync(python, ['-c', program], { encoding: 'utf8' });
  const file = status === 0 ? stdout.trim() : '';
  if (file) process.env.DISTILWHISPER_CUDA_LIBS = file.slice(0, file.lastIndexOf('/'));
}

interface Machine extends ReturnType<typeof describeMachine> {
  gpu: CudaReport['devices'][number];
  nvidiaSmi: string;
  cuda: Omit<CudaReport, 'devices'>;
}

/** Writes what there is so far: a run that is cut off leaves the stages that it finished. */
function write(folder: string, machine: Machine, rows: readonly GpuRow[]): void {
  const { gpu, nvidiaSmi, cuda, date, commit } = machine;
  const facts = { gpu: gpu.name ?? 'unknown', driver: nvidiaSmi, cuda: cuda.driver ?? '', date, commit };
  const place = (ending: string): string => join(folder, `results.${ending}`);
  writeFileSync(place('json'), `${JSON.stringify({ machine, rows, bars: bars(rows) }, null, 1)}\n`);
  writeFileSync(place('csv'), csv(rows, facts));
  const head = Object.entries({ ...facts, cublasLt: cuda.cublasLt.version }).map(
    ([key, value]) => `- ${key}: ${value}`,
  );
  writeFileSync(place('md'), `${head.join('\n')}\n\n${report(rows)}`);
}

/** A sentence why no stage can begin, with its exit code, or the machine. */
function prepare(given: Settings): Machine | { problem: string; code: number } {
  const usage = (problem: string) => ({ problem, code: EXIT.usage });
  const kind = (path: string) => statSync(path, { throwIfNoEntry: false });
  if (given.peer !== undefined && !kind(given.peer)?.isFile())
    return usage(`--peer: expected a Python script, got ${given.peer}: no such file`);
  if (kind(given.folder)?.isFile()) return usage(`expected a folder for results, got the file ${given.folder}`);
  buildPlugin();
  takeCublasLt(given.python ?? 'python3');
  const { devices, ...cuda } = cudaReport();
  const gpu = devices.find(({ index }) => index === cudaDeviceNumber(given.device));
  const problem = cuda.problem ?? gpu?.problem ?? (gpu ? null : `there is no ${given.device}`);
  if (problem !== null || !gpu) return { problem: `no GPU can be checked: ${problem}`, code: EXIT.noGpu };
  return { ...describeMachine('cuda', 1), gpu, nvidiaSmi: driver() ?? 'nvidia-smi does not run', cuda };
}

async function main(): Promise<number> {
  const argv = process.argv.slice(2);
  const given = settings(argv);
  if (!given) {
    console.log(HELP);
    return EXIT.held;
  }
  if (given.stage) {
    await RUN[given.stage](rowWriter(given.folder, given.stage), given);
    return EXIT.held;
  }
  const end = performance.now() + given.minutes * 60_000;
  const machine = prepare(given);
  if ('problem' in machine) {
    console.error(machine.problem);
    return machine.code;
  }
  passOnSignals();
  mkdirSync(given.folder, { recursive: true });
  const { gpu, nvidiaSmi, commit, cuda } = machine;
  console.log(
    `${gpu.name}, compute capability ${gpu.computeCapability}; ${nvidiaSmi}; cuBLASLt ${cuda.cublasLt.version}; commit ${commit}`,
  );
  const rows: GpuRow[] = [];
  const merged = (): GpuRow[] =>
    besidePyTorch(
      rows,
      rows.filter(({ stage }) => stage === 'pytorch'),
    );
  for (const name of given.only) {
    const left = end - performance.now();
    if (left > 0) rows.push(...(await stage(name, given, argv, left)));
    else rows.push(failed(name, 'not begun: out of time'));
    write(given.folder, machine, merged());
  }
  const all = merged();
  const held = all.filter((row) => row.ok).length;
  const broken = all.filter((row) => row.ok === false).length;
  const count = (verdict: string): number => bars(all).filter((bar) => bar.verdict === verdict).length;
  console.log(
    `\n${report(all)}\nchecks: ${held} held, ${broken} failed; bars: ${count('met')} met, ${count('NOT MET')} not met, ${count('open')} open; ` +
      join(given.folder, 'results.csv'),
  );
  return broken + count('NOT MET') > 0 ? EXIT.failed : EXIT.held;
}

main().then(
  (code) => {
    process.exitCode = code;
  },
  (error: unknown) => {
    console.error(isDistilWhisperError(error) ? `${error.code}: ${error.message}` : error);
    process.exitCode = isDistilWhisperError(error) && error.code === 'ERR_ARGUMENT' ? EXIT.usage : EXIT.failed;
  },
);
