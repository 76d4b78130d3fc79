/**
 * ONNX files (onnx.proto3), as far as a runtime's user needs reading: what goes in and out of the graph, and its tensors. The file is
 * walked field by field, so that no weights are read before they are asked for. It is believed in nothing: a length that leaves
 * what it lies in, or a place outside of the folder, is refused with ERR_ONNX.
 */
import type { FileHandle } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { DistilWhisperError, fileReadError, shown } from '../errors/index.js';
import { decodeText, isLfsPointer, LFS_POINTER_SENTENCE, openRegularFile, readExactly } from '../files/index.js';
import { elementCount, formatShape, type HostTensor, type TensorInfo } from './host.js';

/** Where fields stand in their messages. */
const MODEL = { graph: 7 };
const GRAPH = { initializer: 5, input: 11, output: 12 };
const TENSOR = { dims: 1, type: 2, name: 8, raw: 9, external: 13, location: 14 };

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

/** Of onnx's TensorProto.DataType. */
const FLOATS = { 1: 'f32', 10: 'f16', 11: 'f64', 16: 'bf16' } as const;
const SIZES = { f32: 4, f16: 2, f64: 8, bf16: 2 };

/** Bytes that are read at once where fields are walked. */
const WINDOW = 1 << 16;
/** A name, a shape or a value's description is shorter. */
const MOST_SMALL = 1 << 16;
/** Of a tensor that is described without its data: dimensions, and dimensions alone. */
const MOST_DIMENSIONS = 16;

/** What a graph takes or gives. */
export interface OnnxValue {
  readonly name: string;
  /** Whether it is a tensor of f32. */
  readonly f32: boolean;
}

interface Stored extends TensorInfo {
  readonly dtype: keyof typeof SIZES;
  /** Another file of the folder; null: the graph's own. */
  readonly file: string | null;
  readonly start: number;
}

interface Field {
  readonly number: number;
  /** The number of a varint; null for all else, of which is told where its bytes begin and how many they are. */
  readonly value: number | null;
  readonly start: number;
  readonly length: number;
}

function refuse(path: string, what: string): never {
  throw new DistilWhisperError('ERR_ONNX', `${path} is no sound ONNX file: ${what}`);
}

/** Reads a file's bytes in order, with jumps. */
class Walker {
  private window: Uint8Array = new Uint8Array(0);
  private begin = 0;

  constructor(
    readonly path: string,
    private readonly file: FileHandle,
    readonly size: number,
  ) {}

  /** The fields of the message at [start, end). */
  async *fields(start: number, end: number): AsyncGenerator<Field, void, undefined> {
    for (let at = start; at < end; ) {
      const tag = await this.varint(at, end);
      const number = Math.floor(tag.value / 8);
      if (number === 0) refuse(this.path, `byte ${at} begins no field`);
      const wire = tag.value % 8;
      at = tag.end;
      if (wire === VARINT) {
        const { value, end: behind } = await this.varint(at, end);
        yield { number, value, start: at, length: behind - at };
        at = behind;
        continue;
      }
      let length = 0;
      if (wire === FIXED64) length = 8;
      else if (wire === FIXED32) length = 4;
      else if (wire === BYTES) ({ value: length, end: at } = await this.varint(at, end));
      else refuse(this.path, `byte ${at} is of the unknown kind ${wire}`);
      if (length > end - at) refuse(this.path, `a field of ${length} bytes at byte ${at} leaves what it lies in`);
      yield { number, value: null, start: at, length };
      at += length;
    }
  }

  async text({ start, length }: Field): Promise<string> {
    if (length > MOST_SMALL) refuse(this.path, `a name of ${length} bytes at byte ${start}`);
    await this.hold(start, length);
    try {
      return decodeText(this.window.slice(start - this.begin, start - this.begin + length));
    } catch {
      return refuse(this.path, `the name at byte ${start} is no text`);
    }
  }

  /** Varints one behind the other: a packed field. */
  async numbers({ start, length }: Field): Promise<number[]> {
    if (length > MOST_SMALL) refuse(this.path, `a shape of ${length} bytes at byte ${start}`);
    const values: number[] = [];
    for (let at = start; at < start + length; ) {
      const { value, end } = await this.varint(at, start + length);
      values.push(value);
      at = end;
    }
    return values;
  }

