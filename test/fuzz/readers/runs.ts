/** Run folders of training, of which one file was mutated: opened, and resumed by the trainer. */
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Stream, type TrainBatch, Trainer, Whisper } from '../../../lib/index.js';
import { type CacheSource, TeacherCache } from '../../../lib/train/index.js';
import { normalItems, random as values } from '../../support/random.js';
import { tinyConfig } from '../../support/tiny.js';
import { concat, mutateBytes } from '../mutators/bytes.js';
import { mutateJson, toNode } from '../mutators/json.js';
import { mutateSafetensors, readSafetensors } from '../mutators/safetensors.js';
import type { Random } from '../random.js';
import { promised, type Reader } from '../reader.js';

const STEPS = 2;
const CHECKPOINT = `checkpoints/step-${String(STEPS).padStart(8, '0')}`;
const FILES = [
  'run.json',
  'log.jsonl',
  `${CHECKPOINT}/state.json`,
  `${CHECKPOINT}/state.safetensors`,
  'best/parameters.safetensors',
];

export const runReaders: readonly Reader[] = [
  {
    name: 'run-folder',
    about: 'Trainer.run on a run folder of which run.json, log.jsonl, state or weights were mutated',
    share: 0.7,
    async open(scratch) {
      const stream = new Stream({ threads: 1 });
      const config = tinyConfig({ max_source_positions: 4, num_mel_bins: 4 });
      const model = await Whisper.create(stream, config, { seed: 1 });
      await model.addExpert('catalan', { seed: 2 });
      const features = normalItems(1, config.num_mel_bins * 2 * config.max_source_positions, values(3));
      const batch: TrainBatch = { features, labels: [[1, 2, 3]], languages: ['catalan'] };
      const train = (folder: string) => {
        const trainer = new Trainer({
          model,
          batches: {
            async *stream() {
              for (;;) yield batch;
            },
          },
          options: { steps: STEPS },
          folder,
          validateEvery: 1,
          validate: async () => ({ score: 1 }),
        });
        return trainer.run().finally(() => trainer.dispose());
      };
      const [made, used] = [join(scratch, 'made'), join(scratch, 'used')];
      await train(made);
      const parts = FILES.map((file) => {
        const original = new Uint8Array(readFileSync(join(made, file)));
        if (file.endsWith('.safetensors')) {
          const seed = readSafetensors(original);
          return (random: Random) => mutateSafetensors(seed, random);
        }
        if (file.endsWith('.jsonl')) return (random: Random) => mutateBytes(original, random);
        const seed = toNode(JSON.parse(new TextDecoder().decode(original)));
        return (random: Random) => mutateJson(seed, random);
      });
      return {
        make(random) {
          const which = random.below(parts.length);
          return concat([which], parts[which]!(random));
        },
        async read(input) {
          rmSync(used, { recursive: true, force: true });
          cpSync(made, used, { recursive: true });
          writeFileSync(join(used, FILES[(input[0] ?? 0) % FILES.length]!), input.subarray(1));
          try {
            const { steps } = await train(used);
            promised(steps === STEPS, `${steps} steps`);
          } finally {
            stream.endStep();
          }
        },
        close: () => stream.close(),
      };
    },
  },
  {
    name: 'teacher-cache',
    about: 'TeacherCache.open and the rows of a cache whose file was mutated',
    async open(scratch) {
      const source: CacheSource = {
        teacher: 'sha256:0',
        width: 4,
        features: 1,
        mels: 80,
        frames: 3000,
        compute: 'fp32',
      };
      const folder = join(scratch, 'cache');
      const keys = ['a', 'b', 'c'];
      const cache = await TeacherCache.open(folder, source, { adds: true });
      for (const [i, key] of keys.entries()) cache.add(key, Promise.resolve(new Uint16Array(4 * (i + 1))));
      await cache.close();
      const file = join(folder, 'rows-00000000.packed');
      const original = new Uint8Array(readFileSync(file));
      return {
        make: (random) => mutateBytes(original, random),
        async read(input) {
          writeFileSync(file, input);
          const opened = await TeacherCache.open(folder, source, { adds: false });
          try {
            for (const [i, key] of keys.entries()) {
              if (!opened.has(key)) continue;
              promised((await opened.rows(key, i + 1)).length === 4 * (i + 1), `rows of ${key}`);
            }
          } finally {
            await opened.close();
          }
        },
      };
    },
  },
];
