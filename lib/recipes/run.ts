/** A run before it begins: what it reads, checked; how it is run, planned; its models, loaded when they are asked for. */
import { join } from 'node:path';
import { type BadRow, type Dataset, digestOfRows } from '../data/index.js';
import { DistilWhisperError } from '../errors/index.js';
import { proveOutput, readJsonObject } from '../files/index.js';
import { type HubOptions, resolveAdapter, resolveExperts, resolveModel } from '../hub/index.js';
import { loraDefaults, Whisper } from '../model/index.js';
import { elementType, type FloatName, type Parameter, Stream } from '../tensor/index.js';
import { resolveLanguage, WhisperTokenizer } from '../text/index.js';
import {
  AudioBatches,
  type BatchSource,
  checkTeacher,
  onnxTeacherFiles,
  RecallingBatches,
  RunFolder,
  type Teacher,
  type TrainingOptions,
  trainingDefaults,
  trainingOptions,
} from '../train/index.js';
import {
  adapterFiles,
  DTYPE_BYTES,
  type ModelFolder,
  openAdapter,
  openExpert,
  openModelFolder,
  type WhisperConfig,
} from '../weights/index.js';
import { checkRecipe, typesOf } from './checks.js';
import type { Closers } from './closers.js';
import { frozenNames } from './freeze.js';
import { digestOfFiles, digestOfTokenizer, digestOfWeights } from './identity.js';
import { type Method, methods, type Preparation } from './method.js';
import { planRun, type RunPlan } from './plan.js';
import { recipeDefaults, type SaveType, type TimePlan, type TrainPlan, type TrainRecipe } from './recipe.js';
import { type ChosenTeacher, chooseTeacher, loadTeacher } from './teacher.js';
import { checkRows, type LeftOut, openTrainingRows, timestampShareOf } from './training-rows.js';

/** Bytes of a value that trains, in a checkpoint: itself and its moments. */
const SAVED = 12;
/** Checkpoints at once: two are kept, and a third is written. */
const CHECKPOINTS = 3;

/** What a run has read and decided. */
export interface Run {
  recipe: TrainRecipe;
  method: Method;
  /** Codes and lower-case English names of the languages that are taught, where they are named. */
  languages: readonly { code: string; name: string }[];
  preparation: Preparation;
  folder: ModelFolder;
  tokenizer: WhisperTokenizer;
  stream: Stream;
  /** Type of the weights that are written. */
  saveAs: SaveType;
  /** Which parameters of the backbone train, by name; undefined: none. */
  trainable: Method['trainable'];
  batches: AudioBatches;
  validation: Dataset | null;
  badRows: BadRow[];
  leftOut: LeftOut[];
  heldOut: string[];
  options: TrainingOptions;
  /** See `TrainPlan`. */
  extension: TrainPlan['extension'];
  /** Updates in an epoch. */
  perEpoch: number;
  teacher: ChosenTeacher;
  plan: RunPlan;
}

/** The models of a run, loaded. */
export interface LoadedRun {
  model: Whisper;
  teacher: Teacher | Whisper | null;
  batches: BatchSource;
  plan: TrainPlan;
  /** Type that a cache's rows were computed in; null without a cache. */
  rows: FloatName | null;
}

export function throwIfInterrupted(signal: AbortSignal | undefined): void {
  if (!signal?.aborted) return;
  throw new DistilWhisperError('ERR_INTERRUPTED', 'interrupted before the training began; nothing was written');
}

