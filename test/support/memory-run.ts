/**
 * Trains a tiny student on the embedded corpus, its features held in memory as every run holds them, and prints the
 * resident memory of the process at the given steps: memory-run.ts <step>...
 * V8's young generation is not counted: up to 32 MB of pages, which V8 gives back while an isolate idles (as this one does where
 * other threads decode, longer on a busy machine) and takes again over hundreds of steps.
 */
import { fileURLToPath } from 'node:url';
import { getHeapSpaceStatistics } from 'node:v8';
import { readManifest } from '../../lib/data/index.js';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { WhisperTokenizer } from '../../lib/text/index.js';
import { AudioBatches, Trainer } from '../../lib/train/index.js';
import { tinyConfig } from './tiny.js';

const at = process.argv.slice(2).map(Number);
const path = (name: string): string => fileURLToPath(new URL(`../../${name}`, import.meta.url));
const tokenizer = await WhisperTokenizer.fromFolder(path('models/pocket-student'));
const stream = new Stream({ threads: 2 });
// A window of 10 s: 320 kB of features an utterance.
const config = tinyConfig({ vocab_size: tokenizer.vocabSize, max_source_positions: 500, max_target_positions: 96 });
const teacher = await Whisper.create(stream, { ...config, decoder_layers: 2 }, { seed: 1 });
const model = await Whisper.create(stream, config, { seed: 2 });
await model.addExpert('catalan', { seed: 3 });
const batches = new AudioBatches(readManifest(path('corpus/manifest.jsonl')), config, tokenizer, {
  batchSize: 2,
  seed: 4,
});
await batches.check();
const young = (): number =>
  getHeapSpaceStatistics().find(({ space_name }) => space_name === 'new_space')!.physical_space_size;
const resident = new Map<number, number>();
await new Trainer({
  model,
  teacher,
  batches,
  options: { steps: Math.max(...at), learningRate: 1e-3 },
  onUpdate: ({ step }) => {
    if (!at.includes(step)) return;
    globalThis.gc?.();
    resident.set(step, process.memoryUsage().rss - young());
  },
}).run();
console.log(JSON.stringify(Object.fromEntries(resident)));
stream.close();
