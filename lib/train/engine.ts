import { DistilWhisperError } from '../errors/index.js';
import type { SoftGates, Whisper } from '../model/index.js';
import { philox4x32, SKIP_STREAM } from '../random/index.js';
import { dtypeNumber, Tape, type Tensor } from '../tensor/index.js';
import { AdamW } from './adamw.js';
import { learningRate, lossWorkspace, type TrainingOptions } from './options.js';

/** A micro-batch, ready to upload. */
export interface TrainBatch {
  /** f32 [B, mels, frames], or one [mels, frames] an item; read when the update is queued, never kept. */
  features: Float32Array | readonly Float32Array[];
  /** What the decoder shall say, one list an item; its input is the same shifted right behind the start token. */
  labels: readonly (readonly number[])[];
  /** Lower-case language name of each item: whose expert it takes. null: none. */
  languages: readonly (string | null)[];
}

/** What one update did. Means over its micro-batches. */
export interface UpdateReport {
  /** Updates done, this one included. */
  step: number;
  loss: number;
  crossEntropy: number;
  distillation: number;
  /** Mean of all gates, and its distance from the budget; 0 without experts. */
  gate: number;
  gateLoss: number;
  gradientNorm: number;
  learningRate: number;
}

/** Replaces parts of a micro-batch's randomness by recorded values. */
export type Randomness = (micro: number) => Partial<SoftGates>;

export interface EngineSettings {
  /** Recorded noise, masks and skips in place of drawn ones. */
  randomness?: Randomness;
  /** Keep each layer's inputs only, and run its forward again in the backward: less memory, the same numbers, more time. */
  gradientCheckpointing?: boolean;
}

const IGNORED = -100;
/** How an update's numbers are read: its other calls, and the upload of the next update, go on meanwhile. */
const BEHIND = { behind: true };

/** A read that nobody may come to await, where the queueing of an update fails behind it. */
function quiet<T>(reading: Promise<T>): Promise<T> {
  reading.catch(() => {});
  return reading;
}

/** Forward, backward and update: the training step, on one stream. */
export class TrainingEngine {
  readonly optimizer: AdamW;
  private readonly trainsExperts: boolean;
  /** Where the features of a batch are put together: one buffer for the whole run, because garbage of this size fragments the heap. */
  private gathered = new Float32Array(0);

  /** Errors: ERR_ARGUMENT (nothing trains), ERR_VOCABULARY and ERR_MODEL (teacher and student do not fit). */
  constructor(
    private readonly model: Whisper,
    private readonly teacher: Whisper | null,
    private readonly options: TrainingOptions,
    private readonly settings: EngineSettings = {},
  ) {
    const parameters = model.trainable();
    if (parameters.length === 0) {
      throw new DistilWhisperError('ERR_ARGUMENT', 'model: expected trainable parameters, got a frozen model');
    }
    this.trainsExperts = [...model.experts.values()].some((e) => [...e.parameters.values()].some((p) => p.trainable));
    if (teacher) checkTeacher(model, teacher);
    this.optimizer = new AdamW(model.stream, parameters, options);
  }

  /** Queues update `k` (from 0) and returns at once; the promise resolves when it has run. Ends the stream's step. */
  update(k: number, batches: readonly TrainBatch[]): Promise<UpdateReport> {
    const { stream } = this.model;
    const micro = batches.map((batch, i) => this.microBatch(k, k * batches.length + i, batch, batches.length));
    const rate = learningRate(this.options, k);
    const { norm: gradient, refuse } = this.optimizer.update(rate, this.options.maxGradientNorm);
    const gradientNorm = quiet(gradient.item(BEHIND));
    stream.endStep();
    // Awaited together: when the stream ends, each of them rejects.
    const numbers = Promise.all([
      Promise.all(micro.map((m) => m.stats)),
      Promise.all(micro.map((m) => Promise.all(m.budget))),
      gradientNorm,
    ]);
    return (async () => {
      const mean = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
      const [stats, budget, norm] = await numbers;
      const gate = mean(budget.map(([g]) => g?.[0] ?? 0));
      const gateLoss = mean(budget.map(([, loss]) => loss?.[0] ?? 0));
      const [ceWeight] = this.weights(1);
      const report: UpdateReport = {
        step: k + 1,
        loss: mean(stats.map((s) => s[2]! * batches.length)) + ceWeight * gateLoss,
        crossEntropy: mean(stats.map((s) => s[0]!)),
        distillation: mean(stats.map((s) => s[1]!)),
        gate,
        gateLoss,
        gradientNorm: norm,
        learningRate: rate,
      };
      if (!Number.isFinite(report.gradientNorm)) refuse();
      if (!Number.isFinite(report.loss) || !Number.isFinite(report.gradientNorm)) {
        throw new DistilWhisperError(
          'ERR_RUN',
          `update ${k + 1}: the loss is ${report.loss} and the gradient norm ${report.gradientNorm}: the run has diverged; ` +
            'try a lower learning rate',
        );
      }
      return report;
    })();
  }

  dispose(): void {
    this.optimizer.dispose();
  }

  /** Weights of (CE + budget) and of the divergence in the total, for one of `accumulation` micro-batches. */
  private weights(accumulation: number): [crossEntropy: number, distillation: number] {
    if (!this.teacher) return [1 / accumulation, 0];
    const [s0, s1] = this.options.sigma;
    return [0.5 / s0 ** 2 / accumulation, 0.5 / s1 ** 2 / accumulation];
  }

