/** How fast the GPU is, beside PyTorch on the same one. Everything in bf16. */
import { Whisper } from '../../lib/model/index.js';
import { countWork } from '../../lib/profile/index.js';
import { dtypeNumber, Stream } from '../../lib/tensor/index.js';
import { TrainingEngine, trainingOptions } from '../../lib/train/index.js';
import { LANGUAGE, randomFeatures, randomIds, randomTensor } from '../data.js';
import { decodeCase } from '../decode.js';
import { ffnCalls } from '../gated-ffn.js';
import { spread } from '../harness.js';
import { lossCall } from '../loss.js';
import { Peer } from '../peers.js';
import { type GpuRow, readRows } from './results.js';
import { type Settings, SHAPES, type Shapes } from './settings.js';

type Add = (row: Omit<GpuRow, 'stage'>) => void;

const MIB = 2 ** 20;
const TYPE = 'bf16';
const BF16 = dtypeNumber(TYPE);
const SAMPLE_MS = 50;

/** One stage's stream, shapes, peer, and how it measures. */
class Bench {
  readonly shapes: Shapes;
  readonly stream: Stream;
  private readonly peer: Peer | null;
  private readonly ceiling: number | undefined;

  constructor(
    private readonly add: Add,
    private readonly settings: Settings,
  ) {
    this.shapes = SHAPES[settings.shapes]();
    this.stream = new Stream({ device: settings.device });
    const { peer: script, python, device } = settings;
    const peer = script === undefined ? null : Peer.find({ script, python, device, threads: this.stream.threads });
    if (typeof peer === 'string') console.log(`PyTorch is left out: ${peer}`);
    this.peer = peer instanceof Peer && this.shapes.names ? peer : null;
    this.ceiling = readRows(settings.folder, 'ceilings').find((row) => row.tflops !== undefined)?.tflops;
  }

  /** Milliseconds of `body`, queued as often as fills a sample: the median, and its operations. */
  async time(body: () => void | Promise<void>): Promise<{ ms: number; flop: number }> {
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
    const { flop } = await countWork(stream, async () => void (await once(1)));
    const count = Math.max(1, Math.ceil(SAMPLE_MS / (await once(1))));
    const samples: number[] = [];
    for (let i = 0; i < settings.repeats; i++) samples.push(await once(count));
    return { ms: spread(samples).median, flop };
  }

  /** PyTorch on the same work, eager and compiled. A failure (out of memory, no compiler) is a note. */
  beside(args: readonly string[]): Pick<GpuRow, 'peerMs' | 'compiledMs' | 'peerPeakMiB' | 'note'> {
    if (!this.peer) return {};
    const all = [...args, '--dtype', TYPE, '--repeat', `${this.settings.repeats}`, '--warmup', '3'];
    const notes: string[] = [];
    const one = (...more: string[]) => {
      try {
        return this.peer!.run([...all, ...more]);
      } catch (error) {
        notes.push((error as Error).message);
        return null;
      }
    };
    const [eager, compiled] = [one(), one('--compile')];
    return {
      ...(eager && { peerMs: eager.median }),
      ...(compiled && { compiledMs: compiled.median }),
      ...(eager?.peakMiB !== undefined && { peerPeakMiB: eager.peakMiB }),
      ...(notes.length > 0 && { note: notes.join('; ') }),
    };
  }

  /** Adds a figure with what follows from it: ratio, rate, whether the bars are met. */
  report(row: Omit<GpuRow, 'stage'> & { ms: number }, flop = 0, also = true): void {
    const peers = [row.peerMs, row.compiledMs].filter((ms) => ms !== undefined);
    const ratio = peers.length > 0 ? Math.min(...peers) / row.ms : undefined;
    const tflops = flop > 0 ? flop / row.ms / 1e9 : undefined;
    this.add({
      ...row,
      ...(ratio !== undefined && { ratio }),
      ...(tflops !== undefined && { tflops }),
      ...(tflops !== undefined && this.ceiling && { mfu: this.mfu(flop, row.ms) }),
      ...(row.bar !== undefined && ratio !== undefined && { ok: ratio >= row.bar && also }),
    });
  }

