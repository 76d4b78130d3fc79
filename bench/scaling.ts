/** What do more threads bring, and how does the cost grow with batch and labels? */

import type { FloatName } from '../lib/tensor/index.js';
import { Stream } from '../lib/tensor/index.js';
import { TrainingEngine, trainingOptions } from '../lib/train/index.js';
import { floatTypes, LANGUAGE, randomFeatures, randomIds, randomItems, randomModel } from './data.js';
import { type Case, measureGroup, type Question, type Table } from './harness.js';

/** A stream of its own, and what runs on it. */
interface Work {
  run(): Promise<void>;
  close(): void;
}

async function encoderWork(threads: number, type: FloatName): Promise<Work> {
  const stream = new Stream({ threads });
  const model = await randomModel(stream, 'small', type);
  const shape = [1, model.config.num_mel_bins, 2 * model.config.max_source_positions];
  const features = stream.persistent(randomFeatures(model.config, 1), shape);
  return {
    run: async () => {
      stream.tidy(() => void model.encode(features) as undefined);
      await stream.sync();
      stream.endStep();
    },
    close: () => stream.close(),
  };
}

/** One update tiny ← base. */
async function stepWork(threads: number, type: FloatName, batch: number, labelCount: number): Promise<Work> {
  const stream = new Stream({ threads });
  const student = await randomModel(stream, 'tiny', type);
  const teacher = await randomModel(stream, 'base', type);
  await student.addExpert(LANGUAGE);
  const options = trainingOptions({ steps: 1_000_000, skipGate: 0, maxGradientNorm: 0, learningRate: 1e-6 });
  const engine = new TrainingEngine(student, teacher, options);
  const features = randomItems(student.config, batch);
  const ids = [...randomIds(batch * labelCount)];
  const labels = Array.from({ length: batch }, (_, b) => ids.slice(b * labelCount, (b + 1) * labelCount));
  let k = 500_000;
  return {
    run: async () => void (await engine.update(k++, [{ features, labels, languages: labels.map(() => LANGUAGE) }])),
    close: () => stream.close(),
  };
}

const asCase = (name: string, work: Work): Case => ({ name, run: work.run, dispose: work.close });

export const scaling: Question = {
  name: 'scaling',
  question: 'What do more threads bring?',
  async *measure(context) {
    const types = floatTypes(context.types);
    if (context.threads < 2 || types.length === 0) return;
    for (const [what, make] of [
      ['Whisper-small encoder', encoderWork],
      ['training step tiny ← base, batch 2', (threads: number, type: FloatName) => stepWork(threads, type, 2, 32)],
    ] as const) {
      const cases: Case[] = [];
      for (const type of types)
        for (const threads of [1, context.threads]) {
          const name = `${type}, ${threads} thread${threads > 1 ? 's' : ''}`;
          cases.push(asCase(name, await make(threads, type)));
        }
      const table: Table = await measureGroup(context, { title: `Threads: ${what}`, cases });
      for (let i = 0; i < table.rows.length; i += 2) {
        const [one, all] = [table.rows[i]!, table.rows[i + 1]!];
        all.notes = { 'times as fast as one thread': one.ms!.median / all.ms!.median };
      }
      yield table;
    }
  },
};

const BATCHES = [1, 2, 4, 8];
const LABELS = [16, 32, 64, 128, 256];

export const cost: Question = {
  name: 'cost',
  question: 'How does a training step’s cost grow with batch and labels?',
  async *measure(context) {
    const group = async (title: string, sizes: readonly number[], make: (size: number) => Promise<Work>) => {
      const cases: Case[] = [];
      for (const size of sizes) cases.push(asCase(`${size}`, await make(size)));
      return measureGroup(context, { title, cases });
    };
    const { threads } = context;
    if (!context.types.includes('bf16')) return;
    const title = 'Training step tiny ← base, bf16';
    yield await group(`${title}, 32 labels, by batch`, BATCHES, (batch) => stepWork(threads, 'bf16', batch, 32));
    yield await group(`${title}, batch 2, by labels`, LABELS, (labels) => stepWork(threads, 'bf16', 2, labels));
  },
};
