/** How long does a window of 30 s take, from features to 64 tokens? Whisper-small: the encoder, the caches, greedy decoding. */
import { randomFeatures, randomModel } from './data.js';
import { decodeTokens, TOKENS } from './decode.js';
import { type Case, measureGroup, type Question } from './harness.js';
import { onnxCase, whisperCppCase } from './peer-cases.js';

export const window: Question = {
  name: 'window',
  question: 'How long does a window of 30 s take, encoder and tokens?',
  async *measure(context) {
    const { stream, peers, types } = context;
    const cases: Case[] = [];
    for (const type of types) {
      const model = await randomModel(stream, 'small', type);
      const { config } = model;
      const shape = [1, config.num_mel_bins, 2 * config.max_source_positions];
      const features = stream.persistent(randomFeatures(config, 1), shape);
      cases.push({
        name: type,
        run: async () => {
          const state = model.startDecoding(model.encode(features).hidden);
          await decodeTokens(stream, model, state, TOKENS);
          state.dispose();
        },
        dispose: () => {
          features.dispose();
          model.dispose();
        },
      });
    }
    const against = cases.map((c) => c.name);
    const job = { mode: 'window', tokens: TOKENS } as const;
    yield await measureGroup(context, {
      title: `Whisper-small, 30 s: the encoder and ${TOKENS} tokens`,
      cases: [
        ...cases,
        ...(['onnx', 'transformers'] as const).flatMap((library) =>
          (['fp32', 'int8'] as const).flatMap((weights) => onnxCase(peers, library, against, { ...job, weights })),
        ),
        ...whisperCppCase(peers, 'window', against, TOKENS),
      ],
    });
  },
};
