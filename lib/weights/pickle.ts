/**
 * The part of Python's pickle that a PyTorch state dict is made of. A pickle is a program for a stack machine; this one
 * knows the instructions that build dicts, tuples, numbers and strings, and a closed list of names to call. Nothing else
 * is ever looked up or run: any other instruction or name is refused with ERR_MODEL.
 */
import { DistilWhisperError, shown } from '../errors/index.js';
import type { HostDtype } from './host.js';

/** A storage in the archive: `key` names the entry, `count` its elements. */
export class TorchStorage {
  constructor(
    readonly key: string,
    readonly dtype: HostDtype,
    readonly count: number,
  ) {}
}

/** A tensor as a view of a storage; offset and strides are in elements. */
export class TorchTensor {
  constructor(
    readonly storage: TorchStorage,
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}
}

/** A name that a pickle may mention. */
class Global {
  constructor(
    readonly name: string,
    readonly dtype?: HostDtype,
  ) {}
}

const GLOBALS: ReadonlyMap<string, Global> = new Map(
  [
    new Global('collections.OrderedDict'),
    new Global('torch._utils._rebuild_tensor_v2'),
    new Global('torch._utils._rebuild_parameter'),
    new Global('torch.FloatStorage', 'f32'),
    new Global('torch.HalfStorage', 'f16'),
    new Global('torch.BFloat16Storage', 'bf16'),
    new Global('torch.LongStorage', 'i64'),
  ].map((global) => [global.name, global]),
);

const MARK = Symbol('mark');
const MAX_DIMENSIONS = 16;
/** The largest Whisper with a hundred experts has 10,000 tensors, of 40 instructions and one dict each. */
const MAX_INSTRUCTIONS = 1_000_000;
const MAX_DICTS = 50_000;

type Dict = Map<unknown, unknown>;

/** Runs a pickle and returns what it leaves on the stack: Map for dicts, arrays for tuples, TorchTensor for tensors. */
export function unpickle(bytes: Uint8Array, file: string): unknown {
  return new Unpickler(bytes, file).run();
}

class Unpickler {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #file: string;
  readonly #stack: unknown[] = [];
  readonly #memo = new Map<number, unknown>();
  #at = 0;
  #dicts = 0;