  private microBatch(
    k: number,
    micro: number,
    batch: TrainBatch,
    accumulation: number,
  ): { stats: Promise<Float32Array>; budget: Promise<Float32Array>[] } {
    const { model, teacher, options } = this;
    const { stream, config } = model;
    const B = batch.labels.length;
    const T = Math.max(...batch.labels.map((l) => l.length));
    const labels = new Int32Array(B * T).fill(IGNORED);
    const inputs = new Int32Array(B * T).fill(config.pad_token_id);
    for (const [b, row] of batch.labels.entries()) {
      labels.set(row, b * T);
      inputs.set([config.decoder_start_token_id, ...row.slice(0, T - 1)], b * T);
    }
    const features = this.upload(batch);
    const ids = stream.tensor(inputs, [B, T], 'i32');
    const targets = stream.tensor(labels, [B * T], 'i32');

    const teacherRows = teacher
      ? stream.tidy(() => {
          const rows = teacher.decode(ids, teacher.encode(features));
          return rows.reshape([B * T, teacher.config.d_model]);
        })
      : null;

    const tape = new Tape(stream);
    const gateValues: Tensor[] = [];
    const pass = {
      tape,
      languages: batch.languages,
      gateValues,
      ...(this.trainsExperts && { gates: this.gates(k, micro) }),
      gradientCheckpointing: this.settings.gradientCheckpointing ?? false,
    };
    const hidden = model.decode(ids, model.encode(features, pass), pass);
    const [ceWeight, kdWeight] = this.weights(accumulation);
    const table = model.embeddingTable;
    const kind = !teacher || options.distillation === 'none' ? 0 : options.distillation === 'js' ? 1 : 2;
    const reference = options.compat === 'reference';
    const [stats, , , gradient] = stream.call(
      'distill_loss',
      [
        hidden.reshape([B * T, config.d_model]),
        table.value,
        targets,
        kind ? teacherRows : null,
        kind ? teacher!.embeddingTable.value : null,
        table.accumulator(),
      ],
      [
        options.labelSmoothing,
        options.temperature,
        kind,
        ceWeight,
        kdWeight,
        reference ? 1 : 0,
        1,
        dtypeNumber(model.compute),
        lossWorkspace(stream.device, options.workspace),
        reference ? 1e-10 : 0,
      ],
    );
    const report = { stats: quiet(stats!.floats(BEHIND)), budget: [] as Promise<Float32Array>[] };
    tape.set(hidden, gradient!.reshape(hidden.shape));
    if (this.trainsExperts && gateValues.length > 0) {
      const covered = batch.languages.filter((l) => l !== null && model.experts.has(l)).length;
      const count = gateValues.reduce((sum, g) => sum + (g.size / B) * covered, 0);
      const [mean, loss, dgate] = stream.call('gate_budget', gateValues, [options.gateBudget, ceWeight, count]);
      report.budget.push(quiet(mean!.floats(BEHIND)), quiet(loss!.floats(BEHIND)));
      for (const g of gateValues) tape.set(g, dgate!);
    }
    tape.backward();
    return report;
  }

  /** f32 [B, mels, frames]. */
  private upload({ features, labels }: TrainBatch): Tensor {
    const { stream, config } = this.model;
    const shape = [labels.length, config.num_mel_bins, 2 * config.max_source_positions];
    if (features instanceof Float32Array) return stream.tensor(features, shape);
    const length = features.reduce((sum, item) => sum + item.length, 0);
    if (this.gathered.length < length) this.gathered = new Float32Array(length);
    let at = 0;
    for (const item of features) {
      this.gathered.set(item, at);
      at += item.length;
    }
    return stream.tensor(this.gathered.subarray(0, length), shape);
  }

  private gates(k: number, micro: number): SoftGates {
    const { options, model } = this;
    const progress = k / options.steps;
    // The published code takes step 0 for "no schedule" and starts with the full noise.
    const share = options.compat === 'reference' && k === 0 ? 1 : Math.min(progress, 1);
    const layers = model.config.encoder_layers + model.config.decoder_layers;
    const skips = skipDraws(options.seed, micro, layers, options.skipGate);
    return {
      alpha: options.gateNoise * share,
      gateDropout: options.gateDropout,
      expertDropout: options.expertDropout,
      seed: options.seed,
      step: micro,
      skip: (layer) => skips[layer]!,
      ...this.settings.randomness?.(micro),
    };
  }
}

/** Which layers leave their expert out in a micro-batch: a pure function of (seed, micro-batch, layer). */
function skipDraws(seed: number, micro: number, layers: number, probability: number): boolean[] {
  const word = (layer: number): number =>
    philox4x32([layer, 0, micro, SKIP_STREAM], [seed >>> 0, Math.floor(seed / 2 ** 32)])[0]!;
  return Array.from({ length: layers }, (_, layer) => word(layer) / 2 ** 32 < probability);
}

/** Whether a teacher can teach the student. Throws ERR_VOCABULARY, ERR_MODEL, ERR_STREAM. */
export function checkTeacher(student: Whisper, teacher: Whisper): void {
  const s = student.config;
  const t = teacher.config;
  if (s.vocab_size !== t.vocab_size) {
    throw new DistilWhisperError(
      'ERR_VOCABULARY',
      `teacher: expected the student's vocabulary of ${s.vocab_size} tokens, got ${t.vocab_size}`,
    );
  }
  for (const name of ['num_mel_bins', 'max_source_positions'] as const) {
    if (s[name] !== t[name]) {
      throw new DistilWhisperError(
        'ERR_MODEL',
        `teacher: expected ${name} ${s[name]} as the student's, got ${t[name]}`,
      );
    }
  }
  if (teacher.stream !== student.stream) {
    throw new DistilWhisperError('ERR_STREAM', 'teacher: expected a model on the stream of the student');
  }
}
