/** Every method on the same data: trains and evaluates each cell, and says what differs. */
import { mkdir } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { digestOfRows } from '../../data/index.js';
import { checkOptions, DistilWhisperError } from '../../errors/index.js';
import {
  isFile,
  isJsonObject,
  type JsonObject,
  proveFolder,
  readJsonObject,
  writeFileAtomic,
} from '../../files/index.js';
import type { HubOptions } from '../../hub/index.js';
import { Stream } from '../../tensor/index.js';
import type { TrainRecipe } from '../recipe.js';
import {
  type Bench,
  type CellEvaluation,
  evaluated,
  folderOf,
  openRows,
  type RunCell,
  type TrainedCell,
  trainCell,
} from './cell.js';
import { type CellPlan, planCells, runsAtOnce } from './plan.js';
import { benchmarkCsv, benchmarkMarkdown } from './report.js';
import { benchmarkHtml } from './report-html.js';
import { type BenchmarkSpec, type Cell, cellsOf, checkSpec, nameOf } from './spec.js';
import { type BenchmarkSummary, type Chosen, summarize } from './summary.js';

export interface BenchmarkSettings {
  spec: BenchmarkSpec;
  /** Folder of cells and reports; a benchmark that was ended goes on there. */
  output: string;
  /** Cells that run at once, each with its share of the threads; 'auto': as many as there are threads for, and memory. Default 1. */
  parallel?: number | 'auto' | undefined;
  /** Threads of all kernels together. Default: the processors that this process may use. */
  threads?: number | undefined;
  signal?: AbortSignal | undefined;
  hub?: HubOptions | undefined;
  /** A cell begins (`done` of those of its phase have ended). */
  onCell?: ((cell: string, what: 'train' | 'evaluate', done: number, total: number) => void) | undefined;
  onUpdate?: ((cell: string, ...report: Parameters<NonNullable<TrainRecipe['onUpdate']>>) => void) | undefined;
  onEvaluated?: ((cell: string, done: number, total: number) => void) | undefined;
}

const SETTINGS: Record<keyof BenchmarkSettings, true> = {
  spec: true,
  output: true,
  parallel: true,
  threads: true,
  signal: true,
  hub: true,
  onCell: true,
  onUpdate: true,
  onEvaluated: true,
};

export interface BenchmarkResult extends BenchmarkSummary {
  /** Paths of what was written. */
  files: { json: string; csv: string; markdown: string; html: string };
}

/** Runs of a benchmark, before learning rates are chosen: at least so many. */
export function planBenchmark(spec: BenchmarkSpec): { cells: number; rates: number } {
  checkSpec(spec);
  let [cells, rates] = [0, 0];
  for (const way of Object.keys(spec.methods))
    for (const language of spec.languages) {
      const tried = cellsOf(spec, way, language).length;
      if (tried > 1) rates += tried;
      cells += tried + spec.seeds.length - 1;
    }
  return { cells, rates };
}

/**
 * What the runs take, with the time measured on two updates of each kind. Nothing is written. Errors: ERR_ARGUMENT, those of `train`
 * before it begins.
 */
export async function estimateBenchmark(
  settings: Pick<BenchmarkSettings, 'spec' | 'output' | 'threads' | 'signal' | 'hub'>,
): Promise<CellPlan[]> {
  const { spec, output, threads = availableParallelism(), signal, hub } = settings;
  checkSpec(spec);
  return planCells({ spec, output, signal, hub: { signal, ...hub } }, threads);
}

/**
 * Trains and evaluates every cell, or those that are left, and writes benchmark.json, .csv, .md and .html into the output. Of a method
 * with several learning rates each is tried with the first seed, and the one with the best validation goes on with the others. Killed
 * at any moment, the same call goes on, and ends with the same tables. Errors: ERR_ARGUMENT (`checkSpec`), ERR_RUN (the folder has another
 * benchmark), those of `train` and `evaluate`; ERR_INTERRUPTED.
 */
export async function benchmark(settings: BenchmarkSettings): Promise<BenchmarkResult> {
  checkOptions('benchmark', settings, SETTINGS);
  const { spec, output, signal, parallel = 1, threads = availableParallelism() } = settings;
  checkSpec(spec);
  for (const [name, value] of Object.entries({ parallel, threads }))
    if (!(Number.isSafeInteger(value) && Number(value) >= 1) && !(name === 'parallel' && value === 'auto'))
      throw new DistilWhisperError('ERR_ARGUMENT', `${name}: expected a whole number from 1, got ${value}`);
  const bench: Bench = { spec, output, signal, hub: { signal, ...settings.hub } };
  await claim(bench);
  const { cells: total, rates } = planBenchmark(spec);
  const most = Math.min(threads, total);
  const size = parallel === 'auto' ? await runsAtOnce(bench, most) : Math.min(parallel, most);
  const pool = new CellPool(size, threads);
  let done = 0;
  const trained = async (cell: Cell, stream: Stream): Promise<TrainedCell> => {
    const name = nameOf(cell);
    settings.onCell?.(name, 'train', done, total);
    const onUpdate: TrainRecipe['onUpdate'] = (...report) => settings.onUpdate?.(name, ...report);
    return { cell, folder: folderOf(bench, cell), report: await trainCell(bench, cell, stream, onUpdate) };
  };
  const heard = (folder: string, run: TrainedCell | null, stream: Stream): Promise<CellEvaluation> =>
    evaluated(bench, folder, run, stream, (seen, all) =>
      settings.onEvaluated?.(run ? nameOf(run.cell) : 'before', seen, all),
    );
  try {
    const [before] = await pool.all([join(output, 'before')], (folder, stream) => heard(folder, null, stream));
    const groups = Object.keys(spec.methods).flatMap((way) =>
      spec.languages.map((language) => cellsOf(spec, way, language)),
    );
    // What only tries a learning rate is not tested.
    const tried = await pool.all(groups.flat(), trained);
    const best = groups.map((cells) => bestRate(tried.splice(0, cells.length)));
    done = rates - best.filter(({ rates }) => rates.length > 1).length;
    const cells = best.flatMap(({ best }) => spec.seeds.map((seed) => ({ ...best.cell, seed })));
    const runs = await pool.all(cells, async (cell, stream): Promise<RunCell> => {
      const run = await trained(cell, stream);
      settings.onCell?.(nameOf(cell), 'evaluate', done, total);
      const evaluation = await heard(run.folder, run, stream);
      done++;
      return { ...run, evaluation };
    });
    const chosen: Chosen[] = best.map(({ rates }) => ({ rates, runs: runs.splice(0, spec.seeds.length) }));
    const summary = await summarize(bench, before!, chosen);
    return { ...summary, files: await writeReports(output, summary) };
  } finally {
    pool.close();
  }
}

