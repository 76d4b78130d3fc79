/** Trains in a worker thread; posts the loss of the last update. `workerData.endless`: goes on until it is terminated. */
import { parentPort, workerData } from 'node:worker_threads';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { Trainer } from '../../lib/train/index.js';
import { normalItems, random } from './random.js';
import { tinyConfig } from './tiny.js';

const config = tinyConfig();
const stream = new Stream({ threads: 2 });
const model = await Whisper.create(stream, config, { seed: 2, trainable: () => true });
const features = normalItems(2, config.num_mel_bins * 40, random(1));
const report = await new Trainer({
  model,
  batches: {
    async *stream() {
      for (;;)
        yield {
          features,
          labels: [
            [1, 2, 3],
            [4, 5],
          ],
          languages: [null, null],
        };
    },
  },
  options: { steps: workerData.endless ? 1e6 : 20, learningRate: 1e-3 },
  onUpdate: ({ step }) => {
    if (step === 5) parentPort!.postMessage('training');
  },
}).run();
parentPort!.postMessage(report.last!.loss);
stream.close();
