import { DistilWhisperError } from '../errors/index.js';
import { type Isa, type NativeMemory, type NativeStream, typed } from '../native/index.js';
import type { Recording } from './recording.js';

/**
 * Types a tensor can hold. f64 exists on the reference backend only, for the tests of the oracles. q8 is for frozen matrices on
 * the processor: a row of int8 is followed by its scale, an f32.
 */
export const dtypes = ['f32', 'bf16', 'i32', 'f64', 'q8'] as const;
export type DType = (typeof dtypes)[number];
export type FloatType = 'f32' | 'bf16';
/** What a tensor reads as: bf16 comes as its raw 16-bit words, q8 as its bytes. */
export type TensorData = Float32Array | Uint16Array | Int32Array | Float64Array | Int8Array;

const product = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Bytes of a tensor. Errors: those of `checkShape`. */
export function byteLength(dtype: DType, shape: readonly number[]): number {
  checkShape('tensor', dtype, shape);
  const size = product(shape);
  return dtype === 'q8' ? size + 4 * product(shape.slice(0, -1)) : size * elementBytes(dtype);
}

/** At most: a row of q8 has a scale of 4 bytes. */
const elementBytes = (dtype: DType): number => (dtype === 'f64' ? 8 : dtype === 'bf16' ? 2 : dtype === 'q8' ? 5 : 4);

const MOST_DIMENSIONS = 4;

/**
 * Refuses what no tensor can be, before the addon is asked, which checks the same: more than 4 dimensions, one that is no whole
 * number from 0 on, or 2^53 bytes and more. An empty tensor's other dimensions count too: kernels multiply them. `who` begins
 * the error. Errors: ERR_SHAPE, ERR_DTYPE.
 */
export function checkShape(who: string, dtype: DType, shape: readonly number[]): void {
  dtypeNumber(dtype);
  const refuse = (expected: string): never => {
    throw new DistilWhisperError('ERR_SHAPE', `${who}: expected ${expected}, got [${shape}]`);
  };
  if (!Array.isArray(shape) || shape.length > MOST_DIMENSIONS) refuse(`at most ${MOST_DIMENSIONS} dimensions`);
  // By index: a hole in an array is no dimension either.
  for (let i = 0; i < shape.length; i++)
    if (!Number.isSafeInteger(shape[i]) || shape[i]! < 0)
      refuse('dimensions that are whole numbers from 0 to 2^53 - 1');
  if (!Number.isSafeInteger(product(shape.map((n) => n || 1)) * elementBytes(dtype)))
    refuse(`dimensions of less than 2^53 bytes of ${dtype} in all`);
}

/** Number under which the kernels know a type. Errors: ERR_DTYPE. */
export function dtypeNumber(dtype: DType): number {
  const number = dtypes.indexOf(dtype);
  if (number < 0) {
    throw new DistilWhisperError('ERR_DTYPE', `dtype: expected one of ${dtypes.join(', ')}, got '${String(dtype)}'`);
  }
  return number;
}

/** Types that values in files can have, in the addon's order. */
export const fileTypes = ['f64', 'f32', 'f16', 'bf16'] as const;

/** Values in a mapped file: the mapping, by number, and where in it they begin. */
export interface MappedValues {
  readonly mapping: number;
  readonly byte: number;
  readonly byteLength: number;
  /** One of `fileTypes`. */
  readonly dtype: string;
}

function asArray(buffer: ArrayBuffer, dtype: DType): TensorData {
  if (dtype === 'f32') return new Float32Array(buffer);
  if (dtype === 'bf16') return new Uint16Array(buffer);
  if (dtype === 'i32') return new Int32Array(buffer);
  if (dtype === 'q8') return new Int8Array(buffer);
  return new Float64Array(buffer);
}

/** bf16 words to floats (exact). */
export function bf16ToFloat32(words: Uint16Array): Float32Array {
  const bits = new Uint32Array(words.length);
  for (let i = 0; i < words.length; i++) bits[i] = words[i]! << 16;
  return new Float32Array(bits.buffer);
}

