import { fill } from './kernels/index.js';
import type { FloatType, MappedValues, Stream, Tensor } from './tensor.js';

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

  /**
   * A frozen parameter; matrices are stored in `type`, vectors always in f32. `data` is raw memory of the stored type, or lies
   * in a file, in any float type.
   */
  static frozen(
    stream: Stream,
    name: string,
    data: ArrayBufferView | MappedValues,
    shape: readonly number[],
    type: FloatType,
  ): Parameter {
    return new Parameter(name, shape, persistent(stream, data, shape, type, true), false);
  }

  /** A frozen matrix in q8, from its values in full precision. */
  static quantized(
    stream: Stream,
    name: string,
    data: Float32Array | MappedValues,
    shape: readonly number[],
  ): Parameter {
    const bf16 = 'mapping' in data && data.dtype === 'bf16';
    const source = persistent(stream, data, shape, bf16 ? 'bf16' : 'f32', true);
    const value = stream.quantized(source);
    source.dispose();
    return new Parameter(name, shape, value, false);
  }

  static trainable(
    stream: Stream,
    name: string,
    data: Float32Array | MappedValues,
    shape: readonly number[],
  ): Parameter {
    return new Parameter(name, shape, persistent(stream, data, shape, 'f32', false), true);
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
    if (this.gradient && this.touched) fill(this.gradient.stream, { x: this.gradient, value: 0 });
    this.touched = false;
  }

  dispose(): void {
    this.value.dispose();
    this.gradient?.dispose();
  }
}

/** `data` as a matrix of `type`; `frozen`: in the file that it lies in, if it can be. */
function persistent(
  stream: Stream,
  data: ArrayBufferView | MappedValues,
  shape: readonly number[],
  type: FloatType,
  frozen: boolean,
): Tensor {
  return 'mapping' in data
    ? stream.stored(data, matrixShape(shape), type, frozen)
    : stream.persistent(data, matrixShape(shape), type);
}

/** A convolution's [out, in, 3] is the matrix [out, in·3] to the kernels. */
function matrixShape(shape: readonly number[]): number[] {
  return shape.length > 2 ? [shape[0]!, shape.slice(1).reduce((a, b) => a * b, 1)] : [...shape];
}
