/** What a training run is told, and what it tells. */
import type { Augmentation } from '../audio/index.js';
import type { BadRow, Subset, TextForm } from '../data/index.js';
import type { HubOptions } from '../hub/index.js';
import type { FloatName, Stream } from '../tensor/index.js';
import type { Pace, RunReport, StepMemory, TrainingOptions, UpdateReport, ValidationReport } from '../train/index.js';
import type { LoraConfig } from '../weights/index.js';

export type TrainMethod = 'experts' | 'distil' | 'lora' | 'full';

/** Types that weights can be written in. */
export const saveTypes = ['fp32', 'bf16', 'fp16'] as const;
export type SaveType = (typeof saveTypes)[number];

/** What a recipe does where it says nothing else; the rest of it is `trainingDefaults`. */
export const recipeDefaults = {
  method: 'experts' as TrainMethod,
  /** The paper's: of a batch that is run as the machine allows. */
  batchSize: 16,
  epochs: 10,
  compute: 'fp32' as FloatName,
  saveAs: 'fp32' as SaveType,
};

export interface TrainRecipe {
  /** The student: a model folder, or a name (`resolveModel`). */
  model: string;
  /** Data sets as `openDataset` takes them: their paths or names, with splits and weights. Rows that cannot be used are left out and told, unless `strict`. */
  data?: string | readonly string[] | undefined;
  /** Instead of `data`: a manifest, of which bad rows are an error unless `skipBad`. */
  manifest?: string | undefined;
  /** Run folder: log, checkpoints, and the result. */
  output: string;
  /**
   * 'experts' (default): gates and an expert of each language that is taught, the backbone frozen; with a teacher they are distilled
   * from it. 'distil': the same, and a teacher must be named. 'lora': low-rank adapters of linear layers. 'full': every parameter.
   * A teacher helps any of them.
   */
  method?: TrainMethod | undefined;
  /**
   * Language that is taught, by code or name; rows of other languages are left out. Experts need it, or `languages`, of which each
   * gets an expert, trained side by side.
   */
  language?: string | undefined;
  /**
   * 'full' only: what of the model stays as it is, a pattern or several: 'encoder', 'decoder', 'embeddings', or the beginning of parameters' names, such as
   * 'encoder.layers.0-3'. The backward ends where nothing below trains.
   */
  freeze?: string | readonly string[] | undefined;
  /** 'full' only: start from random weights; of the model folder the config and the tokenizer are used. */
  fromScratch?: boolean | undefined;
  /** 'lora' only: of a new adapter. Default: `loraDefaults`, the paper's. */
  lora?: Partial<LoraConfig> | undefined;
  /** Begin with what was trained before: experts (files, folders or names), or with 'lora' an adapter's folder. */
  continueFrom?: string | readonly string[] | undefined;
  /**
   * The teacher: a model folder, or a name; or a folder, or a decoder's file, of ONNX as Optimum and `exportOnnx` write it in fp32,
   * which onnxruntime-node runs, an optional part of the package. Without one: cross-entropy alone.
   */
  teacher?: string | undefined;
  /**
   * Folder with what the teacher says of every utterance (`cacheTeacher`): its layers are not loaded then. 'auto': one in the run folder,
   * which the run itself fills the first time that an utterance comes.
   */
  teacherCache?: string | undefined;
  /**
   * Rows to train on, by their `split`; 'all': every row. Default: every row, and an error where some of them are marked as tests
   * or validation.
   */
  split?: string | readonly string[] | undefined;
  /**
   * Temperature T by which languages are sampled: of an epoch as long as without it, a language that has n of the rows has a share in
   * proportion to n^(1/T). Default 1: as the data are; a few make small languages come more often.
   */
  languageTemperature?: number | undefined;
  /** Which rows, as `openDataset` takes them; without `language` only. */
  languages?: readonly string[] | undefined;
  minDuration?: number | undefined;
  maxDuration?: number | undefined;
  maxLabels?: number | undefined;
  limit?: number | undefined;
  subset?: Subset | undefined;
  /** What becomes of the texts before they are labels. */
  text?: TextForm | undefined;
  /**
   * Labels have timestamps, as Whisper was trained: before and behind the text, or each of its `segments` where rows have them, to 0.02 s. Default
   * false.
   */
  timestamps?: boolean | undefined;
  /** Of a share of the utterances, chosen by their ids; Whisper's training mixed halves. Default 1. */
  timestampShare?: number | undefined;
  /** Folder that the manifests' relative audio paths start from. Default: their own. */
  audioRoot?: string | undefined;
  /**
   * What is done to what is heard in training: masks (SpecAugment), other speeds, noise. Default: nothing, as the paper. With a teacher cache masks
   * alone: of the audio a teacher hears what the student hears, but without masks.
   */
  augmentation?: Partial<Augmentation> | undefined;
  /** Rows for validation; the best parameters by their word error rate are kept. */
  validation?:
    | {
        data?: string | readonly string[] | undefined;
        manifest?: string | undefined;
        split?: string | readonly string[] | undefined;
        every?: number | undefined;
      }
    | undefined;
  /** Rows without a text are skipped instead of refused. */
  skipEmptyText?: boolean | undefined;
  /** Go on without the rows that cannot be used. Default: so with `data` unless `strict`; with `manifest` they are an error, all in one. */
  skipBad?: boolean | undefined;
  /** Refuse rows that cannot be used, and audio that is unusual or damaged but could be decoded. Default false. */
  strict?: boolean | undefined;
  /**
   * Utterances in a batch. 'auto' (default): 16, run at once or in parts whose gradients add up, as the memory allows; so are
   * `gradientCheckpointing` and `compute` where they are not given. What was chosen is in the plan and the report, and a run that goes
   * on keeps it.
   */
  batchSize?: number | 'auto' | undefined;
  /** Bytes that the run may take. Default: what the process may, by the machine's free memory, its control group and its limits. */
  maxMemory?: number | undefined;
  /**
   * Length of the run: passes over the rows, or updates. A run in the output folder goes on with another length than it had from its last
   * checkpoint, also where it had ended: learning rate and gate noise follow the new length from there. Less than it has done is refused.
   */
  epochs?: number | undefined;
  steps?: number | undefined;
  /** Updates between checkpoints. Default: a tenth of the run. */
  checkpointEvery?: number | undefined;
  /** Write curves for TensorBoard too, in the output's tensorboard/. Default false. */
  tensorboard?: boolean | undefined;
  /** Updates between histograms of the gates in the log; 0 (default): none. */
  gateHistograms?: number | undefined;
  options?: Partial<Omit<TrainingOptions, 'steps'>> | undefined;
  /** Type of the products; what trains is held in fp32. Default: fp32; with `batchSize` 'auto' bf16 where fp32 does not fit. */
  compute?: FloatName | undefined;
  /** Weights of student and teacher are read into memory instead of being the files' pages (see `WhisperOptions`). */
  copyWeights?: boolean | undefined;
  /** Keep each layer's inputs only, and run its forward again in the backward: less memory, the same numbers, more time. */
  gradientCheckpointing?: boolean | undefined;
  /** Type of the weights that are written. */
  saveAs?: SaveType | undefined;
  /** Where it computes: 'cpu' (default), 'cuda' or 'cuda:N'. A run goes on on the kind of device that it began on. */
  device?: string | undefined;
  /** Instead of `device`: a stream of the caller's, which stays open. */
  stream?: Stream | undefined;
  signal?: AbortSignal | undefined;
  /** How names are found and fetched. */
  hub?: HubOptions | undefined;
  /** While the audio is checked: what is unusual but was decoded. */
  onWarning?: ((audio: string, warning: string) => void) | undefined;
  /** While the audio is checked, before anything is written; not on resume. */
  onCheck?: ((done: number, total: number) => void | Promise<void>) | undefined;
  onStart?: ((plan: TrainPlan) => void | Promise<void>) | undefined;
  /** Before the first of many updates: how long the run will take. */
  onTime?: ((time: TimePlan) => void | Promise<void>) | undefined;
  onUpdate?: ((report: UpdateReport, pace: Pace) => void | Promise<void>) | undefined;
  onValidation?: ((step: number, report: ValidationReport, isBest: boolean) => void | Promise<void>) | undefined;
}

