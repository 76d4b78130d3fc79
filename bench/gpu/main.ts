/** Everything that a GPU has to show, in one run: `npm run gpu-check -- --help`. Each stage is a process: one that fails, or whose GPU faults, leaves the others alone. */
import { spawn, spawnSync } from 'node:child_process';
import { createWriteStream, existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDistilWhisperError } from '../../lib/errors/index.js';
import { cudaDeviceNumber, cudaReport } from '../../lib/native/index.js';
import { describeMachine } from '../machine.js';
import { curves, ladder, sanitizer, tests } from './checks.js';
import { csv, describe, type GpuRow, readRows, rowWriter } from './results.js';
import { HELP, type Settings, settings } from './settings.js';
import { ceilings, decode, encoder, ffn, loss, training } from './speed.js';

const EXIT = { held: 0, failed: 1, usage: 2, noGpu: 3 } as const;

const RUN: Record<string, (add: (row: Omit<GpuRow, 'stage'>) => void, settings: Settings) => void | Promise<void>> = {
  ...{ tests, curves, sanitizer, ladder, ceilings, ffn, loss, encoder, decode, training },
};

/** Runs one stage in a process of its own, its output in <folder>/<stage>.log; says what became of it. */
async function stage(name: string, given: Settings, argv: readonly string[], limitMs: number): Promise<GpuRow[]> {
  const start = performance.now();
  const log = createWriteStream(join(given.folder, `${name}.log`));
  rowWriter(given.folder, name);
  const args = [...process.execArgv, fileURLToPath(import.meta.url), ...argv, '--stage', name];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  child.stdout.pipe(log, { end: false });
  child.stderr.pipe(log, { end: false });
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill('SIGKILL');
  }, limitMs);
  const code = await new Promise<number | null>((resolve) => child.on('close', resolve));
  clearTimeout(timer);
  log.end();
  const rows = readRows(given.folder, name);
  if (code !== 0) {
    const why = late ? 'stopped: out of time' : `the stage failed (code ${code})`;
    rows.push({ stage: name, name: 'stage', ok: false, note: `${why}; see ${name}.log` });
  }
  for (const row of rows) console.log(describe(row));
  console.log(`${name.padEnd(10)} ${((performance.now() - start) / 1000).toFixed(0)} s\n`);
  return rows;
}

/** What the GPU is, by the driver's own tool where it is there. */
function driver(): string {
  const query = ['--query-gpu=name,driver_version,clocks.max.sm,power.limit', '--format=csv,noheader'];
  const { status, stdout } = spawnSync('nvidia-smi', query, { encoding: 'utf8' });
  return status === 0 ? stdout.trim() : 'nvidia-smi does not run';
}

async function main(): Promise<number> {
  const argv = process.argv.slice(2);
  const given = settings(argv);
  if (!given) {
    console.log(HELP);
    return EXIT.held;
  }
  if (given.stage) {
    await RUN[given.stage]!(rowWriter(given.folder, given.stage), given);
    return EXIT.held;
  }
  const cuda = cudaReport();
  const device = cuda.devices.find(({ index }) => index === cudaDeviceNumber(given.device));
  const problem = cuda.problem ?? device?.problem ?? (device ? null : `there is no ${given.device}`);
  if (problem !== null) {
    console.error(`no GPU can be checked: ${problem}`);
    return EXIT.noGpu;
  }
  if (given.peer !== undefined && !existsSync(given.peer)) {
    console.error(`--peer: expected a Python script, got ${given.peer}: no such file`);
    return EXIT.usage;
  }
  mkdirSync(given.folder, { recursive: true });
  const machine = { ...describeMachine('cuda', 1), gpu: device!, driver: driver(), cuda };
  console.log(
    `${device!.name}, compute capability ${device!.computeCapability}; ${machine.driver}; commit ${machine.commit}\n`,
  );
  const end = performance.now() + given.minutes * 60_000;
  const rows: GpuRow[] = [];
  for (const name of given.only) {
    const left = end - performance.now();
    if (left > 0) rows.push(...(await stage(name, given, argv, left)));
    else rows.push({ stage: name, name: 'stage', ok: false, note: 'not begun: out of time' });
  }
  writeFileSync(join(given.folder, 'results.json'), `${JSON.stringify({ machine, rows }, null, 1)}\n`);
  writeFileSync(join(given.folder, 'results.csv'), csv(rows));
  console.log(rows.map(describe).join('\n'));
  const bad = rows.filter((row) => row.ok === false);
  console.log(
    `\n${rows.filter((row) => row.ok).length} held, ${bad.length} did not; ${join(given.folder, 'results.csv')}`,
  );
  return bad.length > 0 ? EXIT.failed : EXIT.held;
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
