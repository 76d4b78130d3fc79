/** What a benchmark is told: which methods teach which languages, with which seeds, and what they are measured on. */
import { checkOptions, DistilWhisperError, shown } from '../../errors/index.js';
import { isJsonObject, type JsonObject, readJsonObject } from '../../files/index.js';
import { resolveLanguage } from '../../text/index.js';
import type { LoraConfig } from '../../weights/index.js';
import { checkRecipe } from '../checks.js';
import { recipeDefaults, type TrainMethod, type TrainRecipe } from '../recipe.js';

/** Ways to teach, by name: a method of `train`, with the benchmark's teacher or without. */
export const WAYS: Readonly<Record<string, { method: TrainMethod; taught: boolean }>> = {
  experts: { method: 'experts', taught: false },
  distil: { method: 'distil', taught: true },
  lora: { method: 'lora', taught: false },
  'lora-distil': { method: 'lora', taught: true },
  full: { method: 'full', taught: false },
  'full-distil': { method: 'full', taught: true },
};

/** What a method has of its own. */
export interface MethodSpec {
  /** Of `WAYS` the one that it is, where its name is another: one way with several options. Default: that of its name. */
  way?: string | undefined;
  /** Peaks of the learning rate to try, with the first seed; the one with the best validation goes on. Default: that of `options`. */
  learningRates?: readonly number[] | undefined;
  /** Beside and before those of the benchmark. */
  options?: TrainRecipe['options'];
  lora?: Partial<LoraConfig> | undefined;
  epochs?: number | undefined;
  steps?: number | undefined;
}

/** Where rows are: data sets as `openDataset` takes them, or a manifest. */
export interface RowsSpec {
  data?: string | readonly string[] | undefined;
  manifest?: string | undefined;
  split?: string | readonly string[] | undefined;
}

/** A benchmark's file is this as JSON; its paths start from the folder that the program runs in. */
export interface BenchmarkSpec {
  /** The student, and whose help the ways with a teacher have: names or model folders. */
  model: string;
  teacher?: string | undefined;
  /** Languages that are taught, each in runs of its own. */
  languages: readonly string[];
  /** `WAYS` by name, or names of their own for what has a `way`; what all of them share stands beside. */
  methods: Readonly<Record<string, MethodSpec>>;
  seeds: readonly number[];
  train: RowsSpec;
  validation: RowsSpec;
  /** Rows of any languages: those that are not taught tell what is forgotten. */
  test: RowsSpec;
  epochs?: number | undefined;
  steps?: number | undefined;
  batchSize?: number | undefined;
  compute?: TrainRecipe['compute'];
  options?: TrainRecipe['options'];
}

const SPEC: Record<keyof BenchmarkSpec, true> = {
  model: true,
  teacher: true,
  languages: true,
  methods: true,
  seeds: true,
  train: true,
  validation: true,
  test: true,
  epochs: true,
  steps: true,
  batchSize: true,
  compute: true,
  options: true,
};
const METHOD: Record<keyof MethodSpec, true> = {
  way: true,
  learningRates: true,
  options: true,
  lora: true,
  epochs: true,
  steps: true,
};
const ROWS: Record<keyof RowsSpec, true> = { data: true, manifest: true, split: true };

// Typed where it stands, so that what follows a call knows that it never comes back.
const refuse: (what: string) => never = (what) => {
  throw new DistilWhisperError('ERR_ARGUMENT', what);
};

/** Reads a benchmark's file. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_ARGUMENT (no JSON object, or as `checkSpec`). */
export async function readBenchmark(path: string): Promise<BenchmarkSpec> {
  const spec = (await readJsonObject(path, 'ERR_ARGUMENT')) as unknown as BenchmarkSpec;
  checkSpec(spec);
  return spec;
}

