/**
 * Tensors on the host as the files hold them: raw bytes with a dtype and a shape. Nothing here computes; the model
 * uploads these bytes, and the conversions are made once, when weights are read or written.
 */
import { DistilWhisperError, shown } from '../errors/index.js';

/** Bytes of one element of each dtype. The names are safetensors' own, in lower case. */
export const DTYPE_BYTES = {
  bool: 1,
  u8: 1,
  i8: 1,
  f8_e4m3: 1,
  f8_e5m2: 1,
  u16: 2,
  i16: 2,
  f16: 2,
  bf16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  u64: 8,
  i64: 8,
  f64: 8,
} as const;

export type HostDtype = keyof typeof DTYPE_BYTES;
export type FloatDtype = 'f64' | 'f32' | 'f16' | 'bf16';

/** A tensor in memory: `data` holds little-endian elements in C order, shape [] is a scalar. */
export interface HostTensor {
  readonly dtype: HostDtype;
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** What a file says of a tensor before its data is read. */
export interface TensorInfo {
  readonly dtype: HostDtype;
  readonly shape: readonly number[];
  /** Bytes of its data: the product of the shape times the bytes of an element. */
  readonly byteLength: number;
}

/** A tensor that lies in a mapped file, until the file is closed: for a model, which maps or converts it where it is. */
export interface MappedTensor extends TensorInfo {
  /** The mapping's number, and the first byte in it. */
  readonly mapping: number;
  readonly byte: number;
}

/** A tensor as a model takes it. */
export type StoredTensor = HostTensor | MappedTensor;

/** Human form of a shape: `[2, 80, 3000]`. */
export function formatShape(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}

/** The number of elements of a shape, or undefined where a dimension is no count or the product leaves 2^53. */
export function elementCount(shape: readonly unknown[]): number | undefined {
  let count = 1;
  for (const size of shape) {
    if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0) return undefined;
    count *= size;
    if (!Number.isSafeInteger(count)) return undefined;
  }
  return count;
}

/** True where two shapes are equal, dimension by dimension. */
export function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, axis) => size === b[axis]);
}

/** Checks that the bytes of a tensor are those that its dtype and shape promise; returns the number of elements. */
export function checkHostTensor(tensor: HostTensor, name: string): number {
  const size: number | undefined = DTYPE_BYTES[tensor.dtype];
  if (size === undefined) {
    throw new DistilWhisperError('ERR_DTYPE', `${name} has the unknown dtype ${shown(tensor.dtype)}`);
  }
  const count = elementCount(tensor.shape);
  if (count === undefined || !Number.isSafeInteger(count * size)) {
    throw new DistilWhisperError(
      'ERR_SHAPE',
      `${name} has the shape ${formatShape(tensor.shape)}; expected whole numbers ≥ 0 whose product is below 2^53`,
    );
  }
  if (tensor.data.byteLength !== count * size) {
    throw new DistilWhisperError(
      'ERR_SHAPE',
      `${name} of shape ${formatShape(tensor.shape)} and dtype ${tensor.dtype} needs ${count * size} bytes, ` +
        `its data has ${tensor.data.byteLength}`,
    );
  }
  return count;
}

/** The bytes at an address that a typed array of `size`-byte elements accepts; copies only where it must. */
function aligned(data: Uint8Array, size: number): Uint8Array {
  return data.byteOffset % size === 0 ? data : data.slice();
}

/**
 * The values as float32, in a new array. From f16, bf16 and f32 every value is kept exactly (NaN stays NaN);
 * f64 is rounded to nearest even. Throws ERR_DTYPE for a tensor of integers and ERR_SHAPE where data and shape disagree.
 */
export function toFloat32(tensor: HostTensor): Float32Array {
  const count = checkHostTensor(tensor, 'toFloat32: the tensor');
  const data = aligned(tensor.data, DTYPE_BYTES[tensor.dtype]);
  switch (tensor.dtype) {
    case 'f32':
      return new Float32Array(data.buffer, data.byteOffset, count).slice();
    case 'f64':
      return Float32Array.from(new Float64Array(data.buffer, data.byteOffset, count));
    case 'bf16': {
      const from = new Uint16Array(data.buffer, data.byteOffset, count);
      const bits = new Uint32Array(count);
      for (let i = 0; i < count; i++) bits[i] = from[i]! << 16;
      return new Float32Array(bits.buffer);
    }
    case 'f16': {
      const from = new Uint16Array(data.buffer, data.byteOffset, count);
      const bits = new Uint32Array(count);
      halfTable ??= buildHalfTable();
      const table = halfTable;
      for (let i = 0; i < count; i++) bits[i] = table[from[i]!]!;
      return new Float32Array(bits.buffer);
    }
    default:
      throw new DistilWhisperError(
        'ERR_DTYPE',
        `toFloat32 takes f32, f64, f16 or bf16, the tensor of shape ${formatShape(tensor.shape)} is ${tensor.dtype}`,
      );
  }
}

