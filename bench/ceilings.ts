/** What can this machine do at most? Fused multiply-adds, bf16 products, reading memory: measured by ceilings.cc. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { type Context, type Question, type Row, spread } from './harness.js';

/** What a case can be held against. `bf16`: the products of pairs that the kernels in use have. */
export type CeilingName = 'f32' | 'bf16' | 'read';
/** What ceilings.cc measures. */
type Loop = 'f32' | 'dot' | 'amx' | 'read';

/** The compiled ceilings.cc, kept running so that ceilings and kernels are measured in turns. */
export class Ceilings {
  private constructor(
    private readonly child: ChildProcess,
    private readonly lines: AsyncIterator<string>,
    private readonly reader: Interface,
    /** Width of the vectors, in words. */
    readonly vectors: string,
    readonly threads: number,
    private readonly tiles: boolean,
  ) {}

  /** Compiles and starts; or the reason why there are no ceilings. `isa`: the kernels in use. */
  static async start(threads: number, isa: string): Promise<Ceilings | string> {
    const compiler = process.env.CXX ?? 'g++';
    const folder = mkdtempSync(join(tmpdir(), 'distilwhisper-bench-'));
    try {
      const source = fileURLToPath(new URL('ceilings.cc', import.meta.url));
      const program = join(folder, 'ceilings');
      const args = ['-O3', '-march=native', '-std=c++17', '-pthread', source, '-o', program];
      const { error, status, stderr } = spawnSync(compiler, args, { encoding: 'utf8' });
      if (error) return `${compiler} does not run (${error.message}); CXX names another compiler`;
      if (status !== 0) return `${compiler} fails on bench/ceilings.cc: ${stderr.split('\n')[0]}`;
      const child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
      const reader = createInterface({ input: child.stdout });
      const lines = reader[Symbol.asyncIterator]();
      const first = await lines.next();
      if (first.done) return 'the compiled bench/ceilings.cc does not run';
      return new Ceilings(child, lines, reader, first.value, threads, isa === 'amx');
    } finally {
      // A running program outlives its file.
      rmSync(folder, { recursive: true, force: true });
    }
  }

  /** GFLOP/s, or GB/s for `read`, on all threads; null where the machine lacks the instruction. */
  measure(name: CeilingName): Promise<number | null> {
    return this.loop(name === 'bf16' ? (this.tiles ? 'amx' : 'dot') : name, this.threads);
  }

  async loop(name: Loop, threads: number): Promise<number | null> {
    this.child.stdin!.write(`${name} ${threads}\n`);
    const answer = await this.lines.next();
    if (answer.done) throw new Error('bench/ceilings.cc ended while it measured');
    return JSON.parse(answer.value) as number | null;
  }

  close(): void {
    this.reader.close();
    this.child.stdin!.end();
  }
}

const LOOPS: [name: Loop, title: (vectors: string) => string, unit: 'GFLOP/s' | 'GB/s'][] = [
  ['f32', (vectors) => `fp32 fused multiply-add, ${vectors}`, 'GFLOP/s'],
  ['dot', () => 'bf16 products, vdpbf16ps', 'GFLOP/s'],
  ['amx', () => 'bf16 products, AMX tiles', 'GFLOP/s'],
  ['read', () => 'reading 1 GiB', 'GB/s'],
];

export const ceilings: Question = {
  name: 'ceilings',
  question: 'What can this machine do at most?',
  async *measure(context: Context) {
    const { ceilings: machine, threads, repeats } = context;
    if (!machine) return;
    const rows: Row[] = [];
    for (const [name, title, unit] of LOOPS) {
      for (const count of new Set([1, threads])) {
        const values: number[] = [];
        for (let i = 0; i < repeats; i++) {
          const value = await machine.loop(name, count);
          if (value !== null) values.push(value);
        }
        const row = `${title(machine.vectors)}, ${count} thread${count > 1 ? 's' : ''}`;
        if (values.length === 0) rows.push({ name: row, notes: { note: 'this machine lacks the instruction' } });
        else {
          const { min, median, max } = spread(values);
          rows.push({ name: row, rate: { value: median, unit }, notes: { min, max } });
        }
      }
    }
    yield { title: 'Ceilings of this machine', rows };
  },
};
