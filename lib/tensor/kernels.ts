/**
 * The kernels: a function for each operation of the addon, and the only place that knows in which order it takes tensors and
 * numbers. Arguments and results have names, those of the addon's messages with abbreviations written out. A call is queued on its
 * stream and returns at once with its results; `dx` is the gradient of x, and where a tensor is written in place the docstring says
 * so. Nothing is recorded on a tape: that is ops.ts.
 *
 * Errors of all, thrown at the call and naming the argument, what was expected and what came: ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT (a
 * number out of range, a frozen tensor to be written), ERR_DISPOSED, ERR_STREAM, ERR_OUT_OF_MEMORY, and ERR_CUDA where a device
 * has no such kernel. What only the data show (an id out of range) rejects the next read.
 */
import { rawCall as call } from './call.js';
import { dtypeNumber, type FloatType, type Stream, type Tensor } from './tensor.js';

/** Types of products and results; f64 on the oracles only. */
type Float = FloatType | 'f64';
/** A tensor that may be left out. */
type Optional = Tensor | null | undefined;

const on = (flag: boolean | undefined): number => (flag ? 1 : 0);
const type = dtypeNumber;

// Products.

export interface LinearArguments {
  x: Tensor;
  weight: Tensor;
  bias?: Optional;
  /** Added last, in the shape of y. */
  residual?: Optional;
  /** Whether y = gelu(x·Wᵀ + b). */
  gelu?: boolean | undefined;
  /** Whether `pre`, what gelu was applied to, is wanted. */
  savePre?: boolean | undefined;
  /** Type in which the product's operands are multiplied. */
  compute: Float;
  /** Type of y and pre. */
  out: Float;
}

/** y = act(x·Wᵀ + b) + residual. x [.., K], weight [N, K] (f32, bf16 or q8), bias f32 [N] → y [.., N], pre [.., N] if asked for. */
export function linear(stream: Stream, a: LinearArguments): { y: Tensor; pre: Tensor | null } {
  const numbers = [on(a.gelu), on(a.savePre), type(a.compute), type(a.out)];
  const [y, pre] = call(stream, 'linear', [a.x, a.weight, a.bias, a.residual], numbers);
  return { y: y!, pre: pre ?? null };
}

export interface LinearBackwardInputArguments {
  dy: Tensor;
  weight: Tensor;
  /** The pre-activation of a gelu between: dx is then its gradient. */
  geluOf?: Optional;
  /** Added: the gradient so far. */
  residual?: Optional;
  compute: Float;
  out: Float;
}

/** dx = (dy·W) ⊙ gelu′(geluOf) + residual. dy [.., N], weight [N, K], geluOf and residual [.., K] → dx [.., K]. */
export function linearBackwardInput(stream: Stream, a: LinearBackwardInputArguments): { dx: Tensor } {
  const tensors = [a.dy, a.weight, a.geluOf, a.residual];
  const [dx] = call(stream, 'linear_backward_input', tensors, [type(a.compute), type(a.out)]);
  return { dx: dx! };
}

export interface LinearBackwardWeightArguments {
  dy: Tensor;
  x: Tensor;
  dweight?: Optional;
  dbias?: Optional;
  /** Whether x is a pre-activation and gelu(x) is meant. */
  gelu?: boolean | undefined;
  compute: Float;
}

/** In place: dweight += dyᵀ·x, dbias += Σ dy over rows. dy [.., N], x [.., K], dweight f32 [N, K], dbias f32 [N]. */
export function linearBackwardWeight(stream: Stream, a: LinearBackwardWeightArguments): void {
  call(stream, 'linear_backward_weight', [a.dy, a.x, a.dweight, a.dbias], [on(a.gelu), type(a.compute)]);
}

/** In place: quantized = weight as int8, a row's largest |value| being 127 times its scale. weight [.., K], quantized q8 [.., K]. */
export function quantize(stream: Stream, a: { weight: Tensor; quantized: Tensor }): void {
  call(stream, 'quantize', [a.weight, a.quantized], []);
}

/** dpre = dy ⊙ gelu′(pre). dy and pre of as many elements → dpre in pre's shape. */
export function geluBackward(stream: Stream, a: { dy: Tensor; pre: Tensor; out: Float }): { dpre: Tensor } {
  const [dpre] = call(stream, 'gelu_backward', [a.dy, a.pre], [type(a.out)]);
  return { dpre: dpre! };
}

