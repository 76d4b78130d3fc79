/** How fast the GPU is. Everything in bf16; a row names the PyTorch run that does the same work. */
import { isDistilWhisperError } from '../../lib/errors/index.js';
import type { NativeMemory } from '../../lib/native/index.js';
import { countWork, measureCeilings } from '../../lib/profile/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { TrainingEngine, trainingOptions } from '../../lib/train/index.js';
import { LANGUAGE, quickModel, randomFeatures, randomIds, randomItems } from '../data.js';
import { decodeCase } from '../decode.js';
import { ffnCalls } from '../gated-ffn.js';
import { lossCall } from '../loss.js';
import { spread } from '../spread.js';
import { type Add, type GpuRow, readRows } from './results.js';
import { type Settings, SHAPES, type Shapes } from './settings.js';

const MIB = 2 ** 20;
const TYPE = 'bf16';
/** Work queued for one sample, and after how much of it a figure has enough of them. */
const SAMPLE_MS = 50;
const ENOUGH_MS = 5000;
const LEAST_SAMPLES = 3;

interface Timing {
  ms: number;
  /** Operations, and bytes of tensors read and written. */
  flop: number;
  bytes: number;
}

/** One stage's stream and shapes, and how it measures. */
class Bench {
  readonly shapes: Shapes;
  readonly stream: Stream;
  /** TFLOP/s */
  private readonly ceiling: number | undefined;

  constructor(
    private readonly add: Add,
    private readonly settings: Settings,
  ) {
    this.shapes = SHAPES[settings.shapes]();
    this.stream = new Stream({ device: settings.device });
    this.ceiling = readRows(settings.folder, 'ceilings').find((row) => row.tflops !== undefined)?.tflops;
  }

  /** The median of `body`'s time, queued at least `least` times and as often as fills a sample; then all is waited for. */
  async time(body: () => unknown, least = 1): Promise<Timing> {
    const { stream, settings } = this;
    const once = async (count: number): Promise<number> => {
      const start = performance.now();
      for (let i = 0; i < count; i++) await body();
      await stream.sync();
      const ms = (performance.now() - start) / count;
      stream.endStep();
      return ms;
    };
    await once(1);
    const { flop, bytes } = await countWork(stream, async () => void (await once(1)));
    const count = Math.max(least, Math.ceil(SAMPLE_MS / (await once(1))));
    const samples: number[] = [];
    const start = performance.now();
    while (samples.length < settings.repeats) {
      samples.push(await once(count));
      if (samples.length >= LEAST_SAMPLES && performance.now() - start > ENOUGH_MS) break;
    }
    return { ms: spread(samples).median, flop, bytes };
  }

  /** Adds a figure with the rates that follow from it. */
  report(row: Omit<GpuRow, 'stage' | 'ms'>, { ms, flop, bytes }: Timing): void {
    const tflops = flop / ms / 1e9;
    this.add({
      ...row,
      ms,
      ...(flop > 0 && { tflops }),
      ...(flop > 0 && this.ceiling !== undefined && { mfu: tflops / this.ceiling }),
      ...(bytes > 0 && { bandwidth: bytes / ms / 1e6 }),
    });
  }

  /** The most that this process has held of the device, in MiB. */
  peakMiB(): number {
    return (this.stream.memory().devicePeak ?? 0) / MIB;
  }

  close(): void {
    this.stream.close();
  }
}

const stage =
  (body: (bench: Bench) => Promise<void>) =>
  async (add: Add, settings: Settings): Promise<void> => {
    const bench = new Bench(add, settings);
    try {
      await body(bench);
    } finally {
      bench.close();
    }
  };

const sizes = ({ names }: Shapes): string[] => ['--student', names.student, '--teacher', names.teacher];
const inBf16 = (...args: string[]): string[] => [...args, '--dtype', TYPE];

