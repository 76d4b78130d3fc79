/** Peak resident memory of the distillation loss beyond its inputs and outputs, in MiB: loss-memory.ts <f32|bf16>. */
import { readFileSync, writeFileSync } from 'node:fs';
import { kernels, Stream, type Tensor } from '../../lib/tensor/index.js';

const type = process.argv[2] as 'f32' | 'bf16';
const [N, V, D, T] = [4096, 51865, 768, 1280];
const stream = new Stream({ threads: 2 });
const status = (key: string): number =>
  Number(new RegExp(`${key}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;

const make = (rows: number, cols: number): Tensor => {
  const t = stream.persistent(null, [rows, cols], type);
  kernels.fill(stream, { x: t, value: 0.01 });
  return t;
};
const [hidden, weight, teacherHidden, teacherWeight] = [make(N, D), make(V, D), make(N, T), make(V, T)];
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
const { stats } = kernels.distillLoss(stream, {
  hidden,
  weight,
  labels,
  teacherHidden,
  teacherWeight,
  smoothing: 0.1,
  temperature: 1,
  kind: 'js',
  crossEntropyWeight: 0.25,
  divergenceWeight: 0.5,
  grad: true,
  compute: type,
  workspace: 64 << 20,
});
await stats.read();
const outputs = N * D * 4 + 2 * N * 4;
console.log(JSON.stringify({ workspace: (status('VmHWM') - before - outputs) / 2 ** 20 }));
stream.close();
