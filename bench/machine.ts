/** Where figures come from: without it they mean nothing. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { cpus, loadavg, totalmem } from 'node:os';
import { join } from 'node:path';
import { packageRoot } from '../lib/native/index.js';

export interface Machine {
  cpu: string;
  processors: number;
  memoryGiB: number;
  system: string;
  node: string;
  /** Instruction set of the kernels. */
  kernels: string;
  threads: number;
  /** Commit of the package, with "+" when files differ from it. */
  commit: string;
  date: string;
  /** Processes that wanted a processor in the minute before: much more than 0 spoils the figures. */
  load: number;
}

export function describeMachine(kernels: string, threads: number): Machine {
  return {
    cpu: cpuName(),
    processors: cpus().length,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    system: `${process.platform} ${process.arch}`,
    node: process.version,
    kernels,
    threads,
    commit: commit(),
    date: new Date().toISOString(),
    load: loadavg()[0]!,
  };
}

/** The name, with family, model and stepping where Linux tells them: virtual machines often hide the name. */
function cpuName(): string {
  const name = cpus()[0]?.model.trim() ?? 'unknown';
  try {
    const info = readFileSync('/proc/cpuinfo', 'utf8');
    const field = (key: string): string => new RegExp(`^${key}\\s*: (.*)$`, 'm').exec(info)?.[1] ?? '?';
    const amx = / amx_bf16 /.test(info) ? ', AMX' : '';
    return `${name} (family ${field('cpu family')}, model ${field('model')}, stepping ${field('stepping')}${amx})`;
  } catch {
    return name;
  }
}

function commit(): string {
  // What was packed for another machine says what it was made of, also when it lies in a clone.
  const { gitHead } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { gitHead?: string };
  if (gitHead) return gitHead;
  try {
    const git = (...args: string[]): string =>
      execFileSync('git', args, { cwd: packageRoot(), encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--untracked-files=no') ? '+' : '');
  } catch {
    return 'unknown';
  }
}
