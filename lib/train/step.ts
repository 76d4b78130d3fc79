import { DistilWhisperError } from '../errors/index.js';
import type { ModelPass, SoftGates, Whisper } from '../model/index.js';
import { Tape } from '../tensor/index.js';
import { AdamW } from './adamw.js';
import { BatchUploader, type TrainBatch } from './batch.js';
import { type Exchange, oneRank } from './exchange.js';
import { type Randomness, softGates } from './gates.js';
import { BEHIND, type Losses, type LossReadings, Objective, quiet } from './objective.js';
import type { TrainingOptions } from './options.js';
import { learningRate } from './schedule.js';
import { type Teacher, teacherOf } from './teacher.js';

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

export interface EngineSettings {
  /** Recorded noise, masks and skips in place of drawn ones. */
  randomness?: Randomness;
  /** Keep each layer's inputs only, and run its forward again in the backward: less memory, the same numbers, more time. */
  gradientCheckpointing?: boolean;
  /** @internal Between the ranks of a run. Default: there is one. */
  exchange?: Exchange;
}

/** Forward, backward and update: the training step, on one stream. */
export class TrainingEngine {
  readonly optimizer: AdamW;
  private readonly trainsExperts: boolean;
  private readonly teacher: Teacher;
  private readonly objective: Objective;
  private readonly uploader: BatchUploader;
  private readonly exchange: Exchange;

  /** Errors: ERR_ARGUMENT (nothing trains), ERR_VOCABULARY, ERR_MODEL and ERR_STREAM (teacher and student do not fit). */
  constructor(
    private readonly model: Whisper,
    teacher: Whisper | Teacher | null,
    private readonly options: TrainingOptions,
    private readonly settings: EngineSettings = {},
  ) {
    const parameters = model.trainable();
    if (parameters.length === 0) {
      throw new DistilWhisperError('ERR_ARGUMENT', 'model: expected trainable parameters, got a frozen model');
    }
    this.trainsExperts = [...model.experts.values()].some((e) => [...e.parameters.values()].some((p) => p.trainable));
    this.teacher = teacherOf(model, teacher, options.distillation);
    this.objective = new Objective(model, options, this.teacher.config !== null);
    this.uploader = new BatchUploader(model.stream, model.config);
    this.exchange = settings.exchange ?? oneRank;
    this.optimizer = new AdamW(model.stream, parameters, options);
  }

  /** Queues update `k` (from 0) and returns at once; the promise resolves when it has run. Ends the stream's step. */
  update(k: number, batches: readonly TrainBatch[]): Promise<UpdateReport> {
    const { stream } = this.model;
    const micro = batches.map((batch, i) => this.microBatch(k, k * batches.length + i, batch, batches.length));
    this.exchange.sum(this.optimizer.parameters);
    const rate = learningRate(this.options, k);
    const { norm: gradient, refuse } = this.optimizer.update(rate, this.options.maxGradientNorm);
    const gradientNorm = quiet(gradient.item(BEHIND));
    stream.endStep();
    // Awaited together: when the stream ends, each of them rejects.
    const numbers = Promise.all([this.objective.losses(micro), gradientNorm]);
    return (async () => {
      const [losses, norm] = await numbers;
      if (!Number.isFinite(norm)) refuse();
      refuseDiverged(k, losses, norm);
      return { step: k + 1, ...losses, gradientNorm: norm, learningRate: rate };
    })();
  }

  dispose(): void {
    this.optimizer.dispose();
  }

  /** Forward and backward of one of `accumulation` micro-batches: their gradients add up. */
  private microBatch(k: number, micro: number, batch: TrainBatch, accumulation: number): LossReadings {
    const { model } = this;
    const { features, ids, targets, tokens } = this.uploader.upload(batch);
    const taught = this.teacher.teach(features, ids);
    const tape = new Tape(model.stream);
    const pass: ModelPass = {
      tape,
      languages: batch.languages,
      ...(this.trainsExperts && { gates: this.gates(k, micro) }),
      gradientCheckpointing: this.settings.gradientCheckpointing ?? false,
    };
    const heard = model.encode(features, pass);
    const said = model.decode(ids, heard.hidden, pass);
    const gates = this.trainsExperts ? [...heard.gates, ...said.gates] : [];
    const covered = batch.languages.filter((l) => l !== null && model.experts.has(l)).length;
    const parts = accumulation / this.exchange.share(tokens);
    const readings = this.objective.measure(tape, { hidden: said.hidden, gates }, { targets, taught, covered, parts });
    tape.backward();
    return readings;
  }

  private gates(k: number, micro: number): SoftGates {
    const { encoder_layers, decoder_layers } = this.model.config;
    return softGates(this.options, encoder_layers + decoder_layers, k, micro, this.settings.randomness);
  }
}

/** Throws ERR_RUN. */
function refuseDiverged(k: number, { loss }: Losses, norm: number): void {
  if (Number.isFinite(loss) && Number.isFinite(norm)) return;
  throw new DistilWhisperError(
    'ERR_RUN',
    `update ${k + 1}: the loss is ${loss} and the gradient norm ${norm}: the run has diverged; ` +
      'try a lower learning rate',
  );
}
