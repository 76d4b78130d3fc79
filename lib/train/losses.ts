/** The losses of the paper, each for a training loop of one's own too: it queues a loss and adds its gradient to a tape. */
import type { Forward, Whisper } from '../model/index.js';
import { elementType, kernels, type Tape, type Tensor } from '../tensor/index.js';
import type { TrainingOptions } from './options.js';
import type { Taught } from './teacher.js';

/** Bytes of scratch memory of the distillation loss on a device: the vocabulary's weights are read once for what fits. */
export const lossWorkspace = (device: string, bytes = 0): number => bytes || (device === 'cpu' ? 64 : 192) << 20;

/** Weights of (CE + budget) and of the divergence: ½/σ0² and ½/σ1² with a teacher, 1 and 0 without. */
export function lossWeights(
  { sigma }: Pick<TrainingOptions, 'sigma'>,
  hasTeacher: boolean,
): [crossEntropy: number, divergence: number] {
  if (!hasTeacher) return [1, 0];
  return [0.5 / sigma[0] ** 2, 0.5 / sigma[1] ** 2];
}

export interface DistillationLossArguments {
  /** What the decoder shall say: i32 [B·T], -100 where that does not count (`BatchUploader`). */
  targets: Tensor;
  /** What a teacher says; without one it is the cross-entropy alone. */
  taught?: Taught | null | undefined;
  /** Of the two parts (`lossWeights`). */
  weights: readonly [crossEntropy: number, divergence: number];
  /** How they are measured; `trainingOptions` fills in the rest. */
  options: Pick<TrainingOptions, 'labelSmoothing' | 'distillation' | 'temperature' | 'compat' | 'workspace'>;
}

/**
 * Cross-entropy of a model's last hidden rows [B, T, D] against targets, with smoothed labels, and their divergence from a teacher's, fused: logits are
 * never whole in memory. Their gradient is added to that of `hidden` on the tape, and to the embedding table's where it trains. Result
 * f32 [4]: mean cross-entropy over labelled rows, mean divergence, weighted sum, labelled rows.
 */
export function distillationLoss(
  tape: Tape,
  model: Whisper,
  hidden: Tensor,
  { targets, taught, weights, options }: DistillationLossArguments,
): Tensor {
  const { stream, config } = model;
  const table = model.embeddingTable;
  const reference = options.compat === 'reference';
  const { stats, dhidden } = kernels.distillLoss(stream, {
    hidden: hidden.reshape([targets.size, config.d_model]),
    weight: table.value,
    labels: targets,
    teacherHidden: taught?.rows,
    teacherWeight: taught?.head,
    dweight: table.accumulator(),
    smoothing: options.labelSmoothing,
    temperature: options.temperature,
    kind: taught ? options.distillation : 'none',
    crossEntropyWeight: weights[0],
    divergenceWeight: weights[1],
    allPositions: reference,
    grad: true,
    compute: elementType(model.compute),
    workspace: lossWorkspace(stream.device, options.workspace),
    epsilon: reference ? 1e-10 : 0,
  });
  tape.add(hidden, dhidden.reshape(hidden.shape));
  return stats;
}

/**
 * The distance of the gates' mean from the budget: |mean − budget|, times `weight` in the gradient, which is added to that of each gate on the tape.
 * gates and chosen f32 [rows] of every layer (`Forward`); `options.gateBudgetOf` says whose mean is held to the budget; `count`: rows of them that have an
 * expert, by default all. Results f32 [1]: both means, and the distance.
 */
export function gateBudgetLoss(
  tape: Tape,
  { gates, chosen }: Pick<Forward, 'gates' | 'chosen'>,
  {
    weight,
    count = 0,
    options,
  }: { weight: number; count?: number | undefined; options: Pick<TrainingOptions, 'gateBudget' | 'gateBudgetOf'> },
): { mean: Tensor; chosen: Tensor; loss: Tensor } {
  const of = (gates: readonly Tensor[]) =>
    kernels.gateBudget(tape.stream, { gates, budget: options.gateBudget, weight, count });
  const [soft, hard] = [of(gates), of(chosen)];
  const { loss, dgate } = options.gateBudgetOf === 'hard' ? hard : soft;
  for (const gate of gates) tape.add(gate, dgate);
  return { mean: soft.mean, chosen: hard.mean, loss };
}