  /** Share of the ceiling that so many operations in so many ms are; 0 where it was not measured. */
  mfu(flop: number, ms: number): number {
    return this.ceiling ? flop / ms / 1e9 / this.ceiling : 0;
  }

  close(): void {
    this.stream.close();
  }
}

const stage =
  (body: (bench: Bench, add: Add) => Promise<void>) =>
  async (add: Add, settings: Settings): Promise<void> => {
    const bench = new Bench(add, settings);
    try {
      await body(bench, add);
    } finally {
      bench.close();
    }
  };

/** What the GPU can do: one large product in bf16, and a sum of two long vectors. */
export const ceilings = stage(async (bench, add) => {
  const { stream, shapes } = bench;
  const n = shapes.product;
  const [a, b] = [randomTensor(stream, [n, n], TYPE, 1), randomTensor(stream, [n, n], TYPE, 1).freeze()];
  const product = await bench.time(
    () => void stream.tidy(() => void stream.call('linear', [a, b, null, null], [0, 0, BF16, BF16]) as undefined),
  );
  add({ name: `bf16 product, ${n} × ${n} × ${n}`, ms: product.ms, tflops: (2 * n ** 3) / product.ms / 1e9 });
  const length = shapes.copied / 4;
  const [x, y] = [1, 2].map(() => stream.persistent(null, [length], 'f32'));
  const sum = await bench.time(() => void stream.tidy(() => void stream.call('add', [x!, y!], [1, 1, 0]) as undefined));
  add({ name: 'memory, a sum of two vectors', ms: sum.ms, bandwidth: (12 * length) / sum.ms / 1e6 });
});

export const ffn = stage(async (bench) => {
  const { stream, shapes } = bench;
  const { max_source_positions: rows, d_model: width } = shapes.student;
  const { forward, backward } = ffnCalls(stream, TYPE, shapes.ffnBatch, rows, width);
  const { ms, flop } = await bench.time(() => void stream.tidy(() => void backward(forward()) as undefined));
  const peer = bench.beside(['ffn', '--student', `${shapes.names?.student}`, '--batch', `${shapes.ffnBatch}`]);
  bench.report({ name: `gated FFN, forward and backward, batch ${shapes.ffnBatch}`, ms, ...peer, bar: 1.3 }, flop);
});

export const loss = stage(async (bench) => {
  const { stream, shapes } = bench;
  const { vocab_size: vocabulary, d_model: student } = shapes.student;
  const widths = { vocabulary, student, teacher: shapes.teacher.d_model };
  const calls = lossCall(stream, TYPE, shapes.lossRows, widths);
  await stream.sync();
  for (const [i, rows] of shapes.lossRows.entries()) {
    const before = stream.memory().deviceHeld ?? 0;
    const { ms, flop } = await bench.time(calls[i]!);
    const held = (stream.memory().devicePeak ?? 0) - before;
    const extraMiB = Math.max(0, held) / MIB;
    const peer = bench.beside(['kdloss', ...names(shapes), '--rows', `${rows}`]);
    const barred = rows === 2048 ? { bar: 3 } : {};
    bench.report({ name: `distillation loss, ${rows} rows`, ms, ...peer, extraMiB, ...barred }, flop, extraMiB <= 300);
  }
});

const names = ({ names }: Shapes): string[] => ['--student', `${names?.student}`, '--teacher', `${names?.teacher}`];

export const encoder = stage(async (bench) => {
  const { stream, shapes } = bench;
  const config = shapes.student;
  const model = await Whisper.create(stream, config, { compute: TYPE, seed: 1 });
  await model.addExpert(LANGUAGE, { compat: 'reference' });
  for (const batch of shapes.encoderBatches) {
    const shape = [batch, config.num_mel_bins, 2 * config.max_source_positions];
    const features = stream.persistent(randomFeatures(config, batch), shape);
    const languages = Array.from({ length: batch }, () => LANGUAGE);
    const { ms, flop } = await bench.time(
      () => void stream.tidy(() => void model.encode(features, { languages }) as undefined),
    );
    const peer = bench.beside(['encoder', '--student', `${shapes.names?.student}`, '--batch', `${batch}`]);
    const barred = batch === 16 ? { bar: 1.5 } : {};
    const samplesPerSecond = (1000 * batch) / ms;
    bench.report({ name: `encoder, hard-gated, batch ${batch}`, ms, ...peer, ...barred, samplesPerSecond }, flop);
    features.dispose();
  }
});

