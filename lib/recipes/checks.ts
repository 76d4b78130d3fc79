/** What a training recipe must be, before anything is read. */
import { resolve } from 'node:path';
import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { trainingOptions } from '../train/index.js';
import { methods } from './method.js';
import { recipeDefaults, type TrainRecipe } from './recipe.js';

const RECIPE: Record<keyof TrainRecipe, true> = {
  model: true,
  manifest: true,
  output: true,
  method: true,
  language: true,
  fromScratch: true,
  teacher: true,
  split: true,
  audioRoot: true,
  validation: true,
  skipEmptyText: true,
  skipBad: true,
  strict: true,
  batchSize: true,
  epochs: true,
  steps: true,
  checkpointEvery: true,
  options: true,
  compute: true,
  gradientCheckpointing: true,
  saveAs: true,
  copyWeights: true,
  device: true,
  stream: true,
  signal: true,
  onCheck: true,
  onWarning: true,
  onStart: true,
  onUpdate: true,
  onValidation: true,
};
const VALIDATION: Record<keyof NonNullable<TrainRecipe['validation']>, true> = {
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

const KINDS: Partial<Record<keyof TrainRecipe, Kind>> = {
  method: oneOf(...Object.keys(methods)),
  language: text('a code or name of a language'),
  fromScratch: yesOrNo,
  teacher: text('the path of a model folder'),
  split: names,
  audioRoot: text('the path of a folder'),
  skipEmptyText: yesOrNo,
  skipBad: yesOrNo,
  strict: yesOrNo,
  copyWeights: yesOrNo,
  batchSize: whole(1),
  epochs: [(value) => Number.isFinite(value) && (value as number) > 0, 'a number above 0'],
  steps: whole(1),
  checkpointEvery: whole(0),
  compute: oneOf('f32', 'bf16'),
  gradientCheckpointing: yesOrNo,
  saveAs: oneOf('f32', 'bf16', 'f16'),
  onCheck: call,
  onWarning: call,
  onStart: call,
  onUpdate: call,
  onValidation: call,
};

function check(name: string, value: unknown, [ok, expected]: Kind): void {
  if (ok(value)) return;
  const got = typeof value === 'string' ? JSON.stringify(value.slice(0, 60)) : String(value);
  throw new DistilWhisperError('ERR_ARGUMENT', `${name}: expected ${expected}, got ${got}`);
}

/** Refuses a recipe that cannot be meant. Throws ERR_ARGUMENT that names the option. */
export function checkRecipe(recipe: TrainRecipe): void {
  checkOptions('train', recipe, RECIPE);
  check('model', recipe.model, text('the path of a model folder'));
  check('manifest', recipe.manifest, text('the path of a manifest'));
  check('output', recipe.output, text('the path of a run folder'));
  for (const [name, kind] of Object.entries(KINDS) as [keyof TrainRecipe, Kind][]) {
    if (recipe[name] !== undefined) check(name, recipe[name], kind);
  }
  const { options = {}, validation, method = recipeDefaults.method } = recipe;
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_ARGUMENT', what);
  };
  if ('steps' in options) refuse('options: expected no steps there: they stand beside the options');
  trainingOptions({ ...options, steps: recipe.steps ?? 1 });
  methods[method].check(recipe);
  if (recipe.epochs !== undefined && recipe.steps !== undefined) {
    refuse('steps: expected either epochs or steps, got both');
  }
  if (validation === undefined) return;
  checkOptions('train, validation', validation, VALIDATION);
  const { manifest, split, every } = validation;
  if (manifest !== undefined) check('validation.manifest', manifest, text('the path of a manifest'));
  if (split !== undefined) check('validation.split', split, names);
  if (every !== undefined) check('validation.every', every, whole(0));
  const other = manifest !== undefined && resolve(manifest) !== resolve(recipe.manifest);
  if (!other && split === undefined) {
    refuse(
      'validation: expected a split or a manifest of its own, got neither: it would validate on what it trains on',
    );
  }
}
