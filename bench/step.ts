/** How long does a training step take? tiny ← base, a batch of 2 with 32 labels, experts and gates train. */
import { TrainingEngine, trainingOptions } from '../lib/train/index.js';
import { floatTypes, LANGUAGE, randomIds, randomItems, randomModel, typeName } from './data.js';
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
      const features = randomItems(student.config, BATCH);
      const ids = [...randomIds(BATCH * LABELS)];
      const labels = Array.from({ length: BATCH }, (_, b) => ids.slice(b * LABELS, (b + 1) * LABELS));
      const languages = labels.map(() => LANGUAGE);
      // Half-way through the run the gates' noise is on.
      let k = STEPS / 2;
      const name = `${typeName(type)}, one update`;
      yield await measureGroup(context, {
        title: `Training step tiny ← base, batch ${BATCH}, ${LABELS} labels, ${typeName(type)}`,
        cases: [
          {
            name,
            ceiling: type,
            run: async () => void (await engine.update(k++, [{ features, labels, languages }])),
          },
          ...torchCase(peers, name, type, 'train --student tiny --teacher base --batch 2 --labels 32'.split(' ')),
        ],
      });
      engine.dispose();
      student.dispose();
      teacher.dispose();
    }
  },
};
