/** Whole training runs: from a model folder and a manifest to an expert file or a model folder. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { BadRowsError } from '../data/index.js';
import { DistilWhisperError } from '../errors/index.js';
import { evaluate } from '../evaluate/index.js';
import { ifThere, proveOutput, writeFileAtomic } from '../files/index.js';
import { Whisper } from '../model/index.js';
import { Stream } from '../tensor/index.js';
import { resolveLanguage, WhisperTokenizer } from '../text/index.js';
import {
  AudioBatches,
  checkTeacher,
  noTeacher,
  RunFolder,
  type Teacher,
  Trainer,
  trainingDefaults,
  trainingOptions,
} from '../train/index.js';
import { Transcriber } from '../transcribe/index.js';
import { openModelFolder } from '../weights/index.js';
import { checkRecipe } from './checks.js';
import { digestOfRows, digestOfTokenizer, digestOfWeights } from './identity.js';
import { methods } from './method.js';
import { recipeDefaults, type TrainPlan, type TrainRecipe, type TrainResult } from './recipe.js';
import { checkRows, readTrainingRows } from './training-rows.js';

const size = (parameters: Iterable<{ size: number }>): number => [...parameters].reduce((sum, p) => sum + p.size, 0);

/**
 * Runs a recipe to its end, or on from its last checkpoint. Everything is checked before the run folder is touched.
 * Errors: ERR_ARGUMENT for the recipe itself; those of model folders and manifests; BadRowsError for rows that cannot be used, of
 * manifests, labels and audio (with `skipBad` when none is left); ERR_INTERRUPTED leaves a run that the same recipe resumes.
 */
