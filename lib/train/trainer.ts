import { join } from 'node:path';
import { DistilWhisperError } from '../errors/index.js';
import type { Whisper } from '../model/index.js';
import type { Tensor } from '../tensor/index.js';
import { onThread, phase } from '../trace/index.js';
import type { BatchSource, TrainBatch } from './batch.js';
import { EventFile, type Scalar } from './event-file.js';
import { type TrainingOptions, trainingOptions } from './options.js';
import { type Pace, PaceMeter } from './pace.js';
import { CURVES, RunFolder } from './run-folder.js';
import { type EngineSettings, TrainingEngine, type UpdateReport } from './step.js';
import type { Teacher } from './teacher.js';

/** Updates from which a run is worth a rehearsal of two. */
const REHEARSED = 100;

/**
 * Milliseconds from which an update is waited for before the next one is queued: Ctrl-C waits for all that is queued, and beside
 * such an update the pause between two is nothing.
 */
const LONG_UPDATE = 1000;

export interface ValidationReport {
  /** Lower is better: the word error rate. */
  score: number;
  [detail: string]: unknown;
}

export interface TrainerSettings extends Omit<EngineSettings, 'exchange'> {
  model: Whisper;
  /** A frozen model on the model's stream, or what stands for one. null: cross-entropy alone. */
  teacher?: Whisper | Teacher | null | undefined;
  batches: BatchSource;
  options: Partial<TrainingOptions> & { steps: number };
  /** Run folder: log, checkpoints, best parameters. Without one nothing is written and nothing can be resumed. */
  folder?: string | undefined;
  /** What the run is beyond its options (model, data, …): compared when it is resumed. */
  identity?: Record<string, unknown> | undefined;
  /** Write the log's numbers as event files too, in the run folder's tensorboard/. Default false. */
  tensorboard?: boolean | undefined;
  /** Updates between checkpoints; 0: only at the end. Default: a tenth of the run. */
  checkpointEvery?: number | undefined;
  /** Updates between validations; 0: never. */
  validateEvery?: number | undefined;
  validate?: ((step: number) => Promise<ValidationReport>) | undefined;
  /** Before the first update, where many are left: the seconds that one takes, measured on two, and how many are left. */
  onRehearsed?: ((seconds: number, left: number) => void | Promise<void>) | undefined;
  onUpdate?: ((report: UpdateReport, pace: Pace) => void | Promise<void>) | undefined;
  onValidation?: ((step: number, report: ValidationReport, isBest: boolean) => void | Promise<void>) | undefined;
  /** At the end, with the best parameters in the model, while the run folder is still held. */
  onEnd?: ((report: RunReport) => void | Promise<void>) | undefined;
  /** When aborted, the update under way ends, a checkpoint is written, and `run` rejects with ERR_INTERRUPTED. */
  signal?: AbortSignal | undefined;
}

export interface RunReport {
  steps: number;
  /** Updates done in this call: fewer than `steps` when the run was resumed. */
  updates: number;
  last: UpdateReport | null;
  best: { score: number; step: number } | null;
  seconds: number;
}

/** The numbers of a report, under names as TensorBoard groups them: train/gradient_norm. */
const scalarsOf = (group: string, report: object): Scalar[] =>
  Object.entries(report).flatMap(([name, value]) =>
    typeof value === 'number'
      ? [{ tag: `${group}/${name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)}`, value }]
      : [],
  );

/**
 * Trains a model: all of it, or only its experts and gates, by what is trainable. A run with a folder can be interrupted or
 * killed at any moment; called again it goes on behind its last checkpoint with the numbers it would have had.
 */
export class Trainer {
  readonly options: TrainingOptions;
  private readonly engine: TrainingEngine;
  private curves: EventFile | null = null;

  /** Errors: ERR_ARGUMENT, ERR_VOCABULARY, ERR_MODEL. Nothing is written. */
  constructor(private readonly settings: TrainerSettings) {
    this.options = trainingOptions(settings.options);
    this.engine = new TrainingEngine(settings.model, settings.teacher ?? null, this.options, settings);
  }

  /**
   * Runs to the end; the model then holds the best parameters (the last ones without validation). Whatever throws, a callback too,
   * the promise rejects with it once nothing is queued any more. Errors: ERR_RUN, ERR_DISK_FULL, ERR_FILE_WRITE, ERR_INTERRUPTED,
   * ERR_ARGUMENT (too few batches).
   */
  async run(): Promise<RunReport> {
    const { folder: path, model } = this.settings;
    const folder = path ? await RunFolder.open(path, this.identity()) : null;
    try {
      return await this.runIn(folder);
    } finally {
      // What is queued still uses the model; its own failure is told already, or follows from what is.
      await model.stream.sync().catch(() => {});
      await this.curves?.close();
      this.curves = null;
      await folder?.close();
    }
  }

  /**
   * Seconds that update `k` takes, measured on two, of which the `first` finds everything new. Nothing of it stays: the run that
   * follows has the same numbers. null: there are not enough batches, or the signal came.
   */
  async rehearse(k = 0): Promise<{ first: number; update: number } | null> {
    const { settings, options } = this;
    const batches: TrainBatch[] = [];
    for await (const batch of settings.batches.stream(k * options.accumulation)) {
      if (batches.push(batch) === options.accumulation) break;
    }
    if (batches.length < options.accumulation) return null;
    const turns: number[] = [];
    while (turns.length < 2) {
      if (settings.signal?.aborted) return null;
      const start = performance.now();
      await this.engine.rehearse(k, batches);
      turns.push((performance.now() - start) / 1e3);
    }
    return { first: turns[0]!, update: turns[1]! };
  }

  dispose(): void {
    this.engine.dispose();
  }

