/**
 * Curves for TensorBoard: an event file, as it reads them. Records of length, its checksum, an Event (a protocol buffer) and its
 * checksum; the first says the version. Source: TensorFlow's record_writer.h and event.proto.
 */
import { mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { fileWriteError, systemCode } from '../errors/index.js';

const VERSION = 'brain.Event:2';
const WRITER = 'distilwhisper';
/** SessionLog.START: what an earlier file has from this step on did not come to stay. */
const START = 1;

export interface Scalar {
  tag: string;
  /** Also NaN and infinities. */
  value: number;
}

/** Appends to a new file in a folder; earlier ones, of a run that was interrupted, stay beside it. */
export class EventFile {
  private constructor(
    readonly path: string,
    private readonly file: Awaited<ReturnType<typeof open>>,
  ) {}

  /** `first`: the first step that will be written. Errors: ERR_FILE_WRITE, ERR_DISK_FULL. */
  static async open(folder: string, first: number): Promise<EventFile> {
    const now = Date.now() / 1e3;
    const stem = join(folder, `events.out.tfevents.${Math.floor(now)}.${WRITER}.${process.pid}`);
    try {
      await mkdir(folder, { recursive: true });
      for (let i = 0; ; i++) {
        const path = `${stem}.${i}`;
        const file = await open(path, 'ax').catch((error) => {
          if (systemCode(error) !== 'EEXIST') throw error;
        });
        if (!file) continue;
        const made = new EventFile(path, file);
        const restart = first > 1 ? [sessionEvent(now, first)] : [];
        try {
          await made.append([versionEvent(now, WRITER), ...restart]);
        } catch (error) {
          await made.close();
          throw error;
        }
        return made;
      }
    } catch (error) {
      throw fileWriteError(error, folder);
    }
  }

  /** Errors: ERR_FILE_WRITE, ERR_DISK_FULL. */
  async write(step: number, scalars: readonly Scalar[]): Promise<void> {
    const now = Date.now() / 1e3;
    await this.append(scalars.map((scalar) => scalarEvent(now, step, scalar)));
  }

  private async append(events: readonly Uint8Array[]): Promise<void> {
    try {
      await this.file.appendFile(Buffer.concat(events.map(record)));
    } catch (error) {
      throw fileWriteError(error, this.path);
    }
  }

  async close(): Promise<void> {
    await this.file.close();
  }
}

/** An Event as a record of the file. */
export function record(event: Uint8Array): Buffer {
  const head = Buffer.alloc(12);
  head.writeBigUInt64LE(BigInt(event.length));
  head.writeUInt32LE(masked(crc32c(head.subarray(0, 8))), 8);
  const tail = Buffer.alloc(4);
  tail.writeUInt32LE(masked(crc32c(event)));
  return Buffer.concat([head, event, tail]);
}

/** The first Event of a file; `seconds` since 1970. */
export const versionEvent = (seconds: number, writer: string): Buffer =>
  Buffer.concat([double(1, seconds), bytes(3, Buffer.from(VERSION)), bytes(10, bytes(1, Buffer.from(writer)))]);

export const scalarEvent = (seconds: number, step: number, { tag, value }: Scalar): Buffer =>
  Buffer.concat([
    double(1, seconds),
    number(2, step),
    bytes(5, bytes(1, Buffer.concat([bytes(1, Buffer.from(tag)), float(2, value)]))),
  ]);

const sessionEvent = (seconds: number, step: number): Buffer =>
  Buffer.concat([double(1, seconds), number(2, step), bytes(7, number(1, START))]);

function varint(value: number): Buffer {
  const out: number[] = [];
  let rest = value;
  for (; rest > 127; rest = Math.floor(rest / 128)) out.push((rest % 128) | 128);
  return Buffer.from([...out, rest]);
}
const number = (field: number, value: number): Buffer => Buffer.concat([varint(field * 8), varint(value)]);
const bytes = (field: number, value: Uint8Array): Buffer =>
  Buffer.concat([varint(field * 8 + 2), varint(value.length), value]);
function double(field: number, value: number): Buffer {
  const out = Buffer.alloc(9, field * 8 + 1);
  out.writeDoubleLE(value, 1);
  return out;
}
function float(field: number, value: number): Buffer {
  const out = Buffer.alloc(5, field * 8 + 5);
  out.writeFloatLE(value, 1);
  return out;
}

/** CRC-32C (Castagnoli), by bytes. */
const TABLE = Uint32Array.from({ length: 256 }, (_, i) => {
  let value = i;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1;
  return value;
});
function crc32c(data: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of data) crc = TABLE[(crc ^ byte) & 255]! ^ (crc >>> 8);
  return (crc ^ 0xffffffff) >>> 0;
}
/** As records hold it, so that a checksum of data with checksums in it is none by chance. */
const masked = (crc: number): number => (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
