import { layerStream } from '../random/index.js';
import { type FloatType, kernels, type Parameter, type Pass, type Tensor } from '../tensor/index.js';
import { type ExpertRows, expertGradients, expertTensors } from './experts.js';

/** How gates behave in a training pass (docs/method.md, section 2). */
export interface SoftGates {
  /** Noise factor α = 5·min(step/steps, 1). */
  readonly alpha: number;
  /** Dropout of the gate's input (0.1) and of the expert's output (0.3). */
  readonly gateDropout: number;
  readonly expertDropout: number;
  /** Whether an expert's share is the hard choice on the way forward, with the soft gate's gradient (straight-through). Default false. */
  readonly straight?: boolean | undefined;
  /** Philox key and step of this forward pass. */
  readonly seed: number;
  readonly step: number;
  /** Is given G of the layer's rows that have an expert, f32 [rows] (with dropout of the gate's input, without noise). */
  observe?(layer: number, gates: readonly Tensor[]): void;
  /** Whether a layer's call leaves its expert out. Layers are counted through encoder, then decoder. */
  skip(layer: number): boolean;
  /** Recorded randomness instead of drawn: noise f32 [rows], 0/1 keep masks f32 [rows, D]. */
  noise?(layer: number): Tensor | null;
  gateMask?(layer: number): Tensor | null;
  expertMask?(layer: number): Tensor | null;
}

interface SharedFfn {
  readonly fc1: { weight: Parameter; bias: Parameter };
  readonly fc2: { weight: Parameter; bias: Parameter };
}

export const feedForwardTensors = ({ fc1, fc2 }: SharedFfn): kernels.FeedForwardTensors => ({
  fc1: fc1.weight.value,
  fc1Bias: fc1.bias.value,
  fc2: fc2.weight.value,
  fc2Bias: fc2.bias.value,
});
export const languageRows = (rows: readonly ExpertRows[]): kernels.LanguageRows[] =>
  rows.map(({ expert, begin, end }) => ({ expert: expertTensors(expert), begin, end }));

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
  const { y, g } = kernels.gatedFfnHard(pass.stream, {
    x,
    residual,
    shared: feedForwardTensors(shared),
    languages: languageRows(rows),
    compute: pass.compute,
    out: 'f32',
  });
  return [y, g];
}

/**
 * The gated expert FFN in training (soft gates): y = (1 − g)·FFN(x) + g·dropout(FFN_lang(x)) + residual.
 * The shared FFN is frozen. The tape takes ∂L/∂g, the same for all rows, as the gradient of the returned gate: f32 [1]. chosen f32
 * [rows]: 1 where inference would choose the expert.
 */
export function gatedFfnSoft(
  pass: Pass,
  x: Tensor,
  shared: SharedFfn,
  rows: readonly ExpertRows[],
  residual: Tensor,
  layer: number,
  gates: SoftGates,
): [y: Tensor, gate: Tensor, chosen: Tensor] {
  const { stream, tape, compute } = pass;
  const skip = gates.skip(layer);
  const both = {
    x,
    shared: feedForwardTensors(shared),
    gateMask: gates.gateMask?.(layer),
    expertMask: gates.expertMask?.(layer),
    skip,
    alpha: gates.alpha,
    gateDropout: gates.gateDropout,
    expertDropout: gates.expertDropout,
    seed: gates.seed,
    step: gates.step,
    op: layerStream(layer),
    straight: gates.straight,
    compute,
  };
  const languages = languageRows(rows);
  const noise = gates.noise?.(layer);
  const { y, chosen, ...saved } = kernels.gatedFfn(stream, { ...both, residual, languages, noise, out: 'f32' });
  const { g, gateHidden, preShared, preExpert, delta } = saved;
  if (gates.observe) gates.observe(layer, preGates(pass, gateHidden, rows));
  tape?.record(
    y,
    (dy) => {
      const { dx } = kernels.gatedFfnBackward(stream, {
        ...both,
        ...saved,
        dy,
        dgate: tape.gradient(g),
        languages: rows.map(({ expert }, l) => ({ ...languages[l]!, gradients: expertGradients(expert, skip) })),
        out: x.dtype as FloatType,
      });
      tape.add(x, dx);
      if (tape.needs(residual)) tape.add(residual, dy);
    },
    [gateHidden, preShared, preExpert, delta],
  );
  return [y, g, chosen];
}

/** G of the rows of each language: w_out·hidden. */
function preGates({ stream }: Pass, hidden: Tensor, rows: readonly ExpertRows[]): Tensor[] {
  const G: Tensor[] = [];
  let at = 0;
  for (const { expert, begin, end } of rows) {
    const of = hidden.slice(at, at + end - begin);
    at += end - begin;
    G.push(kernels.linear(stream, { x: of, weight: expert.gateOut.value, compute: 'f32', out: 'f32' }).y);
  }
  return G;
}
