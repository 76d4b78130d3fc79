/** Tensors on their way into another file: read one at a time, in the type that is wanted. */
import { DistilWhisperError } from '../errors/index.js';
import { type FloatDtype, fromFloat32, type HostTensor, type TensorSource, toFloat32 } from '../weights/index.js';

/** Types that weights can be written in, by their names in options. */
export type WeightType = 'fp32' | 'bf16' | 'fp16' | 'int8';

/** f16 rounds what is below this to its largest number, 65504. */
const F16_LIMIT = 65_520;

/** What a conversion tells while it reads: each tensor's bytes when it has been read. */
export interface Reading {
  /** Throws ERR_INTERRUPTED once the conversion was aborted. */
  begin(): void;
  done(bytes: number): void;
}

export class TensorReader {
  constructor(
    readonly path: string,
    private readonly weights: TensorSource,
    private readonly reading: Reading,
  ) {}

  shape(name: string): readonly number[] {
    return this.weights.info(name).shape;
  }

  dtype(name: string): FloatDtype {
    // Only floats pass `checkWeights`.
    return this.weights.info(name).dtype as FloatDtype;
  }

  /** The values of a tensor in f32. Throws ERR_INTERRUPTED and what reading throws. */
  async values(name: string): Promise<Float32Array> {
    return toFloat32(await this.read(name));
  }

  /** The bytes of a tensor in another type. Throws ERR_MODEL for values that f16 has no room for, ERR_INTERRUPTED. */
  async bytes(name: string, dtype: FloatDtype): Promise<Uint8Array> {
    const tensor = await this.read(name);
    if (tensor.dtype === dtype) return tensor.data;
    return this.convert(name, toFloat32(tensor), dtype);
  }

  /** Values as bytes of a type; `name` is whose they are. Throws ERR_MODEL for values that f16 has no room for. */
  convert(name: string, values: Float32Array, dtype: FloatDtype): Uint8Array {
    if (dtype === 'f16') {
      for (const value of values) {
        if (Math.abs(value) >= F16_LIMIT && Number.isFinite(value)) {
          throw new DistilWhisperError(
            'ERR_MODEL',
            `${this.path}: expected ${name} to hold values that fp16 has (65504 at most), got ${value}; bf16 and fp32 have it`,
          );
        }
      }
    }
    return fromFloat32(values, [values.length], dtype).data;
  }

  private async read(name: string): Promise<HostTensor> {
    this.reading.begin();
    const tensor = await this.weights.read(name);
    this.reading.done(tensor.data.byteLength);
    return tensor;
  }
}
