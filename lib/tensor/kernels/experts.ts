/** What a gated FFN is made of, as several kernels take it. */
import type { Tensor } from '../tensor.js';
import type { Optional } from './arguments.js';

/** FFN(x) = fc2·gelu(fc1·x + fc1Bias) + fc2Bias: fc1 [F, D], fc1Bias [F], fc2 [D, F], fc2Bias [D]. */
export interface FeedForwardTensors {
  fc1: Tensor;
  fc1Bias: Tensor;
  fc2: Tensor;
  fc2Bias: Tensor;
}

/** A language's gate, G = gateOut·relu(gateIn·x + gateInBias) with gateIn [H, D], gateInBias [H], gateOut [1, H], and its FFN. */
export interface ExpertTensors extends FeedForwardTensors {
  gateIn: Tensor;
  gateInBias: Tensor;
  gateOut: Tensor;
}

/** The rows [begin, end) of x that belong to a language: ranges ascend and are disjoint; other rows take the shared FFN. */
export interface LanguageRows {
  expert: ExpertTensors;
  begin: number;
  end: number;
}

/** Adds what the experts hold to a call's tensors, in its order. */
export function addExperts(tensors: Optional[], languages: readonly LanguageRows[]): void {
  for (const { expert: e } of languages)
    tensors.push(e.gateIn, e.gateInBias, e.gateOut, e.fc1, e.fc1Bias, e.fc2, e.fc2Bias);
}

/** How many languages there are, and where the rows of each begin and end. */
export function ranges(languages: readonly LanguageRows[]): number[] {
  const numbers = [languages.length];
  for (const { begin, end } of languages) numbers.push(begin, end);
  return numbers;
}
