/** Losses. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';
import { type Float, type Optional, on, type } from './arguments.js';

const DIVERGENCES = { none: 0, js: 1, kl: 2 };

export interface DistillLossArguments {
  hidden: Tensor;
  weight: Tensor;
  /** i32 [N]: token ids, or -100 for rows that are ignored. */
  labels: Tensor;
  /** The teacher's hidden rows [N, Dt] and weight [V, Dt]: both, or without a divergence neither. */
  teacherHidden?: Optional;
  teacherWeight?: Optional;
  /** f32 [V, D], added to. */
  dweight?: Optional;
  /** Label smoothing, 0 to 1. */
  smoothing: number;
  /** More than 0; divergences are multiplied by its square. */
  temperature: number;
  /** Divergence: none, Jensen-Shannon, or KL(teacher ‖ student). */
  kind: keyof typeof DIVERGENCES;
  crossEntropyWeight: number;
  divergenceWeight: number;
  /** Whether the divergence counts ignored rows too. */
  allPositions?: boolean | undefined;
  /** Whether dhidden is wanted. */
  grad: boolean;
  compute: Float;
  /** Bytes of scratch memory, 1 MiB at least. */
  workspace: number;
  /** Inside log(m + epsilon) of Jensen-Shannon. */
  epsilon?: number | undefined;
}

export interface DistillLossResults {
  /** f32 [4]: mean cross-entropy over labelled rows, mean divergence, weighted total, labelled rows. */
  stats: Tensor;
  /** f32 [N] each, 0 for rows that do not count. */
  crossEntropy: Tensor;
  divergence: Tensor;
  /** f32 [N, D]: d total / d hidden; [0, D] without `grad`. */
  dhidden: Tensor;
}

/**
 * Cross-entropy of softmax(hidden·Wᵀ) against labels and its divergence from a teacher, with their gradient. Logits are never whole
 * in memory. hidden [N, D], weight [V, D].
 */
export function distillLoss(stream: Stream, a: DistillLossArguments): DistillLossResults {
  const [stats, crossEntropy, divergence, dhidden] = call(
    stream,
    'distill_loss',
    [a.hidden, a.weight, a.labels, a.teacherHidden, a.teacherWeight, a.dweight],
    [
      a.smoothing,
      a.temperature,
      DIVERGENCES[a.kind],
      a.crossEntropyWeight,
      a.divergenceWeight,
      on(a.allPositions),
      on(a.grad),
      type(a.compute),
      a.workspace,
      a.epsilon ?? 0,
    ],
  );
  return { stats: stats!, crossEntropy: crossEntropy!, divergence: divergence!, dhidden: dhidden! };
}

export interface GateBudgetArguments {
  /** g f32 [R] of every layer. */
  gates: readonly Tensor[];
  budget: number;
  weight: number;
  /** Rows that belong to a language, over all layers; 0: all that are given. */
  count: number;
}

/** mean = Σ g / count, loss = |mean − budget|, dgate = weight·sign(mean − budget) / count: each f32 [1]. */
export function gateBudget(stream: Stream, a: GateBudgetArguments): { mean: Tensor; loss: Tensor; dgate: Tensor } {
  const [mean, loss, dgate] = call(stream, 'gate_budget', a.gates, [a.budget, a.weight, a.count]);
  return { mean: mean!, loss: loss!, dgate: dgate! };
}