/**
 * How a teacher is asked: 'live': it runs beside the student; 'filling': so, for what its cache lacks; 'cached': its layers are not even
 * loaded; 'runtime': by onnxruntime, beside the stream; 'unheard': it is named, and not learned from.
 */
export type TeacherKind = 'none' | 'unheard' | 'live' | 'filling' | 'cached' | 'runtime';

/** How batches are run. */
export interface BatchPlan {
  /** Utterances. */
  size: number;
  /** Those that run at once: gradients of the parts of a batch add up to its own. */
  microBatch: number;
  gradientCheckpointing: boolean;
  compute: FloatName;
  /** Whether the memory decided, and not the recipe. */
  chosen: boolean;
}

/** Bytes at the peak of a run, on the device that it runs on; on the processor those of the process. */
export interface MemoryPlan extends StepMemory {
  /** Features that are kept and on their way, and the threads that decode. */
  features: number;
  /** What the process held before. */
  base: number;
  /**
   * All of it but mapped files, whose pages the system takes back before it lacks memory: where it does not, the process is resident with
   * `total + files`.
   */
  total: number;
  /** What may be taken beyond `base`. */
  room: number;
}

/** Seconds. */
export interface TimePlan {
  /** Of an update, measured on two; `first`: of the first that is left, which in a new process finds everything new. */
  update: number;
  first: number;
  /** Of all updates that are left, the first of them as it was measured, without validations; where a cache is filled, those behind its first pass by their products. */
  run: number;
  /** Of that, what filling the teacher's cache takes; null where none is filled. */
  teacherCache: number | null;
}