export const decode = stage(async (bench) => {
  const { stream, shapes } = bench;
  const model = await Whisper.create(stream, shapes.student, { compute: TYPE, seed: 1 });
  for (const batch of shapes.decodeBatches) {
    const one = decodeCase(stream, model, TYPE, batch, shapes.tokens);
    const samples: number[] = [];
    for (let i = 0; i < 5; i++) {
      await one.prepare!();
      const start = performance.now();
      await one.run!();
      samples.push(performance.now() - start);
    }
    one.dispose!();
    const { median: ms } = spread(samples.slice(1));
    const args = ['decode', '--plain', '--student', `${shapes.names?.student}`, '--batch', `${batch}`];
    const peer = bench.beside([...args, '--labels', `${shapes.tokens}`]);
    const bandwidth = one.bytes! / ms / 1e6;
    bench.report({
      name: `decode, ${shapes.tokens} tokens, batch ${batch}`,
      ms,
      ...peer,
      bandwidth,
      ...(batch === 1 && { bar: 4 }),
    });
  }
});

/** Batches, then the largest that fits by what the last two held. */
export const training = stage(async (bench) => {
  const { stream, shapes } = bench;
  const teacher = await Whisper.create(stream, shapes.teacher, { compute: TYPE, seed: 1 });
  const student = await Whisper.create(stream, shapes.student, { compute: TYPE, seed: 2 });
  await student.addExpert(LANGUAGE);
  // As the peer does it: every layer's expert runs, gradients are not clipped.
  const options = trainingOptions({ steps: 1_000_000, skipGate: 0, maxGradientNorm: 0, learningRate: 1e-6 });
  const engine = new TrainingEngine(student, teacher, options);
  let k = 500_000;
  const held: [batch: number, bytes: number][] = [];
  const measure = async (batch: number, what: string): Promise<void> => {
    const features = randomFeatures(shapes.student, batch);
    const ids = [...randomIds(batch * shapes.labels)].map((id) => id % shapes.student.vocab_size);
    const labels = Array.from({ length: batch }, (_, b) => ids.slice(b * shapes.labels, (b + 1) * shapes.labels));
    const languages = labels.map(() => LANGUAGE);
    const update = async (): Promise<void> => void (await engine.update(k++, [{ features, labels, languages }]));
    const { ms, flop } = await bench.time(update);
    const peak = stream.memory().devicePeak ?? 0;
    held.push([batch, peak]);
    const args = ['train', ...names(shapes), '--batch', `${batch}`, '--labels', `${shapes.labels}`];
    const peer = bench.beside(args);
    const samplesPerSecond = (1000 * batch) / ms;
    const row = { name: `training step, ${what}`, ms, ...peer, peakMiB: peak / MIB, samplesPerSecond, bar: 1.5 };
    bench.report(row, flop, bench.mfu(flop, ms) >= 0.4);
  };
  for (const batch of shapes.batches) await measure(batch, `batch ${batch}`);
  const largest = fits(held, stream.memory().deviceTotal ?? 0);
  if (largest > shapes.batches.at(-1)!) await measure(largest, `batch ${largest}, the largest that fits`);
});

/** The largest multiple of 8 whose memory, by a line through the last two batches, stays within nine tenths of the device's. */
export function fits(held: readonly (readonly [batch: number, bytes: number])[], total: number): number {
  const [a, b] = held.slice(-2);
  if (!a || !b || b[1] <= a[1]) return 0;
  const each = (b[1] - a[1]) / (b[0] - a[0]);
  return Math.floor((b[0] + (0.9 * total - b[1]) / each) / 8) * 8;
}
