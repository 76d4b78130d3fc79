/** PyTorch checkpoints made by hand: a pickle's instructions, and archives with any fault in them. */
import { crc32 } from 'node:zlib';

const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value >>> 0);
  return bytes;
};
const u16 = (value: number): Buffer => u32(value).subarray(0, 2);

/** An archive of stored entries. `checksums`: of an entry, instead of its own. */
export function zip(
  entries: Readonly<Record<string, Uint8Array>>,
  checksums: Readonly<Record<string, number>> = {},
): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [name, data] of Object.entries(entries)) {
    const checksum = u32(checksums[name] ?? crc32(data));
    const sizes = [checksum, u32(data.length), u32(data.length), u16(name.length)];
    const common = [u16(20), u16(0), u16(0), u16(0), u16(0), ...sizes, u16(0)];
    const local = Buffer.concat([u32(0x04034b50), ...common, Buffer.from(name), data]);
    directory.push(u32(0x02014b50), u16(20), ...common, u16(0), u16(0), u16(0), u32(0), u32(offset), Buffer.from(name));
    parts.push(local);
    offset += local.length;
  }
  const central = Buffer.concat(directory);
  const count = u16(Object.keys(entries).length);
  const end = [u32(0x06054b50), u16(0), u16(0), count, count, u32(central.length), u32(offset), u16(0)];
  return Buffer.concat([...parts, central, ...end]);
}

const text = (value: string): Buffer =>
  Buffer.concat([Buffer.from('X'), u32(Buffer.byteLength(value)), Buffer.from(value)]);
const int = (value: number): Buffer => Buffer.concat([Buffer.from('J'), u32(value)]);

/** A tensor of float32 that shows `count` elements of the storage `key`, from `offset` on, or of float16; of one dimension unless it says. */
export interface View {
  key: string;
  storage: number;
  offset: number;
  count: number;
  shape?: readonly number[];
  type?: 'FloatStorage' | 'HalfStorage';
}

const tuple = (numbers: readonly number[]): Buffer =>
  Buffer.concat([Buffer.from('('), ...numbers.map(int), Buffer.from('t')]);

function tensor({ key, storage, offset, count, shape = [count], type = 'FloatStorage' }: View): Buffer {
  const strides = shape.map((_, axis) => shape.slice(axis + 1).reduce((product, size) => product * size, 1));
  return Buffer.concat([
    Buffer.from('ctorch._utils\n_rebuild_tensor_v2\n(('),
    text('storage'),
    Buffer.from(`ctorch\n${type}\n`),
    text(key),
    text('cpu'),
    int(storage),
    Buffer.from('tQ'),
    int(offset),
    tuple(shape),
    tuple(strides),
    Buffer.from('\x89ccollections\nOrderedDict\n)RtR', 'latin1'),
  ]);
}

/** A dict of values that are instructions already. */
const dict = (items: Readonly<Record<string, Buffer>>): Buffer =>
  Buffer.concat([
    Buffer.from('}('),
    ...Object.entries(items).flatMap(([name, value]) => [text(name), value]),
    Buffer.from('u'),
  ]);

const tensors = (views: Readonly<Record<string, View>>): Buffer =>
  dict(Object.fromEntries(Object.entries(views).map(([name, view]) => [name, tensor(view)])));

const program = (...parts: Uint8Array[]): Buffer => Buffer.concat([Buffer.from([0x80, 2]), ...parts, Buffer.from('.')]);

/** The pickle of a state dict of such tensors, of protocol 2; `before` stands before its items. */
export const stateDict = (views: Readonly<Record<string, View>>, before: Uint8Array = Buffer.alloc(0)): Buffer =>
  program(before, tensors(views));

/** The pickle of OpenAI's checkpoints; `more` are further items. */
export const openAiDict = (
  dims: Readonly<Record<string, number>>,
  views: Readonly<Record<string, View>>,
  more: Readonly<Record<string, Buffer>> = {},
): Buffer => {
  const sizes = Object.fromEntries(Object.entries(dims).map(([name, size]) => [name, int(size)]));
  return program(dict({ dims: dict(sizes), model_state_dict: tensors(views), ...more }));
};

/** An archive of a pickle and its storages. */
export const archive = (pickle: Uint8Array, storages: Readonly<Record<string, Uint8Array>>): Buffer =>
  zip({
    'm/data.pkl': pickle,
    'm/byteorder': Buffer.from('little'),
    ...Object.fromEntries(Object.entries(storages).map(([key, data]) => [`m/data/${key}`, data])),
  });

/** A whole checkpoint of such tensors. */
export function checkpoint(
  views: Readonly<Record<string, View>>,
  storages: Readonly<Record<string, Float32Array>>,
  options: { checksums?: Record<string, number>; before?: Uint8Array } = {},
): Buffer {
  const data = Object.entries(storages).map(
    ([key, values]) => [`m/data/${key}`, new Uint8Array(values.buffer, values.byteOffset, values.byteLength)] as const,
  );
  const entries = { 'm/data.pkl': stateDict(views, options.before), 'm/byteorder': Buffer.from('little') };
  return zip({ ...entries, ...Object.fromEntries(data) }, options.checksums);
}
