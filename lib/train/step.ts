import { DistilWhisperError } from '../errors/index.js';
import { isGateParameter, type ModelPass, type SoftGates, type Whisper } from '../model/index.js';
import { type Parameter, Tape, type Tensor } from '../tensor/index.js';
import { AdamW } from './adamw.js';
import { BatchUploader, partsOf, type TrainBatch } from './batch.js';
import { type Exchange, oneRank } from './exchange.js';
import { type GateHistogram, GateObserver, type Randomness, softGates } from './gates.js';
import { BEHIND, type Losses, type LossReadings, Objective, type Part, quiet } from './objective.js';
import type { TrainingOptions } from './options.js';
import { learningRate } from './schedule.js';
import { type Taught, type Teacher, teacherOf } from './teacher.js';

/** What one update did. Means over its micro-batches, each by its share. */
export interface UpdateReport {
  /** Updates done, this one included. */
  step: number;
  loss: number;
  crossEntropy: number;
  distillation: number;
  /**
   * Mean of all soft gates; share of the rows whose hard gate, without noise, would choose the expert; and the distance of what
   * `gateBudgetOf` says from the budget. 0 without experts.
   */
  gate: number;
  chosen: number;
  gateLoss: number;
  gradientNorm: number;
  learningRate: number;
  /** Of the updates that `gateHistograms` asks it of. */
  gateHistogram?: GateHistogram | undefined;
}

export interface EngineSettings {
  /** Recorded noise, masks and skips in place of drawn ones. */
  randomness?: Randomness | undefined;
  /** Keep each layer's inputs only, and run its forward again in the backward: less memory, the same numbers, more time. */
  gradientCheckpointing?: boolean | undefined;
  /**
   * Items that run at once: a batch of more runs in parts, whose gradients add up to those of the loss over all of its tokens.
   * `parts`: of a full batch. Each part draws its own noise, masks and skips, and its own mean is held to the gate budget. Default:
   * batches run whole.
   */
  microBatch?: { items: number; parts: number } | undefined;
  /** Updates between histograms of the gates, the first update's among them; 0 (default): none. */
  gateHistograms?: number | undefined;
  /** @internal Between the ranks of a run. Default: there is one. */
  exchange?: Exchange | undefined;
}

