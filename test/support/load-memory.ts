/**
 * Resident memory, in bytes, that loading a model folder adds: at its peak, and when it is done of memory and of mapped files.
 * load-memory.ts <folder> <fp32|bf16|int8>
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { type ComputeType, Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';

const [folder, compute] = process.argv.slice(2) as [string, ComputeType];
const status = (key: string): number =>
  Number(new RegExp(`${key}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;

const stream = new Stream({ threads: 2 });
await stream.sync();
globalThis.gc?.();
// From here on VmHWM counts what comes on top.
writeFileSync('/proc/self/clear_refs', '5');
const [resident, anonymous, file] = ['VmRSS', 'RssAnon', 'RssFile'].map(status) as [number, number, number];
const model = await Whisper.load(stream, folder, { compute });
const result = {
  peak: status('VmHWM') - resident,
  anonymous: status('RssAnon') - anonymous,
  file: status('RssFile') - file,
  counted: stream.memory().persistent,
};
console.log(JSON.stringify(result));
model.dispose();
stream.close();
