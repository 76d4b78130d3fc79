import { DistilWhisperError, shown } from '../errors/index.js';
import type { HostTensor, StoredTensor, TensorInfo } from './host.js';
import type { TensorSource } from './safetensors.js';

/** A part of a source under other names (canonical name → name in the source); closing it is left to the whole. */
export class Renamed implements TensorSource {
  readonly #source: TensorSource;
  readonly #names: ReadonlyMap<string, string>;

  constructor(source: TensorSource, names: ReadonlyMap<string, string>) {
    this.#source = source;
    this.#names = names;
  }

  names(): string[] {
    return [...this.#names.keys()];
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }

  info(name: string): TensorInfo {
    return this.#source.info(this.#inner(name));
  }

  async read(name: string): Promise<HostTensor> {
    return this.#source.read(this.#inner(name));
  }

  async stored(name: string, copied?: boolean): Promise<StoredTensor> {
    return this.#source.stored(this.#inner(name), copied);
  }

  async close(): Promise<void> {}

  #inner(name: string): string {
    const inner = this.#names.get(name);
    if (inner === undefined) throw new DistilWhisperError('ERR_MODEL', `The model holds no tensor ${shown(name)}`);
    return inner;
  }
}
