/** How many times faster than real time are log-mel features on one thread? */
import { FeatureExtractor } from '../lib/audio/index.js';
import { Stream } from '../lib/tensor/index.js';
import { randomFloats } from './data.js';
import { type Case, measureGroup, type Question } from './harness.js';

const SECONDS = 30;

export const mel: Question = {
  name: 'mel',
  question: 'How fast are the features?',
  async *measure(context) {
    const stream = new Stream({ threads: 1 });
    const cases = [
      [80, 16000],
      [128, 16000],
      [80, 44100],
    ].map(([mels, sampleRate]): Case => {
      const samples = randomFloats(SECONDS * sampleRate!, 0.1);
      const extractor = new FeatureExtractor({ mels: mels!, frames: 100 * SECONDS, stream });
      return {
        name: `${mels} bins, ${SECONDS} s at ${sampleRate} Hz`,
        run: async () => void (await extractor.extract({ samples, sampleRate: sampleRate! })),
        notes: (ms) => ({ 'times real time': (SECONDS * 1000) / ms }),
      };
    });
    try {
      yield await measureGroup({ ...context, stream }, { title: 'Log-mel features, one thread', cases });
    } finally {
      stream.close();
    }
  },
};
