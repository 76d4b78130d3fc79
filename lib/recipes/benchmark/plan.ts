/** What the runs of a benchmark take, before they begin. */
import { join } from 'node:path';
import { Stream } from '../../tensor/index.js';
import { Closers } from '../closers.js';
import type { TrainPlan } from '../recipe.js';
import { openRun } from '../run.js';
import { planTraining } from '../train.js';
import type { Bench } from './cell.js';
import { cellsOf, recipeOf } from './spec.js';

/** Runs that differ by learning rate and seed alone: they take the same. */
export interface CellPlan {
  way: string;
  /** Code. */
  language: string;
  runs: number;
  /** Bytes at the peak of one, and of them those beyond what the process held before. */
  memory: number;
  needed: number;
  /** Of training one, without validations and tests; null where there are too few utterances for an update. */
  seconds: number | null;
}

/** Share of the memory that is left alone: what a run is planned to take holds within a tenth. */
const LEFT = 0.1;

/** Calls `plan` for one cell of each way and language, with a folder that is not there. */
async function eachKind<T>(
  { spec, output, signal, hub }: Bench,
  plan: (recipe: Parameters<typeof openRun>[0], way: string, language: string, runs: number) => Promise<T>,
): Promise<T[]> {
  const all: T[] = [];
  for (const way of Object.keys(spec.methods))
    for (const named of spec.languages) {
      const [cell, ...others] = cellsOf(spec, way, named);
      const runs = others.length + spec.seeds.length;
      const recipe = { ...recipeOf(spec, cell!), output: join(output, 'planned'), signal, hub };
      all.push(await plan(recipe, way, cell!.language, runs));
    }
  return all;
}

/** What each kind of run takes, with its time measured on two updates. Nothing is written. Errors: those of `planTraining`. */
export async function planCells(bench: Bench, threads: number): Promise<CellPlan[]> {
  const stream = new Stream({ threads });
  try {
    return await eachKind(bench, async (recipe, way, language, runs) => {
      const { memory, time } = await planTraining({ ...recipe, stream });
      const { total, base } = memory;
      return { way, language, runs, memory: total, needed: total - base, seconds: time?.run ?? null };
    });
  } finally {
    stream.close();
  }
}

/** So many runs as fit into memory at once: at least one, of which `train` says itself when it does not fit. */
export async function runsAtOnce(bench: Bench, most: number): Promise<number> {
  if (most === 1) return 1;
  const memories = await eachKind(bench, async (recipe): Promise<TrainPlan['memory']> => {
    const closers = new Closers();
    try {
      return (await openRun(recipe, closers)).plan.memory;
    } finally {
      await closers.close();
    }
  });
  const fitting = memories.map(({ total, base, room }) => Math.floor((room * (1 - LEFT)) / Math.max(1, total - base)));
  return Math.max(1, Math.min(most, ...fitting));
}
