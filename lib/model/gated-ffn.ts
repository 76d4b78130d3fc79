import { layerStream } from '../random/index.js';
import { dtypeNumber, type Parameter, type Pass, type Tensor } from '../tensor/index.js';
import { type ExpertLayer, expertParameters } from './experts.js';

/** How gates behave in a training pass (DESIGN: soft gates with noise, dropout, skipped layers). */
export interface SoftGates {
  /** Noise factor α = 5·min(step/steps, 1). */
  readonly alpha: number;
  /** Dropout of the gate's input (0.1) and of the expert's output (0.3). */
  readonly gateDropout: number;
  readonly expertDropout: number;
  /** Philox key and step of this forward pass. */
  readonly seed: number;
  readonly step: number;
  /** Whether a layer's call leaves its expert out. Layers are counted through encoder, then decoder. */
  skip(layer: number): boolean;
  /** Recorded randomness instead of drawn: noise f32 [rows], 0/1 keep masks f32 [rows, D]. */
  noise?(layer: number): Tensor | null;
  gateMask?(layer: number): Tensor | null;
  expertMask?(layer: number): Tensor | null;
}

/** Consecutive rows of one language. */
export interface ExpertRows {
  readonly expert: ExpertLayer;
  readonly begin: number;
  readonly end: number;
}

interface SharedFfn {
  readonly fc1: { weight: Parameter; bias: Parameter };
  readonly fc2: { weight: Parameter; bias: Parameter };
}

const sharedTensors = ({ fc1, fc2 }: SharedFfn): Tensor[] => [
  fc1.weight.value,
  fc1.bias.value,
  fc2.weight.value,
  fc2.bias.value,
];
/** How many languages, and where the rows of each begin and end, as the kernels take it. */
export const rangeNumbers = (rows: readonly ExpertRows[]): number[] => [
  rows.length,
  ...rows.flatMap((r) => [r.begin, r.end]),
];
export const expertTensors = (rows: readonly ExpertRows[]): Tensor[] =>
  rows.flatMap((r) => expertParameters(r.expert).map((p) => p.value));

/**
 * The gated expert FFN in inference: every row runs one FFN, the one its gate chose (G ≥ 0: the language's).
 * x [.., D] → [y f32 [.., D] with the residual added, g f32 [rows] of zeros and ones].
 */
export function gatedFfnHard(
  pass: Pass,
  x: Tensor,
  shared: SharedFfn,
  rows: readonly ExpertRows[],
  residual: Tensor,
): [y: Tensor, gate: Tensor] {
  const [y, g] = pass.stream.call(
    'gated_ffn_hard',
    [x, residual, ...sharedTensors(shared), ...expertTensors(rows)],
    [...rangeNumbers(rows), dtypeNumber(pass.compute), dtypeNumber('f32')],
  );
  return [y!, g!];
}

/**
 * The gated expert FFN in training (soft gates): y = (1 − g)·FFN(x) + g·dropout(FFN_lang(x)) + residual.
 * The shared FFN is frozen. The tape takes ∂L/∂g, the same for all rows, as the gradient of the returned gate: f32 [1].
 */
export function gatedFfnSoft(
  pass: Pass,
  x: Tensor,
  shared: SharedFfn,
  rows: readonly ExpertRows[],
  residual: Tensor,
  layer: number,
  gates: SoftGates,
): [y: Tensor, gate: Tensor] {
  const { stream, tape, compute } = pass;
  const gateMask = gates.gateMask?.(layer) ?? null;
  const expertMask = gates.expertMask?.(layer) ?? null;
  const settings = (out: number): number[] => [
    ...rangeNumbers(rows),
    gates.skip(layer) ? 1 : 0,
    gates.alpha,
    gates.gateDropout,
    gates.expertDropout,
    gates.seed,
    gates.step,
    layerStream(layer),
    dtypeNumber(compute),
    out,
  ];
  const skipped = gates.skip(layer);
  const weights = [...sharedTensors(shared), ...expertTensors(rows)];
  const [y, g, ...saved] = stream.call(
    'gated_ffn',
    [x, residual, ...weights, gates.noise?.(layer) ?? null, gateMask, expertMask],
    settings(dtypeNumber('f32')),
  );
  tape?.record(
    y!,
    (dy) => {
      const gradients = rows.flatMap((r) =>
        expertParameters(r.expert).map((p, i) => (skipped && i > 2 ? null : p.accumulator())),
      );
      const [dx] = stream.call(
        'gated_ffn_backward',
        [dy, tape.gradient(g!), x, ...weights, gateMask, expertMask, g!, ...saved, ...gradients],
        settings(dtypeNumber(x.dtype)),
      );
      tape.add(x, dx!);
      if (tape.needs(residual)) tape.add(residual, dy);
    },
    saved,
  );
  return [y!, g!];
}
