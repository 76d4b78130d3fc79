/** The demonstration: a small Whisper learns a language, on the embedded models and synthetic speech. */
import { join } from 'node:path';
import { readManifest } from '../data/index.js';
import { Transcriber } from '../decode/index.js';
import { DistilWhisperError } from '../errors/index.js';
import { type EvaluationReport, evaluate } from '../evaluate/index.js';
import { packageRoot } from '../native/index.js';
import { resolveLanguage } from '../text/index.js';
import type { TrainingOptions, UpdateReport, ValidationReport } from '../train/index.js';
import { type TrainResult, train } from './train.js';

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
export const DEMO_BATCH = 16;

export interface DemoSettings {
  /** Folder of the run. */
  output: string;
  epochs?: number;
  signal?: AbortSignal;
  onStage?: (stage: 'before' | 'train' | 'after') => void;
  onProgress?: (done: number, total: number) => void;
  onUpdate?: (report: UpdateReport) => void;
  onValidation?: (step: number, report: ValidationReport, isBest: boolean) => void;
}

export interface DemoRow {
  language: string;
  domain: string;
  utterances: number;
  before: number;
  after: number;
  /** Share of gates that chose the expert; null where there is none. */
  gateShare: number | null;
  /** Whether every transcript is exactly what it was. */
  unchanged: boolean;
}

export interface DemoResult {
  rows: DemoRow[];
  training: TrainResult;
  /** Parameters of the student, and those that a row of the target language runs through. */
  parameters: number;
  expert: string;
  /** A test utterance of the target language: what was said, heard before, and heard after. */
  example: { audio: string; reference: string; before: string; after: string };
  seconds: number;
}

/**
 * Evaluates the embedded student in all languages and both domains, trains the target language's expert by distillation
 * from the embedded teacher, and evaluates again.
 */
export async function demo(settings: DemoSettings): Promise<DemoResult> {
  const start = performance.now();
  const { teacher, student, manifest } = embedded();
  const tests = readManifest(manifest, { split: 'test' });
  const target = resolveLanguage(DEMO_LANGUAGE);
  const test = async (experts: string[]): Promise<EvaluationReport> => {
    const transcriber = await Transcriber.load(student, { experts, batchSize: 40 });
    try {
      return await evaluate(transcriber, tests, {
        ...(settings.signal && { signal: settings.signal }),
        onProgress: ({ done, total }) => settings.onProgress?.(done, total),
      });
    } finally {
      transcriber.close();
    }
  };
  settings.onStage?.('before');
  const before = await test([]);
  settings.onStage?.('train');
  const training = await train({
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
    ...(settings.signal && { signal: settings.signal }),
    ...(settings.onUpdate && { onUpdate: settings.onUpdate }),
    ...(settings.onValidation && { onValidation: settings.onValidation }),
  });
  settings.onStage?.('after');
  const after = await test([training.result]);

  const rows = before.groups.map((group, i): DemoRow => {
    const now = after.groups[i]!;
    const same = tests.every((entry, e) => {
      if (entry.language !== group.language || (entry.domain ?? '') !== group.domain) return true;
      return before.hypotheses[e]!.hypothesis === after.hypotheses[e]!.hypothesis;
    });
    return {
      language: group.language,
      domain: group.domain,
      utterances: group.utterances,
      before: group.wer,
      after: now.wer,
      gateShare: now.gateShare,
      unchanged: same,
    };
  });
  const shown = before.hypotheses.findIndex(
    ({ id, reference }, e) =>
      tests[e]!.id === id &&
      tests[e]!.language === target.code &&
      after.hypotheses[e]!.hypothesis === reference &&
      before.hypotheses[e]!.hypothesis !== reference,
  );
  const example = Math.max(
    shown,
    tests.findIndex((entry) => entry.language === target.code),
  );
  if (example < 0)
    throw new DistilWhisperError('ERR_MANIFEST', `${manifest}: expected test utterances in ${target.name}, got none`);
  return {
    rows,
    training,
    parameters: training.parameters - training.trainable,
    expert: training.result,
    example: {
      audio: tests[example]!.audio,
      reference: before.hypotheses[example]!.reference,
      before: before.hypotheses[example]!.hypothesis,
      after: after.hypotheses[example]!.hypothesis,
    },
    seconds: (performance.now() - start) / 1000,
  };
}
