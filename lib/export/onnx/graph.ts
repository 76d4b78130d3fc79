/** ONNX graphs (onnx.proto3, IR 8, operator set 17), built node by node. A value is its name. */
import { basename } from 'node:path';
import { type FileSink, writeFileAtomic } from '../../files/index.js';
import { type LaterBytes, Message } from './protobuf.js';

const IR_VERSION = 8;
const OPERATOR_SET = 17;

const TYPES = { f32: 1, u8: 2, i8: 3, i64: 7, bool: 9 } as const;
export type OnnxType = keyof typeof TYPES;
const TYPE_BYTES: Record<OnnxType, number> = { f32: 4, u8: 1, i8: 1, i64: 8, bool: 1 };

/** No reader takes a message that is larger: its tensors lie in a file beside it. */
const MOST_BYTES = 2 ** 31 - 1;
/** Tensors below this stay with the graph: runtimes read them while they load it. */
const SMALL_TENSOR = 1024;
/** Where a tensor may begin in a file that is mapped. */
const PAGE = 4096;
const EXTERNAL = 1;

interface Initializer {
  readonly name: string;
  readonly type: OnnxType;
  readonly shape: readonly number[];
  readonly data: LaterBytes;
}

interface WriteOptions {
  /** Bytes of a model above which its tensors lie in a file beside it, `<name>_data`. Default: 2 GiB, which no reader takes. */
  readonly maxBytes?: number | undefined;
  /** Called behind each piece that was written, with its bytes; what it throws ends the writing. */
  readonly onWritten?: ((bytes: number) => void) | undefined;
}

/** A number of a shape, or its name where it is known at run time only. */
export type Dimension = number | string;

type Attribute = number | readonly number[] | Graph;

interface Node {
  readonly op: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly string[];
  readonly attributes: Record<string, Attribute>;
}

export class Graph {
  private readonly nodes: Node[] = [];
  private readonly initializers: Initializer[] = [];
  private readonly inputs: Message[] = [];
  private readonly outputs: Message[] = [];
  private readonly constants = new Set<string>();
  /** What values are called that go out. */
  private readonly renamed = new Map<string, string>();
  private readonly names: { count: number };

  /** `parent`: the graph that this one is a branch of. It sees the parent's values; constants are kept there. */
  constructor(private readonly parent: Graph | null = null) {
    this.names = parent?.names ?? { count: 0 };
  }

  /** A node of operator `op`; returns its `count` outputs. */
  call(op: string, inputs: readonly string[], count: number, attributes: Record<string, Attribute> = {}): string[] {
    const outputs = Array.from({ length: count }, () => `${op}_${this.names.count++}`);
    this.nodes.push({ op, inputs, outputs, attributes });
    return outputs;
  }

  /** A node with one output. */
  node(op: string, inputs: readonly string[], attributes: Record<string, Attribute> = {}): string {
    return this.call(op, inputs, 1, attributes)[0]!;
  }

  input(name: string, type: OnnxType, shape: readonly Dimension[]): string {
    this.inputs.push(valueInfo(name, type, shape));
    return name;
  }

  /** Makes the value of a node an output of this name. A constant or an input is copied. */
  output(name: string, value: string, type: OnnxType, shape: readonly Dimension[]): void {
    const own = this.nodes.some((node) => node.outputs.includes(value));
    this.renamed.set(own ? value : this.node('Identity', [value]), name);
    this.outputs.push(valueInfo(name, type, shape));
  }

  /** A constant tensor, made when it is written; the same name is stored once. */
  constant(
    name: string,
    type: OnnxType,
    shape: readonly number[],
    values: () => ArrayBufferView | Promise<ArrayBufferView>,
  ): string {
    if (this.parent) return this.parent.constant(name, type, shape, values);
    if (!this.constants.has(name)) {
      const byteLength = shape.reduce((a, b) => a * b, TYPE_BYTES[type]);
      const make = async (): Promise<Uint8Array> => {
        const view = await values();
        return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
      };
      this.initializers.push({ name, type, shape, data: { byteLength, make } });
      this.constants.add(name);
    }
    return name;
  }

  floats(...values: number[]): string {
    const shape = values.length === 1 ? [] : [values.length];
    return this.constant(`f32 ${values.join(' ')}`, 'f32', shape, () => Float32Array.from(values));
  }

