/** Peak resident memory of the distillation loss beyond its inputs and outputs, in MiB: loss-memory.ts <f32|bf16>. */
import { readFileSync, writeFileSync } from 'node:fs';
import { dtypeNumber, Stream } from '../../lib/tensor/index.js';

const type = process.argv[2] as 'f32' | 'bf16';
const [N, V, D, T] = [4096, 51865, 768, 1280];
const stream = new Stream({ threads: 2 });
const status = (key: string): number =>
  Number(new RegExp(`${key}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;

const make = (rows: number, cols: number): import('../../lib/tensor/index.js').Tensor => {
  const t = stream.persistent(null, [rows, cols], type);
  stream.call('fill', [t], [0.01]);
  return t;
};
const [hidden, weight, teacher, teacherWeight] = [make(N, D), make(V, D), make(N, T), make(V, T)];
const labels = stream.persistent(
  Int32Array.from({ length: N }, (_, i) => (i * 37) % V),
  [N],
  'i32',
);
await stream.sync();
globalThis.gc?.();
// From here on VmHWM counts what comes on top.
writeFileSync('/proc/self/clear_refs', '5');
const before = status('VmRSS');
const [stats] = stream.call(
  'distill_loss',
  [hidden, weight, labels, teacher, teacherWeight, null],
  [0.1, 1, 1, 0.25, 0.5, 0, 1, dtypeNumber(type), 64 << 20, 0],
);
await stats!.read();
const outputs = N * D * 4 + 2 * N * 4;
console.log(JSON.stringify({ workspace: (status('VmHWM') - before - outputs) / 2 ** 20 }));
stream.close();