// Convolution as products.

export interface UnfoldArguments {
  x: Tensor;
  stride: number;
  /** Whether x is [B, C, T]. */
  channelsFirst?: boolean | undefined;
  out: Float;
}

/** rows[b, t, 3·c + j] = x[b, stride·t + j − 1, c], zero outside. x [B, T, C], stride 1 or 2 → rows [B, ⌈T/stride⌉, 3·C]. */
export function unfold(stream: Stream, a: UnfoldArguments): { rows: Tensor } {
  const [rows] = call(stream, 'unfold', [a.x], [a.stride, on(a.channelsFirst), type(a.out)]);
  return { rows: rows! };
}

/** The adjoint of `unfold`: rows [B, ⌈T/stride⌉, 3·C], `length` T → x f32 [B, T, C]. */
export function fold(stream: Stream, a: { rows: Tensor; length: number; stride: number }): { x: Tensor } {
  const [x] = call(stream, 'fold', [a.rows], [a.length, a.stride]);
  return { x: x! };
}

// Normalisation.

export interface LayerNormArguments {
  x: Tensor;
  weight: Tensor;
  bias: Tensor;
  /** Added to the variance. */
  epsilon: number;
  out: Float;
}

/**
 * y = (x − mean)·rstd·weight + bias over the last dimension, rstd = 1/√(variance + epsilon). x [.., D], weight and bias f32 [D] →
 * y [.., D], mean and rstd f32 [rows].
 */
export function layerNorm(stream: Stream, a: LayerNormArguments): { y: Tensor; mean: Tensor; rstd: Tensor } {
  const [y, mean, rstd] = call(stream, 'layer_norm', [a.x, a.weight, a.bias], [a.epsilon, type(a.out)]);
  return { y: y!, mean: mean!, rstd: rstd! };
}

export interface LayerNormBackwardArguments {
  dy: Tensor;
  x: Tensor;
  weight: Tensor;
  mean: Tensor;
  rstd: Tensor;
  /** Added to dx: the gradient so far. */
  residual?: Optional;
  dweight?: Optional;
  dbias?: Optional;
  out: Float;
}

/** dx [.., D] of `layerNorm`, whose mean and rstd it takes; in place, dweight and dbias f32 [D] are added to. */
export function layerNormBackward(stream: Stream, a: LayerNormBackwardArguments): { dx: Tensor } {
  const tensors = [a.dy, a.x, a.weight, a.mean, a.rstd, a.residual, a.dweight, a.dbias];
  const [dx] = call(stream, 'layer_norm_backward', tensors, [type(a.out)]);
  return { dx: dx! };
}

// Attention.

export interface AttentionArguments {
  q: Tensor;
  k: Tensor;
  v: Tensor;
  heads: number;
  causal?: boolean | undefined;
  /** Rows of k and v that exist (a cache's fill). */
  keys: number;
  /** Position of the first query. */
  offset?: number | undefined;
  out: Float;
}

/**
 * o = softmax(q·kᵀ/√d)·v for each of `heads` that stand side by side, d = D/heads; a causal query sees keys up to its position. q
 * [B, Tq, D], k and v [B, Tk, D] of q's type, or q8 [B, Tk, heads, d] → o [B, Tq, D], lse f32 [B, heads, Tq], the log of each sum.
 */
export function attention(stream: Stream, a: AttentionArguments): { o: Tensor; lse: Tensor } {
  const numbers = [a.heads, on(a.causal), a.keys, a.offset ?? 0, type(a.out)];
  const [o, lse] = call(stream, 'attention', [a.q, a.k, a.v], numbers);
  return { o: o!, lse: lse! };
}

export interface AttentionBackwardArguments {
  q: Tensor;
  k: Tensor;
  v: Tensor;
  o: Tensor;
  lse: Tensor;
  /** Gradient of o. */
  dout: Tensor;
  heads: number;
  causal?: boolean | undefined;
  out: Float;
}

/** Gradients of `attention` over all keys, from position 0: dq [B, Tq, D], dk and dv [B, Tk, D]. */
export function attentionBackward(
  stream: Stream,
  a: AttentionBackwardArguments,
): { dq: Tensor; dk: Tensor; dv: Tensor } {
  const tensors = [a.q, a.k, a.v, a.o, a.lse, a.dout];
  const [dq, dk, dv] = call(stream, 'attention_backward', tensors, [a.heads, on(a.causal), type(a.out)]);
  return { dq: dq!, dk: dk!, dv: dv! };
}

