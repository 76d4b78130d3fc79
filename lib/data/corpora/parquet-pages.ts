/**
 * The pages of a column, looked at before the library reads them: sizes that go backward, counts that no file of that size can mean and
 * runs longer than their page would keep it busy for ever. Pages are read and unpacked once more for it: an hour of speech takes 0.1 s more,
 * in Snappy 0.3 (measured; decoding that hour takes seconds). Heads are in Thrift's compact protocol.
 */
import type { AsyncBuffer, Compressors, FileMetaData, RowGroup, SchemaElement } from 'hyparquet';
import { checkDelta, checkRuns } from './parquet-runs.js';

/** Of a page, unpacked: a row group of audio has some hundred megabytes. */
export const MAX_PAGE_BYTES = 2 ** 29;
const WINDOW = 1 << 12;
const MAX_DEPTH = 8;

/** A window ends within a head. */
class Short extends Error {}

/** A head: its length, and its numbers by their path (field 1 of field 5: '5.1'). */
interface Head {
  bytes: number;
  fields: ReadonlyMap<string, number>;
}

const KINDS = { data: 0, dictionary: 2, data2: 3 };
/** Of values, nulls and rows: of data, a dictionary, data of version 2. */
const COUNTS = ['5.1', '7.1', '8.1', '8.2', '8.3'];
/** Bytes of levels, of repetition and of definition. */
const LEVELS = ['8.6', '8.5'];
/** Fields that a page of a kind must have. */
const NEEDED = new Map([
  [KINDS.data, ['5.1', '5.2']],
  [KINDS.dictionary, ['7.1']],
  [KINDS.data2, ['8.1', '8.2', '8.3', '8.4', '8.5', '8.6']],
]);
const ENCODINGS = { plain: 0, plainDictionary: 2, rle: 3, delta: 5, deltaLengths: 6, dictionary: 8, split: 9 };

class Compact {
  private at = 0;
  private readonly view: DataView;

  constructor(bytes: ArrayBuffer) {
    this.view = new DataView(bytes);
  }

  head(): Head {
    const fields = new Map<string, number>();
    this.struct('', 0, (path, value) => fields.set(path, value));
    return { bytes: this.at, fields };
  }

  private byte(): number {
    if (this.at >= this.view.byteLength) throw new Short();
    return this.view.getUint8(this.at++);
  }