/**
 * A host tensor of `dtype` with the values of `values`, rounded to nearest, ties to even (bf16 and f16; beyond the
 * largest finite value they become infinite, subnormals are kept, NaN stays a quiet NaN).
 * Throws ERR_SHAPE where shape and length disagree and ERR_DTYPE for any other dtype.
 */
export function fromFloat32(values: Float32Array, shape: readonly number[], dtype: FloatDtype): HostTensor {
  if (elementCount(shape) !== values.length) {
    throw new DistilWhisperError(
      'ERR_SHAPE',
      `fromFloat32: the shape ${formatShape(shape)} does not hold ${values.length} values`,
    );
  }
  return { dtype, shape: [...shape], data: convert(values, dtype) };
}

function convert(values: Float32Array, dtype: FloatDtype): Uint8Array {
  switch (dtype) {
    case 'f32':
      return new Uint8Array(values.slice().buffer);
    case 'f64':
      return new Uint8Array(Float64Array.from(values).buffer);
    case 'bf16':
      return new Uint8Array(roundToBfloat16(float32Bits(values)).buffer);
    case 'f16':
      return new Uint8Array(roundToHalf(float32Bits(values)).buffer);
    default:
      throw new DistilWhisperError('ERR_DTYPE', `fromFloat32 makes f32, f64, f16 or bf16, not ${dtype as string}`);
  }
}

function float32Bits(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

function roundToBfloat16(bits: Uint32Array): Uint16Array {
  const out = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const u = bits[i]!;
    // A NaN whose payload lies in the dropped half would round to infinity: set the quiet bit instead.
    out[i] = (u & 0x7fffffff) > 0x7f800000 ? (u >>> 16) | 0x40 : (u + 0x7fff + ((u >>> 16) & 1)) >>> 16;
  }
  return out;
}

function roundToHalf(bits: Uint32Array): Uint16Array {
  const out = new Uint16Array(bits.length);
  for (let i = 0; i < bits.length; i++) {
    const u = bits[i]!;
    const magnitude = u & 0x7fffffff;
    let half: number;
    if (magnitude >= 0x47800000) {
      half = magnitude > 0x7f800000 ? 0x7e00 | ((magnitude >>> 13) & 0x3ff) : 0x7c00;
    } else if (magnitude >= 0x38800000) {
      // Normal: the carry of the rounding may run into the exponent, up to infinity, which is right.
      half = (magnitude + 0xfff + ((magnitude >>> 13) & 1) - 0x38000000) >>> 13;
    } else if (magnitude < 0x33000000) {
      half = 0; // below half of the smallest subnormal, 2^-24
    } else {
      const shift = 126 - (magnitude >>> 23);
      const mantissa = (magnitude & 0x7fffff) | 0x800000;
      half = mantissa >>> shift;
      const rest = mantissa & ((1 << shift) - 1);
      const tie = 1 << (shift - 1);
      if (rest > tie || (rest === tie && (half & 1) === 1)) half++;
    }
    out[i] = ((u >>> 16) & 0x8000) | half;
  }
  return out;
}

let halfTable: Uint32Array | undefined;

/** The float32 bits of every half: 65,536 entries, made at the first use. */
function buildHalfTable(): Uint32Array {
  const table = new Uint32Array(65536);
  const value = new Float32Array(1);
  const valueBits = new Uint32Array(value.buffer);
  for (let h = 0; h < 65536; h++) {
    const exponent = (h >>> 10) & 0x1f;
    const mantissa = h & 0x3ff;
    const sign = (h & 0x8000) << 16;
    if (exponent === 0) {
      value[0] = mantissa * 2 ** -24;
      table[h] = sign | valueBits[0]!;
    } else {
      table[h] = sign | ((exponent === 31 ? 255 : exponent + 112) << 23) | (mantissa << 13);
    }
  }
  return table;
}