/** What the GPU can do, as a profile on it measures that. Figures are held against the first of them. */
export const ceilings = async (add: Add, { device }: Settings): Promise<void> => {
  const { bf16, fp32, read } = await measureCeilings({ device });
  add({ name: 'bf16 product', tflops: bf16 / 1e3 });
  add({ name: 'fp32 product', tflops: fp32 / 1e3 });
  add({ name: 'memory, a sum of two vectors', bandwidth: read });
};

export const ffn = stage(async (bench) => {
  const { stream, shapes } = bench;
  const { max_source_positions: rows, d_model: width } = shapes.student;
  const { forward, backward } = ffnCalls(stream, TYPE, shapes.ffnBatch, rows, width);
  const timing = await bench.time(() => stream.tidy(() => void backward(forward()) as undefined));
  const peer = inBf16('ffn', '--student', shapes.names.student, '--batch', `${shapes.ffnBatch}`);
  const name = `gated FFN, forward and backward, batch ${shapes.ffnBatch}`;
  bench.report({ name, peer, compile: true, bars: { ratio: 1.3 }, peakMiB: bench.peakMiB() }, timing);
});

/**
 * Bytes that the calls of a stream have taken at most beyond `before`, the bytes of the device that were held before them:
 * scratch memory, which is kept, and step tensors by the most of the arena that was in use. The arena itself takes memory by
 * chunks of a 64th of the device, which says nothing of the calls.
 */
export function beyondInputs(before: number, { deviceHeld = 0, stepReserved, stepPeak }: NativeMemory): number {
  return deviceHeld - before - stepReserved + stepPeak;
}

/** The rows whose loss has a bar, and the most that it may take beyond its inputs: 0.3 GB. */
const BARRED_ROWS = 2048;
const LOSS_MIB = 0.3e9 / MIB;

export const loss = stage(async (bench) => {
  const { stream, shapes } = bench;
  const { vocab_size: vocabulary, d_model: student } = shapes.student;
  const calls = lossCall(stream, TYPE, shapes.lossRows, { vocabulary, student, teacher: shapes.teacher.d_model });
  await stream.sync();
  const before = stream.memory().deviceHeld ?? 0;
  for (const [i, rows] of shapes.lossRows.entries()) {
    const timing = await bench.time(calls[i]!);
    const peer = inBf16('kdloss', ...sizes(shapes), '--rows', `${rows}`);
    const peakMiB = bench.peakMiB();
    const extraMiB = beyondInputs(before, stream.memory()) / MIB;
    const bars = rows === BARRED_ROWS ? { bars: { ratio: 3, extraMiB: LOSS_MIB } } : {};
    const row = { name: `distillation loss, ${rows} rows`, peer, peakMiB, extraMiB };
    bench.report({ ...row, ...bars }, timing);
  }
});

export const encoder = stage(async (bench) => {
  const { stream, shapes } = bench;
  const config = shapes.student;
  const model = quickModel(stream, config, TYPE);
  // Gates that start as the published code's are open for some rows and closed for others.
  await model.addExpert(LANGUAGE, { compat: 'reference' });
  for (const batch of shapes.encoderBatches) {
    const shape = [batch, config.num_mel_bins, 2 * config.max_source_positions];
    const features = stream.persistent(randomFeatures(config, batch), shape);
    const languages = Array.from({ length: batch }, () => LANGUAGE);
    const timing = await bench.time(() => stream.tidy(() => void model.encode(features, { languages }) as undefined));
    features.dispose();
    bench.report(
      {
        name: `encoder, hard-gated, batch ${batch}`,
        peer: inBf16('encoder', '--student', shapes.names.student, '--batch', `${batch}`),
        compile: true,
        samplesPerSecond: (1000 * batch) / timing.ms,
        peakMiB: bench.peakMiB(),
        ...(batch === 16 && { bars: { ratio: 1.5 } }),
      },
      timing,
    );
  }
});

