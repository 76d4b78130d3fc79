/** A small, complete training run in a process of its own, for tests that kill it: train-run.ts <run folder> [steps]. It writes a dot
 * for each update. */
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { type TrainBatch, Trainer } from '../../lib/train/index.js';
import { normalItems, random } from './random.js';
import { tinyConfig } from './tiny.js';

const [, , folder, steps = '40'] = process.argv;
const stream = new Stream({ threads: 2 });
const config = tinyConfig();
const teacher = await Whisper.create(
  stream,
  { ...config, d_model: 32, encoder_attention_heads: 2, decoder_attention_heads: 2 },
  { seed: 1 },
);
const model = await Whisper.create(stream, config, { seed: 2 });
await model.addExpert('catalan', { seed: 3 });

function batch(micro: number): TrainBatch {
  const next = random(micro);
  const frames = 2 * config.max_source_positions;
  const labels = Array.from({ length: 3 }, () =>
    Array.from({ length: 4 + Math.floor(8 * next()) }, () => Math.floor(next() * config.vocab_size)),
  );
  return {
    features: normalItems(3, config.num_mel_bins * frames, next),
    labels,
    languages: ['catalan', null, 'catalan'],
  };
}

await new Trainer({
  model,
  teacher,
  batches: {
    async *stream(from) {
      for (let micro = from; ; micro++) {
        await new Promise((resolve) => setTimeout(resolve, 10));
        yield batch(micro);
      }
    },
  },
  options: { steps: Number(steps), accumulation: 2, learningRate: 1e-3 },
  folder: folder!,
  checkpointEvery: 3,
  onUpdate: () => {
    process.stdout.write('.');
  },
}).run();
stream.close();
