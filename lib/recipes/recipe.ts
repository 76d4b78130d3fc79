/** What a training run is told, and what it tells. */
import type { BadRow } from '../data/index.js';
import type { FloatType, Stream } from '../tensor/index.js';
import type { RunReport, TrainingOptions, UpdateReport, ValidationReport } from '../train/index.js';
import type { FloatDtype } from '../weights/index.js';

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