  constructor(bytes: Uint8Array, file: string) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#file = file;
  }

  run(): unknown {
    for (let done = 0; ; done++) {
      if (done === MAX_INSTRUCTIONS) this.#refuse(`has more than ${MAX_INSTRUCTIONS} instructions`);
      const at = this.#at;
      const opcode = this.#view.getUint8(this.#take(1));
      if (opcode === 0x2e) return this.#pop(); // STOP
      this.#step(opcode, at);
    }
  }

  #refuse(what: string): never {
    throw new DistilWhisperError(
      'ERR_MODEL',
      `${this.#file} is refused: its pickle ${what}, which no state dict needs`,
    );
  }

  #broken(what: string): never {
    throw new DistilWhisperError('ERR_MODEL', `${this.#file} holds a broken pickle: ${what}`);
  }

  /** Moves past `count` bytes and returns where they start. */
  #take(count: number): number {
    const start = this.#at;
    if (count > this.#bytes.byteLength - start) this.#broken('it ends in the middle of an instruction');
    this.#at += count;
    return start;
  }

  #pop(): unknown {
    if (this.#stack.length === 0 || this.#stack[this.#stack.length - 1] === MARK)
      this.#broken('it takes more than it put');
    return this.#stack.pop();
  }

  #popToMark(): unknown[] {
    const mark = this.#stack.lastIndexOf(MARK);
    if (mark < 0) this.#broken('a mark is missing');
    const items = this.#stack.splice(mark);
    items.shift();
    return items;
  }

  #popTuple(size: number): unknown[] {
    const items: unknown[] = [];
    for (let i = 0; i < size; i++) items.unshift(this.#pop());
    return items;
  }

  #line(): string {
    const end = this.#bytes.indexOf(0x0a, this.#at);
    if (end < 0) this.#broken('a name does not end');
    const text = this.#text(end - this.#at);
    this.#at++;
    return text;
  }

  #text(length: number): string {
    const start = this.#take(length);
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(
        this.#bytes.subarray(start, start + length),
      );
    } catch {
      return this.#broken('a string is not valid UTF-8');
    }
  }

  #memoize(index: number): void {
    const top = this.#pop();
    this.#stack.push(top);
    this.#memo.set(index, top);
  }

  #recall(index: number): void {
    if (!this.#memo.has(index)) this.#broken(`it recalls number ${index}, which it never stored`);
    this.#stack.push(this.#memo.get(index));
  }

  #setItems(items: readonly unknown[]): void {
    const dict = this.#pop();
    if (!(dict instanceof Map)) this.#broken('it sets items of something that is no dict');
    if (items.length % 2 !== 0) this.#broken('a dict has a key without a value');
    for (let i = 0; i < items.length; i += 2) {
      if (typeof items[i] !== 'string') this.#refuse('has a dict whose keys are not strings');
      dict.set(items[i], items[i + 1]);
    }
    this.#stack.push(dict);
  }

  #step(opcode: number, at: number): void {
    const stack = this.#stack;
    const view = this.#view;
    switch (opcode) {
      case 0x80: {
        // PROTO
        const protocol = view.getUint8(this.#take(1));
        if (protocol !== 2) this.#refuse(`is of protocol ${protocol}`);
        return;
      }
      case 0x28: // MARK
        stack.push(MARK);
        return;
      case 0x7d: // EMPTY_DICT
        stack.push(this.#dict());
        return;
      case 0x29: // EMPTY_TUPLE
        stack.push([]);
        return;
      case 0x74: // TUPLE
        stack.push(this.#popToMark());
        return;
      case 0x85: // TUPLE1
      case 0x86: // TUPLE2
      case 0x87: // TUPLE3
        stack.push(this.#popTuple(opcode - 0x84));
        return;
      case 0x4e: // NONE
        stack.push(null);
        return;
      case 0x88: // NEWTRUE
      case 0x89: // NEWFALSE
        stack.push(opcode === 0x88);
        return;
      case 0x4b: // BININT1
        stack.push(view.getUint8(this.#take(1)));
        return;
      case 0x4d: // BININT2
        stack.push(view.getUint16(this.#take(2), true));
        return;
      case 0x4a: // BININT
        stack.push(view.getInt32(this.#take(4), true));
        return;
      case 0x8a: // LONG1
        stack.push(this.#long());
        return;
      case 0x58: // BINUNICODE
        stack.push(this.#text(view.getUint32(this.#take(4), true)));
        return;
      case 0x71: // BINPUT
        this.#memoize(view.getUint8(this.#take(1)));
        return;
      case 0x72: // LONG_BINPUT
        this.#memoize(view.getUint32(this.#take(4), true));
        return;
      case 0x68: // BINGET
        this.#recall(view.getUint8(this.#take(1)));
        return;
      case 0x6a: // LONG_BINGET
        this.#recall(view.getUint32(this.#take(4), true));
        return;
      case 0x73: // SETITEM
        this.#setItems(this.#popTuple(2));
        return;
      case 0x75: // SETITEMS
        this.#setItems(this.#popToMark());
        return;
      case 0x63: {
        // GLOBAL
        const name = `${this.#line()}.${this.#line()}`;
        const global = GLOBALS.get(name);
        if (global === undefined) this.#refuse(`names ${shown(name)}`);
        stack.push(global);
        return;
      }
      case 0x51: // BINPERSID
        stack.push(this.#storage(this.#pop()));
        return;
      case 0x52: {
        // REDUCE
        const args = this.#pop();
        stack.push(this.#call(this.#pop(), args));
        return;
      }
      case 0x62: {
        // BUILD: only an OrderedDict's attributes (`_metadata`), which hold versions and no weights
        this.#pop();
        const target = this.#pop();
        if (!(target instanceof Map)) this.#refuse('sets the state of an object');
        stack.push(target);
        return;
      }
      default:
        this.#refuse(`has the instruction 0x${opcode.toString(16).padStart(2, '0')} at byte ${at}`);
    }
  }

  #dict(): Dict {
    if (++this.#dicts > MAX_DICTS) this.#refuse(`makes more than ${MAX_DICTS} dicts`);
    return new Map();
  }

  #long(): number {
    const length = this.#view.getUint8(this.#take(1));
    const start = this.#take(length);
    if (length > 8) this.#refuse('has a number of more than 64 bits');
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(this.#bytes[start + i]!);
    return Number(BigInt.asIntN(length * 8, value));
  }

  /** ('storage', class, key, location, count) */
  #storage(id: unknown): TorchStorage {
    if (Array.isArray(id) && id.length === 5 && id[0] === 'storage') {
      const [, type, key, , count] = id as unknown[];
      if (type instanceof Global && type.dtype && typeof key === 'string' && isCount(count)) {
        return new TorchStorage(key, type.dtype, count);
      }
    }
    return this.#refuse('names an outside object that is no storage');
  }

  #call(callee: unknown, args: unknown): unknown {
    if (!(callee instanceof Global) || !Array.isArray(args))
      return this.#broken('it calls something that is no function');
    switch (callee.name) {
      case 'collections.OrderedDict':
        if (args.length === 0) return this.#dict();
        break;
      case 'torch._utils._rebuild_tensor_v2': {
        const [storage, offset, shape, strides] = args as unknown[];
        if (args.length < 6 || args.length > 7 || !(storage instanceof TorchStorage) || !isCount(offset)) break;
        if (!isCounts(shape) || !isCounts(strides) || shape.length !== strides.length) break;
        return new TorchTensor(storage, offset, shape, strides);
      }
      case 'torch._utils._rebuild_parameter':
        if (args.length === 3 && args[0] instanceof TorchTensor) return args[0];
        break;
    }
    return this.#refuse(`calls ${callee.name} with arguments`);
  }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

function isCounts(value: unknown): value is number[] {
  return Array.isArray(value) && value.length <= MAX_DIMENSIONS && value.every(isCount);
}
