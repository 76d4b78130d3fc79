import { DistilWhisperError } from '../errors/index.js';
import { kernels, type Parameter, type Stream, type Tensor } from '../tensor/index.js';

/** Each takes the error to its share of what it was: about V·ε·κ(W)². */
const REFINEMENTS = 2;

/**
 * The last hidden rows behind a model's logits = rows·Wᵀ. W [V, D] is tall, so that they are the solution of least squares,
 * rows = logits·W·(WᵀW)⁻¹, refined by what is left of the logits: the rows that the model had, to rounding. The loss then takes them as
 * those of any other teacher; logits are needed for one utterance at a time.
 */
export class RowsOfLogits {
  private constructor(
    private readonly stream: Stream,
    private readonly table: Parameter,
    /** −(WᵀW)⁻¹ and −1, [D, D]: products that are added have no sign. */
    private readonly inverse: Tensor,
    private readonly minus: Tensor,
  ) {}

  /** Of the output projection W in f32, which it disposes of. Errors: ERR_ONNX where its columns depend on each other; ERR_OUT_OF_MEMORY. */
  static async of(stream: Stream, table: Parameter): Promise<RowsOfLogits> {
    const weight = table.value;
    const D = weight.cols;
    const gram = stream.persistent(null, [D, D]);
    let inverse: Float64Array;
    try {
      kernels.linearBackwardWeight(stream, { dy: weight, x: weight, dweight: gram, compute: 'f32' });
      inverse = inverted(Float64Array.from(await gram.floats()), D);
    } catch (error) {
      table.dispose();
      throw error;
    } finally {
      gram.dispose();
    }
    const minus = new Float32Array(D * D);
    for (let i = 0; i < D; i++) minus[i * (D + 1)] = -1;
    return new RowsOfLogits(
      stream,
      table,
      stream.persistent(
        Float32Array.from(inverse, (x) => -x),
        [D, D],
      ),
      stream.persistent(minus, [D, D]),
    );
  }

  /** logits f32 [T, V] → rows f32 [T, D]. */
  find(logits: Float32Array, T: number): Promise<Float32Array> {
    const { stream, inverse, minus } = this;
    const weight = this.table.value;
    const types = { compute: 'f32', out: 'f32' } as const;
    const product = (x: Tensor, w: Tensor, residual: Tensor | null): Tensor =>
      kernels.linear(stream, { x, weight: w, residual, ...types }).y;
    let reading: Promise<Float32Array> | null = null;
    stream.tidy(() => {
      const all = stream.tensor(logits, [T, weight.rows]);
      const project = (left: Tensor): Tensor => kernels.linearBackwardInput(stream, { dy: left, weight, ...types }).dx;
      // Minus the rows, so that what is left of the logits is a sum.
      let negative = product(project(all), inverse, null);
      for (let i = 0; i < REFINEMENTS; i++) {
        negative = product(project(product(negative, weight, all)), inverse, negative);
      }
      reading = product(negative, minus, null).floats();
      return undefined;
    });
    return reading!;
  }

  dispose(): void {
    this.table.dispose();
    this.inverse.dispose();
    this.minus.dispose();
  }
}

/** The inverse of a symmetric positive matrix, by Cholesky's L·Lᵀ: its columns solve for those of 1. */
function inverted(a: Float64Array, n: number): Float64Array {
  const l = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = a[i * n + j]!;
      for (let k = 0; k < j; k++) sum -= l[i * n + k]! * l[j * n + k]!;
      if (i === j && !(sum > 0)) {
        throw new DistilWhisperError(
          'ERR_ONNX',
          `the teacher's output projection: expected independent columns, got column ${i} of others`,
        );
      }
      l[i * n + j] = i === j ? Math.sqrt(sum) : sum / l[j * n + j]!;
    }
  }
  // L⁻¹, row by row; then L⁻ᵀ·L⁻¹.
  const m = new Float64Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) {
      const factor = l[i * n + k]!;
      for (let j = 0; j <= k; j++) m[i * n + j]! -= factor * m[k * n + j]!;
    }
    m[i * n + i] = 1;
    for (let j = 0; j <= i; j++) m[i * n + j]! /= l[i * n + i]!;
  }
  const inverse = new Float64Array(n * n);
  for (let k = 0; k < n; k++) {
    for (let i = 0; i <= k; i++) {
      const factor = m[k * n + i]!;
      for (let j = 0; j <= k; j++) inverse[i * n + j]! += factor * m[k * n + j]!;
    }
  }
  return inverse;
}
