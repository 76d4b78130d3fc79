/** What the cells of a benchmark say together. */
import { existsSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import type { Task } from '../../data/index.js';
import {
  type Comparison,
  compare,
  defaultNormalizer,
  type ErrorCounts,
  type EvaluationGroup,
  type EvaluationReport,
  type Hypothesis,
  mean,
} from '../../evaluate/index.js';
import { isJsonObject, type JsonObject, readTextFile } from '../../files/index.js';
import { wer } from '../../text/index.js';
import type { GateHistogram } from '../../train/index.js';
import { type Bench, openRows, type RunCell } from './cell.js';

/** A way and a language: the runs of all seeds at the learning rate that was chosen, and what all rates came to. */
export interface Chosen {
  runs: RunCell[];
  /** Learning rates, null for that of the options, and the validation error that each came to. */
  rates: { learningRate: number | null; validation: number | null }[];
}

/** Mean and spread over seeds; `values` in their order. */
export interface Spread {
  mean: number;
  /** Standard deviation; 0 of one seed. */
  deviation: number;
  values: number[];
}

/** Errors of one way in one language and domain. */
export interface BenchmarkRow {
  way: string;
  /** Code of the language that was taught; of the row 'before' null. */
  taught: string | null;
  language: string;
  domain: string;
  task: Task;
  utterances: number;
  wer: Spread;
  cer: Spread;
  /** Of translations, 0 to 100; null of what is transcribed. */
  bleu: Spread | null;
  chrf: Spread | null;
  /** Share of the rows that took the expert at inference; null without one. */
  gateShare: number | null;
  /** Share of the transcripts that are what they were before, byte for byte. */
  unchanged: number;
}

/** What a way took, in means over its seeds. */
export interface BenchmarkCost {
  way: string;
  taught: string;
  rates: Chosen['rates'];
  learningRate: number | null;
  seeds: number[];
  trainable: number;
  parameters: number;
  /** That a row runs through at inference. */
  active: number;
  /** Bytes of memory at the peak, as planned. */
  memory: number;
  seconds: number;
  bestUpdate: Spread | null;
  /** Of each layer's rows the share that takes the expert at inference, a mean over seeds; null without one. */
  layerShares: number[] | null;
}

/** What two ways differ by in the language that both were taught. */
export interface BenchmarkComparison {
  taught: string;
  a: string;
  b: string;
  comparison: Comparison;
}

/** A run's log, thinned. */
export interface Curve {
  way: string;
  taught: string;
  seed: number;
  points: { step: number; loss: number; distillation: number; gate: number; chosen: number; learningRate: number }[];
  validation: { step: number; wer: number }[];
  /** The last histogram of its gates, and the share of each layer's rows that take the expert at inference. */
  gates: GateHistogram | null;
  layerShares: number[] | null;
}

export interface WorstUtterance {
  way: string;
  taught: string;
  id: string;
  domain: string;
  reference: string;
  before: string;
  after: string;
  wer: number;
  /** As a data URL; null where it does not lie in a file of its own, or is large. */
  audio: string | null;
}

export interface BenchmarkSummary {
  format: 1;
  model: string;
  teacher: string | null;
  rows: BenchmarkRow[];
  costs: BenchmarkCost[];
  comparisons: BenchmarkComparison[];
  curves: Curve[];
  worst: WorstUtterance[];
}

const POINTS = 200;
const WORST = 5;
const LARGEST_AUDIO = 200_000;
const AUDIO_TYPES: Record<string, string> = {
  '.opus': 'audio/ogg',
  '.ogg': 'audio/ogg',
  '.wav': 'audio/wav',
  '.mp3': 'audio/mpeg',
  '.flac': 'audio/flac',
  '.m4a': 'audio/mp4',
};

export function spread(values: readonly number[]): Spread {
  const middle = mean(values);
  const square = values.reduce((sum, x) => sum + (x - middle) ** 2, 0);
  return {
    mean: middle,
    deviation: values.length > 1 ? Math.sqrt(square / (values.length - 1)) : 0,
    values: [...values],
  };
}

export async function summarize(
  bench: Bench,
  before: EvaluationReport,
  chosen: readonly Chosen[],
): Promise<BenchmarkSummary> {
  const { spec } = bench;
  const curves: Curve[] = [];
  for (const { runs } of chosen) for (const run of runs) curves.push(await curveOf(run));
  return {
    format: 1,
    model: spec.model,
    teacher: spec.teacher ?? null,
    rows: [
      ...rowsOf('before', null, [before], before),
      ...chosen.flatMap(({ runs }) =>
        rowsOf(
          runs[0]!.cell.way,
          runs[0]!.cell.language,
          runs.map(({ evaluation }) => evaluation),
          before,
        ),
      ),
    ],
    costs: chosen.map(costOf),
    comparisons: comparisonsOf(chosen, before),
    curves,
    worst: await worstOf(bench, chosen, before),
  };
}

const isOf = (one: Pick<Hypothesis, 'language' | 'domain' | 'task'>, group: EvaluationGroup): boolean =>
  one.language === group.language && one.domain === group.domain && (one.task ?? 'transcribe') === group.task;

function rowsOf(
  way: string,
  taught: string | null,
  reports: readonly EvaluationReport[],
  before: EvaluationReport,
): BenchmarkRow[] {
  const was = new Map(before.hypotheses.map(({ id, hypothesis }) => [id, hypothesis]));
  return reports[0]!.groups.map((group) => {
    const { language, domain, task, utterances } = group;
    const groups = reports.map((report) => report.groups.find((one) => isOf(one, group))!);
    const of = (name: 'wer' | 'cer'): Spread => spread(groups.map((group: ErrorCounts) => group[name]));
    const scores = (name: 'bleu' | 'chrf'): Spread | null =>
      task === 'translate' ? spread(groups.map((group) => group[name]!)) : null;
    const shares = groups.flatMap(({ gateShare }) => (gateShare === null ? [] : [gateShare]));
    const heard = reports.flatMap((report) => report.hypotheses.filter((one) => isOf(one, group)));
    const same = heard.filter(({ id, hypothesis }) => was.get(id) === hypothesis).length;
    return {
      way,
      taught,
      language,
      domain,
      task,
      utterances,
      wer: of('wer'),
      cer: of('cer'),
      bleu: scores('bleu'),
      chrf: scores('chrf'),
      gateShare: shares.length > 0 ? mean(shares) : null,
      unchanged: same / heard.length,
    };
  });
}

const numberOf = (report: JsonObject, name: string): number => (typeof report[name] === 'number' ? report[name] : 0);

function costOf({ runs, rates }: Chosen): BenchmarkCost {
  const { cell, report: first } = runs[0]!;
  const ofRuns = (of: (report: JsonObject) => number): number => mean(runs.map(({ report }) => of(report)));
  const steps = runs.flatMap(({ report }) => (isJsonObject(report.best) ? [numberOf(report.best, 'step')] : []));
  return {
    way: cell.way,
    taught: cell.language,
    rates,
    learningRate: cell.learningRate,
    seeds: runs.map(({ cell }) => cell.seed),
    trainable: numberOf(first, 'trainable'),
    parameters: numberOf(first, 'parameters'),
    active: numberOf(first, 'active'),
    memory: ofRuns((report) => (isJsonObject(report.memory) ? numberOf(report.memory, 'total') : 0)),
    seconds: ofRuns((report) => numberOf(report, 'seconds')),
    bestUpdate: steps.length > 0 ? spread(steps) : null,
    layerShares: meanOfLayers(
      runs.flatMap(({ evaluation }) => (evaluation.layerShares ? [evaluation.layerShares] : [])),
    ),
  };
}

const meanOfLayers = (runs: readonly number[][]): number[] | null =>
  runs[0]?.map((_, layer) => mean(runs.map((shares) => shares[layer]!))) ?? null;

/** Every two ways of a language, and each with what was before, on that language's utterances. */
function comparisonsOf(chosen: readonly Chosen[], before: EvaluationReport): BenchmarkComparison[] {
  const languages = [...new Set(chosen.map(({ runs }) => runs[0]!.cell.language))];
  return languages.flatMap((taught) => {
    const of = (report: EvaluationReport): Hypothesis[] =>
      report.hypotheses.filter(({ language, task }) => language === taught && task !== 'translate');
    if (of(before).length === 0) return [];
    const ways = chosen.filter(({ runs }) => runs[0]!.cell.language === taught);
    // What was before has no seed: as many runs of it as there are of the others differ by nothing.
    const seeds = Math.max(...ways.map(({ runs }) => runs.length));
    const sides: [name: string, runs: Hypothesis[][]][] = [
      ['before', Array.from({ length: seeds }, () => of(before))],
      ...ways.map(({ runs }): [string, Hypothesis[][]] => [runs[0]!.cell.way, runs.map((run) => of(run.evaluation))]),
    ];
    return sides.flatMap(([a, heardByA], i) =>
      sides.slice(i + 1).map(([b, heardByB]) => ({ taught, a, b, comparison: compare(heardByA, heardByB) })),
    );
  });
}

/** Every so many updates of a run's log. */
async function curveOf({ cell, folder, evaluation }: RunCell): Promise<Curve> {
  const lines = (await readTextFile(join(folder, 'log.jsonl'), 'ERR_RUN')).trimEnd().split('\n');
  const all = lines.map((line) => JSON.parse(line) as Record<string, unknown>);
  const updates = all.filter((line) => typeof line.loss === 'number') as unknown as (Curve['points'][number] & {
    gateHistogram?: GateHistogram;
  })[];
  const every = Math.max(1, Math.ceil(updates.length / POINTS));
  const histograms = updates.flatMap(({ gateHistogram }) => (gateHistogram ? [gateHistogram] : []));
  return {
    way: cell.way,
    taught: cell.language,
    seed: cell.seed,
    points: updates
      .filter((_, i) => i % every === 0 || i === updates.length - 1)
      .map(({ step, loss, distillation, gate, chosen, learningRate }) => ({
        step,
        loss,
        distillation,
        gate,
        chosen,
        learningRate,
      })),
    validation: all.flatMap(({ step, validation }) =>
      isJsonObject(validation) && typeof validation.wer === 'number'
        ? [{ step: step as number, wer: validation.wer }]
        : [],
    ),
    gates: histograms.at(-1) ?? null,
    layerShares: evaluation.layerShares,
  };
}

/** Of each way the utterances of its language with the most errors, by its first seed. */
async function worstOf(bench: Bench, chosen: readonly Chosen[], before: EvaluationReport): Promise<WorstUtterance[]> {
  const was = new Map(before.hypotheses.map(({ id, hypothesis }) => [id, hypothesis]));
  const audio = new Map<string, string>();
  {
    await using test = await openRows(bench.spec.test, 'test', bench);
    for (const entry of test.entries()) if (typeof entry.audio === 'string') audio.set(entry.id, entry.audio);
  }
  return chosen.flatMap(({ runs: [first] }) => {
    const { cell, evaluation } = first!;
    return evaluation.hypotheses
      .filter(({ language, task }) => language === cell.language && task !== 'translate')
      .map(({ id, domain, reference, hypothesis }) => {
        const { rate, errors } = wer([defaultNormalizer(reference)], [defaultNormalizer(hypothesis)]);
        return { id, domain, reference, hypothesis, rate, errors };
      })
      .sort((a, b) => b.errors - a.errors || (a.id < b.id ? -1 : 1))
      .slice(0, WORST)
      .map(({ id, domain, reference, hypothesis, rate }) => ({
        way: cell.way,
        taught: cell.language,
        id,
        domain,
        reference,
        before: was.get(id) ?? '',
        after: hypothesis,
        wer: rate,
        audio: audioUrl(audio.get(id)),
      }));
  });
}

function audioUrl(path: string | undefined): string | null {
  const type = path === undefined ? undefined : AUDIO_TYPES[extname(path).toLowerCase()];
  if (type === undefined || !existsSync(path!)) return null;
  const bytes = readFileSync(path!);
  return bytes.byteLength <= LARGEST_AUDIO ? `data:${type};base64,${bytes.toString('base64')}` : null;
}