  private async varint(at: number, limit: number): Promise<{ value: number; end: number }> {
    let value = 0;
    for (let i = 0; i < 10; i++) {
      if (at + i >= limit) refuse(this.path, `it ends in the middle of a number at byte ${at}`);
      await this.hold(at + i, 1);
      const byte = this.window[at + i - this.begin]!;
      value += (byte & 127) * 2 ** (7 * i);
      if (byte < 128) return { value, end: at + i + 1 };
    }
    return refuse(this.path, `the number at byte ${at} does not end`);
  }

  /** Has [at, at + length) in the window. */
  private async hold(at: number, length: number): Promise<void> {
    if (at >= this.begin && at + length <= this.begin + this.window.byteLength) return;
    const size = Math.min(Math.max(WINDOW, length), this.size - at);
    this.window = await readExactly(this.file, at, size, this.path, 'its fields', 'ERR_ONNX');
    this.begin = at;
  }
}

/** An open file of ONNX; tensors are read when they are asked for. Close it when done. */
export class OnnxFile {
  readonly #file: FileHandle;
  readonly #tensors: ReadonlyMap<string, Stored>;

  /** Use `openOnnx`. */
  constructor(
    readonly path: string,
    readonly inputs: readonly OnnxValue[],
    readonly outputs: readonly OnnxValue[],
    file: FileHandle,
    tensors: ReadonlyMap<string, Stored>,
  ) {
    this.#file = file;
    this.#tensors = tensors;
  }

