/** What can this machine do at most? Fused multiply-adds, bf16 products, reading memory: loops of nothing else. */
import { type Isa, nativeInfo } from '../lib/native/index.js';
import { type CeilingName, measureCeiling } from '../lib/profile/index.js';
import type { Context, Question, Row } from './harness.js';
import { spread } from './spread.js';

const LOOPS: [name: CeilingName, title: string, isa: Isa, unit: 'GFLOP/s' | 'GB/s'][] = [
  ['fp32', 'fp32 fused multiply-add, AVX2', 'avx2', 'GFLOP/s'],
  ['fp32', 'fp32 fused multiply-add, AVX-512', 'avx512', 'GFLOP/s'],
  ['bf16', 'bf16 products, vdpbf16ps', 'avx512bf16', 'GFLOP/s'],
  ['bf16', 'bf16 products, AMX tiles', 'amx', 'GFLOP/s'],
  ['read', 'reading 1 GiB', 'portable', 'GB/s'],
];

export const ceilings: Question = {
  name: 'ceilings',
  question: 'What can this machine do at most?',
  async *measure({ threads, repeats }: Context) {
    const supported = new Set(nativeInfo().isas.flatMap((isa) => (isa.supported ? [isa.name] : [])));
    const rows: Row[] = [];
    for (const [name, title, isa, unit] of LOOPS) {
      for (const count of new Set([1, threads])) {
        const row = `${title}, ${count} thread${count > 1 ? 's' : ''}`;
        if (!supported.has(isa)) {
          rows.push({ name: row, notes: { note: 'this machine lacks the instruction' } });
          continue;
        }
        const values: number[] = [];
        for (let i = 0; i < repeats; i++) values.push(await measureCeiling(name, { isa, threads: count }));
        const { min, median, max } = spread(values);
        rows.push({ name: row, rate: { value: median, unit }, notes: { min, max } });
      }
    }
    yield { title: 'Ceilings of this machine', rows };
  },
};
