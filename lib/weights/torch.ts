/**
 * PyTorch checkpoints (torch.save, the zip format since 1.6) of a state dict: how the reference publishes its experts, and
 * older model folders their weights; or of OpenAI's dict of `dims` and `model_state_dict`.
 */
import type { FileHandle } from 'node:fs/promises';
import { DistilWhisperError, shown } from '../errors/index.js';
import { allocateBytes, isLfsPointer, LFS_POINTER_SENTENCE, openRegularFile, readExactly } from '../files/index.js';
import { DTYPE_BYTES, elementCount, formatShape, type HostTensor, type TensorInfo } from './host.js';
import { TorchTensor, unpickle } from './pickle.js';
import type { TensorSource } from './safetensors.js';
import { checkZipData, checkZipEntry, readZipDirectory, type ZipEntry, zipDataOffset } from './zip.js';

/** A state dict of the largest Whisper with its names and shapes is below 1 MB. */
const MAX_PICKLE_BYTES = 16 * 1024 * 1024;

interface Located {
  readonly tensor: TorchTensor;
  readonly info: TensorInfo;
  readonly count: number;
  readonly entry: ZipEntry;
}

interface Contents {
  readonly tensors: ReadonlyMap<string, Located>;
  readonly dims: ModelDims | null;
}

/** What a checkpoint of OpenAI's says of a model's sizes. */
export type ModelDims = ReadonlyMap<string, number>;

/** An open checkpoint; tensors are read when asked for. */
export class TorchCheckpoint implements TensorSource {
  readonly path: string;
  /** Of OpenAI's checkpoints; null for a plain state dict. */
  readonly dims: ModelDims | null;
  readonly #size: number;
  readonly #tensors: ReadonlyMap<string, Located>;
  /** Entries whose data have the checksum that the archive gives. */
  readonly #sound = new Set<ZipEntry>();
  #file: FileHandle | undefined;

  /** Use `importTorchCheckpoint`. */
  constructor(path: string, file: FileHandle, size: number, { tensors, dims }: Contents) {
    this.path = path;
    this.dims = dims;
    this.#file = file;
    this.#size = size;
    this.#tensors = tensors;
  }