/** Rows of q8 to floats. */
function dequantized(data: Int8Array, shape: readonly number[]): Float32Array {
  const cols = shape.at(-1) ?? 1;
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const values = new Float32Array(product(shape));
  for (let at = 0, from = 0; at < values.length; at += cols, from += cols + 4) {
    const scale = view.getFloat32(from + cols, true);
    for (let i = 0; i < cols; i++) values[at + i] = data[from + i]! * scale;
  }
  return values;
}

/** The parts of a training step that a profile tells apart. */
export const stepParts = ['teacher', 'forward', 'backward', 'optimiser'] as const;
export type StepPart = (typeof stepParts)[number];

/**
 * A queue of kernel calls that run in order, off the JavaScript thread. A call returns at once with its output tensors.
 * What a step makes lives until `endStep()`; `tidy` disposes of temporaries earlier.
 */
export interface Stream {
  readonly native: NativeStream;
  /** 'cpu' or 'cuda:N'. */
  readonly device: string;
  /** What its kernels were compiled for. */
  readonly isa: Isa | 'oracle' | 'cuda';
  readonly threads: number;
  /** What it is for, as a profile shows it, or ''. */
  readonly label: string;
  /** Whether decoding replays recorded calls here. */
  readonly graphs: boolean;
  /** Positions of a token, from one multiple of this to the next, at which one recording gives the bits of calls; 0: there are no graphs here. */
  readonly graphSpan: number;
  /** The type in which products are fastest here: bf16 where there are instructions for it, else f32. */
  readonly fastType: FloatType;
  /** Whether it only plans: no call runs, and tensors have no values. */
  readonly plans: boolean;
  /** @internal Whether calls are recorded: their outputs live as long as the recording. */
  readonly records: boolean;

  /**
   * A tensor of this step with the given values. `data` is raw memory of the dtype (bf16: 16-bit words). Errors: ERR_SHAPE (also
   * for other than as many bytes), ERR_DTYPE, ERR_OUT_OF_MEMORY, ERR_STREAM.
   */
  tensor(data: ArrayBufferView, shape: readonly number[], dtype?: DType): Tensor;

  /**
   * The same, living until it is disposed: parameters, optimiser state, caches. Without data: zeros, written on the worker; of
   * f32, bf16, i32 or, on the oracles, f64.
   */
  persistent(data: ArrayBufferView | null, shape: readonly number[], dtype?: DType): Tensor;

  /**
   * A tensor of values in a mapped file, living until it is disposed. A frozen one is the file's own memory where it lies on the
   * processor, in the file's type and aligned; else the worker copies and converts. Errors: ERR_DTYPE for integers, ERR_SHAPE,
   * ERR_DISPOSED for a file that was closed.
   */
  stored(values: MappedValues, shape: readonly number[], dtype: FloatType, frozen: boolean): Tensor;

  /** `source` f32 or bf16 [.., columns] in q8, a scale for each row, living until it is disposed. */
  quantized(source: Tensor): Tensor;

  /**
   * Records the calls of `body`, which do not run. They take persistent tensors (and outputs of calls before them), and their
   * outputs have memory of their own. Errors: ERR_ARGUMENT for a tensor of a step, for a write, and those of the calls.
   */
  record<T>(body: () => T): Recording<T>;

  /** Runs `body` and disposes of the step tensors that it made, except those it returns. */
  tidy<T extends Tensor | readonly Tensor[] | undefined>(body: () => T): T;

  /** Runs `body`; a profile says of the calls that it queues that they belong to this part of a training step. */
  inPart<T>(part: StepPart, body: () => T): T;

  /** Ends the step: all of its tensors go at once. */
  endStep(): void;

  /** Waits until everything queued has run. Rejects with the first fault since the last wait. */
  sync(): Promise<void>;

  memory(): NativeMemory;

  /** Drops queued work and ends the threads; pending reads reject with ERR_STREAM. */
  close(): void;

  /** @internal Called by every new Tensor. */
  adopt(tensor: Tensor): void;

  /** @internal Runs a call into the addon and types its error. */
  guard<T>(body: () => T): T;
}