/** How much that is for people. */
export const gibibytes = (bytes: number): string =>
  bytes >= 1 << 30 ? `${(bytes / 2 ** 30).toFixed(1)} GiB` : `${Math.ceil(bytes / 2 ** 20)} MiB`;

/** What a run is going to do. */
export interface TrainPlan {
  utterances: number;
  /** Of audio; null where a run goes on whose data do not say how long their audio is. */
  hours: number | null;
  /** Languages of the utterances: how many are there, and how many an epoch has of them. */
  languages: readonly { language: string; utterances: number; epoch: number }[];
  steps: number;
  /** Where the run in the folder had another length: that one, and the updates that it has done; its schedules follow the new one. */
  extension: { from: number; at: number } | null;
  trainable: number;
  /** Of the model, its new expert included. */
  parameters: number;
  /** Those that a row runs through at inference: its gates and one of the two FFNs, not both. */
  active: number;
  /** Rows left out by `skipBad`. */
  badRows: readonly BadRow[];
  /** Splits of tests or validation that are trained on, because they were asked for. */
  heldOut: readonly string[];
  batch: BatchPlan;
  memory: MemoryPlan;
  /** How the teacher is asked (`TeacherKind`), and products of an update, in all and without the teacher's. */
  teacher: { kind: TeacherKind; flop: number; cachedFlop: number };
  /** Bytes on the disk: of the run folder at its largest, and of the teacher's cache that is still to be filled. */
  disk: { run: number; teacherCache: number };
}

export interface TrainResult extends RunReport, TrainPlan {
  /** The expert file (of several languages the run folder, where they all lie), the adapter's folder, or the model folder. */
  result: string;
  /** Code of the language that was taught; null where there is none, or several. */
  language: string | null;
  /** Codes of all of them. */
  taught: readonly string[];
  /** What it was made of, as it was given: paths or names; `repository`: that of the model's name, null for a path. */
  sources: { model: string; repository: string | null; teacher: string | null; data: readonly string[] };
}
