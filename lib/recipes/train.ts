/** Whole training runs: from a model folder and a manifest to an expert file or a model folder. */
import { readFile, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { type BadRow, BadRowsError } from '../data/index.js';
import { DistilWhisperError } from '../errors/index.js';
import { evaluate } from '../evaluate/index.js';
import { ifThere, proveOutput, writeFileAtomic } from '../files/index.js';
import { Whisper } from '../model/index.js';
import { type FloatType, Stream, type Tensor } from '../tensor/index.js';
import { resolveLanguage, WhisperTokenizer } from '../text/index.js';
import {
  AudioBatches,
  checkTeacher,
  RunFolder,
  type RunReport,
  Trainer,
  type TrainingOptions,
  trainingDefaults,
  trainingOptions,
  type UpdateReport,
  type ValidationReport,
} from '../train/index.js';
import { Transcriber } from '../transcribe/index.js';
import {
  expertFileName,
  type FloatDtype,
  fromFloat32,
  type HostTensor,
  type ModelFolder,
  openModelFolder,
  weightEntries,
  writeExpert,
  writeModelFolder,
} from '../weights/index.js';
import { checkRecipe } from './checks.js';
import { digestOfRows, digestOfTokenizer, digestOfWeights } from './identity.js';
import { checkRows, readTrainingRows } from './training-rows.js';

export type TrainMethod = 'experts' | 'full';

/** What a recipe does where it says nothing else; the rest of it is `trainingDefaults`. */
export const recipeDefaults = {
  method: 'experts' as TrainMethod,
  batchSize: 16,
  epochs: 10,
  compute: 'f32' as FloatType,
  saveAs: 'f32' as FloatDtype,
};

export interface TrainRecipe {
  /** Model folder of the student. */
  model: string;
  manifest: string;
  /** Run folder: log, checkpoints, and the result. */
  output: string;
  /** 'experts': the language's gates and experts, the backbone frozen. 'full': every parameter. */
  method?: TrainMethod;
  /** Language of the expert, by code or name; rows of other languages are left out. Needed for experts. */
  language?: string;
  /** 'full' only: start from random weights; of the model folder the config and the tokenizer are used. */
  fromScratch?: boolean;
  /** Model folder of the teacher. Without one: cross-entropy alone. */
  teacher?: string;
  /**
   * Rows to train on, by their `split`; 'all': every row. Default: every row, and an error where some of them are marked as tests
   * or validation.
   */
  split?: string | readonly string[];
  /** Folder that the manifests' relative audio paths start from. Default: their own. */
  audioRoot?: string;
  /** Rows for validation; the best parameters by their word error rate are kept. */
  validation?: { manifest?: string; split?: string | readonly string[]; every?: number };
  /** Rows without a text are skipped instead of refused. */
  skipEmptyText?: boolean;
  /** Go on without the rows that cannot be used. Default: they are an error, all in one. */
  skipBad?: boolean;
  /** Refuse rows whose audio is unusual or damaged but could be decoded, instead of warning of it. Default false. */
  strict?: boolean;
  batchSize?: number;
  /** Length of the run: passes over the rows, or updates. */
  epochs?: number;
  steps?: number;
  /** Updates between checkpoints. Default: a tenth of the run. */
  checkpointEvery?: number;
  options?: Partial<Omit<TrainingOptions, 'steps'>>;
  compute?: FloatType;
  /** Weights of student and teacher are read into memory instead of being the files' pages (see `WhisperOptions`). */
  copyWeights?: boolean;
  /** Keep each layer's inputs only, and run its forward again in the backward: less memory, the same numbers, more time. */
  gradientCheckpointing?: boolean;
  /** Type of the weights that are written. */
  saveAs?: FloatDtype;
  /** Where it computes: 'cpu' (default), 'cuda' or 'cuda:N'. A run goes on on the kind of device that it began on. */
  device?: string;
  /** Instead of `device`: a stream of the caller's, which stays open. */
  stream?: Stream;
  signal?: AbortSignal;
  /** While the audio is checked: what is unusual but was decoded. */
  onWarning?: (audio: string, warning: string) => void;
  /** While the audio is checked, before anything is written; not on resume. */
  onCheck?: (done: number, total: number) => void | Promise<void>;
  onStart?: (plan: TrainPlan) => void | Promise<void>;
  onUpdate?: (report: UpdateReport) => void | Promise<void>;
  onValidation?: (step: number, report: ValidationReport, isBest: boolean) => void | Promise<void>;
}

/** What a run is going to do. */
export interface TrainPlan {
  utterances: number;
  steps: number;
  trainable: number;
  /** Of the model, its new expert included. */
  parameters: number;
  /** Those that a row runs through at inference: its gates and one of the two FFNs, not both. */
  active: number;
  /** Rows left out by `skipBad`. */
  badRows: readonly BadRow[];
  /** Splits of tests or validation that are trained on, because they were asked for. */
  heldOut: readonly string[];
}

export interface TrainResult extends RunReport, TrainPlan {
  /** The expert file or the model folder. */
  result: string;
  /** Code of the expert's language; null for all parameters. */
  language: string | null;
}

const size = (parameters: Iterable<{ size: number }>): number => [...parameters].reduce((sum, p) => sum + p.size, 0);

/**
 * Runs a recipe to its end, or on from its last checkpoint. Everything is checked before the run folder is touched.
 * Errors: ERR_ARGUMENT for the recipe itself; those of model folders and manifests; BadRowsError for rows that cannot be used, of
 * manifests, labels and audio (with `skipBad` when none is left); ERR_INTERRUPTED leaves a run that the same recipe resumes.
 */
export async function train(recipe: TrainRecipe): Promise<TrainResult> {
  checkRecipe(recipe);
  const { method = recipeDefaults.method, batchSize = recipeDefaults.batchSize, validation } = recipe;
  const { compute = recipeDefaults.compute } = recipe;
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
  let teacher: Whisper | null = null;
  let trainer: Trainer | null = null;
  let transcriber: Transcriber | null = null;
  let outcome: TrainResult | undefined;
  try {
    const tokenizer = await WhisperTokenizer.fromFolder(recipe.model);
    if (language) tokenizer.checkLanguage(language.code);
    throwIfInterrupted();
    const { seed, compat, accumulation } = { ...trainingDefaults, ...recipe.options };
    const copyWeights = recipe.copyWeights ?? false;
    const settings = { compute, copyWeights, ...(method === 'full' && { trainable: () => true }) };
    model = recipe.fromScratch
      ? await Whisper.create(stream, folder.config, { ...settings, seed })
      : await Whisper.fromFolder(stream, folder, settings);
    throwIfInterrupted();
    let teacherWeights: string | null = null;
    if (recipe.teacher !== undefined) {
      const source = await openModelFolder(recipe.teacher);
      try {
        teacher = await Whisper.fromFolder(stream, source, { compute, copyWeights });
        checkTeacher(model, teacher.config);
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
    if (method === 'experts') await model.addExpert(language!.name, { seed, compat });
    const generation = folder.generationConfig ? { generation: folder.generationConfig } : {};
    if (validationRows.length > 0) transcriber = new Transcriber(model, tokenizer, generation);

    trainer = new Trainer({
      model,
      teacher,
      batches,
      options,
      folder: recipe.output,
      identity: {
        method,
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
        const result = await save(recipe, folder, model!, language?.name ?? null, report);
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
    const added = method === 'experts' ? model.trainable() : [];
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
    teacher?.dispose();
    model?.dispose();
    if (recipe.stream) recipe.stream.endStep();
    else stream.close();
    await folder.close();
  }
}

async function host(value: Tensor, shape: readonly number[], dtype: FloatDtype): Promise<HostTensor> {
  return fromFloat32(await value.floats(), shape, dtype);
}

/** Writes what was trained: the expert file, or the model folder with the files of the one it started from. */
async function save(
  recipe: TrainRecipe,
  folder: ModelFolder,
  model: Whisper,
  language: string | null,
  report: RunReport,
): Promise<string> {
  const { saveAs: dtype = recipeDefaults.saveAs, method = recipeDefaults.method } = recipe;
  const tensors = new Map<string, HostTensor>();
  if (method === 'experts') {
    const expert = model.experts.get(language!)!;
    for (const [name, p] of expert.parameters) tensors.set(name, await host(p.value, p.shape, dtype));
    const path = join(recipe.output, expertFileName(language!));
    await writeExpert(path, model.config, language!, tensors, { steps: String(report.steps) });
    return path;
  }
  for (const [name, p] of model.parameters) tensors.set(name, await host(p.value, p.shape, dtype));
  const files: Record<string, Uint8Array> = {};
  for (const path of folder.processorFiles) files[basename(path)] = await readFile(path);
  const path = join(recipe.output, 'model');
  await writeModelFolder(
    path,
    {
      config: folder.config,
      configExtra: folder.configJson,
      ...(folder.generationConfig && { generationConfig: folder.generationConfig }),
      ...(folder.preprocessorConfig && { preprocessorConfig: folder.preprocessorConfig }),
      files,
      tensors: weightEntries(tensors),
    },
    { replace: true },
  );
  return path;
}
