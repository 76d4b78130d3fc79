/** Other programs, run with their output passed on as it comes. */
import { type ChildProcess, spawn } from 'node:child_process';

export interface Ended {
  /** Exit code; null: ended by a signal, or never begun. */
  status: number | null;
  /** What it wrote to both outputs, or why it did not begin. */
  output: string;
  /** It was stopped because its time was up. */
  late: boolean;
}

export interface RunOptions {
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** After that it is stopped, with all that it has begun: it gets a process group of its own. */
  limitMs?: number;
  /** Default: this process's standard output. */
  write?: (text: string) => void;
}

const groups = new Set<ChildProcess>();

function stopGroup(child: ChildProcess): void {
  try {
    process.kill(-child.pid!, 'SIGKILL');
  } catch {
    // It has ended.
  }
}

/** Runs a command to its end. Never rejects. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  const { limitMs, write = (text: string) => process.stdout.write(text) } = options;
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      detached: limitMs !== undefined,
      env: { ...process.env, ...options.env },
      ...(options.cwd !== undefined && { cwd: options.cwd }),
    });
    let output = '';
    let late = false;
    const take = (text: string): void => {
      output += text;
      write(text);
    };
    child.stdout.setEncoding('utf8').on('data', take);
    child.stderr.setEncoding('utf8').on('data', take);
    let timer: NodeJS.Timeout | undefined;
    if (limitMs !== undefined) {
      groups.add(child);
      timer = setTimeout(
        () => {
          late = true;
          stopGroup(child);
        },
        Math.min(limitMs, 2 ** 31 - 1),
      );
    }
    child.on('error', (error) => take(`${error.message}\n`));
    child.on('close', (status) => {
      clearTimeout(timer);
      groups.delete(child);
      resolve({ status, output, late });
    });
  });
}

/** From here on a signal that ends this process ends what runs under a limit too. */
export function passOnSignals(): void {
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      for (const child of groups) stopGroup(child);
      process.exit(1);
    });
  }
}
