/** What a training recipe must be, before anything is read. */
import { resolve } from 'node:path';
import { augmentationOptions } from '../audio/index.js';
import { SUBSETS, TEXT_FORMS } from '../data/index.js';
import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { isJsonObject } from '../files/index.js';
import { chosenType, type FloatName } from '../tensor/index.js';
import { trainingOptions } from '../train/index.js';
import type { LoraConfig } from '../weights/index.js';
import { methods } from './method.js';
import { recipeDefaults, type SaveType, saveTypes, type TrainRecipe } from './recipe.js';
import { ROWS } from './training-rows.js';

const RECIPE: Record<keyof TrainRecipe, true> = {
  ...ROWS,
  model: true,
  output: true,
  method: true,
  freeze: true,
  fromScratch: true,
  lora: true,
  continueFrom: true,
  teacher: true,
  teacherCache: true,
  validation: true,
  languageTemperature: true,
  augmentation: true,
  batchSize: true,
  maxMemory: true,
  epochs: true,
  steps: true,
  checkpointEvery: true,
  tensorboard: true,
  gateHistograms: true,
  options: true,
  compute: true,
  gradientCheckpointing: true,
  saveAs: true,
  copyWeights: true,
  device: true,
  stream: true,
  onStart: true,
  onTime: true,
  onUpdate: true,
  onValidation: true,
};
const VALIDATION: Record<keyof NonNullable<TrainRecipe['validation']>, true> = {
  data: true,
  manifest: true,
  split: true,
  every: true,
};

type Kind = readonly [ok: (value: unknown) => boolean, expected: string];

const text = (expected: string): Kind => [(value) => typeof value === 'string' && value !== '', expected];
const whole = (least: number): Kind => [
  (value) => Number.isSafeInteger(value) && (value as number) >= least,
  `a whole number from ${least}`,
];
const oneOf = (...choices: string[]): Kind => [
  (value) => choices.includes(value as string),
  choices.map((choice) => `'${choice}'`).join(' or '),
];
const yesOrNo: Kind = [(value) => typeof value === 'boolean', 'true or false'];
const call: Kind = [(value) => typeof value === 'function', 'a function'];
const names: Kind = [
  (value) =>
    typeof value === 'string' ||
    (Array.isArray(value) && value.length > 0 && value.every((name) => typeof name === 'string')),
  'a name or a list of names',
];

const dataSets: Kind = [names[0], 'the path or name of a data set or a list of them'];
const seconds: Kind = [(value) => Number.isFinite(value) && (value as number) >= 0, 'a number of seconds'];

const KINDS: Partial<Record<keyof TrainRecipe, Kind>> = {
  method: oneOf(...Object.keys(methods)),
  language: text('a code or name of a language'),
  freeze: names,
  fromScratch: yesOrNo,
  continueFrom: names,
  teacher: text('the path of a model folder, or a name'),
  teacherCache: text("the path of a folder or 'auto'"),
  split: names,
  languages: names,
  languageTemperature: [(value) => Number.isFinite(value) && (value as number) > 0, 'a number above 0'],
  minDuration: seconds,
  maxDuration: seconds,
  maxLabels: whole(1),
  limit: whole(1),
  subset: oneOf(...Object.keys(SUBSETS)),
  text: oneOf(...TEXT_FORMS),
  timestamps: yesOrNo,
  timestampShare: [(value) => (value as number) > 0 && (value as number) <= 1, 'a share above 0, up to 1'],
  audioRoot: text('the path of a folder'),
  skipEmptyText: yesOrNo,
  skipBad: yesOrNo,
  strict: yesOrNo,
  copyWeights: yesOrNo,
  batchSize: [(value) => value === 'auto' || whole(1)[0](value), "'auto' or a whole number from 1"],
  maxMemory: whole(1),
  epochs: [(value) => Number.isFinite(value) && (value as number) > 0, 'a number above 0'],
  steps: whole(1),
  checkpointEvery: whole(0),
  tensorboard: yesOrNo,
  gateHistograms: whole(0),
  gradientCheckpointing: yesOrNo,
  onCheck: call,
  onWarning: call,
  onStart: call,
  onTime: call,
  onUpdate: call,
  onValidation: call,
};

function check(name: string, value: unknown, [ok, expected]: Kind): void {
  if (ok(value)) return;
  const got = typeof value === 'string' ? JSON.stringify(value.slice(0, 60)) : String(value);
  throw new DistilWhisperError('ERR_ARGUMENT', `${name}: expected ${expected}, got ${got}`);
}

/** In which types a recipe computes, where it says so, and writes. Throws ERR_ARGUMENT. */
export const typesOf = ({
  compute,
  saveAs = recipeDefaults.saveAs,
}: Pick<TrainRecipe, 'compute' | 'saveAs'>): { compute: FloatName | undefined; saveAs: SaveType } => ({
  compute: compute === undefined ? undefined : chosenType<FloatName>('compute', compute, ['fp32', 'bf16']),
  saveAs: chosenType('saveAs', saveAs, saveTypes),
});