/** Of runs that differ in their learning rate the one with the lowest validation error. */
function bestRate(runs: readonly TrainedCell[]): Pick<Chosen, 'rates'> & { best: TrainedCell } {
  const score = ({ report }: TrainedCell): number | null =>
    isJsonObject(report.best) && typeof report.best.score === 'number' ? report.best.score : null;
  const order = (run: TrainedCell): number => score(run) ?? Number.POSITIVE_INFINITY;
  const best = runs.reduce((a, b) => (order(b) < order(a) ? b : a));
  return { best, rates: runs.map((run) => ({ learningRate: run.cell.learningRate, validation: score(run) })) };
}

/** Makes the folder this benchmark's, or finds that it is: other seeds, languages, methods and rates may come, what is there stays. Throws ERR_RUN. */
async function claim(bench: Bench): Promise<void> {
  const { output, spec } = bench;
  await using test = await openRows(spec.test, 'test', bench);
  const { seeds: _, methods, languages: __, ...fixed } = spec;
  const own = Object.entries(methods).map(([name, { learningRates: _, ...rest }]) => [`methods.${name}`, rest]);
  const identity: JsonObject = JSON.parse(
    JSON.stringify({ format: 1, ...fixed, 'test rows': await digestOfRows(test), ...Object.fromEntries(own) }),
  );
  const path = join(output, 'spec.json');
  const there = (await isFile(path)) ? await readJsonObject(path, 'ERR_RUN') : null;
  if (there) {
    const isFree = (key: string): boolean => key.startsWith('methods.') && !(key in there && key in identity);
    const name = Object.keys({ ...there, ...identity }).find(
      (key) => !isFree(key) && !isDeepStrictEqual(there[key], identity[key]),
    );
    if (name !== undefined)
      throw new DistilWhisperError(
        'ERR_RUN',
        `${output}: expected the benchmark that it was begun with, got another ${name}`,
      );
  } else {
    await proveFolder(output);
    await mkdir(join(output, 'before'), { recursive: true });
  }
  const all = { ...there, ...identity };
  if (isDeepStrictEqual(there, all)) return;
  const text = Buffer.from(`${JSON.stringify(all, null, 2)}\n`);
  await writeFileAtomic(path, (sink) => sink.append(text));
}

async function writeReports(output: string, summary: BenchmarkSummary): Promise<BenchmarkResult['files']> {
  const { curves: _, worst: __, ...numbers } = summary;
  const contents = {
    json: `${JSON.stringify(numbers, null, 2)}\n`,
    csv: benchmarkCsv(summary),
    markdown: benchmarkMarkdown(summary),
    html: benchmarkHtml(summary),
  };
  const endings = { json: 'json', csv: 'csv', markdown: 'md', html: 'html' } as const;
  const files = {} as BenchmarkResult['files'];
  for (const [kind, text] of Object.entries(contents) as [keyof typeof endings, string][]) {
    files[kind] = join(output, `benchmark.${endings[kind]}`);
    await writeFileAtomic(files[kind], (sink) => sink.append(Buffer.from(text)));
  }
  return files;
}

/** Streams that share the threads, one for each cell that runs. */
class CellPool {
  private readonly streams: Stream[];

  constructor(size: number, threads: number) {
    this.streams = Array.from({ length: size }, () => new Stream({ threads: Math.max(1, Math.floor(threads / size)) }));
  }

  /** The results in the order of the cells. The first failure ends the others at their next cell. */
  async all<C, T>(cells: readonly C[], work: (cell: C, stream: Stream) => Promise<T>): Promise<T[]> {
    const results: T[] = [];
    const waiting = [...cells.entries()];
    let failure: { error: unknown } | null = null;
    const lane = async (stream: Stream): Promise<void> => {
      for (let next = waiting.shift(); next && !failure; next = waiting.shift()) {
        try {
          results[next[0]] = await work(next[1], stream);
        } catch (error) {
          failure ??= { error };
        }
      }
    };
    await Promise.all(this.streams.map(lane));
    if (failure) throw (failure as { error: unknown }).error;
    return results;
  }

  close(): void {
    for (const stream of this.streams) stream.close();
  }
}
