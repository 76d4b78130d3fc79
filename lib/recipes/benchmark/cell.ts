/** One run of a benchmark, and what its model hears: trained and evaluated once, whatever ends the process. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Dataset, openDataset } from '../../data/index.js';
import { DistilWhisperError } from '../../errors/index.js';
import { type EvaluationReport, evaluate, toJSON } from '../../evaluate/index.js';
import { ifThere, type JsonObject, readJsonObject, writeFileAtomic } from '../../files/index.js';
import type { HubOptions } from '../../hub/index.js';
import type { Stream } from '../../tensor/index.js';
import { Transcriber, type TranscriberOptions } from '../../transcribe/index.js';
import { methods } from '../method.js';
import type { TrainRecipe } from '../recipe.js';
import { train } from '../train.js';
import { layerShares } from './gates.js';
import { type BenchmarkSpec, type Cell, nameOf, type RowsSpec, recipeOf, WAYS } from './spec.js';

/** Histograms of the gates in a run. */
const HISTOGRAMS = 10;

/** What a benchmark's parts share. */
export interface Bench {
  spec: BenchmarkSpec;
  output: string;
  signal: AbortSignal | undefined;
  hub: HubOptions;
}

/** A cell that has been run. */
export interface RunCell {
  cell: Cell;
  folder: string;
  /** The run's report.json. */
  report: JsonObject;
  evaluation: CellEvaluation;
}

export interface CellEvaluation extends EvaluationReport {
  /** Share of each layer's rows that take the expert of the language that was taught; null without one. */
  layerShares: number[] | null;
}

export function openRows({ data, manifest, split }: RowsSpec, usual: string, { signal, hub }: Bench): Promise<Dataset> {
  const named =
    manifest === undefined ? data! : { kind: 'manifest' as const, path: manifest, splits: undefined, weight: 1 };
  return openDataset(named, { split, defaultSplit: usual, signal, hub });
}

/** Path of a cell's folder. */
export const folderOf = ({ output }: Bench, cell: Cell): string => join(output, 'cells', nameOf(cell));

/** What a run tells while it goes on. */
export type CellEvents = Pick<TrainRecipe, 'onUpdate' | 'onStart' | 'onValidation'> & {
  onEvaluated?: ((done: number, total: number) => void) | undefined;
};

/** Trains a cell, or goes on with it; what was done before is not done again. Errors: those of `train` and `evaluate`. */
export async function trainCell(bench: Bench, cell: Cell, stream: Stream, events: CellEvents): Promise<JsonObject> {
  const { spec, signal, hub } = bench;
  const output = folderOf(bench, cell);
  const done = await ifThere(stat(join(output, 'report.json')));
  if (!done) {
    const { onUpdate, onStart, onValidation } = events;
    const recipe = recipeOf(spec, cell);
    const steps = recipe.steps ?? null;
    const gated = methods[WAYS[cell.way]!.method].start === 'experts';
    const gateHistograms = gated ? Math.max(1, Math.ceil((steps ?? 500) / HISTOGRAMS)) : 0;
    await train({ ...recipe, output, gateHistograms, stream, signal, hub, onUpdate, onStart, onValidation });
  }
  return readJsonObject(join(output, 'report.json'), 'ERR_RUN');
}

/** How the model of a finished run is loaded. */
export function loading(
  spec: BenchmarkSpec,
  cell: Cell | null,
  report: JsonObject | null,
): [model: string, options: TranscriberOptions] {
  if (!cell) return [spec.model, {}];
  const result = String(report!.result);
  const { method } = WAYS[cell.way]!;
  if (method === 'full') return [result, {}];
  return [spec.model, method === 'lora' ? { adapter: result } : { experts: [result] }];
}

/** Evaluates a model on all test rows and keeps what came of it in `folder`; what is there is read. Errors: those of `evaluate`. */
export async function evaluated(
  bench: Bench,
  folder: string,
  [model, options]: [model: string, options: TranscriberOptions],
  stream: Stream,
  onProgress: CellEvents['onEvaluated'],
  taught: string | null = null,
): Promise<CellEvaluation> {
  const path = join(folder, 'evaluation.json');
  if (await ifThere(stat(path))) return (await readJsonObject(path, 'ERR_RUN')) as unknown as CellEvaluation;
  const { spec, signal, hub } = bench;
  await using test = await openRows(spec.test, 'test', bench);
  const transcriber = await Transcriber.load(model, { ...options, compute: 'fp32', stream, hub });
  try {
    const report = await evaluate(transcriber, test, {
      signal,
      checked: true,
      onProgress: ({ done, total }) => onProgress?.(done, total),
    });
    if (report.badRows.length > 0)
      throw new DistilWhisperError(
        'ERR_MANIFEST',
        `test: expected rows that can be heard, got ${report.badRows.length} that cannot`,
      );
    // What differs from one time to the next stays out of it.
    const gated = taught !== null && transcriber.model.experts.size > 0;
    const shares = gated ? await layerShares(transcriber, test, taught) : null;
    const text = Buffer.from(`${JSON.stringify({ ...toJSON(report), layerShares: shares, secondsTaken: 0 })}\n`);
    await writeFileAtomic(path, (sink) => sink.append(text));
    return JSON.parse(text.toString()) as CellEvaluation;
  } finally {
    await transcriber.close();
  }
}