/**
 * A contiguous block of numbers that lives on a Stream. Made by a Stream or by a kernel; the values are computed in stream
 * order and `read()` is the only wait. A step's tensors go with `stream.endStep()`; persistent ones (parameters, optimiser
 * state, caches) live until `dispose()`. Using a tensor that is gone is an ERR_DISPOSED.
 */
export class Tensor {
  readonly size: number;

  constructor(
    readonly stream: Stream,
    readonly id: number,
    readonly dtype: DType,
    readonly shape: readonly number[],
    readonly persistent: boolean,
  ) {
    this.size = product(shape);
    stream.adopt(this);
  }

  /** Product of all dimensions but the last. */
  get rows(): number {
    return product(this.shape.slice(0, -1));
  }

  /** The last dimension. */
  get cols(): number {
    return this.shape.at(-1) ?? 1;
  }

  /**
   * Waits for the kernels before it and copies the values out. Rejects with the first fault of a kernel since the last wait.
   * `behind`: what is queued later need not wait for it; for a few numbers that nobody is in a hurry for.
   */
  async read(options: { behind?: boolean } = {}): Promise<TensorData> {
    try {
      return asArray(await this.stream.native.read(this.id, options.behind ?? false), this.dtype);
    } catch (error) {
      throw typed(error);
    }
  }

  /** `read()` as floats, whatever the type. */
  async floats(options: { behind?: boolean } = {}): Promise<Float32Array> {
    const data = await this.read(options);
    if (data instanceof Float32Array) return data;
    if (data instanceof Int8Array) return dequantized(data, this.shape);
    return data instanceof Uint16Array ? bf16ToFloat32(data) : Float32Array.from(data);
  }

  /** The single value of a tensor of one element. */
  async item(options: { behind?: boolean } = {}): Promise<number> {
    if (this.size !== 1) throw new DistilWhisperError('ERR_SHAPE', `item(): expected one element, got [${this.shape}]`);
    return (await this.floats(options))[0]!;
  }

  /** Replaces the values, in stream order. */
  write(data: ArrayBufferView): void {
    this.stream.guard(() =>
      this.stream.native.write(this.id, new Uint8Array(data.buffer, data.byteOffset, data.byteLength), false),
    );
  }

  /** The same memory with another shape of as many elements. Errors: ERR_SHAPE; ERR_DTYPE for q8. */
  reshape(shape: readonly number[]): Tensor {
    checkShape('reshape', this.dtype, shape);
    if (product(shape) !== this.size) {
      throw new DistilWhisperError(
        'ERR_SHAPE',
        `reshape: expected a shape of the ${this.size} elements of [${this.shape}], got [${shape}]`,
      );
    }
    return this.window(0, shape);
  }

  /** Rows [begin, end) of the first dimension: a view, nothing is copied. Errors: ERR_SHAPE; ERR_DTYPE for q8. */
  slice(begin: number, end: number): Tensor {
    const [rows, ...rest] = this.shape;
    if (rows === undefined)
      throw new DistilWhisperError('ERR_SHAPE', 'slice: expected a tensor with rows, got a scalar');
    if (!Number.isInteger(begin) || !Number.isInteger(end) || begin < 0 || end < begin || end > rows) {
      throw new DistilWhisperError(
        'ERR_SHAPE',
        `slice: expected whole numbers, 0 <= begin <= end <= ${rows}, got ${begin} and ${end}`,
      );
    }
    return this.window(begin * product(rest), [end - begin, ...rest]);
  }

  private window(offset: number, shape: readonly number[]): Tensor {
    const id = this.stream.guard(() => this.stream.native.view(this.id, offset, shape));
    return new Tensor(this.stream, id, this.dtype, [...shape], this.persistent);
  }

  /** Promises that a persistent tensor is never written again: it may be shared by streams, and kernels keep a packed form. */
  freeze(): this {
    this.stream.guard(() => this.stream.native.freeze(this.id));
    return this;
  }

  /** Gives the memory back. Safe at any time: calls that already use it are queued before it can be given out again. */
  dispose(): void {
    this.stream.native.dispose(this.id);
  }
}
