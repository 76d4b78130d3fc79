/** Whole training runs: from a model folder and data to an expert file or a model folder. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { BadRowsError, type Dataset } from '../data/index.js';
import { evaluate } from '../evaluate/index.js';
import { ifThere, readJsonObject, writeFileAtomic } from '../files/index.js';
import { repositoryOf } from '../hub/index.js';
import type { Whisper } from '../model/index.js';
import { elementType } from '../tensor/index.js';
import { Trainer, type TrainerSettings } from '../train/index.js';
import { Transcriber } from '../transcribe/index.js';
import { Closers } from './closers.js';
import type { TimePlan, TrainPlan, TrainRecipe, TrainResult } from './recipe.js';
import { identityOf, loadRun, openRun, type Run, throwIfInterrupted, timeOf } from './run.js';
import { namesOfData } from './training-rows.js';

/**
 * Runs a recipe to its end, or on from its last checkpoint. Everything is checked before the run folder is touched.
 * Errors: ERR_ARGUMENT for the recipe itself; ERR_MEMORY for a run that does not fit; those of `resolveModel`, of model folders,
 * `openDataset` and teacher caches; BadRowsError for rows that cannot be used, of tables, labels and audio (where they are left
 * out, when none is left); ERR_INTERRUPTED leaves a run that the same recipe resumes.
 */
export async function train(recipe: TrainRecipe): Promise<TrainResult> {
  const closers = new Closers();
  let outcome: TrainResult | undefined;
  try {
    const run = await openRun(recipe, closers);
    const { model, teacher, batches, plan, rows } = await loadRun(run, closers, { adds: true });
    const { signal, output } = recipe;
    const { folder, options, perEpoch } = run;
    const trainer = new Trainer({
      model,
      teacher,
      batches,
      options,
      ...howToRun(run),
      folder: output,
      identity: await identityOf(run, rows),
      checkpointEvery: recipe.checkpointEvery,
      tensorboard: recipe.tensorboard,
      gateHistograms: recipe.gateHistograms,
      validateEvery: recipe.validation?.every ?? perEpoch,
      validate: run.validation ? validationOf(run, run.validation, model, closers) : undefined,
      signal,
      onEnd: async (report) => {
        const result = await run.method.save(model, {
          output,
          folder,
          base: recipe.model,
          languages: run.preparation.languages,
          dtype: elementType(run.saveAs),
          steps: report.steps,
        });
        const { model: from, teacher: by = null } = recipe;
        const sources = { model: from, repository: repositoryOf(from), teacher: by, data: namesOfData(recipe) };
        const taught = run.languages.map(({ code }) => code);
        const language = taught.length === 1 ? taught[0]! : null;
        outcome = { ...report, ...plan, result, language, taught, sources };
        // A run that was at its end has nothing to add to what it said then; a shorter one may have said it.
        const reportPath = join(output, 'report.json');
        if (report.updates === 0 && (await isReportOf(reportPath, report.steps))) return;
        const text = Buffer.from(`${JSON.stringify(outcome, null, 2)}\n`);
        await writeFileAtomic(reportPath, (sink) => sink.append(text));
      },
      onRehearsed: recipe.onTime && ((update, left) => recipe.onTime!(timeOf(run, { first: update, update }, left))),
      onUpdate: recipe.onUpdate,
      onValidation: recipe.onValidation,
    });
    closers.add(() => trainer.dispose());
    throwIfInterrupted(signal);
    await recipe.onStart?.(plan);
    await trainer.run();
  } catch (error) {
    // What the end of it says besides follows from this.
    await closers.close().catch(() => {});
    throw error;
  }
  await closers.close();
  return outcome!;
}

/**
 * What a recipe would do and how long it would take: everything is read and checked, and an update is run twice whose results are
 * dropped. Nothing is written. `time`: null where there are too few utterances for an update. Errors: those of `train` before it begins.
 */
export async function planTraining(recipe: TrainRecipe): Promise<TrainPlan & { time: TimePlan | null }> {
  const closers = new Closers();
  try {
    const run = await openRun(recipe, closers);
    const { model, teacher, batches, plan } = await loadRun(run, closers, { adds: false });
    const { options } = run;
    const { signal } = recipe;
    const trainer = new Trainer({ model, teacher, batches, options, ...howToRun(run), signal });
    closers.add(() => trainer.dispose());
    const seconds = await trainer.rehearse();
    throwIfInterrupted(signal);
    return { ...plan, time: seconds === null ? null : timeOf(run, seconds, options.steps) };
  } finally {
    await closers.close();
  }
}

function howToRun({ plan: { batch } }: Run): Pick<TrainerSettings, 'gradientCheckpointing' | 'microBatch'> {
  const { size, microBatch, gradientCheckpointing } = batch;
  const parts = Math.ceil(size / microBatch);
  return { gradientCheckpointing, microBatch: parts > 1 ? { items: microBatch, parts } : undefined };
}

/** Transcribes the validation rows with the model as it is. */
function validationOf(
  { folder, tokenizer, recipe }: Run,
  validation: Dataset,
  model: Whisper,
  closers: Closers,
): NonNullable<TrainerSettings['validate']> {
  const transcriber = new Transcriber(model, tokenizer, { generation: folder.generationConfig });
  closers.add(() => transcriber.close());
  return async () => {
    const { total, badRows } = await evaluate(transcriber, validation, { checked: true, signal: recipe.signal });
    // Scores over other rows cannot be compared.
    if (badRows.length > 0) throw new BadRowsError(badRows);
    return { score: total.wer, wer: total.wer, cer: total.cer, gateShare: total.gateShare };
  };
}

/** Whether a report is there, of a run of so many updates. */
async function isReportOf(path: string, steps: number): Promise<boolean> {
  if (!(await ifThere(stat(path)))) return false;
  return (await readJsonObject(path, 'ERR_RUN')).steps === steps;
}