/** What every recipe that reads data and writes a folder must be. Throws ERR_ARGUMENT that names the option. */
export function checkValues(recipe: Partial<Record<keyof TrainRecipe, unknown>>): void {
  if (recipe.manifest !== undefined) check('manifest', recipe.manifest, text('the path of a manifest'));
  else check('data', recipe.data, dataSets);
  if (recipe.data !== undefined && recipe.manifest !== undefined)
    throw new DistilWhisperError('ERR_ARGUMENT', 'manifest: expected either data or a manifest, got both');
  if (recipe.language !== undefined && recipe.languages !== undefined)
    throw new DistilWhisperError('ERR_ARGUMENT', 'languages: expected either language or languages, got both');
  if (recipe.timestampShare !== undefined && !recipe.timestamps)
    throw new DistilWhisperError('ERR_ARGUMENT', 'timestampShare: expected with timestamps, got it without');
  check('output', recipe.output, text('the path of a folder'));
  for (const [name, kind] of Object.entries(KINDS) as [keyof TrainRecipe, Kind][]) {
    if (recipe[name] !== undefined) check(name, recipe[name], kind);
  }
  typesOf(recipe as Pick<TrainRecipe, 'compute' | 'saveAs'>);
}

const LORA: Record<keyof LoraConfig, Kind> = {
  rank: whole(1),
  alpha: [(value) => Number.isFinite(value) && (value as number) > 0, 'a number above 0'],
  targets: [names[0], "ends of linear layers' names, or a pattern"],
  rankPattern: numbersBy(whole(1)[0], 'whole numbers from 1'),
  alphaPattern: numbersBy((value) => Number.isFinite(value) && (value as number) > 0, 'numbers above 0'),
  rsLora: yesOrNo,
  dropout: [(value) => typeof value === 'number' && value >= 0 && value < 1, 'a share from 0 to below 1'],
};

function numbersBy(ok: (value: unknown) => boolean, what: string): Kind {
  const isPattern = (key: string): boolean => {
    try {
      return Boolean(new RegExp(key));
    } catch {
      return false;
    }
  };
  return [
    (value) => isJsonObject(value) && Object.entries(value).every(([key, one]) => isPattern(key) && ok(one)),
    `an object of ${what} by patterns of names`,
  ];
}

function checkLora(lora: Partial<LoraConfig>): void {
  if (!isJsonObject(lora)) check('lora', lora, [() => false, 'settings of an adapter']);
  checkOptions('lora', lora, Object.fromEntries(Object.keys(LORA).map((name) => [name, true as const])));
  for (const [name, kind] of Object.entries(LORA) as [keyof LoraConfig, Kind][])
    if (lora[name] !== undefined) check(`lora.${name}`, lora[name], kind);
}

/** Refuses a recipe that cannot be meant. Throws ERR_ARGUMENT that names the option. */
export function checkRecipe(recipe: TrainRecipe): void {
  checkOptions('train', recipe, RECIPE);
  check('model', recipe.model, text('the path of a model folder, or a name'));
  checkValues(recipe);
  const { options = {}, validation, method = recipeDefaults.method } = recipe;
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_ARGUMENT', what);
  };
  if ('steps' in options) refuse('options: expected no steps there: they stand beside the options');
  trainingOptions({ ...options, steps: recipe.steps ?? 1 });
  if (recipe.lora !== undefined) checkLora(recipe.lora);
  methods[method].check(recipe);
  if (recipe.continueFrom !== undefined && methods[method].start === undefined)
    refuse(`continueFrom: expected with experts or 'lora', got it with '${method}', which goes on from a model`);
  if (recipe.freeze !== undefined && !methods[method].trainable) {
    refuse(`freeze: expected with method 'full', got it with '${method}', which leaves the model as it is`);
  }
  if (recipe.epochs !== undefined && recipe.steps !== undefined) {
    refuse('steps: expected either epochs or steps, got both');
  }
  if (recipe.timestamps && options.compat === 'reference') {
    refuse("timestamps: expected with compat 'paper', got 'reference', whose labels have none");
  }
  if (recipe.languageTemperature !== undefined && recipe.language !== undefined) {
    refuse('languageTemperature: expected with rows of several languages, got it with those of one (language)');
  }
  const { speedFactors, noise, noiseFolder } = augmentationOptions(recipe.augmentation);
  if (recipe.teacherCache !== undefined) {
    // Its rows are of the audio as it is; masks are the student's alone.
    for (const [name, given] of Object.entries({ speedFactors, noise, noiseFolder })) {
      if (given === null || given.length === 0) continue;
      refuse(
        `teacherCache: expected without ${name}, which changes the audio that the teacher hears, got both; without a cache it hears it, and masks (applySpecAugment) go with a cache`,
      );
    }
    if (recipe.teacher === undefined) refuse('teacherCache: expected with a teacher, got it without one');
    if (options.distillation === 'none') refuse("teacherCache: expected with a distillation, got distillation 'none'");
    // It averages over padding too, of which a cache has no rows.
    if (options.compat === 'reference') refuse("teacherCache: expected with compat 'paper', got 'reference'");
  }
  if (validation === undefined) return;
  checkOptions('train, validation', validation, VALIDATION);
  const { data, manifest, split, every } = validation;
  if (data !== undefined) check('validation.data', data, dataSets);
  if (data !== undefined && manifest !== undefined) {
    refuse('validation.manifest: expected either data or a manifest, got both');
  }
  if (manifest !== undefined) check('validation.manifest', manifest, text('the path of a manifest'));
  if (split !== undefined) check('validation.split', split, names);
  if (every !== undefined) check('validation.every', every, whole(0));
  const other =
    data !== undefined ||
    (manifest !== undefined && (recipe.manifest === undefined || resolve(manifest) !== resolve(recipe.manifest)));
  if (!other && split === undefined) {
    refuse(
      'validation: expected a split or a manifest of its own, got neither: it would validate on what it trains on',
    );
  }
}
