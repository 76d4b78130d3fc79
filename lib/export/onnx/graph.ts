/** ONNX graphs (onnx.proto3, IR 8, operator set 17), built node by node. A value is its name. */
import { Message } from './protobuf.js';

const IR_VERSION = 8;
const OPERATOR_SET = 17;

const TYPES = { f32: 1, i8: 3, i64: 7, bool: 9 } as const;
export type OnnxType = keyof typeof TYPES;

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
  private readonly initializers: Message[] = [];
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

  /** A constant tensor; the same name is stored once. */
  constant(name: string, type: OnnxType, shape: readonly number[], values: () => ArrayBufferView): string {
    if (this.parent) return this.parent.constant(name, type, shape, values);
    if (!this.constants.has(name)) {
      const { buffer, byteOffset, byteLength } = values();
      const tensor = new Message();
      for (const n of shape) tensor.int(1, n);
      tensor
        .int(2, TYPES[type])
        .text(8, name)
        .bytes(9, new Uint8Array(buffer, byteOffset, byteLength));
      this.initializers.push(tensor);
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

  /** Writes a model of this graph. */
  write(path: string): void {
    new Message()
      .int(1, IR_VERSION)
      .text(2, 'distilwhisper')
      .message(7, this.encode('main'))
      .message(8, new Message().text(1, '').int(2, OPERATOR_SET))
      .write(path);
  }

  encode(name: string): Message {
    const graph = new Message();
    for (const node of this.nodes) graph.message(1, this.encodeNode(node));
    graph.text(2, name);
    for (const tensor of this.initializers) graph.message(5, tensor);
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