  names(): string[] {
    return [...this.#tensors.keys()];
  }

  has(name: string): boolean {
    return this.#tensors.has(name);
  }

  /** Throws ERR_MODEL for an unknown name. */
  info(name: string): TensorInfo {
    return this.#locate(name).info;
  }

  /** The tensor in C order, in new memory. Throws ERR_MODEL, ERR_FILE_READ, ERR_OUT_OF_MEMORY; ERR_DISPOSED after close. */
  async read(name: string): Promise<HostTensor> {
    const { tensor, info, count, entry } = this.#locate(name);
    const file = this.#file;
    if (file === undefined)
      throw new DistilWhisperError('ERR_DISPOSED', `${this.path} was closed before ${name} was read`);
    const size = DTYPE_BYTES[info.dtype];
    const span = count === 0 ? 0 : lastIndex(tensor) + 1;
    const start = await zipDataOffset(file, this.#size, entry, this.path);
    const at = start + tensor.offset * size;
    const bytes = await readExactly(file, at, span * size, this.path, `tensor ${shown(name)}`, 'ERR_MODEL');
    if (bytes.byteLength === entry.byteLength) checkZipData(entry, bytes, this.path);
    // A storage that several tensors are views of is checked with the first of them.
    else if (!this.#sound.has(entry)) await checkZipEntry(file, start, entry, this.path);
    this.#sound.add(entry);
    const data = isContiguous(tensor) ? bytes : gather(bytes, tensor, count, size, this.path);
    return { dtype: info.dtype, shape: info.shape, data };
  }

  /** As `read`: the data of a tensor may lie in any order. */
  async stored(name: string): Promise<HostTensor> {
    return this.read(name);
  }

  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close();
  }

  #locate(name: string): Located {
    const located = this.#tensors.get(name);
    if (located === undefined) throw new DistilWhisperError('ERR_MODEL', `${this.path} holds no tensor ${shown(name)}`);
    return located;
  }
}

/** The largest index, in elements from the tensor's first, of a tensor that is not empty. */
function lastIndex(tensor: TorchTensor): number {
  return tensor.shape.reduce((sum, size, axis) => sum + (size - 1) * tensor.strides[axis]!, 0);
}

function isContiguous(tensor: TorchTensor): boolean {
  let expected = 1;
  for (let axis = tensor.shape.length - 1; axis >= 0; axis--) {
    if (tensor.shape[axis] === 0) return true;
    if (tensor.shape[axis] !== 1 && tensor.strides[axis] !== expected) return false;
    expected *= tensor.shape[axis]!;
  }
  return true;
}

/** Copies a strided tensor (a transpose, a slice) into C order. */
function gather(bytes: Uint8Array, tensor: TorchTensor, count: number, size: number, path: string): Uint8Array {
  const data = allocateBytes(count * size, `a tensor of ${path}`);
  const index = tensor.shape.map(() => 0);
  let from = 0;
  for (let i = 0; i < count; i++) {
    data.set(bytes.subarray(from * size, (from + 1) * size), i * size);
    for (let axis = tensor.shape.length - 1; axis >= 0; axis--) {
      index[axis]!++;
      from += tensor.strides[axis]!;
      if (index[axis]! < tensor.shape[axis]!) break;
      from -= index[axis]! * tensor.strides[axis]!;
      index[axis] = 0;
    }
  }
  return data;
}

/** Pickles that are no archive begin with a protocol, and with the number that torch.save wrote before 1.6. */
const BEFORE_ZIP = [0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/**
 * Opens a PyTorch checkpoint that holds a state dict, a dict from names to float or int64 tensors, alone or as OpenAI's
 * `model_state_dict` beside its `dims`. No Python is run: the pickle is read by a machine that knows what a state dict needs and
 * refuses everything else.
 * Throws ERR_FILE_NOT_FOUND, ERR_FILE_READ, or ERR_MODEL for anything that is no such file.
 */
export async function importTorchCheckpoint(path: string): Promise<TorchCheckpoint> {
  const file = await openRegularFile(path);
  try {
    const { size } = await file.stat();
    const begin = await readExactly(file, 0, Math.min(size, 64), path, 'its beginning', 'ERR_MODEL');
    if (isLfsPointer(begin)) throw new DistilWhisperError('ERR_MODEL', `${path} ${LFS_POINTER_SENTENCE}`);
    if (BEFORE_ZIP.every((byte, i) => begin[i] === byte)) {
      throw new DistilWhisperError(
        'ERR_MODEL',
        `${path} is of a PyTorch before 1.6, expected the archive that torch.save writes since: load it there and save it again`,
      );
    }
    const entries = await readZipDirectory(file, size, path);
    return new TorchCheckpoint(path, file, size, await readContents(file, size, entries, path));
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function readContents(
  file: FileHandle,
  size: number,
  entries: ReadonlyMap<string, ZipEntry>,
  path: string,
): Promise<Contents> {
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_MODEL', `${path} is no PyTorch checkpoint: ${what}`);
  };
  const pickles = [...entries.values()].filter(({ name }) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1) refuse(`expected one data.pkl in it, found ${pickles.length}`);
  const pickle = pickles[0]!;
  if (pickle.byteLength > MAX_PICKLE_BYTES) refuse(`its data.pkl has ${pickle.byteLength} bytes`);
  const prefix = pickle.name.slice(0, -'data.pkl'.length);
  const content = async (entry: ZipEntry) =>
    readExactly(file, await zipDataOffset(file, size, entry, path), entry.byteLength, path, entry.name, 'ERR_MODEL');
  const order = entries.get(`${prefix}byteorder`);
  if (order !== undefined) {
    const said = order.byteLength > 16 ? undefined : await content(order);
    if (said === undefined || new TextDecoder().decode(said) !== 'little') refuse('its numbers are not little-endian');
    checkZipData(order, said!, path);
  }
  const program = await content(pickle);
  const whole = unpickle(program, path);
  // Behind the machine, which says better what is wrong, and takes no harm from what it reads.
  checkZipData(pickle, program, path);
  if (!(whole instanceof Map)) return refuse('it does not hold a state dict');
  const dims = dimsOf(whole, refuse);
  const dict: unknown = dims ? whole.get(STATE_DICT) : whole;
  if (!(dict instanceof Map)) return refuse(`its ${STATE_DICT} is no dict`);
  const located = new Map<string, Located>();
  for (const [name, tensor] of dict as Map<string, unknown>) {
    if (!(tensor instanceof TorchTensor)) return refuse(`${shown(name)} is no tensor`);
    const { storage, offset, shape } = tensor;
    const bytes = DTYPE_BYTES[storage.dtype];
    const entry = entries.get(`${prefix}data/${storage.key}`);
    if (entry === undefined) return refuse(`the data of ${shown(name)} (${storage.key}) are missing`);
    if (entry.byteLength !== storage.count * bytes) {
      refuse(`the data of ${shown(name)} have ${entry.byteLength} bytes, expected ${storage.count * bytes}`);
    }
    const count = elementCount(shape);
    const last = count === 0 ? offset - 1 : offset + lastIndex(tensor);
    // A stride of 0 repeats elements: torch.save never needs it, and it would turn a small file into a huge tensor.
    if (count === undefined || count > storage.count || !(last < storage.count)) {
      return refuse(
        `${shown(name)} of shape ${formatShape(shape)} reaches beyond its data of ${storage.count} elements`,
      );
    }
    located.set(name, { tensor, info: { dtype: storage.dtype, shape, byteLength: count * bytes }, count, entry });
  }
  return { tensors: located, dims };
}

const STATE_DICT = 'model_state_dict';

/** The dims of a dict of OpenAI's, which holds them and a state dict and nothing else; null for any other dict. */
function dimsOf(whole: ReadonlyMap<unknown, unknown>, refuse: (what: string) => never): ModelDims | null {
  const dims = whole.get('dims');
  if (!(dims instanceof Map)) return null;
  for (const [name, size] of dims as ReadonlyMap<string, unknown>) {
    if (typeof size !== 'number') return refuse(`its dims have ${shown(size)} for ${shown(name)}, expected a number`);
  }
  for (const name of whole.keys()) {
    if (name !== 'dims' && name !== STATE_DICT) return refuse(`beside dims it holds ${shown(name)}`);
  }
  return dims as ModelDims;
}
