import { DistilWhisperError } from '../errors/index.js';
import {
  chooseIsa,
  createCudaStream,
  createNativeStream,
  cudaDeviceNumber,
  defaultThreads,
  type Isa,
  type NativeMemory,
  type NativeStream,
  typed,
} from '../native/index.js';
import { streamClosed, streamOpened } from '../trace/index.js';
import { rawCall } from './call.js';
import { fill, quantize } from './kernels/index.js';
import { Recording } from './recording.js';
import {
  byteLength,
  checkShape,
  type DType,
  dtypeNumber,
  type FloatType,
  fileTypes,
  type MappedValues,
  type StepPart,
  type Stream as StreamOfTensors,
  stepParts,
  Tensor,
} from './tensor.js';

export interface StreamOptions {
  /** Where tensors live and kernels run: 'cpu' (default), 'cuda' (the first GPU) or 'cuda:N'. */
  device?: string | undefined;
  /**
   * 'reference': the plain-loop oracles in double instead of the fast kernels, for tests. 'plan': calls are checked and counted, and
   * none runs: tensors take no memory, `memory()` says what they would take, and values that are read are zeros. On the CPU only.
   */
  backend?: 'fast' | 'reference' | 'plan' | undefined;
  /** Threads of a CPU stream's team, its worker included. Default: the processors this process may use. */
  threads?: number | undefined;
  /** Instruction set of the CPU kernels. Default: the best of this machine, or DISTILWHISPER_CPU. */
  isa?: Isa | undefined;
  /** On a GPU: decode by CUDA graphs, one launch a token, instead of call by call. Default true. */
  graphs?: boolean | undefined;
  /** What it is for, as a profile shows it. */
  label?: string | undefined;
}

const leaked = new FinalizationRegistry<{ native: NativeStream; id: number }>(({ native, id }) => native.dispose(id));

/** What it can is said in tensor.ts, beside Tensor, which names it: neither file needs the other in a circle. */
export type Stream = StreamOfTensors;

