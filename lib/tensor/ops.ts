/**
 * The differentiable operations. Each states its forward as kernel calls and records its own backward when an input or a
 * parameter needs a gradient; a frozen weight costs no weight-gradient product and no saved activation.
 */
import * as kernels from './kernels/index.js';
import type { Parameter } from './parameter.js';
import type { Tape } from './tape.js';
import type { FloatType, Stream, Tensor } from './tensor.js';

/** What a forward pass runs in. */
export interface Pass {
  readonly stream: Stream;
  /** null: inference, nothing is recorded. */
  readonly tape: Tape | null;
  /** Type of the products and of the activations between them; the residual stream and all sums are f32. */
  readonly compute: FloatType;
}

export interface LinearOptions {
  /** Added to the result: the residual stream. */
  residual?: Tensor;
  /** Type of the result. Default: the pass's compute type, or f32 with a residual. */
  out?: FloatType;
}

/** A gradient has the type of its tensor, which is a float. */
const float = (x: Tensor): FloatType => x.dtype as FloatType;
const trains = (...parameters: (Parameter | null)[]): boolean => parameters.some((p) => p?.trainable);

/** dweight += dyᵀ·x and dbias += Σ dy, for those of the two that train. `gelu`: x is a pre-activation, gelu(x) is meant. */
function weightGradient(
  pass: Pass,
  dy: Tensor,
  x: Tensor,
  weight: Parameter,
  bias: Parameter | null,
  gelu: boolean,
): void {
  if (!trains(weight, bias)) return;
  kernels.linearBackwardWeight(pass.stream, {
    dy,
    x,
    dweight: weight.accumulator(),
    dbias: bias?.accumulator(),
    gelu,
    compute: pass.compute,
  });
}

/** The gradient of x [.., in] from that of x·Wᵀ, added to what the tape has. */
function inputGradient({ stream, compute }: Pass, tape: Tape, dy: Tensor, x: Tensor, weight: Parameter): void {
  const residual = tape.gradient(x);
  const { dx } = kernels.linearBackwardInput(stream, { dy, weight: weight.value, residual, compute, out: float(x) });
  tape.set(x, dx);
}

/** y = x·Wᵀ + b (+ residual). x [.., in], weight [out, in]. */
export function linear(
  pass: Pass,
  x: Tensor,
  weight: Parameter,
  bias: Parameter | null,
  options: LinearOptions = {},
): Tensor {
  const { stream, tape, compute } = pass;
  const residual = options.residual ?? null;
  const out = options.out ?? (residual ? 'f32' : compute);
  const { y } = kernels.linear(stream, { x, weight: weight.value, bias: bias?.value, residual, compute, out });
  if (tape && (trains(weight, bias) || tape.needs(x, residual))) {
    tape.record(y, (dy) => {
      weightGradient(pass, dy, x, weight, bias, false);
      if (tape.needs(x)) inputGradient(pass, tape, dy, x, weight);
      if (residual && tape.needs(residual)) tape.add(residual, dy);
    });
  }
  return y;
}

/** y = gelu(x·Wᵀ + b). */
export function linearGelu(pass: Pass, x: Tensor, weight: Parameter, bias: Parameter): Tensor {
  const { stream, tape, compute } = pass;
  const records = tape !== null && (trains(weight, bias) || tape.needs(x));
  const { y, pre } = kernels.linear(stream, {
    x,
    weight: weight.value,
    bias: bias.value,
    gelu: true,
    savePre: records,
    compute,
    out: compute,
  });
  if (records) {
    tape.record(
      y,
      (dy) => {
        const { dpre } = kernels.geluBackward(stream, { dy, pre: pre!, out: compute });
        weightGradient(pass, dpre, x, weight, bias, false);
        if (tape.needs(x)) inputGradient(pass, tape, dpre, x, weight);
        dpre.dispose();
      },
      [pre],
    );
  }
  return y;
}

/** y = gelu(x), in the pass's compute type. */
export function gelu(pass: Pass, x: Tensor): Tensor {
  const { stream, tape, compute } = pass;
  const { y } = kernels.gelu(stream, { x, out: compute });
  if (tape?.needs(x)) {
    tape.record(y, (dy) => tape.add(x, kernels.geluBackward(stream, { dy, pre: x, out: float(x) }).dpre));
  }
  return y;
}

/** What is dropped, and what the rest is scaled by besides 1 / (1 − p). */
export type DropOptions = Omit<kernels.DropArguments, 'x' | 'out'>;

/** y = scale · dropout(x), in x's type. */
export function drop(pass: Pass, x: Tensor, options: DropOptions): Tensor {
  const { stream, tape } = pass;
  const { y } = kernels.drop(stream, { ...options, x, out: float(x) });
  if (tape?.needs(x)) {
    tape.record(y, (dy) => tape.add(x, kernels.drop(stream, { ...options, x: dy, out: float(x) }).y));
  }
  return y;
}

