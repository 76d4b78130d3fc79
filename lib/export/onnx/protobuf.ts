/** Protocol buffers, as far as ONNX files need writing: https://protobuf.dev/programming-guides/encoding */
import { closeSync, openSync, writeSync } from 'node:fs';

const VARINT = 0;
const BYTES = 2;
const FIXED32 = 5;

/** Small pieces are gathered up to this many bytes before they are written. */
const BLOCK = 1 << 20;

/** One message. Large fields are kept as they are, not copied. */
export class Message {
  private readonly chunks: Uint8Array[] = [];
  byteLength = 0;

  /** A whole number (int64, enum); negative ones are their two's complement. */
  int(field: number, value: number): this {
    return this.tag(field, VARINT).varint(BigInt.asUintN(64, BigInt(value)));
  }

  float(field: number, value: number): this {
    return this.tag(field, FIXED32).push(new Uint8Array(new Float32Array([value]).buffer));
  }

  text(field: number, value: string): this {
    return this.bytes(field, new TextEncoder().encode(value));
  }

  bytes(field: number, value: Uint8Array): this {
    return this.tag(field, BYTES).varint(value.byteLength).push(value);
  }

  message(field: number, value: Message): this {
    this.tag(field, BYTES).varint(value.byteLength);
    for (const chunk of value.chunks) this.push(chunk);
    return this;
  }

  /** Writes the message as a file. */
  write(path: string): void {
    const file = openSync(path, 'w');
    try {
      let small: Uint8Array[] = [];
      let gathered = 0;
      const flush = (): void => {
        writeAll(file, Buffer.concat(small));
        small = [];
        gathered = 0;
      };
      for (const chunk of this.chunks) {
        if (gathered + chunk.byteLength > BLOCK) flush();
        if (chunk.byteLength > BLOCK) writeAll(file, chunk);
        else {
          small.push(chunk);
          gathered += chunk.byteLength;
        }
      }
      flush();
    } finally {
      closeSync(file);
    }
  }

  private tag(field: number, wire: number): this {
    return this.varint(field * 8 + wire);
  }

  private varint(value: number | bigint): this {
    const bytes: number[] = [];
    let rest = BigInt(value);
    for (; rest >= 128n; rest >>= 7n) bytes.push(Number(rest & 127n) + 128);
    bytes.push(Number(rest));
    return this.push(Uint8Array.from(bytes));
  }

  private push(chunk: Uint8Array): this {
    this.chunks.push(chunk);
    this.byteLength += chunk.byteLength;
    return this;
  }
}

function writeAll(file: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.byteLength; ) done += writeSync(file, bytes, done, bytes.byteLength - done);
}