/** Forward, backward and update: the training step, on one stream. */
export class TrainingEngine {
  readonly optimizer: AdamW;
  private readonly trainsExperts: boolean;
  /** Dropout of the adapter that trains; null: none does. */
  private readonly adapterDropout: number | null;
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
    const trains = (added: { parameters: ReadonlyMap<string, Parameter> }): boolean =>
      [...added.parameters.values()].some((p) => p.trainable);
    this.trainsExperts = [...model.experts.values()].some(trains);
    this.adapterDropout = model.adapters.values().find(trains)?.config.dropout ?? null;
    this.teacher = teacherOf(model, teacher, options.distillation);
    this.objective = new Objective(model, options, this.teacher.config !== null);
    this.uploader = new BatchUploader(model.stream, model.config);
    this.exchange = settings.exchange ?? oneRank;
    const rateOf = (name: string): number => (isGateParameter(name) ? options.gateRate : 1);
    this.optimizer = new AdamW(model.stream, parameters, options, rateOf);
  }

  /** Queues update `k` (from 0) and returns at once; the promise resolves when it has run. Ends the stream's step. */
  update(k: number, batches: readonly TrainBatch[]): Promise<UpdateReport> {
    const { stream } = this.model;
    const every = this.trainsExperts ? (this.settings.gateHistograms ?? 0) : 0;
    const observer = every > 0 && (k === 0 || (k + 1) % every === 0) ? new GateObserver(this.layers) : null;
    const micro = this.gradients(k, batches, observer);
    const rate = learningRate(this.options, k);
    const { norm: gradient, refuse } = stream.inPart('optimiser', () => {
      this.exchange.sum(this.optimizer.parameters);
      return this.optimizer.update(rate, this.options.maxGradientNorm);
    });
    const gradientNorm = quiet(gradient.item(BEHIND));
    stream.endStep();
    // Awaited together: when the stream ends, each of them rejects.
    const numbers = Promise.all([this.objective.losses(micro), gradientNorm, observer?.histogram()]);
    return (async () => {
      const [losses, norm, gateHistogram] = await numbers;
      if (!Number.isFinite(norm)) refuse();
      refuseDiverged(k, losses, norm);
      const report: UpdateReport = { step: k + 1, ...losses, gradientNorm: norm, learningRate: rate };
      return gateHistogram ? { ...report, gateHistogram } : report;
    })();
  }

  /** Runs all of update `k` but its end, and waits for it: parameters and moments stay as they are. */
  async rehearse(k: number, batches: readonly TrainBatch[]): Promise<void> {
    const losses = this.objective.losses(this.gradients(k, batches));
    losses.catch(() => {});
    for (const parameter of this.optimizer.parameters) parameter.clearGradient();
    this.model.stream.endStep();
    await this.model.stream.sync();
    await losses;
  }

  /** See `Teacher.settle`. */
  async settleTeacher(): Promise<void> {
    await this.teacher.settle?.();
  }

  dispose(): void {
    this.optimizer.dispose();
  }

  /** Queues forward and backward of an update's batches: their gradients add up. */
  private gradients(k: number, batches: readonly TrainBatch[], observer: GateObserver | null = null): LossReadings[] {
    const { items = Number.POSITIVE_INFINITY, parts = 1 } = this.settings.microBatch ?? {};
    return batches.flatMap((batch, i) => {
      const tokens = tokensOf(batch);
      const count = batches.length / this.exchange.share(tokens);
      return partsOf(batch, items).map((part, j) =>
        this.microBatch(k, (k * batches.length + i) * parts + j, observer, part, {
          batches: count,
          tokens: tokensOf(part) / tokens,
          items: part.labels.length / batch.labels.length,
        }),
      );
    });
  }

  private microBatch(
    k: number,
    micro: number,
    observer: GateObserver | null,
    batch: TrainBatch,
    part: Part,
  ): LossReadings {
    const { model } = this;
    const { stream } = model;
    let readings!: LossReadings;
    // Nothing of it is needed behind it: the next one takes the same memory.
    stream.tidy(() => {
      const { features, ids, targets } = this.uploader.upload(batch);
      const taught = stream.inPart('teacher', () => this.taught(batch, features, ids));
      const tape = new Tape(stream);
      const pass: ModelPass = {
        tape,
        languages: batch.languages,
        gates: this.trainsExperts ? this.gates(k, micro, observer) : undefined,
        adapterDropout:
          this.adapterDropout === null
            ? undefined
            : { rate: this.adapterDropout, seed: this.options.seed, step: micro },
        gradientCheckpointing: this.settings.gradientCheckpointing ?? false,
      };
      readings = stream.inPart('forward', () => {
        const heard = model.encode(features, pass);
        const said = model.decode(ids, heard.hidden, pass);
        const both = (of: 'gates' | 'chosen'): readonly Tensor[] =>
          this.trainsExperts ? [...heard[of], ...said[of]] : [];
        const covered = batch.languages.filter((l) => l !== null && model.experts.has(l)).length;
        return this.objective.measure(
          tape,
          { hidden: said.hidden, gates: both('gates'), chosen: both('chosen') },
          { targets, taught, covered, part },
        );
      });
      stream.inPart('backward', () => tape.backward());
      return undefined;
    });
    return readings;
  }

  private taught(batch: TrainBatch, features: Tensor, ids: Tensor): Taught | null {
    // Who is not asked hears nothing.
    const hasSaid = batch.taught !== undefined || batch.recalled?.every(({ rows }) => rows !== null);
    const isAsked = this.teacher.config !== null && !hasSaid;
    const whole = isAsked ? this.uploader.uploadForTeacher(batch) : null;
    const taught = this.teacher.teach(whole ?? features, ids, batch);
    whole?.dispose();
    return taught;
  }

  private gates(k: number, micro: number, observer: GateObserver | null): SoftGates {
    const gates = softGates(this.options, this.layers, k, micro, this.settings.randomness);
    return observer ? { ...gates, observe: observer.ofBatch() } : gates;
  }

  private get layers(): number {
    const { encoder_layers, decoder_layers } = this.model.config;
    return encoder_layers + decoder_layers;
  }
}

/** Labelled positions. */
const tokensOf = ({ labels }: TrainBatch): number => labels.reduce((sum, row) => sum + row.length, 0);

/** Throws ERR_RUN. */
function refuseDiverged(k: number, { loss }: Losses, norm: number): void {
  if (Number.isFinite(loss) && Number.isFinite(norm)) return;
  throw new DistilWhisperError(
    'ERR_RUN',
    `update ${k + 1}: the loss is ${loss} and the gradient norm ${norm}: the run has diverged; ` +
      'try a lower learning rate',
  );
}
