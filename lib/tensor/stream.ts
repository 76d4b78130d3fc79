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
  opNumber,
  typed,
} from '../native/index.js';
import { streamClosed, streamOpened } from '../profile/index.js';
import {
  byteLength,
  checkShape,
  type DType,
  dtypeNumber,
  dtypes,
  type FloatType,
  fileTypes,
  type MappedValues,
  Tensor,
} from './tensor.js';

export interface StreamOptions {
  /** Where tensors live and kernels run: 'cpu' (default), 'cuda' (the first GPU) or 'cuda:N'. */
  device?: string | undefined;
  /** 'reference': the plain-loop oracles in double instead of the fast kernels, for tests. On the CPU only. */
  backend?: 'fast' | 'reference' | undefined;
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
const forgotten = new FinalizationRegistry<{ native: NativeStream; id: number }>(({ native, id }) => native.forget(id));

/**
 * Calls that are queued again and again, on the same tensors: inputs are read and outputs written where they are. On a GPU that is
 * one launch of a CUDA graph, which the first replay captures. The tensors that the recording made live until `dispose()`.
 */
export class Recording<T> {
  constructor(
    private readonly native: NativeStream,
    private readonly id: number,
    /** What `body` returned. */
    readonly outputs: T,
  ) {
    forgotten.register(this, { native, id });
  }

  /** Queues the calls. Errors: ERR_DISPOSED; those of the calls come with the next read. */
  replay(): void {
    try {
      this.native.replay(this.id);
    } catch (error) {
      throw typed(error);
    }
  }

  /** Safe at any time: what is queued still runs. */
  dispose(): void {
    this.native.forget(this.id);
  }
}

/**
 * A queue of kernel calls that run in order, off the JavaScript thread. A call returns at once with its output tensors.
 * What a step makes lives until `endStep()`; `tidy` disposes of temporaries earlier.
 */
export class Stream {
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
  private readonly scopes: Tensor[][] = [];
  private recording = false;

  /** Errors: ERR_NATIVE_LOAD, ERR_ARGUMENT (device, threads, instruction set), ERR_CUDA_PLUGIN, ERR_CUDA. */
  constructor(options: StreamOptions = {}) {
    const reference = options.backend === 'reference';
    this.label = options.label ?? '';
    this.threads = options.threads ?? defaultThreads();
    if (!Number.isInteger(this.threads) || this.threads < 1 || this.threads > 1024) {
      throw new DistilWhisperError('ERR_ARGUMENT', `threads: expected an integer from 1 to 1024, got ${this.threads}`);
    }
    const device = options.device ?? 'cpu';
    this.graphs = device !== 'cpu' && options.graphs !== false;
    if (device !== 'cpu') {
      const index = cudaDeviceNumber(device);
      if (reference) {
        throw new DistilWhisperError('ERR_ARGUMENT', `device: the reference backend runs on 'cpu', got '${device}'`);
      }
      this.device = `cuda:${index}`;
      this.isa = 'cuda';
      this.native = createCudaStream(index);
    } else {
      this.device = 'cpu';
      this.isa = reference ? 'oracle' : chooseIsa(options.isa);
      this.native = createNativeStream(this.isa, this.threads);
    }
    streamOpened(this);
  }

  /** The type in which products are fastest here: bf16 where there are instructions for it, else f32. */
  get fastType(): FloatType {
    return ['avx512bf16', 'amx', 'cuda'].includes(this.isa) ? 'bf16' : 'f32';
  }

  /**
   * A tensor of this step with the given values. `data` is raw memory of the dtype (bf16: 16-bit words). Errors: ERR_SHAPE (also
   * for other than as many bytes), ERR_DTYPE, ERR_OUT_OF_MEMORY, ERR_STREAM.
   */
  tensor(data: ArrayBufferView, shape: readonly number[], dtype: DType = 'f32'): Tensor {
    return this.make(data, shape, dtype, false);
  }

  /**
   * The same, living until it is disposed: parameters, optimiser state, caches. Without data: zeros, written on the worker; of
   * f32, bf16, i32 or, on the oracles, f64.
   */
  persistent(data: ArrayBufferView | null, shape: readonly number[], dtype: DType = 'f32'): Tensor {
    if (data) return this.make(data, shape, dtype, true);
    checkShape('tensor', dtype, shape);
    if (dtype === 'q8')
      throw new DistilWhisperError('ERR_DTYPE', 'tensor: expected f32, bf16 or i32 for zeros, got q8');
    const id = this.guard(() => this.native.create(dtypeNumber(dtype), shape, true));
    const zeros = new Tensor(this, id, dtype, [...shape], true);
    this.call('fill', [zeros], [0]);
    return zeros;
  }

  /**
   * A tensor of values in a mapped file, living until it is disposed. A frozen one is the file's own memory where it lies on the
   * processor, in the file's type and aligned; else the worker copies and converts. Errors: ERR_DTYPE for integers, ERR_SHAPE,
   * ERR_DISPOSED for a file that was closed.
   */
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

  /** `source` f32 or bf16 [.., columns] in q8, a scale for each row, living until it is disposed. */
  quantized(source: Tensor): Tensor {
    const id = this.guard(() => this.native.create(dtypeNumber('q8'), source.shape, true));
    const matrix = new Tensor(this, id, 'q8', source.shape, true);
    this.call('quantize', [source, matrix], []);
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

  /** Queues a kernel. Tensors and numbers stand in the kernel's order; null is an optional tensor left out. */
  call(op: string, tensors: readonly (Tensor | null)[], numbers: readonly number[]): Tensor[] {
    const outputs = this.guard(() =>
      this.native.call(
        opNumber(op),
        tensors.map((t) => (t === null ? 0 : t.id)),
        numbers,
      ),
    );
    return outputs.map(([id, dtype, ...shape]) => new Tensor(this, id, dtypes[dtype]!, shape, this.recording));
  }

  /**
   * Records the calls of `body`, which do not run. They take persistent tensors (and outputs of calls before them), and their
   * outputs have memory of their own. Errors: ERR_ARGUMENT for a tensor of a step, for a write, and those of the calls.
   */
  record<T>(body: () => T): Recording<T> {
    this.guard(() => this.native.record());
    this.recording = true;
    let outputs: { value: T } | null = null;
    let id = 0;
    try {
      outputs = { value: body() };
    } finally {
      this.recording = false;
      id = this.native.recorded(outputs !== null);
    }
    return new Recording(this.native, id, outputs.value);
  }

  /** Runs `body` and disposes of the step tensors that it made, except those it returns. */
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

  /** Ends the step: all of its tensors go at once. */
  endStep(): void {
    this.native.endStep();
  }

  /** Waits until everything queued has run. Rejects with the first fault since the last wait. */
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

  /** Drops queued work and ends the threads; pending reads reject with ERR_STREAM. */
  close(): void {
    this.native.close();
    streamClosed(this);
  }

  /** @internal Called by every new Tensor. */
  adopt(tensor: Tensor): void {
    if (tensor.persistent) leaked.register(tensor, { native: this.native, id: tensor.id });
    else this.scopes.at(-1)?.push(tensor);
  }

  /** @internal Runs a call into the addon and types its error. */
  guard<T>(body: () => T): T {
    try {
      return body();
    } catch (error) {
      throw typed(error);
    }
  }
}
