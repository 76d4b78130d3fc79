/**
 * Two updates of a student with an expert and a teacher, both of weights that are zeros: what the plan says of them, and the resident memory
 * that they took beyond what the process held before: plan-memory.ts <student> <teacher> <fp32|bf16> <batch> <micro-batch> <checkpointing 0|1>
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { Whisper } from '../../lib/model/index.js';
import { elementType, type FloatName, Stream } from '../../lib/tensor/index.js';
import { StepPlanner, TrainingEngine, trainingOptions } from '../../lib/train/index.js';
import { type HostTensor, type WhisperSize, whisperPreset, whisperTensorShapes } from '../../lib/weights/index.js';

const [student, teacher, compute] = process.argv.slice(2) as [WhisperSize, WhisperSize, FloatName];
const [items, microBatch, checkpoints] = process.argv.slice(5).map(Number) as [number, number, number];
const status = (key: string): number =>
  Number(new RegExp(`${key}:\\s+(\\d+) kB`).exec(readFileSync('/proc/self/status', 'utf8'))![1]) * 1024;

/** Zeros of one buffer, in the types that they are computed in: what is weighed is the step. */
function weights(size: WhisperSize): Map<string, HostTensor> {
  const tensors = [...whisperTensorShapes(whisperPreset(size))].map(([name, shape]) => {
    const dtype = shape.length > 1 ? elementType(compute) : 'f32';
    return { name, shape, dtype, bytes: (dtype === 'f32' ? 4 : 2) * shape.reduce((a, b) => a * b, 1) } as const;
  });
  const data = new Uint8Array(Math.max(...tensors.map(({ bytes }) => bytes)));
  return new Map(
    tensors.map(({ name, shape, dtype, bytes }) => [name, { dtype, shape, data: data.subarray(0, bytes) }]),
  );
}

const load = async (stream: Stream, size: WhisperSize): Promise<Whisper> =>
  Whisper.fromTensors(stream, whisperPreset(size), weights(size), { compute });
const options = trainingOptions({ steps: 10, skipGate: 0 });
const how = { microBatch, gradientCheckpointing: checkpoints === 1 };
const LABELS = 32;

const planStream = new Stream({ threads: 2 });
const planner = await StepPlanner.open(planStream, {
  student: async (stream) => {
    const model = await load(stream, student);
    await model.addExpert('catalan');
    return model;
  },
  teacher: async (stream) => {
    const model = await load(stream, teacher);
    return { teacher: model, dispose: () => model.dispose() };
  },
});
const { memory, flop } = await planner.plan({ items, labels: LABELS, language: 'catalan' }, options, how);
planner.close();
planStream.close();

globalThis.gc?.();
const stream = new Stream({ threads: 2 });
const base = status('VmRSS');
const model = await load(stream, student);
const asked = await load(stream, teacher);
await model.addExpert('catalan');
await stream.sync();
globalThis.gc?.();
// From here on VmHWM counts what comes on top.
writeFileSync('/proc/self/clear_refs', '5');
const config = model.config;
const features = new Float32Array(config.num_mel_bins * 2 * config.max_source_positions).fill(0.1);
const engine = new TrainingEngine(model, asked, options, {
  gradientCheckpointing: how.gradientCheckpointing,
  ...(microBatch < items && { microBatch: { items: microBatch, parts: Math.ceil(items / microBatch) } }),
});
const fill = <T>(value: T): T[] => Array.from({ length: items }, () => value);
const batch = {
  features: fill(features),
  labels: fill(Array.from({ length: LABELS }, (_, i) => i)),
  languages: fill('catalan'),
};
for (let k = 0; k < 2; k++) await engine.update(k, [batch]);
const own = stream.memory();
const peak = status('VmHWM') - base;
console.log(JSON.stringify({ memory, flop, own, peak }));
stream.close();