/** Reads, checks and plans what a recipe says; nothing is written. Errors: those of `train` that come before it begins. */
export async function openRun(recipe: TrainRecipe, closers: Closers): Promise<Run> {
  checkRecipe(recipe);
  const { method: name = recipeDefaults.method, signal, output } = recipe;
  const method = methods[name];
  const languages = [recipe.language ?? recipe.languages ?? []].flat().map(resolveLanguage);
  const resumes = await RunFolder.check(output);
  if (resumes) await proveOutput(join(output, 'report.json'));
  // Names first: what is nowhere is found before anything is loaded.
  const hub = { signal, ...recipe.hub };
  // Labels are counted by the student's tokenizer; otherwise tables here are read before anything is fetched.
  const counted = recipe.maxLabels === undefined ? undefined : await resolveModel(recipe.model, hub);
  const counter = counted === undefined ? undefined : await WhisperTokenizer.fromFolder(counted);
  const rows = await openTrainingRows(recipe, {
    language: recipe.language === undefined ? undefined : languages[0]!.code,
    tokenizer: counter,
    closers,
  });
  const path = counted ?? (await resolveModel(recipe.model, hub));
  const start = await startOf(recipe, method, hub);
  const graphs = recipe.teacher === undefined ? null : await onnxTeacherFiles(recipe.teacher);
  const teacherPath = recipe.teacher === undefined || graphs ? null : await resolveModel(recipe.teacher, hub);
  const folder = await openModelFolder(path);
  closers.add(() => folder.close());
  const frozen = recipe.freeze === undefined ? null : frozenNames([recipe.freeze].flat(), folder.config);
  const trainable = frozen ? (name: string) => !frozen.has(name) : method.trainable;
  const stream = recipe.stream ?? new Stream({ device: recipe.device ?? 'cpu' });
  closers.add(() => (recipe.stream ? recipe.stream.endStep() : stream.close()));
  const tokenizer = counter ?? (await WhisperTokenizer.fromFolder(path));
  for (const { code } of languages) tokenizer.checkLanguage(code);
  let source: ModelFolder | null = null;
  if (graphs) checkTeacher(folder.config, graphs.config);
  if (teacherPath !== null) {
    const opened = await openModelFolder(teacherPath);
    source = opened;
    closers.add(() => opened.close());
    checkTeacher(folder.config, source.config);
  }
  await checkStart(start, method, folder.config);
  throwIfInterrupted(signal);
  const { seed, compat, accumulation } = { ...trainingDefaults, ...recipe.options };
  const batchSize = typeof recipe.batchSize === 'number' ? recipe.batchSize : recipeDefaults.batchSize;
  const { strict, onWarning } = recipe;
  const { languageTemperature: temperature, augmentation } = recipe;
  const timestampShare = timestampShareOf(recipe);
  const dealt = { batchSize, temperature, augmentation, timestampShare, seed, compat, strict, onWarning };
  const { batches, validation, leftOut, bad } = await checkRows(
    rows,
    recipe,
    tokenizer,
    (data, onBadRow) => new AudioBatches(data, folder.config, tokenizer, { ...dealt, onBadRow }),
  );
  const perEpoch = Math.max(1, Math.floor(batches.sampler.batchesPerEpoch / accumulation));
  const steps = recipe.steps ?? Math.ceil((recipe.epochs ?? recipeDefaults.epochs) * perEpoch);
  const options = trainingOptions({ ...recipe.options, steps });
  const before = resumes ? await RunFolder.length(output) : null;
  const teacher = await chooseTeacher(recipe, { folder: source, graphs }, folder.config, batches);
  throwIfInterrupted(signal);
  const preparation = { languages: languages.map(({ name }) => name), seed, compat, lora: recipe.lora, start };
  const chosen = resumes && typeof recipe.batchSize !== 'number' ? await chosenBefore(output, batchSize) : null;
  const plan = await planRun({
    recipe,
    folder,
    teacher,
    trainable,
    batches,
    options,
    preparation,
    batchSize,
    stream,
    before: chosen,
  });
  throwIfInterrupted(signal);
  return {
    recipe,
    method,
    languages,
    preparation,
    folder,
    tokenizer,
    stream,
    saveAs: typesOf(recipe).saveAs,
    trainable,
    batches,
    validation,
    badRows: bad,
    leftOut,
    heldOut: rows.heldOut,
    options,
    extension:
      before && before.updates > 0 && before.steps !== steps ? { from: before.steps, at: before.updates } : null,
    perEpoch,
    teacher,
    plan,
  };
}

