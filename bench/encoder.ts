/** How long does Whisper-small's encoder take for 30 s, plain and with a language's experts? */
import { floatTypes, LANGUAGE, randomFeatures, randomModel } from './data.js';
import { measureGroup, type Question } from './harness.js';
import { onnxCase, torchCase, whisperCppCase } from './peer-cases.js';

export const encoder: Question = {
  name: 'encoder',
  question: 'How long does the encoder take?',
  async *measure(context) {
    const { stream, peers, types } = context;
    for (const type of floatTypes(types)) {
      const model = await randomModel(stream, 'small', type);
      const { config } = model;
      // Gates that start as the published code's are open for some rows and closed for others.
      const trained = await model.addExpert(LANGUAGE, { compat: 'reference' });
      const shape = [1, config.num_mel_bins, 2 * config.max_source_positions];
      const features = stream.persistent(randomFeatures(config, 1), shape);
      const gateValues = stream.tidy(() => model.encode(features, { languages: [LANGUAGE] }).gates);
      const gates = await Promise.all(gateValues.map((g) => g.floats()));
      stream.endStep();
      const open = gates.flatMap((g) => [...g]);
      const share = open.reduce((a, b) => a + b, 0) / open.length;
      const run = (languages: string[] | null) => (): void => {
        stream.tidy(() => void model.encode(features, languages ? { languages } : {}) as undefined);
      };
      const [plain, gated] = [`${type}, plain`, `${type}, hard-gated`];
      const args = ['encoder', '--student', 'small', '--batch', '1'];
      yield await measureGroup(context, {
        title: `Whisper-small encoder, 30 s, ${type}`,
        cases: [
          { name: plain, ceiling: type, queue: run(null) },
          {
            name: gated,
            ceiling: type,
            queue: run([LANGUAGE]),
            notes: () => ({ 'rows that take the expert, %': 100 * share }),
          },
          ...torchCase(peers, plain, type, [...args, '--plain']),
          ...torchCase(peers, gated, type, args, ', experts'),
          ...onnxCase(peers, 'onnx', [plain], { mode: 'encoder', weights: 'fp32' }),
          ...(type === 'fp32' ? [] : onnxCase(peers, 'onnx', [plain], { mode: 'encoder', weights: 'int8' })),
          ...whisperCppCase(peers, 'encoder', [plain]),
        ],
      });
      trained.dispose();
      features.dispose();
      model.dispose();
    }
  },
};