// Rows.

export interface EmbeddingArguments {
  ids: Tensor;
  table: Tensor;
  positions: Tensor;
  /** i32 [1]: the offset is read there when the call runs, which lets a recording go on from another. */
  position?: Optional;
  /** Position of the first token; with `position` the most that may stand there. */
  offset?: number | undefined;
  out: Float;
}

/** y[b, t] = table[ids[b, t]] + positions[offset + t]. ids i32 [B, T], table [V, D], positions [P, D] → y [B, T, D]. */
export function embedding(stream: Stream, a: EmbeddingArguments): { y: Tensor } {
  const tensors = a.position ? [a.ids, a.table, a.positions, a.position] : [a.ids, a.table, a.positions];
  const [y] = call(stream, 'embedding', tensors, [a.offset ?? 0, type(a.out)]);
  return { y: y! };
}

export interface EmbeddingBackwardArguments {
  dy: Tensor;
  ids: Tensor;
  dtable?: Optional;
  dpositions?: Optional;
  offset?: number | undefined;
  /** Id whose lookups get no gradient. Default: none. */
  padding?: number | undefined;
}

/** In place: adds dy [B, T, D] to the rows of dtable f32 [V, D] and dpositions f32 [P, D] that `embedding` summed. */
export function embeddingBackward(stream: Stream, a: EmbeddingBackwardArguments): void {
  const numbers = [a.offset ?? 0, a.padding ?? -1];
  call(stream, 'embedding_backward', [a.dy, a.ids, a.dtable, a.dpositions], numbers);
}

/** y = alpha·a + beta·b, both 1 by default. a [..], b of as many elements, or a's last dimensions, repeated → y in a's shape. */
export function add(
  stream: Stream,
  { a, b, alpha = 1, beta = 1, out }: { a: Tensor; b: Tensor; alpha?: number; beta?: number; out: Float },
): { y: Tensor } {
  const [y] = call(stream, 'add', [a, b], [alpha, beta, type(out)]);
  return { y: y! };
}

/** In place: dpositions += Σ dy over items. dy [B, T, D], dpositions f32 [T, D]. */
export function addBackwardRows(stream: Stream, a: { dy: Tensor; dpositions: Tensor }): void {
  call(stream, 'add_backward_rows', [a.dy, a.dpositions], []);
}

/** y = x in another float type, rounded to nearest even. */
export function cast(stream: Stream, a: { x: Tensor; out: Float }): { y: Tensor } {
  const [y] = call(stream, 'cast', [a.x], [type(a.out)]);
  return { y: y! };
}

/** In place: every element of x becomes `value`, a whole number where x is i32. */
export function fill(stream: Stream, a: { x: Tensor; value: number }): void {
  call(stream, 'fill', [a.x], [a.value]);
}

/** In place: cache[:, offset:offset + t] = x. x [B, t, D], cache [B, P, D]. */
export function cacheWrite(stream: Stream, a: { x: Tensor; cache: Tensor; offset: number }): void {
  call(stream, 'cache_write', [a.x, a.cache], [a.offset]);
}

// Gated experts.

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

function addExperts(tensors: Optional[], languages: readonly LanguageRows[]): void {
  for (const { expert: e } of languages)
    tensors.push(e.gateIn, e.gateInBias, e.gateOut, e.fc1, e.fc1Bias, e.fc2, e.fc2Bias);
}

/** How many languages there are, and where the rows of each begin and end. */
function ranges(languages: readonly LanguageRows[]): number[] {
  const numbers = [languages.length];
  for (const { begin, end } of languages) numbers.push(begin, end);
  return numbers;
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
  type(s.compute),
  type(s.out),
];

/**
 * Soft gates, for training: y = (1 − g)·FFN(x) + g·dropout(FFN_l(x)) + residual, g = sigmoid(G(dropout(x)) + alpha·noise); rows of
 * no language have g = 0. x and residual [.., D] of at least two dimensions and R rows → y [.., D], g f32 [R] and what the backward
 * reads (with `skip`, preExpert and delta have no rows).
 */
