/** The ways to train a model: what each of them makes, trains and leaves behind. */
import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { DistilWhisperError } from '../errors/index.js';
import type { Whisper } from '../model/index.js';
import type { Parameter } from '../tensor/index.js';
import {
  expertFileName,
  type FloatDtype,
  fromFloat32,
  type HostTensor,
  type ModelFolder,
  toFloat32,
  weightEntries,
  writeExpert,
  writeModelFolder,
} from '../weights/index.js';
import type { TrainMethod, TrainRecipe } from './recipe.js';

/** What a run adds to its model. */
export interface Preparation {
  /** Lower-case English name of the recipe's language, if it has one. */
  language: string | null;
  seed: number;
  compat: 'paper' | 'reference';
}

/** Where what was trained goes, and what goes with it. */
export interface Destination {
  /** Run folder. */
  output: string;
  /** Of the model that the run began with. */
  folder: ModelFolder;
  language: string | null;
  dtype: FloatDtype;
  /** Updates done. */
  steps: number;
}

export interface Method {
  /** Refuses what this method cannot do. Throws ERR_ARGUMENT. */
  check(recipe: TrainRecipe): void;
  /** Which parameters of the backbone train, by name; absent: none. */
  trainable?: ((name: string) => boolean) | undefined;
  /** Adds to the model what is not in its folder, and returns those parameters. */
  prepare(model: Whisper, preparation: Preparation): Promise<readonly Parameter[]>;
  /** Writes the result and returns its path. Errors: ERR_DISK_FULL, ERR_FILE_WRITE. */
  save(model: Whisper, destination: Destination): Promise<string>;
}

const refuse = (what: string): never => {
  throw new DistilWhisperError('ERR_ARGUMENT', what);
};

/** The language's gates and experts, beside a frozen backbone; the result is an expert file. */
const experts: Method = {
  check(recipe) {
    if (recipe.fromScratch) refuse("fromScratch: expected with method 'full', got it with 'experts'");
    if (recipe.language === undefined) refuse('language: expected the language of the expert, got nothing');
  },
  async prepare(model, { language, seed, compat }) {
    const expert = await model.addExpert(language!, { seed, compat });
    return [...expert.parameters.values()];
  },
  async save(model, { output, language, dtype, steps }) {
    const { parameters } = model.experts.get(language!)!;
    const path = join(output, expertFileName(language!));
    await writeExpert(path, model.config, language!, await host(parameters, dtype), { steps: String(steps) });
    return path;
  },
};

/** Every parameter; the result is a model folder with the files of the one that it started from. */
const full: Method = {
  check() {},
  trainable: () => true,
  prepare: async () => [],
  async save(model, { output, folder, dtype }) {
    const tensors = await host(model.parameters, dtype);
    // Frozen ones are held in the type of the products: written is what was read.
    for (const [name, { trainable, shape }] of model.path === null ? [] : model.parameters) {
      if (!trainable) tensors.set(name, fromFloat32(toFloat32(await folder.weights.read(name)), shape, dtype));
    }
    const files: Record<string, Uint8Array> = {};
    for (const path of folder.processorFiles) files[basename(path)] = await readFile(path);
    const path = join(output, 'model');
    await writeModelFolder(
      path,
      {
        config: folder.config,
        configExtra: folder.configJson,
        generationConfig: folder.generationConfig ?? undefined,
        preprocessorConfig: folder.preprocessorConfig ?? undefined,
        files,
        tensors: weightEntries(tensors),
      },
      { replace: true },
    );
    return path;
  },
};

export const methods: Record<TrainMethod, Method> = { experts, full };

async function host(parameters: ReadonlyMap<string, Parameter>, dtype: FloatDtype): Promise<Map<string, HostTensor>> {
  const tensors = new Map<string, HostTensor>();
  for (const [name, { value, shape }] of parameters) {
    tensors.set(name, fromFloat32(await value.floats(), shape, dtype));
  }
  return tensors;
}