/** Refuses what cannot be meant, before anything is read. Throws ERR_ARGUMENT that names the field. */
export function checkSpec(spec: BenchmarkSpec): void {
  checkOptions('benchmark', spec, SPEC);
  const list = (name: string, value: unknown, ok: (one: unknown) => boolean, expected: string): void => {
    const isList = Array.isArray(value) && value.length > 0 && value.every(ok);
    if (!isList || new Set(value).size < value.length)
      refuse(`${name}: expected ${expected}, each once, got ${shown(value)}`);
  };
  list('languages', spec.languages, (one) => typeof one === 'string', 'a list of languages');
  list(
    'seeds',
    spec.seeds,
    (one) => Number.isSafeInteger(one) && (one as number) >= 0,
    'a list of whole numbers from 0',
  );
  if (!isJsonObject(spec.methods) || Object.keys(spec.methods).length === 0)
    refuse(`methods: expected an object of ${Object.keys(WAYS).join(', ')}, got ${shown(spec.methods)}`);
  for (const part of ['train', 'validation', 'test'] as const) {
    if (!isJsonObject(spec[part]))
      refuse(`${part}: expected an object with data or a manifest, got ${shown(spec[part])}`);
    checkOptions(`benchmark, ${part}`, spec[part], ROWS);
    if ((spec[part].data === undefined) === (spec[part].manifest === undefined))
      refuse(`${part}: expected either data or a manifest, got ${spec[part].data === undefined ? 'neither' : 'both'}`);
  }
  for (const [name, method] of Object.entries(spec.methods as unknown as JsonObject)) {
    if (!isJsonObject(method)) refuse(`methods.${name}: expected an object, got ${shown(method)}`);
    checkOptions(`benchmark, methods.${name}`, method, METHOD);
    const { way = name, learningRates } = method as MethodSpec;
    const { taught } = Object.hasOwn(WAYS, way)
      ? WAYS[way]!
      : refuse(
          `methods${way === name ? '' : `.${name}.way`}: expected ${Object.keys(WAYS).join(', ')}, got ${shown(way)}`,
        );
    // It names folders.
    if (!/^[a-z0-9][a-z0-9-]{0,39}$/i.test(name))
      refuse(`methods: expected names of up to 40 letters, digits and hyphens, got ${shown(name)}`);
    if (learningRates !== undefined)
      list(
        `methods.${name}.learningRates`,
        learningRates,
        (one) => Number.isFinite(one) && (one as number) >= 0,
        'a list of numbers from 0',
      );
    if (taught && spec.teacher === undefined) refuse(`teacher: expected one for ${name}, got none`);
    for (const language of spec.languages) {
      resolveLanguage(language);
      for (const cell of cellsOf(spec, name, language)) {
        try {
          checkRecipe({ ...recipeOf(spec, cell), output: 'benchmark' });
        } catch (error) {
          if (error instanceof DistilWhisperError)
            throw new DistilWhisperError(error.code, `methods.${name}: ${error.message}`, { cause: error });
          throw error;
        }
      }
    }
  }
}

/** One run: a way to teach one language, with one learning rate and one seed. */
export interface Cell {
  /** The name of the method in the benchmark. */
  way: string;
  /** Code. */
  language: string;
  learningRate: number | null;
  seed: number;
}

/** What a method of a checked benchmark does. */
export const wayOf = ({ methods }: BenchmarkSpec, name: string): (typeof WAYS)[string] =>
  WAYS[methods[name]!.way ?? name]!;

/** Its folder's name. */
export const nameOf = ({ way, language, learningRate, seed }: Cell): string =>
  `${way}.${language}${learningRate === null ? '' : `.lr-${learningRate}`}.seed-${seed}`;

/** Runs of a way and a language by which its learning rate is chosen: one for each rate, of the first seed. */
export function cellsOf(spec: BenchmarkSpec, way: string, language: string): Cell[] {
  const rates = spec.methods[way]!.learningRates ?? [null];
  const { code } = resolveLanguage(language);
  return rates.map((learningRate) => ({ way, language: code, learningRate, seed: spec.seeds[0]! }));
}

/** What `train` is told for a cell, but for its output. */
export function recipeOf(
  spec: BenchmarkSpec,
  { way, language, learningRate, seed }: Cell,
): Omit<TrainRecipe, 'output'> {
  const { method, taught } = wayOf(spec, way);
  const own = spec.methods[way]!;
  const { epochs, steps } = own.epochs === undefined && own.steps === undefined ? spec : own;
  return {
    model: spec.model,
    teacher: taught ? spec.teacher : undefined,
    method,
    language,
    lora: own.lora,
    ...spec.train,
    validation: spec.validation,
    epochs,
    steps,
    batchSize: spec.batchSize ?? recipeDefaults.batchSize,
    compute: spec.compute ?? recipeDefaults.compute,
    options: {
      ...spec.options,
      ...own.options,
      ...(learningRate === null ? {} : { learningRate }),
      ...(taught ? {} : { distillation: 'none' as const }),
      seed,
    },
  };
}
