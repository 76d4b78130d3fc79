/**
 * In a process of its own: by how many MiB the first distillation loss makes it grow beyond its inputs, and how many of them are
 * its outputs. loss-memory.ts <rows> <type> <threads>
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { type FloatType, Stream } from '../lib/tensor/index.js';
import { lossCall, STUDENT } from './loss.js';

const [, , rows, type, threads] = process.argv;
const status = (name: string): number =>
  Number(new RegExp(`${name}:\\s*(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))?.[1]) / 1024;
const stream = new Stream({ threads: Number(threads) });
const [queue] = lossCall(stream, type as FloatType, [Number(rows)]);
await stream.sync();
// What made the inputs must be gone before: freed later, it would hide what the loss takes.
for (let i = 0; i < 3; i++) {
  globalThis.gc!();
  await new Promise((resolve) => setTimeout(resolve, 100));
}
writeFileSync('/proc/self/clear_refs', '5');
const before = status('VmRSS');
queue!();
await stream.sync();
const grew = Math.max(0, status('VmHWM') - before);
// The gradient of the rows, and of each row its cross-entropy and divergence.
const outputs = (Number(rows) * (STUDENT + 2) * 4) / 2 ** 20;
console.log(JSON.stringify({ grew, outputs }));
stream.close();
