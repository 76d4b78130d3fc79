/** One run of a benchmark, and what its model hears: trained and evaluated once, whatever ends the process. */
import { join } from 'node:path';
import { BadRowsError, type Dataset, openDataset } from '../../data/index.js';
import { type EvaluationReport, evaluate, toJSON } from '../../evaluate/index.js';
import { isFile, type JsonObject, readJsonObject, writeFileAtomic } from '../../files/index.js';
import type { HubOptions } from '../../hub/index.js';
import type { Stream } from '../../tensor/index.js';
import { Transcriber, type TranscriberOptions } from '../../transcribe/index.js';
import { methods } from '../method.js';
import type { TrainRecipe } from '../recipe.js';
import { train } from '../train.js';
import { layerShares } from './gates.js';
import { type BenchmarkSpec, type Cell, nameOf, type RowsSpec, recipeOf, wayOf } from './spec.js';

/** Updates between histograms of a run's gates. */
const HISTOGRAM_EVERY = 10;

/** What a benchmark's parts share. */
export interface Bench {
  spec: BenchmarkSpec;
  output: string;
  signal: AbortSignal | undefined;
  hub: HubOptions;
}

/** A cell that has been trained. */
export interface TrainedCell {
  cell: Cell;
  folder: string;
  /** The run's report.json. */
  report: JsonObject;
}

/** One that was tested, too. */
export interface RunCell extends TrainedCell {
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

/** Trains a cell, or goes on with it; what was done before is not done again. Errors: those of `train`. */
export async function trainCell(
  bench: Bench,
  cell: Cell,
  stream: Stream,
  onUpdate: TrainRecipe['onUpdate'],
): Promise<JsonObject> {
  const { spec, signal, hub } = bench;
  const output = folderOf(bench, cell);
  if (!(await isFile(join(output, 'report.json')))) {
    const gateHistograms = methods[wayOf(spec, cell.way).method].start === 'experts' ? HISTOGRAM_EVERY : 0;
    await train({ ...recipeOf(spec, cell), output, gateHistograms, stream, signal, hub, onUpdate });
  }
  return readJsonObject(join(output, 'report.json'), 'ERR_RUN');
}

/** How the model of a finished run is loaded; null: the model that all begin with. */
function loading(spec: BenchmarkSpec, run: TrainedCell | null): [model: string, options: TranscriberOptions] {
  const { model } = spec;
  if (!run) return [model, {}];
  const result = String(run.report.result);
  const { method } = wayOf(spec, run.cell.way);
  if (method === 'full') return [result, {}];
  return [model, method === 'lora' ? { adapter: result } : { experts: [result] }];
}

/** Tests a model on all test rows and keeps what came of it in `folder`; what is there is read. Errors: those of `evaluate`. */
export async function evaluated(
  bench: Bench,
  folder: string,
  run: TrainedCell | null,
  stream: Stream,
  onProgress: (done: number, total: number) => void,
): Promise<CellEvaluation> {
  const path = join(folder, 'evaluation.json');
  if (await isFile(path)) return (await readJsonObject(path, 'ERR_RUN')) as unknown as CellEvaluation;
  const { spec, signal, hub } = bench;
  await using test = await openRows(spec.test, 'test', bench);
  const [model, options] = loading(spec, run);
  const transcriber = await Transcriber.load(model, { ...options, compute: 'fp32', stream, hub });
  try {
    const report = await evaluate(transcriber, test, {
      signal,
      // The first test has tried all audio.
      checked: run !== null,
      onProgress: ({ done, total }) => onProgress(done, total),
    });
    // Tests of other rows cannot be compared.
    if (report.badRows.length > 0) throw new BadRowsError(report.badRows);
    const gated = run !== null && transcriber.model.experts.size > 0;
    const shares = gated ? await layerShares(transcriber, test, run.cell.language) : null;
    // What differs from one time to the next stays out of it.
    const text = Buffer.from(`${JSON.stringify({ ...toJSON(report), layerShares: shares, secondsTaken: 0 })}\n`);
    await writeFileAtomic(path, (sink) => sink.append(text));
    return JSON.parse(text.toString()) as CellEvaluation;
  } finally {
    await transcriber.close();
  }
}
