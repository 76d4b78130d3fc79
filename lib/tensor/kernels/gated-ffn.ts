/** FFNs with gated experts. */
import { rawCall as call } from '../call.js';
import type { Stream, Tensor } from '../tensor.js';
import { type Float, type Optional, on, type } from './arguments.js';
import { addExperts, type ExpertTensors, type FeedForwardTensors, type LanguageRows, ranges } from './experts.js';

/** f32, added to; null or left out: frozen. */
export type ExpertGradients = { [K in keyof ExpertTensors]?: Optional };

/** What stays the same between the forward pass and its backward. */
export interface GatedFfnSettings {
  /** Whether this call leaves the experts out: y = FFN(x) + residual, g is computed. */
  skip: boolean;
  /** Factor of the gates' noise. */
  alpha: number;
  /** Dropout of the gate's input and of the expert's output. */
  gateDropout: number;
  expertDropout: number;
  /** Philox key and counter: noise is drawn by `op`, the gate's mask by op + 1, the expert's by op + 2. */
  seed: number;
  step: number;
  op: number;
  /** Whether an expert's share is the hard choice, g ≥ ½, whose gradient is taken to be that of g. Default false. */
  straight?: boolean | undefined;
  compute: Float;
  /** Type of y; of the backward, of dx. */
  out: Float;
}

export interface GatedFfnArguments extends GatedFfnSettings {
  x: Tensor;
  residual?: Optional;
  shared: FeedForwardTensors;
  languages: readonly LanguageRows[];
  /** Instead of drawn ones: noise f32 [R], masks f32 [R, D] where 1 keeps. */
  noise?: Optional;
  gateMask?: Optional;
  expertMask?: Optional;
}

/** What the backward of a gated FFN reads; C: rows that belong to a language, in order. */
export interface GatedFfnSaved {
  g: Tensor;
  /** f32 [C, H], after the relu. */
  gateHidden: Tensor;
  /** [R, F] and [C, F], before gelu. */
  preShared: Tensor;
  preExpert: Tensor;
  /** [C, D]: dropout(FFN_l(x)) − FFN(x). */
  delta: Tensor;
}

const settings = (languages: readonly LanguageRows[], s: GatedFfnSettings): number[] => [
  ...ranges(languages),
  on(s.skip),
  s.alpha,
  s.gateDropout,
  s.expertDropout,
  s.seed,
  s.step,
  s.op,
  on(s.straight),
  type(s.compute),
  type(s.out),
];

/**
 * Soft gates, for training: y = (1 − g)·FFN(x) + g·dropout(FFN_l(x)) + residual, g = sigmoid(G(dropout(x)) + alpha·noise); rows of
 * no language have g = 0. x and residual [.., D] of at least two dimensions and R rows → y [.., D], g f32 [R] and what the backward
 * reads (with `skip`, preExpert and delta have no rows), and chosen f32 [R]: 1 where inference would choose the expert, else 0.
 */
export function gatedFfn(stream: Stream, a: GatedFfnArguments): { y: Tensor; chosen: Tensor } & GatedFfnSaved {
  const { fc1, fc1Bias, fc2, fc2Bias } = a.shared;
  const tensors = [a.x, a.residual, fc1, fc1Bias, fc2, fc2Bias];
  addExperts(tensors, a.languages);
  tensors.push(a.noise, a.gateMask, a.expertMask);
  const outputs = call(stream, 'gated_ffn', tensors, settings(a.languages, a));
  const [y, g, gateHidden, preShared, preExpert, delta, chosen] = outputs;
  return {
    y: y!,
    g: g!,
    gateHidden: gateHidden!,
    preShared: preShared!,
    preExpert: preExpert!,
    delta: delta!,
    chosen: chosen!,
  };
}

export interface GatedFfnBackwardArguments extends GatedFfnSettings, GatedFfnSaved {
  dy: Tensor;
  /** f32 [1]: gradient of every g, beside what comes through y. */
  dgate?: Optional;
  x: Tensor;
  shared: FeedForwardTensors;
  languages: readonly (LanguageRows & { gradients: ExpertGradients })[];
  gateMask?: Optional;
  expertMask?: Optional;
}

/** dx of `gatedFfn` in x's shape; in place, the gradients of every language's tensors are added to. The shared FFN is frozen. */
export function gatedFfnBackward(stream: Stream, a: GatedFfnBackwardArguments): { dx: Tensor } {
  const { fc1, fc1Bias, fc2, fc2Bias } = a.shared;
  const tensors = [a.dy, a.dgate, a.x, fc1, fc1Bias, fc2, fc2Bias];
  addExperts(tensors, a.languages);
  tensors.push(a.gateMask, a.expertMask, a.g, a.gateHidden, a.preShared, a.preExpert, a.delta);
  for (const { gradients: d } of a.languages)
    tensors.push(d.gateIn, d.gateInBias, d.gateOut, d.fc1, d.fc1Bias, d.fc2, d.fc2Bias);
  const [dx] = call(stream, 'gated_ffn_backward', tensors, settings(a.languages, a));
  return { dx: dx! };
}

export interface GatedFfnHardArguments {
  x: Tensor;
  residual?: Optional;
  shared: FeedForwardTensors;
  languages: readonly LanguageRows[];
  compute: Float;
  out: Float;
}

/**
 * Hard gates, for inference: every row runs one FFN, its language's where G(x) ≥ 0, else the shared one, and residual is added. x
 * and residual [.., D] of R rows; matrices of the FFNs may be q8 → y [.., D], g f32 [R] of zeros and ones.
 */
export function gatedFfnHard(stream: Stream, a: GatedFfnHardArguments): { y: Tensor; g: Tensor } {
  const { fc1, fc1Bias, fc2, fc2Bias } = a.shared;
  const tensors = [a.x, a.residual, fc1, fc1Bias, fc2, fc2Bias];
  addExperts(tensors, a.languages);
  const [y, g] = call(stream, 'gated_ffn_hard', tensors, [...ranges(a.languages), type(a.compute), type(a.out)]);
  return { y: y!, g: g! };
}
