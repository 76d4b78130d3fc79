import { mergedWeights } from '../model/index.js';
import type { Stream } from '../tensor/index.js';
import {
  type AdapterFolder,
  DTYPE_BYTES,
  type FloatDtype,
  fromFloat32,
  type HostTensor,
  type LoraModule,
  type TensorInfo,
  type TensorSource,
  toFloat32,
} from '../weights/index.js';

/** A model's tensors with a LoRA adapter in them, merged as they are read. Closing it is left to who opened the parts. */
export class MergedSource implements TensorSource {
  private readonly modules: ReadonlyMap<string, LoraModule>;

  /** `wide`: what is merged is left in fp32, not rounded to the type that the model stores it in. */
  constructor(
    private readonly stream: Stream,
    private readonly source: TensorSource,
    private readonly adapter: AdapterFolder,
    private readonly wide: boolean,
  ) {
    this.modules = new Map(adapter.modules.map((one) => [`${one.module}.weight`, one]));
  }

  names(): string[] {
    return this.source.names();
  }

  has(name: string): boolean {
    return this.source.has(name);
  }

  info(name: string): TensorInfo {
    const info = this.source.info(name);
    if (!this.wide || !this.modules.has(name)) return info;
    const byteLength = (info.byteLength / DTYPE_BYTES[info.dtype]) * DTYPE_BYTES.f32;
    return { ...info, dtype: 'f32', byteLength };
  }

  async read(name: string): Promise<HostTensor> {
    const module = this.modules.get(name);
    if (!module) return this.source.read(name);
    const merged = await mergedWeights(this.stream, this.source, { modules: [module], weights: this.adapter.weights });
    const tensor = merged.get(name)!;
    const { dtype } = this.info(name);
    return dtype === 'f32' ? tensor : fromFloat32(toFloat32(tensor), tensor.shape, dtype as FloatDtype);
  }

  async stored(name: string): Promise<HostTensor> {
    return this.read(name);
  }

  async close(): Promise<void> {}
}