  private varint(): number {
    let value = 0;
    for (let shift = 0; shift < 64; shift += 7) {
      const byte = this.byte();
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
    throw new Error('a number of more than ten bytes');
  }

  private zigzag(): number {
    const value = this.varint();
    return value % 2 ? -(value + 1) / 2 : value / 2;
  }

  private skip(bytes: number): void {
    if (this.at + bytes > this.view.byteLength) throw new Short();
    this.at += bytes;
  }

  private struct(path: string, depth: number, tell: (path: string, value: number) => void): void {
    if (depth > MAX_DEPTH) throw new Error('a head that nests too deep');
    for (let field = 0; ; ) {
      const byte = this.byte();
      if (byte === 0) return;
      field = byte >> 4 ? field + (byte >> 4) : this.zigzag();
      const inner = path === '' ? String(field) : `${path}.${field}`;
      switch (byte & 15) {
        case 1:
        case 2:
          tell(inner, (byte & 15) === 1 ? 1 : 0);
          break;
        case 3:
          this.skip(1);
          break;
        case 4:
        case 5:
        case 6:
          tell(inner, this.zigzag());
          break;
        case 7:
          this.skip(8);
          break;
        case 8:
          this.skip(this.varint());
          break;
        case 12:
          this.struct(inner, depth + 1, tell);
          break;
        default:
          throw new Error(`a head with a field of type ${byte & 15}`);
      }
    }
  }
}

/** A column as its pages need it: its type, how it is packed, and the highest levels of repetition and definition. */
interface Column {
  type: string;
  unpack: ((input: Uint8Array, length: number) => Uint8Array) | undefined;
  levels: readonly [number, number];
  values: number;
}

/**
 * Goes through the pages of the columns of a row group that are to be read. Throws an Error that says what is wrong with one.
 */
export async function checkPages(
  buffer: AsyncBuffer,
  { schema }: FileMetaData,
  { columns, num_rows }: RowGroup,
  names: readonly string[],
  compressors: Compressors,
): Promise<void> {
  const seen = new Set<string>();
  for (const { meta_data } of columns) {
    if (!meta_data || !names.includes(meta_data.path_in_schema[0]!)) continue;
    const path = meta_data.path_in_schema.join('.');
    if (seen.has(path)) throw new Error(`two columns ${path}`);
    seen.add(path);
    const levels = levelsOf(schema, meta_data.path_in_schema);
    const values = Number(meta_data.num_values);
    if (!(values >= 0 && (levels[0] > 0 || values <= Number(num_rows))))
      throw new Error(`a column of ${values} values for ${num_rows} rows`);
    const packed = meta_data.codec !== 'UNCOMPRESSED';
    const column = { type: meta_data.type, unpack: packed ? compressors[meta_data.codec] : undefined, levels, values };
    if (packed && !column.unpack) throw new Error(`pages packed as ${meta_data.codec}`);
    const [data, dictionary] = [Number(meta_data.data_page_offset), Number(meta_data.dictionary_page_offset ?? 0)];
    const start = dictionary > 0 ? Math.min(data, dictionary) : data;
    const end = start + Number(meta_data.total_compressed_size);
    if (!(start >= 0 && end >= start && end <= buffer.byteLength)) throw new Error('a column outside of the file');
    for (let at = start; at < end - 1; ) at = await checkPage(buffer, at, end, column);
  }
}

/** Looks at the page at a place of a column that ends at `end`; returns where the next one starts. */
async function checkPage(buffer: AsyncBuffer, at: number, end: number, column: Column): Promise<number> {
  const { bytes, fields } = await headAt(buffer, at, end);
  const [unpacked, packed] = [fields.get('2') ?? -1, fields.get('3') ?? -1];
  if (!(packed >= 0 && unpacked >= 0 && unpacked <= MAX_PAGE_BYTES))
    throw new Error(`a page of ${packed} and ${unpacked} bytes`);
  const kind = fields.get('1');
  const needed = NEEDED.get(kind ?? -1);
  if (needed === undefined) throw new Error(`a page of kind ${kind}`);
  if (!needed.every((path) => fields.has(path))) throw new Error('a page whose head lacks a number');
  for (const path of COUNTS) {
    const count = fields.get(path) ?? 0;
    if (!(count >= 0 && count <= column.values)) throw new Error('a page of more values than its column');
  }
  const lengths = LEVELS.map((path) => fields.get(path) ?? 0);
  if (!(lengths.every((length) => length >= 0) && lengths[0]! + lengths[1]! <= Math.min(packed, unpacked)))
    throw new Error('a page with more levels than bytes');
  const start = at + bytes;
  const next = start + packed;
  if (next > end) throw new Error('a page that reaches beyond its column');
  if (kind === KINDS.dictionary || packed === 0) return next;
  const page = new Uint8Array(await buffer.slice(start, next));
  if (kind === KINDS.data) {
    const count = fields.get('5.1') ?? 0;
    let rest = column.unpack && unpacked > 0 ? column.unpack(page, unpacked) : page;
    for (const level of column.levels) {
      if (level === 0) continue;
      const length = rest.length < 4 ? -1 : new DataView(rest.buffer, rest.byteOffset).getUint32(0, true);
      if (!(length >= 0 && 4 + length <= rest.length)) throw new Error('a page with more levels than bytes');
      checkRuns(rest.subarray(4), widthOf(level), count);
      rest = rest.subarray(4 + length);
    }
    checkValues(rest, column.type, fields.get('5.2'), count);
  } else if (kind === KINDS.data2) {
    const count = fields.get('8.1') ?? 0;
    const levels = lengths[0]! + lengths[1]!;
    for (const [i, level] of column.levels.entries())
      if (level > 0) checkRuns(page.subarray(i === 0 ? 0 : lengths[0]), widthOf(level), count);
    const values = page.subarray(levels);
    const isPacked = column.unpack && fields.get('8.7') !== 0 && unpacked > levels;
    checkValues(isPacked ? column.unpack!(values, unpacked - levels) : values, column.type, fields.get('8.4'), count);
  }
  return next;
}

/** Looks at the values of a page of at most `count`. */
function checkValues(bytes: Uint8Array, type: string, encoding: number | undefined, count: number): void {
  switch (encoding) {
    case ENCODINGS.plain:
    case ENCODINGS.split:
      return;
    case ENCODINGS.rle:
    case ENCODINGS.plainDictionary:
    case ENCODINGS.dictionary:
      if (type === 'BOOLEAN') checkRuns(bytes.subarray(4), 1, count);
      else if (bytes.length > 0 && bytes[0]! > 0) checkRuns(bytes.subarray(1), bytes[0]!, count);
      return;
    case ENCODINGS.delta:
    case ENCODINGS.deltaLengths:
      checkDelta(bytes);
      return;
    default:
      throw new Error(`values in encoding ${encoding}`);
  }
}

/** Bits of a level. */
const widthOf = (level: number): number => 32 - Math.clz32(level);

/** The highest levels of repetition and definition of a column. */
function levelsOf(schema: readonly SchemaElement[], path: readonly string[]): [number, number] {
  let [repetition, definition] = [0, 0];
  let at = 0;
  for (const name of path) {
    const children = schema[at]?.num_children ?? 0;
    let child = at + 1;
    for (let i = 0; i < children && schema[child]?.name !== name; i++) child = afterTree(schema, child);
    const element = schema[child];
    if (element?.name !== name) throw new Error(`no column ${path.join('.')} in its schema`);
    if (element.repetition_type === 'REPEATED') repetition++;
    if (element.repetition_type !== 'REQUIRED') definition++;
    at = child;
  }
  return [repetition, definition];
}

/** The element behind an element and those below it. */
function afterTree(schema: readonly SchemaElement[], at: number): number {
  let next = at + 1;
  for (let i = 0; i < (schema[at]?.num_children ?? 0) && next < schema.length; i++) next = afterTree(schema, next);
  return next;
}

async function headAt(buffer: AsyncBuffer, at: number, end: number): Promise<Head> {
  for (let length = WINDOW; ; length *= 16) {
    const to = Math.min(at + length, end);
    try {
      return new Compact(await buffer.slice(at, to)).head();
    } catch (error) {
      if (!(error instanceof Short)) throw error;
      if (to === end) throw new Error('a page whose head is cut short', { cause: error });
    }
  }
}