  private async runIn(folder: RunFolder | null): Promise<RunReport> {
    const { settings, options } = this;
    const start = performance.now();
    const parameters = this.engine.optimizer.parameters.map(({ name }) => name);
    const restored = (await folder?.restore(this.state(), { steps: options.steps, parameters })) ?? null;
    if (restored) this.engine.optimizer.restore(restored.optimizerSteps);
    const first = restored?.step ?? 0;
    let best = restored?.best ?? null;
    let last: UpdateReport | null = null;
    let saved = first;
    let validated = restored?.validated ?? 0;
    let pending: Promise<UpdateReport> | null = null;
    let settledAt = performance.now();
    let isLong = false;

    if (settings.onRehearsed && options.steps - first >= REHEARSED) {
      const seconds = await this.rehearse(first);
      if (seconds !== null) await settings.onRehearsed(seconds.update, options.steps - first);
    }
    if (settings.tensorboard && folder && first < options.steps)
      this.curves = await EventFile.open(join(folder.path, CURVES), first + 1);
    const pace = new PaceMeter();

    const settle = async (): Promise<void> => {
      if (!pending) return;
      const report: UpdateReport = await pending;
      pending = null;
      const now = performance.now();
      isLong = now - settledAt > LONG_UPDATE;
      settledAt = now;
      last = report;
      await folder?.log({ ...report });
      const { step: done, ...numbers } = report;
      await this.curves?.write(done, scalarsOf('train', numbers));
      await settings.onUpdate?.(report, pace.read());
    };
    const checkpoint = async (step: number): Promise<void> => {
      await settle();
      if (saved === step || !folder) return;
      const end = phase('checkpoint', { step });
      await this.engine.settleTeacher();
      const optimizerSteps = this.engine.optimizer.state().steps;
      await folder.save({ step, optimizerSteps, best, validated }, this.state());
      end();
      saved = step;
    };
    const interrupt = async (step: number): Promise<never> => {
      await checkpoint(step);
      const where = settings.folder
        ? `; its checkpoint is in ${settings.folder}, the same command goes on from there`
        : '';
      const when = step === 0 ? 'before its first update' : `after update ${step} of ${options.steps}${where}`;
      throw new DistilWhisperError('ERR_INTERRUPTED', `training was interrupted ${when}`);
    };
    const due = (step: number, every: number | undefined): boolean =>
      every !== undefined && every > 0 && (step % every === 0 || step === options.steps);
    /** The validation that belongs to this step, unless a run before an interruption had it. */
    const validateIfDue = async (step: number): Promise<void> => {
      if (!settings.validate || validated === step || !due(step, settings.validateEvery)) return;
      await settle();
      const end = phase('validation', { step });
      let report: ValidationReport;
      try {
        report = await settings.validate(step);
      } catch (error) {
        // The checkpoint says that this validation is still to come.
        return settings.signal?.aborted ? interrupt(step) : Promise.reject(error);
      }
      end();
      validated = step;
      const isBest = best === null || report.score < best.score;
      await folder?.log({ step, validation: report });
      await this.curves?.write(step, scalarsOf('validation', report));
      if (isBest) {
        best = { score: report.score, step };
        await folder?.saveBest(this.parameters());
      }
      await settings.onValidation?.(step, report, isBest);
    };

    const every = settings.checkpointEvery ?? Math.ceil(options.steps / 10);
    let step = first;
    if (first > 0) await validateIfDue(first);
    if (step < options.steps) {
      let micro: TrainBatch[] = [];
      pace.asks();
      for await (const batch of settings.batches.stream(first * options.accumulation)) {
        pace.got(batch.seconds);
        if (settings.signal?.aborted) await interrupt(step);
        micro.push(batch);
        if (micro.length < options.accumulation) {
          pace.asks();
          continue;
        }
        if (isLong) await settle();
        if (settings.signal?.aborted) await interrupt(step);
        // The next update is queued before the last one's numbers are waited for: the stream never runs dry.
        const end = phase('update', { step: step + 1 });
        const queued = onThread('queue an update', () => this.engine.update(step, micro));
        // Also where an error ends the run before its turn to be awaited.
        queued.then(end, end);
        pace.queued(queued);
        micro = [];
        step++;
        await settle();
        pending = queued;
        if (settings.signal?.aborted) await interrupt(step);
        await validateIfDue(step);
        if (due(step, every) || step === options.steps) await checkpoint(step);
        if (step === options.steps) break;
        pace.asks();
      }
      if (step < options.steps) {
        throw new DistilWhisperError(
          'ERR_ARGUMENT',
          `batches: expected enough for ${options.steps} updates, got ${step}`,
        );
      }
      await settle();
    }
    if (best !== null && folder) await folder.loadBest(this.parameters());
    await settings.model.stream.sync();
    const seconds = (performance.now() - start) / 1000;
    const report: RunReport = { steps: options.steps, updates: step - first, last, best, seconds };
    await settings.onEnd?.(report);
    return report;
  }

  /** Parameters that train, by name. */
  private parameters(): Map<string, Tensor> {
    return new Map(this.engine.optimizer.parameters.map((p) => [p.name, p.value]));
  }

  private state(): Map<string, Tensor> {
    const { tensors } = this.engine.optimizer.state();
    return new Map([...this.parameters(), ...tensors]);
  }

  private identity(): Record<string, unknown> {
    const { model, teacher, identity } = this.settings;
    return {
      options: this.options,
      compute: model.compute,
      // Another kind rounds otherwise; another GPU of the kind does not.
      device: model.stream.device.split(':')[0],
      config: model.config,
      teacher: teacher?.config ?? null,
      experts: [...model.experts.keys()],
      ...identity,
    };
  }
}
