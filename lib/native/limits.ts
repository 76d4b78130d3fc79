/** How much memory this process may still take. */
import { readFileSync } from 'node:fs';
import { freemem } from 'node:os';
import { join } from 'node:path';

/** What limits it: the machine's free memory, the control group, or the process's own limits (`ulimit`). */
export type MemoryLimit = 'the memory that is free' | 'the control group' | 'ulimit -v' | 'ulimit -d';

export interface AvailableMemory {
  bytes: number;
  limit: MemoryLimit;
}

/**
 * Bytes that can be taken beyond what the process holds, by the smallest of all limits. Pages of files that the system can give back
 * count as free. `root`: where /proc and /sys/fs/cgroup are looked for, for tests.
 */
export function availableMemory(root = '/'): AvailableMemory {
  const text = (...path: string[]): string => {
    try {
      return readFileSync(join(root, ...path), 'utf8');
    } catch {
      return '';
    }
  };
  const kib = (from: string, name: string): number | null => {
    const found = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(from);
    return found ? Number(found[1]) * 1024 : null;
  };
  const machine = kib(text('proc/meminfo'), 'MemAvailable') ?? freemem();
  const found: AvailableMemory[] = [{ bytes: machine, limit: 'the memory that is free' }];
  for (const bytes of groups(text)) found.push({ bytes, limit: 'the control group' });
  const [status, limits] = [text('proc/self/status'), text('proc/self/limits')];
  for (const [name, size, limit] of [
    ['Max address space', 'VmSize', 'ulimit -v'],
    ['Max data size', 'VmData', 'ulimit -d'],
  ] as const) {
    const most = new RegExp(`^${name}\\s+(\\d+)`, 'm').exec(limits);
    if (most) found.push({ bytes: Number(most[1]) - (kib(status, size) ?? 0), limit });
  }
  const least = found.reduce((a, b) => (b.bytes < a.bytes ? b : a));
  return { ...least, bytes: Math.max(0, least.bytes) };
}

/** A version 1 group without a limit has one of about 2^63. */
const UNLIMITED = 2 ** 60;

/** What is free in each control group that this process is in, and in those around it; versions 1 and 2. */
function* groups(text: (...path: string[]) => string): Generator<number> {
  for (const line of text('proc/self/cgroup').split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const isTwo = controllers === '';
    if (path === undefined || (!isTwo && !controllers!.split(',').includes('memory'))) continue;
    const base = isTwo ? 'sys/fs/cgroup' : 'sys/fs/cgroup/memory';
    const [limit, usage, cache] = isTwo
      ? ['memory.max', 'memory.current', 'inactive_file']
      : ['memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file'];
    // In a container the group may be mounted as the root of all: its own path is not there then.
    const parts = path.split('/').filter((part) => part !== '');
    for (let depth = parts.length; depth >= 0; depth--) {
      const folder = join(base, ...parts.slice(0, depth));
      const most = Number(text(folder, limit!).trim() || 'none');
      if (!(most < UNLIMITED)) continue;
      const given = new RegExp(`^${cache} (\\d+)`, 'm').exec(text(folder, 'memory.stat'));
      yield most - Number(text(folder, usage!).trim()) + Number(given?.[1] ?? 0);
    }
  }
}
