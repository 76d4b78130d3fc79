/** What does taking a profile cost? The pocket models, whose kernels are the shortest: nowhere is there more to write down. */
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { greedy } from '../lib/decode/index.js';
import { Whisper } from '../lib/model/index.js';
import { countWork, measureCeilings, Profile } from '../lib/profile/index.js';
import { embedded } from '../lib/recipes/index.js';
import type { Stream } from '../lib/tensor/index.js';
import { TrainingEngine, trainingOptions } from '../lib/train/index.js';
import { randomFeatures, randomItems, randomModel } from './data.js';
import type { Context, Question, Row } from './harness.js';
import { spread } from './spread.js';

const BATCH = 16;
const LABELS = 24;
/** Of work, in each sample. */
const SAMPLE_MS = 1000;
const LANGUAGE = 'catalan';

interface Work {
  name: string;
  run(): Promise<void>;
}

async function works(stream: Stream): Promise<Work[]> {
  const { student, teacher } = embedded();
  const model = await Whisper.load(stream, student);
  const taught = await Whisper.load(stream, teacher);
  await model.addExpert(LANGUAGE);
  const engine = new TrainingEngine(model, taught, trainingOptions({ steps: 1_000_000, learningRate: 1e-6 }));
  const features = randomFeatures(model.config, BATCH);
  const items = randomItems(model.config, BATCH);
  const labels = Array.from({ length: BATCH }, (_, i) => Array.from({ length: LABELS }, (_, k) => 1 + ((i + k) % 90)));
  const languages = labels.map(() => LANGUAGE);
  const shape = [BATCH, model.config.num_mel_bins, 2 * model.config.max_source_positions];
  const prompts = labels.map(() => [model.config.decoder_start_token_id]);
  const tiny = await randomModel(stream, 'tiny', 'fp32');
  const long = stream.persistent(randomFeatures(tiny.config, 1), [1, 80, 3000]);
  let k = 0;
  return [
    {
      name: `pocket student ← pocket teacher, an update of ${BATCH} utterances`,
      run: async () => void (await engine.update(k++, [{ features: items, labels, languages }])),
    },
    {
      name: `pocket student, ${LABELS} tokens of ${BATCH} utterances`,
      run: async () => {
        const settings = {
          prompts,
          endOfText: model.config.eos_token_id,
          maxTokens: LABELS,
          suppress: [model.config.eos_token_id],
        };
        await greedy(model, stream.tensor(features, shape), settings);
      },
    },
    {
      name: 'Whisper-tiny, the encoder, fp32',
      run: async () => {
        tiny.encode(long);
        await stream.sync();
        stream.endStep();
      },
    },
  ];
}

export const profile: Question = {
  name: 'profile',
  question: 'What does taking a profile cost?',
  async *measure({ stream, repeats, threads }: Context) {
    const folder = mkdtempSync(join(tmpdir(), 'distilwhisper-bench-'));
    const trace = join(folder, 'trace.json');
    const rows: Row[] = [];
    for (const { name, run } of await works(stream)) {
      const { kernels } = await countWork(stream, run);
      const once = performance.now();
      await run();
      const runs = Math.max(1, Math.ceil(SAMPLE_MS / (performance.now() - once)));
      let bytes = 0;
      const sample = async (on: boolean): Promise<number> => {
        const taken = on ? await Profile.start(trace, { device: stream.device, threads }) : null;
        // A profile begins with measuring the ceilings, which leaves the processor hot and its caches empty: both do.
        if (!on) await measureCeilings({ device: stream.device, threads });
        await run();
        const start = performance.now();
        for (let i = 0; i < runs; i++) await run();
        const ms = (performance.now() - start) / runs;
        taken?.stop();
        if (on) bytes = statSync(trace).size / (runs + 1);
        return ms;
      };
      const [off, on, ratios]: number[][] = [[], [], []];
      // Pairs, with either first in turns: what changes slowly on the machine drops out of their ratio.
      for (let i = 0; i < repeats; i++) {
        const first = await sample(i % 2 === 1);
        const second = await sample(i % 2 === 0);
        const [without, withIt] = i % 2 === 1 ? [second, first] : [first, second];
        off!.push(without);
        on!.push(withIt);
        ratios!.push(withIt / without);
      }
      const overhead = 100 * (spread(ratios!).median - 1);
      rows.push({ name: `${name}, off`, ms: spread(off!), notes: { kernels } });
      rows.push({
        name: `${name}, on`,
        ms: spread(on!),
        notes: { '% longer (median of pairs)': overhead, 'bytes of trace a kernel': bytes / kernels },
      });
    }
    rmSync(folder, { recursive: true });
    yield { title: 'The cost of a profile', rows };
  },
};
