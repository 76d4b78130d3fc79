/** The demonstration: a small Whisper learns a language, on the embedded models and synthetic speech. */
import { join } from 'node:path';
import { BadRowsError, type ManifestEntry, readManifest } from '../data/index.js';
import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { type EvaluationGroup, type EvaluationReport, evaluate, formatColumns } from '../evaluate/index.js';
import type { HubOptions } from '../hub/index.js';
import { packageRoot } from '../native/index.js';
import type { Stream } from '../tensor/index.js';
import { resolveLanguage } from '../text/index.js';
import {
  type Pace,
  RunFolder,
  type TrainingOptions,
  type UpdateReport,
  type ValidationReport,
} from '../train/index.js';
import { Transcriber } from '../transcribe/index.js';
import { checkRecipe } from './checks.js';
import type { TimePlan, TrainPlan, TrainRecipe, TrainResult } from './recipe.js';
import { train } from './train.js';

/** Where the embedded models and corpus lie. */
export function embedded(): { teacher: string; student: string; manifest: string } {
  const root = packageRoot();
  return {
    teacher: join(root, 'models', 'pocket-teacher'),
    student: join(root, 'models', 'pocket-student'),
    manifest: join(root, 'corpus', 'manifest.jsonl'),
  };
}

/** The language that the embedded student is weak in. */
export const DEMO_LANGUAGE = 'ca';

/** A pocket model learns from 900 utterances: a larger step and fewer passes than the paper's, the rest as the paper. */
export const DEMO_OPTIONS: Partial<Omit<TrainingOptions, 'steps'>> = { learningRate: 2e-3, gateNoise: 5, seed: 77 };
export const DEMO_EPOCHS = 10;
const DEMO_BATCH = 16;

export interface DemoSettings {
  /** Folder of the run. */
  output: string;
  /** Model folders, manifest (with splits train, validation and test) and language. Default: the embedded ones. */
  student?: string | undefined;
  teacher?: string | undefined;
  manifest?: string | undefined;
  language?: string | undefined;
  epochs?: number | undefined;
  stream?: Stream | undefined;
  signal?: AbortSignal | undefined;
  /** How names are found and fetched. */
  hub?: HubOptions | undefined;
  onStage?: ((stage: DemoStage) => void) | undefined;
  /** Utterances evaluated. */
  onProgress?: ((done: number, total: number) => void) | undefined;
  /** Utterances whose audio was checked, before the first evaluation and before training. */
  onCheck?: ((done: number, total: number) => void) | undefined;
  onWarning?: ((audio: string, warning: string) => void) | undefined;
  onStart?: ((plan: TrainPlan) => void) | undefined;
  /** Before training: how long it will take. */
  onTime?: ((time: TimePlan) => void) | undefined;
  onUpdate?: ((report: UpdateReport, pace: Pace) => void) | undefined;
  onValidation?: ((step: number, report: ValidationReport, isBest: boolean) => void) | undefined;
}

const SETTINGS: Record<keyof DemoSettings, true> = {
  output: true,
  student: true,
  teacher: true,
  manifest: true,
  language: true,
  epochs: true,
  stream: true,
  signal: true,
  hub: true,
  onStage: true,
  onProgress: true,
  onCheck: true,
  onWarning: true,
  onStart: true,
  onTime: true,
  onUpdate: true,
  onValidation: true,
};

export type DemoStage = 'before' | 'train' | 'after';

export interface DemoRow {
  language: string;
  domain: string;
  utterances: number;
  /** Word error rates. */
  before: number;
  after: number;
  /** Share of gates that chose the expert; null where there is none. */
  gateShare: number | null;
  /** Whether every transcript is exactly what it was. */
  unchanged: boolean;
}

export interface DemoResult {
  /** Code of the language that was taught. */
  language: string;
  rows: DemoRow[];
  training: TrainResult;
  /** Parameters of the student without its expert. */
  parameters: number;
  expert: string;
  /** A test utterance of the target language: what was said, heard before, and heard after. */
  example: { audio: string; reference: string; before: string; after: string };
  seconds: number;
}

/**
 * Evaluates the student in all languages and domains, trains the target language's expert by distillation from the teacher, and
 * evaluates again. Errors: those of `train` and `evaluate`; ERR_INTERRUPTED leaves a run that the same call resumes.
 */