/** What the run begins with besides its model, on this machine. Errors: those of `resolveExperts` and `resolveAdapter`. */
async function startOf({ continueFrom }: TrainRecipe, { start }: Method, hub: HubOptions): Promise<string[]> {
  const names = [continueFrom ?? []].flat();
  if (start !== 'adapter') return (await Promise.all(names.map((name) => resolveExperts(name, hub)))).flat();
  if (names.length > 1)
    throw new DistilWhisperError('ERR_ARGUMENT', `continueFrom: expected one adapter, got ${names.join(', ')}`);
  return Promise.all(names.map((name) => resolveAdapter(name, hub)));
}

/** Whether that fits the model. Errors: those of `openExpert` and `openAdapter`. */
async function checkStart(paths: readonly string[], { start }: Method, config: WhisperConfig): Promise<void> {
  for (const path of paths) await (await (start === 'adapter' ? openAdapter : openExpert)(path, config)).close();
}

/** The same files, the same digest; of an adapter its settings too. */
async function digestOfStart(paths: readonly string[], { start }: Method): Promise<string> {
  return digestOfFiles(start === 'adapter' ? await adapterFiles(paths[0]!) : paths);
}

/** What the run in a folder chose when it began. What run.json says otherwise is held against the run when it is opened. */
async function chosenBefore(output: string, batchSize: number): Promise<{ compute: FloatName; microBatch: number }> {
  const { compute, microBatch } = await readJsonObject(join(output, 'run.json'), 'ERR_RUN');
  const isPart = Number.isSafeInteger(microBatch) && (microBatch as number) >= 1 && (microBatch as number) <= batchSize;
  return {
    compute: compute === 'bf16' ? 'bf16' : 'fp32',
    microBatch: isPart ? (microBatch as number) : batchSize,
  };
}

const sizeOf = (parameters: Iterable<{ size: number }>): number =>
  [...parameters].reduce((sum, { size }) => sum + size, 0);

/** Loads a run's models. `adds`: what the teacher says is added to its cache, where the run fills one. */
export async function loadRun(run: Run, closers: Closers, { adds }: { adds: boolean }): Promise<LoadedRun> {
  const { recipe, method, folder, stream, options, plan } = run;
  const { compute } = plan.batch;
  const copyWeights = recipe.copyWeights ?? false;
  const settings = { compute, copyWeights, trainable: run.trainable };
  const model = recipe.fromScratch
    ? await Whisper.create(stream, folder.config, { ...settings, seed: options.seed })
    : await Whisper.fromFolder(stream, folder, settings);
  closers.add(() => model.dispose());
  throwIfInterrupted(recipe.signal);
  const loaded = await loadTeacher(run.teacher, stream, { compute, copyWeights, adds });
  closers.add(loaded.close);
  throwIfInterrupted(recipe.signal);
  const added = await method.prepare(model, run.preparation);
  const { cache, runtime } = loaded;
  const batches = cache
    ? new RecallingBatches(run.batches, cache, run.teacher.keys, options.accumulation)
    : (runtime?.ahead(run.batches) ?? run.batches);
  return {
    model,
    teacher: loaded.teacher,
    batches,
    plan: summary(run, model, added),
    rows: cache?.source.compute ?? null,
  };
}

