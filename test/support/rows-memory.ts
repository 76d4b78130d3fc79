/**
 * Opens a manifest of many rows over few clips and reads its batches in order; prints in bytes what the index took and the resident memory when so
 * many rows were read: rows-memory.ts <manifest> <row>...
 */
import { fileURLToPath } from 'node:url';
import { openDataset } from '../../lib/data/index.js';
import { WhisperTokenizer } from '../../lib/text/index.js';
import { AudioBatches } from '../../lib/train/index.js';
import { tinyConfig } from './tiny.js';

const [manifest, ...at] = process.argv.slice(2);
const marks = at.map(Number);
const tokenizer = await WhisperTokenizer.fromFolder(
  fileURLToPath(new URL('../../models/pocket-student', import.meta.url)),
);
const resident = (): number => {
  globalThis.gc?.();
  globalThis.gc?.();
  return process.memoryUsage().rss;
};
const before = resident();
await using data = await openDataset(manifest!);
const index = resident() - before;
const config = tinyConfig({ vocab_size: tokenizer.vocabSize, max_target_positions: 96 });
const batches = new AudioBatches(data, config, tokenizer, { batchSize: 16, seed: 1, cacheBytes: 0 });
const told: Record<string, number> = { rows: data.length, index, last: data.entry(data.length - 1).line };
let read = 0;
for await (const { features } of batches.stream(0)) {
  const next = read + features.length;
  for (const mark of marks) if (read < mark && next >= mark) told[mark] = resident();
  read = next;
  if (read >= Math.max(...marks)) break;
}
console.log(JSON.stringify(told));
