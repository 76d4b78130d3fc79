/** Trains a tiny model for many steps and prints its resident memory at two of them: memory-run.ts <early> <late>. */
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { Trainer } from '../../lib/train/index.js';
import { normals, random } from './random.js';
import { tinyConfig } from './tiny.js';

const [early, late] = process.argv.slice(2).map(Number) as [number, number];
const stream = new Stream({ threads: 2 });
const config = tinyConfig();
const teacher = await Whisper.create(stream, config, { seed: 1 });
const model = await Whisper.create(stream, config, { seed: 2 });
await model.addExpert('catalan', { seed: 3 });
const features = normals(4 * config.num_mel_bins * 40, random(1));
const resident = new Map<number, number>();
await new Trainer({
  model,
  teacher,
  batches: {
    async *stream(from) {
      for (let micro = from; ; micro++) {
        const next = random(micro);
        const labels = Array.from({ length: 4 }, () =>
          Array.from({ length: 3 + Math.floor(20 * next()) }, () => Math.floor(next() * 47)),
        );
        yield { features, labels, languages: ['catalan', 'catalan', null, null] };
      }
    },
  },
  options: { steps: late, learningRate: 1e-3 },
  onUpdate: ({ step }) => {
    if (step !== early && step !== late) return;
    globalThis.gc?.();
    resident.set(step, process.memoryUsage().rss);
  },
}).run();
console.log(JSON.stringify({ early: resident.get(early), late: resident.get(late), memory: stream.memory() }));
stream.close();