function summary(run: Run, model: Whisper, added: readonly Parameter[]): TrainPlan {
  const { batches, options, badRows, heldOut, plan, teacher } = run;
  const backbone = sizeOf(model.parameters.values());
  const trainable = sizeOf(model.trainable());
  const { seconds } = batches;
  const width = teacher.config?.d_model ?? 0;
  let rows = 0;
  for (let i = 0; i < batches.length; i++) rows += batches.labelCount(i) / batches.length;
  const best = run.validation ? 4 * trainable : 0;
  return {
    utterances: batches.length,
    languages: languagesOf(batches),
    hours: seconds === null ? null : seconds / 3600,
    steps: options.steps,
    extension: run.extension,
    trainable,
    parameters: backbone + sizeOf(added),
    active: backbone + sizeOf(added.filter(({ name }) => run.method.active(name))),
    badRows,
    heldOut,
    batch: plan.batch,
    memory: plan.memory,
    teacher: { kind: teacher.kind, flop: plan.flop.now, cachedFlop: plan.flop.cached },
    disk: {
      run: CHECKPOINTS * SAVED * trainable + best + trainable * DTYPE_BYTES[elementType(run.saveAs)],
      teacherCache: teacher.kind === 'filling' ? Math.ceil(2 * width * rows * teacher.missing) : 0,
    },
  };
}

function languagesOf(batches: AudioBatches): TrainPlan['languages'] {
  const counts = new Map<string, number>();
  for (const { language } of batches.data.entries()) counts.set(language, (counts.get(language) ?? 0) + 1);
  const dealt = batches.sampler.languageCounts();
  return [...counts]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([language, utterances]) => ({ language, utterances, epoch: dealt.get(language) ?? 0 }));
}

/** How long a run takes whose updates take so many seconds, by its rehearsal, and of which so many are left; `first`: the first of them. */
export function timeOf(
  { plan, teacher, options }: Run,
  { first, update }: { first: number; update: number },
  left: number,
): TimePlan {
  const more = Math.max(0, first - update);
  if (teacher.kind !== 'filling') return { update, first, run: more + update * left, teacherCache: null };
  // Updates in which the teacher is asked: those of the first pass.
  const asked = Math.min(left, Math.ceil(teacher.missing / (plan.batch.size * options.accumulation)));
  const cached = (update * plan.flop.cached) / plan.flop.now;
  const seconds = more + update * asked + cached * (left - asked);
  return { update, first, run: seconds, teacherCache: (update - cached) * asked };
}

/** What makes a run the one that it is, beyond its options: the same when it goes on. */
export async function identityOf(run: Run, rows: FloatName | null): Promise<Record<string, unknown>> {
  const { recipe, method, batches, leftOut, validation, folder, perEpoch, languages, teacher, plan, preparation } = run;
  const { size, microBatch } = plan.batch;
  return {
    // Distilled experts are experts that have a teacher.
    method: method.start === 'experts' ? 'experts' : recipe.method,
    freeze: recipe.freeze === undefined ? undefined : [recipe.freeze].flat().sort(),
    language: recipe.language === undefined ? null : languages[0]!.code,
    languages: method.start === 'experts' && recipe.languages ? languages.map(({ code }) => code) : undefined,
    lora: recipe.method === 'lora' ? { ...loraDefaults, ...recipe.lora } : undefined,
    'continued from': preparation.start.length > 0 ? await digestOfStart(preparation.start, method) : undefined,
    batchSize: size,
    // A whole batch is what runs were before there were parts.
    microBatch: microBatch < size ? microBatch : undefined,
    utterances: batches.length,
    leftOut: leftOut.length > 0 ? leftOut : undefined,
    'data weights': batches.data.weights,
    languageTemperature: (recipe.languageTemperature ?? 1) === 1 ? undefined : recipe.languageTemperature,
    augmentation: batches.augmentation ?? undefined,
    timestampShare: timestampShareOf(recipe) || undefined,
    'training rows': await digestOfRows(batches.data),
    'validation rows': validation ? await digestOfRows(validation) : undefined,
    validateEvery: validation ? (recipe.validation?.every ?? perEpoch) : undefined,
    generation: validation ? folder.generationConfig : undefined,
    'model weights': recipe.fromScratch ? 'from scratch' : await digestOfWeights(folder, recipe.signal),
    'teacher weights': teacher.weights,
    teacherRows: rows === null ? undefined : `bf16, computed in ${rows}`,
    tokenizer: await digestOfTokenizer(folder),
  };
}