  ints(...values: number[]): string {
    const wide = (): BigInt64Array => BigInt64Array.from(values, BigInt);
    return this.constant(`i64 ${values.join(' ')}`, 'i64', [values.length], wide);
  }

  /**
   * Writes a model of this graph, tensor by tensor, each file whole or not at all. Returns the names of the files: `path`, and behind it that
   * of its tensors where they do not fit. Errors: ERR_DISK_FULL, ERR_FILE_WRITE.
   */
  async write(path: string, { maxBytes = MOST_BYTES, onWritten }: WriteOptions = {}): Promise<string[]> {
    const counted = (sink: FileSink): FileSink => ({
      append: async (bytes) => {
        await sink.append(bytes);
        onWritten?.(bytes.byteLength);
      },
    });
    const inside = model(this.encode('main'));
    if (inside.byteLength <= maxBytes) {
      await writeFileAtomic(path, (sink) => inside.write(counted(sink)));
      return [basename(path)];
    }
    const beside = `${basename(path)}_data`;
    const large = this.initializers.filter(({ data }) => data.byteLength >= SMALL_TENSOR);
    const offsets = new Map<string, number>();
    let end = 0;
    for (const { name, data } of large) {
      const begin = Math.ceil(end / PAGE) * PAGE;
      offsets.set(name, begin);
      end = begin + data.byteLength;
    }
    await writeFileAtomic(`${path}_data`, async (sink) => {
      const out = counted(sink);
      let at = 0;
      for (const { name, data } of large) {
        await out.append(new Uint8Array(offsets.get(name)! - at));
        await out.append(await data.make());
        at = offsets.get(name)! + data.byteLength;
      }
    });
    await writeFileAtomic(path, (sink) => model(this.encode('main', { file: beside, offsets })).write(counted(sink)));
    return [basename(path), beside];
  }

  /** Bytes of all its tensors. */
  get byteLength(): number {
    return this.initializers.reduce((sum, { data }) => sum + data.byteLength, 0);
  }

  encode(name: string, external?: { file: string; offsets: ReadonlyMap<string, number> }): Message {
    const graph = new Message();
    for (const node of this.nodes) graph.message(1, this.encodeNode(node));
    graph.text(2, name);
    for (const { name, type, shape, data } of this.initializers) {
      const tensor = new Message();
      for (const n of shape) tensor.int(1, n);
      tensor.int(2, TYPES[type]).text(8, name);
      const offset = external?.offsets.get(name);
      if (offset === undefined) tensor.bytes(9, data);
      else {
        const place = { location: external!.file, offset: String(offset), length: String(data.byteLength) };
        for (const [key, value] of Object.entries(place)) {
          tensor.message(13, new Message().text(1, key).text(2, value));
        }
        tensor.int(14, EXTERNAL);
      }
      graph.message(5, tensor);
    }
    for (const input of this.inputs) graph.message(11, input);
    for (const output of this.outputs) graph.message(12, output);
    return graph;
  }

  private encodeNode({ op, inputs, outputs, attributes }: Node): Message {
    const node = new Message();
    const called = (value: string): string => this.renamed.get(value) ?? value;
    for (const input of inputs) node.text(1, called(input));
    for (const output of outputs) node.text(2, called(output));
    node.text(3, `${outputs[0]}.node`).text(4, op);
    for (const [name, value] of Object.entries(attributes)) node.message(5, attribute(name, value));
    return node;
  }
}

const model = (graph: Message): Message =>
  new Message()
    .int(1, IR_VERSION)
    .text(2, 'distilwhisper')
    .message(7, graph)
    .message(8, new Message().text(1, '').int(2, OPERATOR_SET));

function attribute(name: string, value: Attribute): Message {
  const message = new Message().text(1, name);
  if (value instanceof Graph) return message.message(6, value.encode(name)).int(20, 5);
  if (typeof value !== 'number') {
    for (const n of value) message.int(8, n);
    return message.int(20, 7);
  }
  return Number.isInteger(value) ? message.int(3, value).int(20, 2) : message.float(2, value).int(20, 1);
}

function valueInfo(name: string, type: OnnxType, shape: readonly Dimension[]): Message {
  const dimensions = new Message();
  for (const n of shape)
    dimensions.message(1, typeof n === 'number' ? new Message().int(1, n) : new Message().text(2, n));
  const tensor = new Message().int(1, TYPES[type]).message(2, dimensions);
  return new Message().text(1, name).message(2, new Message().message(1, tensor));
}