/** Errors: ERR_NATIVE_LOAD, ERR_ARGUMENT (device, threads, instruction set), ERR_CUDA_PLUGIN, ERR_CUDA. */
export const Stream: new (options?: StreamOptions) => Stream = class Stream implements StreamOfTensors {
  readonly native: NativeStream;
  readonly device: string;
  readonly isa: Isa | 'oracle' | 'cuda';
  readonly threads: number;
  readonly label: string;
  readonly graphs: boolean;
  readonly graphSpan: number;
  readonly plans: boolean;
  private readonly scopes: Tensor[][] = [];
  private part: StepPart | null = null;
  records = false;

  constructor(options: StreamOptions = {}) {
    const reference = options.backend === 'reference';
    this.plans = options.backend === 'plan';
    this.label = options.label ?? '';
    this.threads = options.threads ?? defaultThreads();
    if (!Number.isInteger(this.threads) || this.threads < 1 || this.threads > 1024) {
      throw new DistilWhisperError('ERR_ARGUMENT', `threads: expected an integer from 1 to 1024, got ${this.threads}`);
    }
    const device = options.device ?? 'cpu';
    if (device !== 'cpu') {
      const index = cudaDeviceNumber(device);
      if (reference || this.plans) {
        throw new DistilWhisperError(
          'ERR_ARGUMENT',
          `device: the ${options.backend} backend runs on 'cpu', got '${device}'`,
        );
      }
      this.device = `cuda:${index}`;
      this.isa = 'cuda';
      this.native = createCudaStream(index);
    } else {
      this.device = 'cpu';
      this.isa = reference ? 'oracle' : chooseIsa(options.isa);
      this.native = createNativeStream(this.isa, this.threads, this.plans);
    }
    this.graphSpan = device === 'cpu' ? 0 : this.native.graphSpan();
    this.graphs = this.graphSpan > 0 && options.graphs !== false;
    // What does not run is no part of a profile.
    if (!this.plans) streamOpened(this);
  }

  get fastType(): FloatType {
    return ['avx512bf16', 'amx', 'cuda'].includes(this.isa) ? 'bf16' : 'f32';
  }

  tensor(data: ArrayBufferView, shape: readonly number[], dtype: DType = 'f32'): Tensor {
    return this.make(data, shape, dtype, false);
  }

  persistent(data: ArrayBufferView | null, shape: readonly number[], dtype: DType = 'f32'): Tensor {
    if (data) return this.make(data, shape, dtype, true);
    checkShape('tensor', dtype, shape);
    if (dtype === 'q8')
      throw new DistilWhisperError('ERR_DTYPE', 'tensor: expected f32, bf16 or i32 for zeros, got q8');
    const id = this.guard(() => this.native.create(dtypeNumber(dtype), shape, true));
    const zeros = new Tensor(this, id, dtype, [...shape], true);
    fill(this, { x: zeros, value: 0 });
    return zeros;
  }

  stored(values: MappedValues, shape: readonly number[], dtype: FloatType, frozen: boolean): Tensor {
    const from = (fileTypes as readonly string[]).indexOf(values.dtype);
    if (from < 0) {
      throw new DistilWhisperError(
        'ERR_DTYPE',
        `tensor: expected ${fileTypes.join(', ')} in the file, got ${values.dtype}`,
      );
    }
    checkShape('tensor', values.dtype === 'f64' ? 'f64' : dtype, shape);
    const bytes = shape.reduce((a, b) => a * b, [8, 4, 2, 2][from]!);
    if (bytes !== values.byteLength) {
      throw new DistilWhisperError(
        'ERR_SHAPE',
        `tensor: ${values.dtype}[${shape}] takes ${bytes} bytes, the file has ${values.byteLength}`,
      );
    }
    const { mapping, byte } = values;
    const id = this.guard(() => this.native.stored(mapping, byte, from, dtypeNumber(dtype), shape, frozen));
    return new Tensor(this, id, dtype, [...shape], true);
  }

  quantized(source: Tensor): Tensor {
    const id = this.guard(() => this.native.create(dtypeNumber('q8'), source.shape, true));
    const matrix = new Tensor(this, id, 'q8', source.shape, true);
    quantize(this, { weight: source, quantized: matrix });
    return matrix;
  }

  private make(data: ArrayBufferView, shape: readonly number[], dtype: DType, persistent: boolean): Tensor {
    if (!ArrayBuffer.isView(data)) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `tensor: expected a typed array, got ${data === null ? 'null' : typeof data}`,
      );
    }
    const bytes = byteLength(dtype, shape);
    if (bytes !== data.byteLength) {
      throw new DistilWhisperError(
        'ERR_SHAPE',
        `tensor: ${dtype}[${shape}] takes ${bytes} bytes, got ${data.byteLength}`,
      );
    }
    const id = this.guard(() => {
      const fresh = this.native.create(dtypeNumber(dtype), shape, persistent);
      this.native.write(fresh, new Uint8Array(data.buffer, data.byteOffset, data.byteLength), persistent);
      return fresh;
    });
    return new Tensor(this, id, dtype, [...shape], persistent);
  }

  /** @internal What `kernels` took the place of; it goes with the next version. */
  call(op: string, tensors: readonly (Tensor | null)[], numbers: readonly number[]): Tensor[] {
    return rawCall(this, op, tensors, numbers);
  }

  record<T>(body: () => T): Recording<T> {
    this.guard(() => this.native.record());
    this.records = true;
    let outputs: { value: T } | null = null;
    let id = 0;
    try {
      outputs = { value: body() };
    } finally {
      this.records = false;
      id = this.native.recorded(outputs !== null);
    }
    return new Recording(this.native, id, outputs.value);
  }

  tidy<T extends Tensor | readonly Tensor[] | undefined>(body: () => T): T {
    const made: Tensor[] = [];
    this.scopes.push(made);
    let kept: T | undefined;
    try {
      kept = body();
      return kept;
    } finally {
      this.scopes.pop();
      const keep = new Set<Tensor>(kept === undefined ? [] : kept instanceof Tensor ? [kept] : kept);
      const outer = this.scopes.at(-1);
      for (const t of made) {
        if (keep.has(t)) outer?.push(t);
        else t.dispose();
      }
    }
  }

  endStep(): void {
    this.native.endStep();
  }

  inPart<T>(part: StepPart, body: () => T): T {
    const outer = this.part;
    this.part = part;
    this.native.part(stepParts.indexOf(part) + 1);
    try {
      return body();
    } finally {
      this.part = outer;
      this.native.part(outer === null ? 0 : stepParts.indexOf(outer) + 1);
    }
  }

  async sync(): Promise<void> {
    try {
      await this.native.sync();
    } catch (error) {
      throw typed(error);
    }
  }

  memory(): NativeMemory {
    return this.native.memory();
  }

  close(): void {
    this.native.close();
    streamClosed(this);
  }

  adopt(tensor: Tensor): void {
    if (tensor.persistent) leaked.register(tensor, { native: this.native, id: tensor.id });
    else this.scopes.at(-1)?.push(tensor);
  }

  guard<T>(body: () => T): T {
    try {
      return body();
    } catch (error) {
      throw typed(error);
    }
  }
};
