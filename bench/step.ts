/** How long does a training step take, and with the teacher's rows from a cache? tiny ← base, a batch of 2 with 32 labels, experts and gates train. */
import { TrainingEngine, trainingOptions } from '../lib/train/index.js';
import { floatTypes, LANGUAGE, randomIds, randomItems, randomModel } from './data.js';
import { measureGroup, type Question } from './harness.js';
import { torchCase } from './peer-cases.js';

const BATCH = 2;
const LABELS = 32;
const STEPS = 1_000_000;

export const step: Question = {
  name: 'step',
  question: 'How long does a training step take?',
  async *measure(context) {
    const { stream, peers, types } = context;
    for (const type of floatTypes(types)) {
      const student = await randomModel(stream, 'tiny', type);
      const teacher = await randomModel(stream, 'base', type);
      await student.addExpert(LANGUAGE);
      // As the peer does it: every layer's expert runs, gradients are not clipped.
      const options = trainingOptions({ steps: STEPS, skipGate: 0, maxGradientNorm: 0, learningRate: 1e-6 });
      const engine = new TrainingEngine(student, teacher, options);
      // Of the teacher its output table is used, and rows that are uploaded each time, as a cache gives them.
      const { config, embeddingTable: table } = teacher;
      const rows = new Uint16Array(BATCH * LABELS * config.d_model).fill(0x3f80);
      const shape = [BATCH * LABELS, config.d_model];
      const teach = () => ({ rows: stream.tensor(rows, shape, 'bf16'), head: table.value });
      const cached = new TrainingEngine(student, { config, teach }, options);
      const features = randomItems(student.config, BATCH);
      const ids = [...randomIds(BATCH * LABELS)];
      const labels = Array.from({ length: BATCH }, (_, b) => ids.slice(b * LABELS, (b + 1) * LABELS));
      const languages = labels.map(() => LANGUAGE);
      // Half-way through the run the gates' noise is on.
      let k = STEPS / 2;
      const name = `${type}, one update`;
      yield await measureGroup(context, {
        title: `Training step tiny ← base, batch ${BATCH}, ${LABELS} labels, ${type}`,
        cases: [
          {
            name,
            ceiling: type,
            run: async () => void (await engine.update(k++, [{ features, labels, languages }])),
          },
          {
            name: `${name}, the teacher's rows cached`,
            ceiling: type,
            run: async () => void (await cached.update(k++, [{ features, labels, languages }])),
          },
          ...torchCase(peers, name, type, 'train --student tiny --teacher base --batch 2 --labels 32'.split(' ')),
        ],
      });
      engine.dispose();
      cached.dispose();
      student.dispose();
      teacher.dispose();
    }
  },
};
