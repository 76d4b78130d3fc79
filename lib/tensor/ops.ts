/**
 * The differentiable operations. Each states its forward as kernel calls and records its own backward when an input or a
 * parameter needs a gradient; a frozen weight costs no weight-gradient product and no saved activation.
 */
import type { Parameter } from './parameter.js';
import type { Stream } from './stream.js';
import type { Tape } from './tape.js';
import { dtypeNumber, type FloatType, type Tensor } from './tensor.js';

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

const on = (flag: boolean): number => (flag ? 1 : 0);
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
  pass.stream.call(
    'linear_backward_weight',
    [dy, x, weight.accumulator(), bias?.accumulator() ?? null],
    [on(gelu), dtypeNumber(pass.compute)],
  );
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
  const out = dtypeNumber(options.out ?? (residual ? 'f32' : compute));
  const [y] = stream.call(
    'linear',
    [x, weight.value, bias?.value ?? null, residual],
    [0, 0, dtypeNumber(compute), out],
  );
  if (tape && (trains(weight, bias) || tape.needs(x, residual))) {
    tape.record(y!, (dy) => {
      weightGradient(pass, dy, x, weight, bias, false);
      if (tape.needs(x)) {
        const [dx] = stream.call(
          'linear_backward_input',
          [dy, weight.value, null, tape.gradient(x)],
          [dtypeNumber(compute), dtypeNumber(x.dtype)],
        );
        tape.set(x, dx!);
      }
      if (residual && tape.needs(residual)) tape.add(residual, dy);
    });
  }
  return y!;
}

/** y = gelu(x·Wᵀ + b). */
export function linearGelu(pass: Pass, x: Tensor, weight: Parameter, bias: Parameter): Tensor {
  const { stream, tape, compute } = pass;
  const type = dtypeNumber(compute);
  const records = tape !== null && (trains(weight, bias) || tape.needs(x));
  const [y, pre] = stream.call('linear', [x, weight.value, bias.value, null], [1, on(records), type, type]);
  if (records) {
    tape.record(
      y!,
      (dy) => {
        const [dpre] = stream.call('gelu_backward', [dy, pre!], [type]);
        weightGradient(pass, dpre!, x, weight, bias, false);
        if (tape.needs(x)) {
          const [dx] = stream.call(
            'linear_backward_input',
            [dpre!, weight.value, null, tape.gradient(x)],
            [type, dtypeNumber(x.dtype)],
          );
          tape.set(x, dx!);
        }
        dpre!.dispose();
      },
      [pre!],
    );
  }
  return y!;
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
  const type = dtypeNumber(compute);
  const f32 = dtypeNumber('f32');
  const records = tape !== null && (trains(fc1.weight, fc1.bias, fc2.weight, fc2.bias) || tape.needs(x, residual));
  const [h, pre] = stream.call(
    'linear',
    [x, fc1.weight.value, fc1.bias.value, null],
    [1, on(records), dtypeNumber(compute), type],
  );
  const [y] = stream.call(
    'linear',
    [h!, fc2.weight.value, fc2.bias.value, residual],
    [0, 0, dtypeNumber(compute), f32],
  );
  h!.dispose();
  if (records) {
    tape.record(
      y!,
      (dy) => {
        weightGradient(pass, dy, pre!, fc2.weight, fc2.bias, true);
        const [dpre] = stream.call('linear_backward_input', [dy, fc2.weight.value, pre!, null], [type, type]);
        weightGradient(pass, dpre!, x, fc1.weight, fc1.bias, false);
        if (tape.needs(x)) {
          const [dx] = stream.call(
            'linear_backward_input',
            [dpre!, fc1.weight.value, null, tape.gradient(x)],
            [type, dtypeNumber(x.dtype)],
          );
          tape.set(x, dx!);
        }
        dpre!.dispose();
        if (tape.needs(residual)) tape.add(residual, dy);
      },
      [pre!],
    );
  }
  return y!;
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
  const [y, mean, rstd] = stream.call(
    'layer_norm',
    [x, weight.value, bias.value],
    [LAYER_NORM_EPSILON, dtypeNumber(out)],
  );
  if (tape && (trains(weight, bias) || tape.needs(x))) {
    tape.record(
      y!,
      (dy) => {
        const [dx] = stream.call(
          'layer_norm_backward',
          [dy, x, weight.value, mean!, rstd!, tape.gradient(x), weight.accumulator(), bias.accumulator()],
          [dtypeNumber(x.dtype)],
        );
        if (tape.needs(x)) tape.set(x, dx!);
        else dx!.dispose();
      },
      [mean!, rstd!],
    );
  } else {
    mean!.dispose();
    rstd!.dispose();
  }
  return y!;
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
  const causal = on(options.causal ?? false);
  const [o, lse] = stream.call(
    'attention',
    [q, k, v],
    [options.heads, causal, options.keys ?? k.shape[1]!, options.offset ?? 0, dtypeNumber(compute)],
  );
  if (tape?.needs(q, k, v)) {
    tape.record(
      o!,
      (dout) => {
        const [dq, dk, dv] = stream.call(
          'attention_backward',
          [q, k, v, o!, lse!, dout],
          [options.heads, causal, dtypeNumber(compute)],
        );
        for (const [t, g] of [
          [q, dq!],
          [k, dk!],
          [v, dv!],
        ] as const) {
          if (tape.needs(t)) tape.add(t, g);
          else g.dispose();
        }
      },
      [lse!],
    );
  } else {
    lse!.dispose();
  }
  return o!;
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
  const [x] = stream.call(
    'embedding',
    [ids, table.value, positions.value, ...(position ? [position] : [])],
    [offset, dtypeNumber('f32')],
  );
  if (tape && trains(table, positions)) {
    tape.record(x!, (dx) => {
      stream.call('embedding_backward', [dx, ids, table.accumulator(), positions.accumulator()], [offset, padding]);
    });
  }
  return x!;
}

/** x [B, T, D] + positions [T, D] → f32. */
export function addPositions(pass: Pass, x: Tensor, positions: Parameter): Tensor {
  const { stream, tape } = pass;
  const [y] = stream.call('add', [x, positions.value], [1, 1, dtypeNumber('f32')]);
  if (tape && (trains(positions) || tape.needs(x))) {
    tape.record(y!, (dy) => {
      const accumulator = positions.accumulator();
      if (accumulator) stream.call('add_backward_rows', [dy, accumulator], []);
      if (tape.needs(x)) tape.add(x, dy);
    });
  }
  return y!;
}

/**
 * The rows that a convolution of width 3 (padding 1) multiplies with its weights. x [B, T, C] → [B, ⌈T/stride⌉, 3·C], or,
 * `channelsFirst`, x [B, C, T] (features).
 */
export function unfold(pass: Pass, x: Tensor, stride: 1 | 2, channelsFirst: boolean): Tensor {
  const { stream, tape, compute } = pass;
  const [rows] = stream.call('unfold', [x], [stride, on(channelsFirst), dtypeNumber(compute)]);
  if (tape?.needs(x)) {
    tape.record(rows!, (drows) => {
      const [dx] = stream.call('fold', [drows], [x.shape[1]!, stride]);
      tape.add(x, dx!);
    });
  }
  return rows!;
}