export async function train(recipe: TrainRecipe): Promise<TrainResult> {
  checkRecipe(recipe);
  const { method: name = recipeDefaults.method, batchSize = recipeDefaults.batchSize, validation } = recipe;
  const { compute = recipeDefaults.compute, saveAs = recipeDefaults.saveAs } = recipe;
  const method = methods[name];
  const language = recipe.language === undefined ? null : resolveLanguage(recipe.language);
  const reportPath = join(recipe.output, 'report.json');
  const resumes = await RunFolder.check(recipe.output);
  if (resumes) await proveOutput(reportPath);
  const { signal } = recipe;
  const throwIfInterrupted = (): void => {
    if (!signal?.aborted) return;
    throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted before the training began; nothing was written');
  };
  const rows = readTrainingRows(recipe, language?.code);

  const folder = await openModelFolder(recipe.model);
  const stream = recipe.stream ?? new Stream({ device: recipe.device ?? 'cpu' });
  let model: Whisper | null = null;
  let taught: Whisper | null = null;
  let trainer: Trainer | null = null;
  let transcriber: Transcriber | null = null;
  let outcome: TrainResult | undefined;
  try {
    const tokenizer = await WhisperTokenizer.fromFolder(recipe.model);
    if (language) tokenizer.checkLanguage(language.code);
    throwIfInterrupted();
    const { seed, compat, accumulation, distillation } = { ...trainingDefaults, ...recipe.options };
    const copyWeights = recipe.copyWeights ?? false;
    const settings = { compute, copyWeights, ...(method.trainable && { trainable: method.trainable }) };
    model = recipe.fromScratch
      ? await Whisper.create(stream, folder.config, { ...settings, seed })
      : await Whisper.fromFolder(stream, folder, settings);
    throwIfInterrupted();
    let teacher: Teacher | Whisper | null = null;
    let teacherWeights: string | null = null;
    if (recipe.teacher !== undefined) {
      const source = await openModelFolder(recipe.teacher);
      try {
        if (distillation !== 'none') taught = await Whisper.fromFolder(stream, source, { compute, copyWeights });
        checkTeacher(model, source.config);
        teacher = taught ?? noTeacher(source.config);
        teacherWeights = await digestOfWeights(source, signal);
      } finally {
        await source.close();
      }
    }
    throwIfInterrupted();
    const sampling = { batchSize, seed, compat };
    const { strict = false, onWarning } = recipe;
    const warned = { strict, ...(onWarning && { onWarning }) };
    const {
      batches,
      validation: validationRows,
      leftOut,
      bad: badRows,
    } = await checkRows(
      rows,
      recipe,
      tokenizer,
      (entries, onBadRow) => new AudioBatches(entries, folder.config, tokenizer, { ...sampling, ...warned, onBadRow }),
    );
    const perEpoch = Math.max(1, Math.floor(batches.sampler.batchesPerEpoch / accumulation));
    const steps = recipe.steps ?? Math.ceil((recipe.epochs ?? recipeDefaults.epochs) * perEpoch);
    const options = trainingOptions({ ...recipe.options, steps });
    const added = await method.prepare(model, { language: language?.name ?? null, seed, compat });
    const generation = folder.generationConfig ? { generation: folder.generationConfig } : {};
    if (validationRows.length > 0) transcriber = new Transcriber(model, tokenizer, generation);

    trainer = new Trainer({
      model,
      teacher,
      batches,
      options,
      folder: recipe.output,
      identity: {
        method: name,
        language: language?.code ?? null,
        batchSize,
        utterances: batches.length,
        ...(leftOut.length > 0 && { leftOut }),
        'training rows': await digestOfRows(batches.entries),
        ...(transcriber && {
          'validation rows': await digestOfRows(validationRows),
          validateEvery: validation?.every ?? perEpoch,
          generation: folder.generationConfig ?? null,
        }),
        'model weights': recipe.fromScratch ? 'from scratch' : await digestOfWeights(folder, signal),
        'teacher weights': teacherWeights,
        tokenizer: await digestOfTokenizer(folder),
      },
      ...(recipe.checkpointEvery !== undefined && { checkpointEvery: recipe.checkpointEvery }),
      gradientCheckpointing: recipe.gradientCheckpointing ?? false,
      ...(transcriber && {
        validateEvery: validation?.every ?? perEpoch,
        validate: async () => {
          const { total, badRows: lost } = await evaluate(transcriber!, validationRows, {
            checked: true,
            ...(recipe.signal && { signal: recipe.signal }),
          });
          // Scores over other rows cannot be compared.
          if (lost.length > 0) throw new BadRowsError(lost);
          return { score: total.wer, wer: total.wer, cer: total.cer, gateShare: total.gateShare };
        },
      }),
      ...(signal && { signal }),
      onEnd: async (report) => {
        const result = await method.save(model!, {
          output: recipe.output,
          folder,
          language: language?.name ?? null,
          dtype: saveAs,
          steps: report.steps,
        });
        outcome = { ...report, ...plan, result, language: language?.code ?? null };
        // A run that was at its end has nothing to add to what it said then.
        if (report.updates === 0 && (await ifThere(stat(reportPath)))) return;
        const text = Buffer.from(`${JSON.stringify(outcome, null, 2)}\n`);
        await writeFileAtomic(reportPath, (sink) => sink.append(text));
      },
      ...(recipe.onUpdate && { onUpdate: recipe.onUpdate }),
      ...(recipe.onValidation && { onValidation: recipe.onValidation }),
    });
    const backbone = size(model.parameters.values());
    const plan: TrainPlan = {
      utterances: batches.length,
      steps,
      trainable: size(model.trainable()),
      parameters: backbone + size(added),
      active: backbone + size(added.filter(({ name }) => name.includes('.gate_'))),
      badRows,
      heldOut: rows.heldOut,
    };
    throwIfInterrupted();
    await recipe.onStart?.(plan);
    await trainer.run();
    return outcome!;
  } finally {
    await transcriber?.close();
    trainer?.dispose();
    taught?.dispose();
    model?.dispose();
    if (recipe.stream) recipe.stream.endStep();
    else stream.close();
    await folder.close();
  }
}
