/** A small training with validation whose system calls on its run folder fail, or end the process, one at a time (faults.c). */
import { execFileSync, spawn } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { corpusRows, main, writeRows, writeTinyModel } from './cli.js';

export type Fault = 'kill' | 'killafter' | 'ENOSPC' | 'EIO' | 'EINTR' | 'EROFS' | 'EDQUOT' | 'EACCES';

export interface FaultyRun {
  /** Names of the system calls of an undisturbed run, in their order. */
  calls: string[];
  /** Runs with a fault at a call (from 1), then again without. Returns what is wrong with that; '' is nothing. */
  tryFault(fault: Fault, at: number): Promise<string>;
}

interface Ended {
  code: number | null;
  signal: NodeJS.Signals | null;
  stderr: string;
}

/** Relative path and content of every file, but for what says how long a run took. */
function snapshot(folder: string, at = ''): Map<string, Buffer> {
  const files = new Map<string, Buffer>();
  for (const name of readdirSync(join(folder, at))) {
    const path = join(at, name);
    if (statSync(join(folder, path)).isDirectory()) for (const [k, v] of snapshot(folder, path)) files.set(k, v);
    else if (path !== 'report.json') files.set(path, readFileSync(join(folder, path)));
  }
  return files;
}

/** Builds the library and makes model and data in `scratch`. Null where there is no compiler or no preloading. */
export async function faultyRun(scratch: string): Promise<FaultyRun | null> {
  if (process.platform !== 'linux') return null;
  const library = join(scratch, 'faults.so');
  const source = fileURLToPath(new URL('./faults.c', import.meta.url));
  try {
    execFileSync('cc', ['-shared', '-fPIC', '-O1', '-o', library, source, '-ldl'], { stdio: 'ignore' });
  } catch {
    return null;
  }
  await writeTinyModel(join(scratch, 'model'), 1);
  const rows = [...corpusRows('ca', 'train', 'in', 4), ...corpusRows('ca', 'validation', 'in', 2)];
  const manifest = writeRows(join(scratch, 'rows.jsonl'), rows);
  const args = [
    'train',
    '--model',
    join(scratch, 'model'),
    '--manifest',
    manifest,
    '--language',
    'ca',
    '--threads',
    '1',
  ];
  args.push('--split', 'train', '--validation-split', 'validation', '--batch-size', '2', '--learning-rate', '0.01');
  args.push('--steps', '6', '--checkpoint-every', '2', '--validate-every', '3', '--output');
  const train = (folder: string, env: Record<string, string> = {}): Promise<Ended> =>
    new Promise((resolve) => {
      const child = spawn(process.execPath, [main, ...args, join(folder, 'run')], {
        env: { ...process.env, NODE_OPTIONS: '', UV_USE_IO_URING: '0', ...env },
        stdio: ['ignore', 'ignore', 'pipe'],
      });
      let stderr = '';
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        stderr += text;
      });
      child.on('close', (code, signal) => resolve({ code, signal, stderr }));
    });
  const disturbed = (folder: string, more: Record<string, string>): Promise<Ended> =>
    train(folder, { LD_PRELOAD: library, FAULT_ROOT: join(folder, 'run'), ...more });
  const made = (name: string): string => {
    const folder = join(scratch, name);
    mkdirSync(folder);
    return folder;
  };

  const log = join(scratch, 'calls');
  const whole = made('whole');
  const { code, stderr } = await disturbed(whole, { FAULT_LOG: log });
  if (code !== 0) throw new Error(stderr);
  const expected = snapshot(join(whole, 'run'));
  const calls = readFileSync(log, 'utf8').trimEnd().split('\n');
  let runs = 0;
  return {
    calls: calls.map((line) => line.split(' ')[1]!),
    async tryFault(fault, at) {
      const folder = made(`fault-${runs++}`);
      try {
        const first = await disturbed(folder, { FAULT_AT: String(at), FAULT_MODE: fault });
        const killed = fault === 'kill' || fault === 'killafter';
        if (killed && first.signal !== 'SIGKILL') return `ended with ${first.code}, expected to be killed`;
        if (!killed && (first.signal !== null || first.code! > 1)) return `ended with ${first.signal ?? first.code}`;
        if (!killed && first.code === 1 && !/^error ERR_[A-Z_]+: /m.test(first.stderr)) return `said ${first.stderr}`;
        if (/^\s+at /m.test(first.stderr)) return `a stack: ${first.stderr}`;
        const second = await train(folder);
        if (second.code !== 0) return `again: ${second.stderr}`;
        const got = snapshot(join(folder, 'run'));
        const names = (files: Map<string, Buffer>): string => [...files.keys()].sort().join(' ');
        if (names(got) !== names(expected)) return `left ${names(got)}`;
        const other = [...expected].filter(([name, bytes]) => !bytes.equals(got.get(name)!)).map(([name]) => name);
        return other.length > 0 ? `other bytes in ${other.join(' ')}` : '';
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    },
  };
}