export async function demo(settings: DemoSettings): Promise<DemoResult> {
  checkOptions('demo', settings, SETTINGS);
  const start = performance.now();
  const own = embedded();
  const { teacher = own.teacher, student = own.student, manifest = own.manifest } = settings;
  const hub = { signal: settings.signal, ...settings.hub };
  const { signal, stream, onStage, onProgress, onCheck, onWarning, onStart, onTime, onUpdate, onValidation } = settings;
  const target = resolveLanguage(settings.language ?? DEMO_LANGUAGE);
  const recipe: TrainRecipe = {
    model: student,
    teacher,
    manifest,
    output: settings.output,
    language: target.code,
    split: 'train',
    validation: { split: 'validation' },
    batchSize: DEMO_BATCH,
    epochs: settings.epochs ?? DEMO_EPOCHS,
    options: DEMO_OPTIONS,
    stream,
    signal,
    hub,
    onCheck,
    onWarning,
    onStart,
    onTime,
    onUpdate,
    onValidation,
  };
  checkRecipe(recipe);
  const tests = readManifest(manifest, { split: 'test' });
  if (!tests.some((entry) => entry.language === target.code)) {
    throw new DistilWhisperError('ERR_MANIFEST', `${manifest}: expected test utterances in ${target.name}, got none`);
  }
  const test = async (experts: string[]): Promise<EvaluationReport> => {
    const transcriber = await Transcriber.load(student, {
      experts,
      compute: 'fp32',
      batchSize: 40,
      stream,
      hub,
    });
    try {
      const report = await evaluate(transcriber, tests, {
        // The second time the same audio is heard.
        checked: experts.length > 0,
        onCheck,
        signal,
        onProgress: ({ done, total }) => onProgress?.(done, total),
      });
      // Before and after are compared utterance by utterance.
      if (report.badRows.length > 0) throw new BadRowsError(report.badRows);
      return report;
    } finally {
      await transcriber.close();
    }
  };
  await RunFolder.check(settings.output);
  onStage?.('before');
  const before = await test([]);
  onStage?.('train');
  const training = await train(recipe);
  onStage?.('after');
  const after = await test([training.result]);
  return {
    language: target.code,
    rows: before.groups.map((group, i) => row(tests, group, before, after, i)),
    training,
    parameters: training.parameters - training.trainable,
    expert: training.result,
    example: example(tests, target.code, before, after),
    seconds: (performance.now() - start) / 1000,
  };
}

/** One row of the table. Both reports have the same groups and the same utterances, in the same order. */
function row(
  tests: readonly ManifestEntry[],
  { language, domain, utterances, wer }: EvaluationGroup,
  before: EvaluationReport,
  after: EvaluationReport,
  index: number,
): DemoRow {
  const now = after.groups[index]!;
  const members = new Set(
    tests.filter((entry) => entry.language === language && (entry.domain ?? '') === domain).map((entry) => entry.id),
  );
  const unchanged = before.hypotheses.every(
    ({ id, hypothesis }, i) => !members.has(id) || hypothesis === after.hypotheses[i]!.hypothesis,
  );
  return { language, domain, utterances, before: wer, after: now.wer, gateShare: now.gateShare, unchanged };
}

/** An utterance that the expert put right, or else the first one of the language. */
function example(
  tests: readonly ManifestEntry[],
  language: string,
  before: EvaluationReport,
  after: EvaluationReport,
): DemoResult['example'] {
  const audio = new Map(tests.filter((entry) => entry.language === language).map(({ id, audio }) => [id, audio]));
  const heard = before.hypotheses
    .map(({ id, reference, hypothesis }, i) => ({
      audio: audio.get(id),
      reference,
      before: hypothesis,
      after: after.hypotheses[i]!.hypothesis,
    }))
    .filter((one): one is DemoResult['example'] => one.audio !== undefined);
  return heard.find((one) => one.after === one.reference && one.before !== one.reference) ?? heard[0]!;
}

/** The table: word error rates before and after by language and domain, the gates' share, and what else changed. */
export function formatDemo({ rows, language }: DemoResult): string {
  const percent = (rate: number): string => (100 * rate).toFixed(1);
  const body = rows.map((row) => [
    row.language === language ? `${row.language} *` : row.language,
    row.domain || '-',
    row.unchanged ? 'unchanged' : 'changed',
    String(row.utterances),
    percent(row.before),
    percent(row.after),
    row.gateShare === null ? '-' : percent(row.gateShare),
  ]);
  const head = ['language', 'domain', 'transcripts', 'utterances', 'WER % before', 'after', 'gate %'];
  return `${formatColumns(head, body, 3)}* taught here; gate %: how often the expert was chosen\n`;
}