  /** Of the tensors of floats in the graph itself, not in its branches. */
  names(): string[] {
    return [...this.#tensors.keys()];
  }

  /** Throws ERR_ONNX for an unknown name. */
  info(name: string): TensorInfo {
    return this.#stored(name);
  }

  /** Paths of the files that hold the graph and its tensors. */
  get files(): string[] {
    const beside = new Set([...this.#tensors.values()].flatMap(({ file }) => file ?? []));
    return [this.path, ...[...beside].map((name) => join(dirname(this.path), name))];
  }

  /** A tensor, in new memory. Throws ERR_ONNX, ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_OUT_OF_MEMORY. */
  async read(name: string): Promise<HostTensor> {
    const { dtype, shape, byteLength, file: beside, start } = this.#stored(name);
    const what = `tensor ${shown(name)}`;
    if (beside === null) {
      return { dtype, shape, data: await readExactly(this.#file, start, byteLength, this.path, what, 'ERR_ONNX') };
    }
    const path = join(dirname(this.path), beside);
    const file = await openRegularFile(path);
    try {
      const { size } = await file.stat();
      if (start + byteLength > size)
        refuse(this.path, `${what} ends at byte ${start + byteLength} of ${path}, which has ${size}`);
      return { dtype, shape, data: await readExactly(file, start, byteLength, path, what, 'ERR_ONNX') };
    } finally {
      await file.close();
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }

  #stored(name: string): Stored {
    const found = this.#tensors.get(name);
    if (found) return found;
    throw new DistilWhisperError('ERR_ONNX', `${this.path} holds no tensor ${shown(name)} of floats`);
  }
}

/**
 * Opens a file of ONNX and walks its graph; tensors are read when they are asked for, from it or from the files beside it that it
 * names. Throws ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_ONNX.
 */
export async function openOnnx(path: string): Promise<OnnxFile> {
  const file = await openRegularFile(path);
  try {
    const { size } = await file.stat();
    const head = await readExactly(file, 0, Math.min(size, 64), path, 'its head', 'ERR_ONNX');
    if (isLfsPointer(head)) throw new DistilWhisperError('ERR_ONNX', `${path} ${LFS_POINTER_SENTENCE}`);
    const walker = new Walker(path, file, size);
    const inputs: OnnxValue[] = [];
    const outputs: OnnxValue[] = [];
    const tensors = new Map<string, Stored>();
    let graphs = 0;
    for await (const graph of walker.fields(0, size)) {
      if (graph.number !== MODEL.graph) continue;
      graphs++;
      for await (const field of walker.fields(graph.start, graph.start + graph.length)) {
        if (field.number === GRAPH.input) inputs.push(await readValue(walker, field));
        if (field.number === GRAPH.output) outputs.push(await readValue(walker, field));
        if (field.number !== GRAPH.initializer) continue;
        const tensor = await readTensor(walker, field);
        if (tensor) tensors.set(tensor.name, tensor.stored);
      }
    }
    if (graphs !== 1) refuse(path, `it has ${graphs} graphs, expected one`);
    return new OnnxFile(path, inputs, outputs, file, tensors);
  } catch (error) {
    await file.close();
    throw fileReadError(error, path);
  }
}

/** ValueInfoProto: name = 1, type = 2, in it tensor_type = 1, in it elem_type = 1. */
async function readValue(walker: Walker, value: Field): Promise<OnnxValue> {
  let name = '';
  let f32 = false;
  for await (const field of walker.fields(value.start, value.start + value.length)) {
    if (field.number === 1) name = await walker.text(field);
    if (field.number !== 2) continue;
    for await (const kind of walker.fields(field.start, field.start + field.length)) {
      if (kind.number !== 1) continue;
      for await (const part of walker.fields(kind.start, kind.start + kind.length)) {
        if (part.number === 1) f32 = part.value === 1;
      }
    }
  }
  return { name, f32 };
}

/** A tensor of floats; null for one of another type, and for one that is stored number by number. */
async function readTensor(walker: Walker, tensor: Field): Promise<{ name: string; stored: Stored } | null> {
  const { path } = walker;
  const shape: number[] = [];
  let type = 0;
  let name = '';
  let raw: Field | null = null;
  const place = new Map<string, string>();
  let external = false;
  for await (const field of walker.fields(tensor.start, tensor.start + tensor.length)) {
    const { number, value } = field;
    // Packed or not: a writer may choose.
    if (number === TENSOR.dims) shape.push(...(value === null ? await walker.numbers(field) : [value]));
    if (shape.length > MOST_DIMENSIONS) refuse(path, `a tensor of ${shape.length} dimensions at byte ${tensor.start}`);
    if (number === TENSOR.type) type = value ?? 0;
    if (number === TENSOR.name) name = await walker.text(field);
    if (number === TENSOR.raw) raw = field;
    if (number === TENSOR.location) external = value === 1;
    if (number === TENSOR.external) {
      const [key, text] = await readPair(walker, field);
      place.set(key, text);
    }
  }
  const dtype = FLOATS[type as keyof typeof FLOATS];
  if (dtype === undefined || (!raw && !external)) return null;
  const count = elementCount(shape);
  if (count === undefined) return refuse(path, `tensor ${shown(name)} has the shape ${formatShape(shape)}`);
  const byteLength = count * SIZES[dtype];
  if (!external) {
    if (raw!.length !== byteLength) {
      refuse(
        path,
        `tensor ${shown(name)} of shape ${formatShape(shape)} has ${raw!.length} bytes, expected ${byteLength}`,
      );
    }
    return { name, stored: { dtype, shape, byteLength, file: null, start: raw!.start } };
  }
  const location = place.get('location') ?? '';
  // A plain file name: a graph must not be able to point outside of its folder.
  if (!/^[\w][\w.-]*$/.test(location)) {
    refuse(path, `tensor ${shown(name)} lies in ${shown(location)}, expected a file of the same folder`);
  }
  const [start, length] = [Number(place.get('offset') ?? 0), Number(place.get('length') ?? byteLength)];
  if (!Number.isSafeInteger(start) || start < 0 || length !== byteLength) {
    refuse(path, `tensor ${shown(name)} lies at byte ${start} of ${location}, ${length} bytes of ${byteLength}`);
  }
  return { name, stored: { dtype, shape, byteLength, file: location, start } };
}

/** StringStringEntryProto. */
async function readPair(walker: Walker, pair: Field): Promise<[key: string, value: string]> {
  let [key, value] = ['', ''];
  for await (const field of walker.fields(pair.start, pair.start + pair.length)) {
    if (field.number === 1) key = await walker.text(field);
    if (field.number === 2) value = await walker.text(field);
  }
  return [key, value];
}
