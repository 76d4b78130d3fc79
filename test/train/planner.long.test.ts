import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { type HowToRun, StepPlanner, TrainingEngine, trainingOptions } from '../../lib/train/index.js';
import { type HostTensor, whisperPreset, whisperTensorShapes } from '../../lib/weights/index.js';
import { normalItems, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';

const options = trainingOptions({ steps: 4, skipGate: 0 });
const LANGUAGE = 'catalan';

// Packed weights are counted for the whole process: one test at a time, and each frees what it made.
test.serial(
  'a plan knows to the byte what tensors and packed weights of an update take, and the arena within a tenth',
  async (t) => {
    const config = tinyConfig({ encoder_layers: 3, decoder_layers: 2, max_source_positions: 100 });
    const labels = Array.from({ length: 7 }, (_, i) => i);
    for (const compute of ['fp32', 'bf16'] as const) {
      for (const gradientCheckpointing of [false, true]) {
        const stream = new Stream({ threads: 2 });
        const model = async (on: Stream, seed: number, expert: boolean): Promise<Whisper> => {
          const made = await Whisper.create(on, config, { seed, compute });
          if (expert) await made.addExpert(LANGUAGE);
          return made;
        };
        const planner = await StepPlanner.open(stream, {
          student: (on) => model(on, 1, true),
          teacher: async (on) => {
            const teacher = await model(on, 2, false);
            return { teacher, dispose: () => teacher.dispose() };
          },
        });
        const how: HowToRun = { microBatch: 2, gradientCheckpointing };
        const { memory, flop } = await planner.plan(
          { items: 4, labels: labels.length, language: LANGUAGE },
          options,
          how,
        );
        planner.close();
        t.is(stream.memory().persistent, 0);
        const [student, teacher] = [await model(stream, 1, true), await model(stream, 2, false)];
        const before = stream.memory().packed;
        const engine = new TrainingEngine(student, teacher, options, {
          gradientCheckpointing,
          microBatch: { items: 2, parts: 2 },
        });
        const features = normalItems(4, config.num_mel_bins * 200, random(1));
        const languages = features.map(() => LANGUAGE);
        await engine.update(0, [{ features, labels: features.map(() => labels), languages }]);
        const { persistent, stepReserved, packed } = stream.memory();
        t.is(memory.student + memory.training + memory.teacher, persistent);
        t.true(Math.abs(memory.step / stepReserved - 1) < 0.1, `${memory.step} and ${stepReserved}`);
        t.is(memory.packed, packed - before);
        t.true(flop > 0);
        engine.dispose();
        for (const made of [student, teacher]) made.dispose();
        stream.close();
      }
    }
  },
);

/** Zeros of one buffer: a plan reads no weight. */
function zeros(config: ReturnType<typeof whisperPreset>): Map<string, HostTensor> {
  const shapes = [...whisperTensorShapes(config)];
  const bytes = (shape: readonly number[]): number => 4 * shape.reduce((a, b) => a * b, 1);
  const data = new Uint8Array(Math.max(...shapes.map(([, shape]) => bytes(shape))));
  return new Map(shapes.map(([name, shape]) => [name, { dtype: 'f32', shape, data: data.subarray(0, bytes(shape)) }]));
}

test.serial(
  'small from large-v2: an update with cached rows computes 2.5 times less, by the counts of the profiler',
  async (t) => {
    const stream = new Stream({ threads: 2 });
    const plan = async (cached: boolean) => {
      const planner = await StepPlanner.open(stream, {
        student: async (on) => {
          const student = Whisper.fromTensors(on, whisperPreset('small'), zeros(whisperPreset('small')));
          await student.addExpert(LANGUAGE);
          return student;
        },
        teacher: async (on) => {
          const config = whisperPreset('large-v2');
          if (!cached) {
            const teacher = Whisper.fromTensors(on, config, zeros(config));
            return { teacher, dispose: () => teacher.dispose() };
          }
          const table = on.persistent(null, [config.vocab_size, config.d_model]);
          const rows = (n: number) => on.tensor(new Uint16Array(n * config.d_model), [n, config.d_model], 'bf16');
          const teach = (_: unknown, { size }: { size: number }) => ({ rows: rows(size), head: table });
          return { teacher: { config, teach }, dispose: () => table.dispose() };
        },
      });
      const cost = await planner.plan({ items: 2, labels: 32, language: LANGUAGE }, options, {
        microBatch: 2,
        gradientCheckpointing: false,
      });
      planner.close();
      return cost;
    };
    const [live, cached] = [await plan(false), await plan(true)];
    stream.close();
    const ratio = live.flop / cached.flop;
    t.log(
      `${(live.flop / 1e12).toFixed(2)} and ${(cached.flop / 1e12).toFixed(2)} TFLOP an update of 2: ${ratio.toFixed(2)} ×`,
    );
    t.true(ratio >= 2.5, String(ratio));
    t.true(cached.memory.teacher < live.memory.teacher / 10);
  },
);

test.serial('tiny from base: resident memory at the peak of an update is that of the plan within 10%', async (t) => {
  const script = fileURLToPath(new URL('../support/plan-memory.ts', import.meta.url));
  for (const how of [
    ['bf16', '2', '1', '0'],
    ['fp32', '2', '2', '1'],
  ]) {
    const args = ['--import=tsx', '--expose-gc', script, 'tiny', 'base', ...how];
    const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: 1 << 20 });
    const { memory, own, peak } = JSON.parse(stdout);
    const { files, ...parts } = memory as Record<string, number>;
    const planned = Object.values(parts).reduce((a, b) => a + b, 0);
    t.log(`${how}: planned ${(planned / 2 ** 20).toFixed(0)} MiB, measured ${(peak / 2 ** 20).toFixed(0)}`);
    t.is(files, 0);
    t.is(parts.packed, own.packed);
    t.true(Math.abs(planned / peak - 1) < 0.1, `${planned} and ${peak}`);
  }
});