export function gatedFfn(stream: Stream, a: GatedFfnArguments): { y: Tensor } & GatedFfnSaved {
  const { fc1, fc1Bias, fc2, fc2Bias } = a.shared;
  const tensors = [a.x, a.residual, fc1, fc1Bias, fc2, fc2Bias];
  addExperts(tensors, a.languages);
  tensors.push(a.noise, a.gateMask, a.expertMask);
  const outputs = call(stream, 'gated_ffn', tensors, settings(a.languages, a));
  const [y, g, gateHidden, preShared, preExpert, delta] = outputs;
  return {
    y: y!,
    g: g!,
    gateHidden: gateHidden!,
    preShared: preShared!,
    preExpert: preExpert!,
    delta: delta!,
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

// Losses.

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

// Optimiser.

export interface GlobalNormArguments {
  gradients: readonly Tensor[];
  /** 0: no clipping. */
  maxNorm: number;
  /** Factor of all gradients. */
  gradientScale?: number | undefined;
}

/** norm = s·√(Σ g²), scale = s·min(1, maxNorm / (norm + 1e-6)), s the gradients' scale; scale = 0 where norm is not finite. f32 [1] each. */
export function globalNorm(stream: Stream, a: GlobalNormArguments): { norm: Tensor; scale: Tensor } {
  const [norm, scale] = call(stream, 'global_norm', a.gradients, [a.maxNorm, a.gradientScale ?? 1]);
  return { norm: norm!, scale: scale! };
}

export interface AdamWArguments {
  /** f32 [1], of the gradients: 0 leaves everything as it is. */
  scale: Tensor;
  /** Tensors of one shape; value, m and v are written. `step` counts from 1; 0 leaves a group as it is, without a gradient or with. */
  groups: readonly { step: number; value: Tensor; gradient?: Optional; m: Tensor; v: Tensor }[];
  learningRate: number;
  betas: readonly [number, number];
  epsilon: number;
  weightDecay: number;
  /** PyTorch's, or that of the reference (transformers): decay after the step, epsilon outside of the bias correction. */
  compat: 'paper' | 'reference';
}

/** In place: one update by AdamW. */
export function adamw(stream: Stream, a: AdamWArguments): void {
  const tensors: Optional[] = [a.scale];
  const mode = on(a.compat === 'reference');
  const numbers = [a.groups.length, a.learningRate, ...a.betas, a.epsilon, a.weightDecay, mode];
  for (const { step, value, gradient, m, v } of a.groups) {
    tensors.push(value, gradient, m, v);
    numbers.push(step);
  }
  call(stream, 'adamw', tensors, numbers);
}

// Audio.

/** Log-mel features as Whisper's. samples f32 [n] at 16 kHz, filters f32 [mels, 201] → features f32 [mels, frames], silence behind. */
export function logMel(stream: Stream, a: { samples: Tensor; filters: Tensor; frames: number }): { features: Tensor } {
  const [features] = call(stream, 'log_mel', [a.samples, a.filters], [a.frames]);
  return { features: features! };
}

/** The triangles that `logMel` sums frequencies by: filters f32 [mels, 201]. */
export function melFilters(stream: Stream, a: { mels: number }): { filters: Tensor } {
  const [filters] = call(stream, 'mel_filters', [], [a.mels]);
  return { filters: filters! };
}

/** samples f32 [n] at rate `from` → f32 [⌈n·to/from⌉] at `to`, in whole Hz: y[j] = Σ_i x[i]·h(i − j·from/to), h a windowed sinc. */
export function resample(stream: Stream, a: { samples: Tensor; from: number; to: number }): { resampled: Tensor } {
  const [resampled] = call(stream, 'resample', [a.samples], [a.from, a.to]);
  return { resampled: resampled! };
}

// Decoding.

export interface TopKArguments {
  logits: Tensor;
  /** i32 [S]: ids that cannot be chosen. */
  suppress?: Optional;
  /**
   * i32 [R, 4]: the bounds of two ranges of ids, of which alone a row may choose; only of the second where that is likelier as a
   * whole than any id of the first (timestamps).
   */
  allowed?: Optional;
  /** 1 to 32. */
  k: number;
}

/** The k best of each row, ties by id. logits [R, V] → values f32 [R, k] (log-probabilities), ids i32 [R, k], logsumexp f32 [R]. */
export function topK(stream: Stream, a: TopKArguments): { values: Tensor; ids: Tensor; logsumexp: Tensor } {
  const [values, ids, logsumexp] = call(stream, 'top_k', [a.logits, a.suppress, a.allowed], [a.k]);
  return { values: values!, ids: ids!, logsumexp: logsumexp! };
}

/**
 * In place: row b·K + k of every cache becomes what its row b·K + parents[b, k] was, in the first `count` positions. parents i32
 * [B, K], caches [B·K, P, D].
 */
export function cacheReorder(stream: Stream, a: { parents: Tensor; caches: readonly Tensor[]; count: number }): void {
  call(stream, 'cache_reorder', [a.parents, ...a.caches], [a.count]);
}

/** Of a linear layer or of a layer norm. */
export interface LinearTensors {
  weight: Tensor;
  bias: Tensor;
}

/** The weights of an attention behind its layer norm: matrices [D, D], vectors f32 [D]. */
export interface AttentionTensors {
  norm: LinearTensors;
  q: LinearTensors;
  out: LinearTensors;
}

/** Keys have no bias. */
export interface SelfAttentionTensors extends AttentionTensors {
  k: Tensor;
  v: LinearTensors;
}

export interface DecoderLayerArguments {
  x: Tensor;
  /** Attention to the tokens so far. */
  attention: SelfAttentionTensors;
  /** Its caches [B, P, D] of type `compute`: rows [offset, offset + T) are written. */
  keys: Tensor;
  values: Tensor;
  /** Attention to what is heard; its keys and values, as `attention` takes them, of C items, each for the next B / C of x. */
  cross: AttentionTensors;
  crossKeys: Tensor;
  crossValues: Tensor;
  /** Layer norm before the FFN. */
  norm: LinearTensors;
  shared: FeedForwardTensors;
  /** Rows of x count through items and their tokens. */
  languages: readonly LanguageRows[];
  /** i32 [1]: the offset is read there when the call runs; T is then 1. */
  position?: Optional;
  heads: number;
  /** Tokens in the caches; with `position` the most that may stand there. */
  offset: number;
  /** Of the layer norms. */
  epsilon: number;
  compute: Float;
}

/**
 * A layer of the decoder, token by token: h = x + attention(norm(x)), h += cross-attention(norm(h)), y = h + gatedFfnHard(norm(h)).
 * x f32 [B, T, D] → y f32 [B, T, D], g f32 [B·T] of zeros and ones.
 */
export function decoderLayer(stream: Stream, a: DecoderLayerArguments): { y: Tensor; g: Tensor } {
  const { attention: own, cross, norm, shared } = a;
  const tensors: Tensor[] = [
    a.x,
    own.norm.weight,
    own.norm.bias,
    own.q.weight,
    own.q.bias,
    own.k,
    own.v.weight,
    own.v.bias,
    own.out.weight,
    own.out.bias,
    a.keys,
    a.values,
    cross.norm.weight,
    cross.norm.bias,
    cross.q.weight,
    cross.q.bias,
    cross.out.weight,
    cross.out.bias,
    a.crossKeys,
    a.crossValues,
    norm.weight,
    norm.bias,
    shared.fc1,
    shared.fc1Bias,
    shared.fc2,
    shared.fc2Bias,
  ];
  addExperts(tensors, a.languages);
  if (a.position) tensors.push(a.position);
  const numbers = ranges(a.languages);
  numbers.push(a.heads, a.offset, a.epsilon, type(a.compute));
  const [y, g] = call(stream, 'decoder_layer', tensors, numbers);
  return { y: y!, g: g! };
}

// Randomness, as the other kernels draw it.

/** Philox: the key is `seed`, the counter is step, op and an element's index. */
export interface RandomArguments {
  count: number;
  seed: number;
  step: number;
  op: number;
}

const random = (stream: Stream, name: string, a: RandomArguments): { values: Tensor } => {
  const [values] = call(stream, name, [], [a.count, a.seed, a.step, a.op]);
  return { values: values! };
};

/** Values of N(0, 1): f32 [count]. */
export function randomNormal(stream: Stream, a: RandomArguments): { values: Tensor } {
  return random(stream, 'random_normal', a);
}

/** Values of [0, 1): f32 [count]. */
export function randomUniform(stream: Stream, a: RandomArguments): { values: Tensor } {
  return random(stream, 'random_uniform', a);
}
