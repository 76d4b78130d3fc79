import type { Stream } from './stream.js';
import type { FloatType, Tensor } from './tensor.js';

/**
 * A named weight of a model. `value` is what kernels read: f32, or for frozen matrices bf16 or q8. A trainable
 * parameter has a gradient in f32 that backward kernels add to.
 */
export class Parameter {
  /** Sum of the gradients since `clearGradient`; null for frozen parameters. */
  readonly gradient: Tensor | null;
  /** Whether any backward kernel has added to the gradient since it was cleared: AdamW leaves the others alone. */
  touched = false;

  private constructor(
    readonly name: string,
    /** The shape in files; `value` may have it flattened to a matrix. */
    readonly shape: readonly number[],
    readonly value: Tensor,
    readonly trainable: boolean,
  ) {
    this.gradient = trainable ? value.stream.persistent(null, value.shape, 'f32') : null;
    if (!trainable) value.freeze();
  }

  /** A frozen parameter; matrices are stored in `type`, vectors always in f32. `data` is raw memory of the stored type. */
  static frozen(
    stream: Stream,
    name: string,
    data: ArrayBufferView,
    shape: readonly number[],
    type: FloatType,
  ): Parameter {
    return new Parameter(name, shape, stream.persistent(data, matrixShape(shape), type), false);
  }

  /** A frozen matrix in q8, from its values in full precision. */
  static quantized(stream: Stream, name: string, data: Float32Array, shape: readonly number[]): Parameter {
    const source = stream.tensor(data, matrixShape(shape));
    const value = stream.quantized(source);
    source.dispose();
    return new Parameter(name, shape, value, false);
  }

  static trainable(stream: Stream, name: string, data: Float32Array, shape: readonly number[]): Parameter {
    return new Parameter(name, shape, stream.persistent(data, matrixShape(shape), 'f32'), true);
  }

  get size(): number {
    return this.value.size;
  }

  /** The gradient to add to, or null when this parameter is frozen. */
  accumulator(): Tensor | null {
    if (this.gradient) this.touched = true;
    return this.gradient;
  }

  clearGradient(): void {
    if (this.gradient && this.touched) this.gradient.stream.call('fill', [this.gradient], [0]);
    this.touched = false;
  }

  dispose(): void {
    this.value.dispose();
    this.gradient?.dispose();
  }
}

/** A convolution's [out, in, 3] is the matrix [out, in·3] to the kernels. */
function matrixShape(shape: readonly number[]): number[] {
  return shape.length > 2 ? [shape[0]!, shape.slice(1).reduce((a, b) => a * b, 1)] : [...shape];
}