export const decode = stage(async (bench) => {
  const { stream, shapes } = bench;
  const model = quickModel(stream, shapes.student, TYPE);
  for (const batch of shapes.decodeBatches) {
    const one = decodeCase(stream, model, TYPE, batch, { tokens: shapes.tokens });
    const samples: number[] = [];
    for (let i = 0; i < 6; i++) {
      await one.prepare!();
      const start = performance.now();
      await one.run!();
      samples.push(performance.now() - start);
    }
    one.dispose!();
    const { median: ms } = spread(samples.slice(1));
    const args = ['--plain', '--student', shapes.names.student, '--batch', `${batch}`, '--labels', `${shapes.tokens}`];
    bench.report(
      {
        name: `decode, ${shapes.tokens} tokens, batch ${batch}`,
        peer: inBf16('decode', ...args),
        peakMiB: bench.peakMiB(),
        ...(batch === 1 && { bars: { ratio: 4 } }),
      },
      { ms, flop: 0, bytes: one.bytes! },
    );
  }
});

/** Batches, then the largest that fits by what the last two held. */
export const training = stage(async (bench) => {
  const { stream, shapes } = bench;
  const teacher = quickModel(stream, shapes.teacher, TYPE, 1);
  const student = quickModel(stream, shapes.student, TYPE, 2);
  await student.addExpert(LANGUAGE);
  // As the peer does it: every layer's expert runs, gradients are not clipped.
  const options = trainingOptions({ steps: 1_000_000, skipGate: 0, maxGradientNorm: 0, learningRate: 1e-6 });
  const engine = new TrainingEngine(student, teacher, options);
  // Half-way through the run the gates' noise is on.
  let k = options.steps / 2;
  const held: [batch: number, bytes: number][] = [];
  const measure = async (batch: number, what: string): Promise<void> => {
    const features = randomItems(shapes.student, batch);
    const ids = [...randomIds(batch * shapes.labels)].map((id) => id % shapes.student.vocab_size);
    const labels = Array.from({ length: batch }, (_, b) => ids.slice(b * shapes.labels, (b + 1) * shapes.labels));
    const languages = labels.map(() => LANGUAGE);
    // As the Trainer does it: the next update is queued before the last one's numbers are waited for.
    let last: Promise<unknown> = Promise.resolve();
    const update = (): Promise<unknown> => {
      const before = last;
      last = engine.update(k++, [{ features, labels, languages }]);
      // A failure is told when it is waited for.
      last.catch(() => {});
      return before;
    };
    const timing = await bench.time(update, 4);
    await last;
    held.push([batch, stream.memory().devicePeak ?? 0]);
    bench.report(
      {
        name: `training step, ${what}`,
        peer: inBf16('train', ...sizes(shapes), '--batch', `${batch}`, '--labels', `${shapes.labels}`),
        samplesPerSecond: (1000 * batch) / timing.ms,
        peakMiB: bench.peakMiB(),
        ...(batch === shapes.compiledBatch && { compile: true }),
        bars: { mfu: 0.4, ...(batch === shapes.compiledBatch && { ratio: 1.5 }) },
      },
      timing,
    );
  };
  for (const batch of shapes.batches) await measure(batch, `batch ${batch}`);
  const tried = shapes.batches.at(-1)!;
  let largest = Math.min(fits(held, stream.memory().deviceTotal ?? 0), shapes.mostBatch);
  while (largest > tried) {
    try {
      await measure(largest, `batch ${largest}, the largest that fits`);
      break;
    } catch (error) {
      if (!isDistilWhisperError(error) || error.code !== 'ERR_OUT_OF_MEMORY') throw error;
      console.log(`batch ${largest}: ${error.message}`);
      await stream.sync().catch(() => {});
      stream.endStep();
      largest = Math.floor((0.85 * largest) / 8) * 8;
    }
  }
});

/** The largest multiple of 8 whose memory, by a line through the last two batches, stays within nine tenths of the device's. */
export function fits(held: readonly (readonly [batch: number, bytes: number])[], total: number): number {
  const [a, b] = held.slice(-2);
  if (!a || !b || b[1] <= a[1]) return 0;
  const each = (b[1] - a[1]) / (b[0] - a[0]);
  return Math.floor((b[0] + (0.9 * total - b[1]) / each) / 8) * 8;
}
