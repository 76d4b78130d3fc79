import type { Forward, Whisper } from '../model/index.js';
import type { Tape, Tensor } from '../tensor/index.js';
import { distillationLoss, gateBudgetLoss, lossWeights } from './losses.js';
import type { TrainingOptions } from './options.js';
import type { Taught } from './teacher.js';

/** How an update's numbers are read: its other calls, and the upload of the next update, go on meanwhile. */
export const BEHIND = { behind: true };

/** A read that nobody may come to await, where the queueing of an update fails behind it. */
export function quiet<T>(reading: Promise<T>): Promise<T> {
  reading.catch(() => {});
  return reading;
}

/** Which part of an update a micro-batch is: losses are means over its batches, and in a batch over its tokens, or its items. */
export interface Part {
  /** Batches of the update, by the share of their tokens that this rank has. */
  batches: number;
  /** Shares of its batch: of the tokens and of the items; 1: it is all of it. */
  tokens: number;
  items: number;
}

/** The losses of a micro-batch, on their way. */
export interface LossReadings {
  /** Cross-entropy, divergence, and their weighted sum. */
  stats: Promise<Float32Array>;
  /** Mean gate, the share that inference would send to an expert, and the distance from the budget; empty without experts that train. */
  budget: Promise<Float32Array>[];
  part: Part;
}

/** Of an update: means over its micro-batches, each by its share. */
export interface Losses {
  loss: number;
  crossEntropy: number;
  distillation: number;
  gate: number;
  chosen: number;
  gateLoss: number;
}

/** A mean in which each value counts by its share. */
function average(values: readonly number[], shares: readonly number[]): number {
  const sum = (all: readonly number[]): number => all.reduce((a, b) => a + b, 0);
  return sum(values.map((value, i) => value * shares[i]!)) / sum(shares);
}

/** What is minimised: L = ½[(CE + budget)/σ0² + KD/σ1²], or CE + budget where no teacher is named. */
export class Objective {
  constructor(
    private readonly model: Whisper,
    private readonly options: TrainingOptions,
    private readonly named: boolean,
  ) {}

  /**
   * Queues the losses of a micro-batch of B items; their gradients, for the `part` of the update's mean that it is, are set on the tape. hidden [B, T, D],
   * targets i32 [B·T]; the gates of an item without an expert are 0, and their mean is over the `covered` ones.
   */
  measure(
    tape: Tape,
    { hidden, gates, chosen }: Forward,
    { targets, taught, covered, part }: { targets: Tensor; taught: Taught | null; covered: number; part: Part },
  ): LossReadings {
    const { model, options } = this;
    const weights = this.weights(part.batches / part.tokens);
    const stats = distillationLoss(tape, model, hidden, { targets, taught, weights, options });
    const readings: LossReadings = { stats: quiet(stats.floats(BEHIND)), budget: [], part };
    if (gates.length > 0) {
      const B = hidden.shape[0]!;
      const budget = gateBudgetLoss(
        tape,
        { gates, chosen },
        {
          weight: this.weights(part.batches / part.items)[0],
          count: gates.reduce((sum, g) => sum + (g.size / B) * covered, 0),
          options,
        },
      );
      for (const tensor of [budget.mean, budget.chosen, budget.loss])
        readings.budget.push(quiet(tensor.floats(BEHIND)));
    }
    return readings;
  }

  /** Rejects when the stream ends before they are there. */
  async losses(micro: readonly LossReadings[]): Promise<Losses> {
    const [stats, budget] = await Promise.all([
      Promise.all(micro.map((m) => m.stats)),
      Promise.all(micro.map((m) => Promise.all(m.budget))),
    ]);
    const tokens = micro.map(({ part }) => part.tokens);
    const items = micro.map(({ part }) => part.items);
    const gateLoss = average(
      budget.map(([, , loss]) => loss?.[0] ?? 0),
      items,
    );
    return {
      loss:
        average(
          stats.map((s, i) => s[2]! * (micro[i]!.part.batches / tokens[i]!)),
          tokens,
        ) +
        this.weights(1)[0] * gateLoss,
      crossEntropy: average(
        stats.map((s) => s[0]!),
        tokens,
      ),
      distillation: average(
        stats.map((s) => s[1]!),
        tokens,
      ),
      gate: average(
        budget.map(([g]) => g?.[0] ?? 0),
        items,
      ),
      chosen: average(
        budget.map(([, h]) => h?.[0] ?? 0),
        items,
      ),
      gateLoss,
    };
  }

  /** Weights of (CE + budget) and of the divergence in one of so many parts of the total. */
  private weights(parts: number): [crossEntropy: number, distillation: number] {
    const [crossEntropy, divergence] = lossWeights(this.options, this.named);
    return [crossEntropy / parts, divergence / parts];
  }
}
