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
  type LoraConfig,
  type ModelFolder,
  toFloat32,
  weightEntries,
  writeAdapter,
  writeExpert,
  writeModelFolder,
} from '../weights/index.js';
import type { TrainMethod, TrainRecipe } from './recipe.js';

/** What a run adds to its model. */
export interface Preparation {
  /** Lower-case English names of the languages that are taught, where they are named. */
  languages: readonly string[];
  seed: number;
  compat: 'paper' | 'reference';
  lora: Partial<LoraConfig> | undefined;
  /** Files of experts, or the folder of an adapter, that the run begins with; empty: with new ones. */
  start: readonly string[];
}

/** Where what was trained goes, and what goes with it. */
export interface Destination {
  /** Run folder. */
  output: string;
  /** Of the model that the run began with. */
  folder: ModelFolder;
  /** The model as the recipe names it. */
  base: string;
  languages: readonly string[];
  dtype: FloatDtype;
  /** Updates done. */
  steps: number;
}

export interface Method {
  /** Refuses what this method cannot do. Throws ERR_ARGUMENT. */
  check(recipe: TrainRecipe): void;
  /** Which parameters of the backbone train, by name; absent: none. */
  trainable?: ((name: string) => boolean) | undefined;
  /** What a run may begin with: experts, or an adapter; absent: only with its model. */
  start?: 'experts' | 'adapter' | undefined;
  /** Adds to the model what is not in its folder, and returns those parameters. */
  prepare(model: Whisper, preparation: Preparation): Promise<readonly Parameter[]>;
  /** Of what was added, what a row runs through at inference besides one of the two FFNs. */
  active(name: string): boolean;
  /** Writes the result and returns its path. Errors: ERR_DISK_FULL, ERR_FILE_WRITE. */
  save(model: Whisper, destination: Destination): Promise<string>;
}

const refuse = (what: string): never => {
  throw new DistilWhisperError('ERR_ARGUMENT', what);
};

/** Gates and experts of one or several languages, beside a frozen backbone; the result is an expert file for each. */
const experts: Method = {
  check(recipe) {
    if (recipe.fromScratch)
      refuse(`fromScratch: expected with method 'full', got it with '${recipe.method ?? 'experts'}'`);
    if (recipe.lora) refuse("lora: expected with method 'lora', got it with experts");
    if (recipe.language === undefined && recipe.languages === undefined)
      refuse('language: expected the language of the expert, or languages for an expert each, got nothing');
  },
  start: 'experts',
  async prepare(model, { languages, seed, compat, start }) {
    for (const path of start) {
      const { language } = await model.loadExpert(path, { trainable: true });
      if (!languages.includes(language))
        refuse(`continueFrom: expected experts for ${languages.join(', ')}, got one for ${language}, ${path}`);
    }
    const added: Parameter[] = [];
    for (const language of languages) {
      const there = start.length > 0 ? model.experts.get(language) : undefined;
      const expert = there ?? (await model.addExpert(language, { seed, compat }));
      added.push(...expert.parameters.values());
    }
    return added;
  },
  active: (name) => name.includes('.gate_'),
  async save(model, { output, languages, dtype, steps }) {
    const paths: string[] = [];
    for (const language of languages) {
      const { parameters } = model.experts.get(language)!;
      const path = join(output, expertFileName(language));
      await writeExpert(path, model.config, language, await host(parameters, dtype), { steps: String(steps) });
      paths.push(path);
    }
    return paths.length === 1 ? paths[0]! : output;
  },
};

/** The same with a teacher, which it cannot do without. */
const distil: Method = {
  ...experts,
  check(recipe) {
    experts.check(recipe);
    if (recipe.teacher === undefined) refuse("teacher: expected one with method 'distil', got none");
    if (recipe.options?.distillation === 'none')
      refuse("distillation: expected 'js' or 'kl' with method 'distil', got 'none'");
  },
};

/** Low-rank adapters beside frozen linear layers (Hu et al. 2021); the result is a folder as PEFT writes it. */
const lora: Method = {
  check(recipe) {
    if (recipe.fromScratch) refuse("fromScratch: expected with method 'full', got it with 'lora'");
    if (recipe.lora && recipe.continueFrom !== undefined)
      refuse('lora: expected settings for a new adapter or one to continue from, got both');
  },
  start: 'adapter',
  async prepare(model, { seed, lora: config, start: [path] }) {
    if (path === undefined) return [...(await model.addAdapter(ADAPTER, { ...config, seed })).parameters.values()];
    const adapter = await model.loadAdapter(path, { name: ADAPTER, trainable: true });
    model.adapters.use(ADAPTER);
    return [...adapter.parameters.values()];
  },
  // Merged into the weights it costs nothing.
  active: () => false,
  async save(model, { output, base, dtype }) {
    const { config, parameters } = model.adapters.get(ADAPTER)!;
    const path = join(output, 'adapter');
    await writeAdapter(path, { config, base, tensors: await host(parameters, dtype) });
    return path;
  },
};

/** Name of the adapter that a run trains. */
const ADAPTER = 'trained';

/** Every parameter; the result is a model folder with the files of the one that it started from. */
const full: Method = {
  check(recipe) {
    if (recipe.lora) refuse("lora: expected with method 'lora', got it with 'full'");
  },
  trainable: () => true,
  prepare: async () => [],
  active: () => false,
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

export const methods: Record<TrainMethod, Method> = { experts, distil, lora, full };

async function host(parameters: ReadonlyMap<string, Parameter>, dtype: FloatDtype): Promise<Map<string, HostTensor>> {
  const tensors = new Map<string, HostTensor>();
  for (const [name, { value, shape }] of parameters) {
    tensors.set(name, fromFloat32(await value.floats(), shape, dtype));
  }
  return tensors;
}