/** The plain feed-forward block: y = W2·gelu(W1·x + b1) + b2 + residual. x [.., D] → f32 [.., D]. */
export function feedForward(
  pass: Pass,
  x: Tensor,
  fc1: { weight: Parameter; bias: Parameter },
  fc2: { weight: Parameter; bias: Parameter },
  residual: Tensor,
): Tensor {
  const { stream, tape, compute } = pass;
  const records = tape !== null && (trains(fc1.weight, fc1.bias, fc2.weight, fc2.bias) || tape.needs(x, residual));
  const { y: h, pre } = kernels.linear(stream, {
    x,
    weight: fc1.weight.value,
    bias: fc1.bias.value,
    gelu: true,
    savePre: records,
    compute,
    out: compute,
  });
  const { y } = kernels.linear(stream, {
    x: h,
    weight: fc2.weight.value,
    bias: fc2.bias.value,
    residual,
    compute,
    out: 'f32',
  });
  h.dispose();
  if (records) {
    tape.record(
      y,
      (dy) => {
        weightGradient(pass, dy, pre!, fc2.weight, fc2.bias, true);
        const { dx: dpre } = kernels.linearBackwardInput(stream, {
          dy,
          weight: fc2.weight.value,
          geluOf: pre,
          compute,
          out: compute,
        });
        weightGradient(pass, dpre, x, fc1.weight, fc1.bias, false);
        if (tape.needs(x)) inputGradient(pass, tape, dpre, x, fc1.weight);
        dpre.dispose();
        if (tape.needs(residual)) tape.add(residual, dy);
      },
      [pre],
    );
  }
  return y;
}

/** Of every Whisper. */
export const LAYER_NORM_EPSILON = 1e-5;

/** Layer norm over the last dimension. The result has the pass's compute type unless `out` says otherwise. */
export function layerNorm(
  pass: Pass,
  x: Tensor,
  weight: Parameter,
  bias: Parameter,
  out: FloatType = pass.compute,
): Tensor {
  const { stream, tape } = pass;
  const { y, mean, rstd } = kernels.layerNorm(stream, {
    x,
    weight: weight.value,
    bias: bias.value,
    epsilon: LAYER_NORM_EPSILON,
    out,
  });
  if (tape && (trains(weight, bias) || tape.needs(x))) {
    tape.record(
      y,
      (dy) => {
        const { dx } = kernels.layerNormBackward(stream, {
          dy,
          x,
          weight: weight.value,
          mean,
          rstd,
          residual: tape.gradient(x),
          dweight: weight.accumulator(),
          dbias: bias.accumulator(),
          out: float(x),
        });
        if (tape.needs(x)) tape.set(x, dx);
        else dx.dispose();
      },
      [mean, rstd],
    );
  } else {
    mean.dispose();
    rstd.dispose();
  }
  return y;
}

export interface AttentionOptions {
  heads: number;
  causal?: boolean;
  /** Rows of k and v that exist (a cache's fill). Default: all. */
  keys?: number;
  /** Position of the first query. */
  offset?: number;
}

/** Scaled dot-product attention over heads that stand side by side. q [B, Tq, D], k and v [B, Tk, D] → [B, Tq, D]. */
export function attention(pass: Pass, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  const { stream, tape, compute } = pass;
  const { heads, causal, keys = k.shape[1]!, offset } = options;
  const { o, lse } = kernels.attention(stream, { q, k, v, heads, causal, keys, offset, out: compute });
  if (tape?.needs(q, k, v)) {
    tape.record(
      o,
      (dout) => {
        const { dq, dk, dv } = kernels.attentionBackward(stream, {
          q,
          k,
          v,
          o,
          lse,
          dout,
          heads,
          causal,
          out: compute,
        });
        for (const [t, g] of [
          [q, dq],
          [k, dk],
          [v, dv],
        ] as const) {
          if (tape.needs(t)) tape.add(t, g);
          else g.dispose();
        }
      },
      [lse],
    );
  } else {
    lse.dispose();
  }
  return o;
}

/**
 * Token and position embeddings. ids i32 [B, T] → f32 [B, T, D]. `padding`: id whose lookup gets no gradient, or -1. With
 * `position` i32 [1] the offset is read there when the call runs, `offset` at most.
 */
export function embedding(
  pass: Pass,
  ids: Tensor,
  table: Parameter,
  positions: Parameter,
  offset: number,
  padding: number,
  position: Tensor | null = null,
): Tensor {
  const { stream, tape } = pass;
  const { y } = kernels.embedding(stream, {
    ids,
    table: table.value,
    positions: positions.value,
    position,
    offset,
    out: 'f32',
  });
  if (tape && trains(table, positions)) {
    tape.record(y, (dy) => {
      const [dtable, dpositions] = [table.accumulator(), positions.accumulator()];
      kernels.embeddingBackward(stream, { dy, ids, dtable, dpositions, offset, padding });
    });
  }
  return y;
}

/** x [B, T, D] + positions [T, D] → f32. */
export function addPositions(pass: Pass, x: Tensor, positions: Parameter): Tensor {
  const { stream, tape } = pass;
  const { y } = kernels.add(stream, { a: x, b: positions.value, out: 'f32' });
  if (tape && (trains(positions) || tape.needs(x))) {
    tape.record(y, (dy) => {
      const dpositions = positions.accumulator();
      if (dpositions) kernels.addBackwardRows(stream, { dy, dpositions });
      if (tape.needs(x)) tape.add(x, dy);
    });
  }
  return y;
}

/**
 * The rows that a convolution of width 3 (padding 1) multiplies with its weights. x [B, T, C] → [B, ⌈T/stride⌉, 3·C], or,
 * `channelsFirst`, x [B, C, T] (features).
 */
export function unfold(pass: Pass, x: Tensor, stride: 1 | 2, channelsFirst: boolean): Tensor {
  const { stream, tape, compute } = pass;
  const { rows } = kernels.unfold(stream, { x, stride, channelsFirst, out: compute });
  if (tape?.needs(x)) {
    tape.record(rows, (drows) => {
      const { x: dx } = kernels.fold(stream, { rows: drows, length: x.shape[1]!, stride });
      tape.add(x, dx);
    });
  }
  return rows;
}
