/** Protocol buffers, as far as ONNX files need writing: https://protobuf.dev/programming-guides/encoding */
import type { FileSink } from '../../files/index.js';

const VARINT = 0;
const BYTES = 2;
const FIXED32 = 5;

/** Small pieces are gathered up to this many bytes before they are written. */
const BLOCK = 1 << 20;

/** Bytes whose number is known, and which are made when their turn to be written comes: weights are never in memory together. */
export interface LaterBytes {
  readonly byteLength: number;
  make(): Promise<Uint8Array>;
}

/** One message. Large fields are kept as they are, not copied. */
export class Message {
  private readonly chunks: (Uint8Array | LaterBytes)[] = [];
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

  bytes(field: number, value: Uint8Array | LaterBytes): this {
    return this.tag(field, BYTES).varint(value.byteLength).push(value);
  }

  message(field: number, value: Message): this {
    this.tag(field, BYTES).varint(value.byteLength);
    for (const chunk of value.chunks) this.push(chunk);
    return this;
  }

  /** Writes the message. */
  async write(sink: FileSink): Promise<void> {
    let small: Uint8Array[] = [];
    let gathered = 0;
    const flush = async (): Promise<void> => {
      await sink.append(Buffer.concat(small));
      small = [];
      gathered = 0;
    };
    for (const chunk of this.chunks) {
      if (gathered + chunk.byteLength > BLOCK) await flush();
      const bytes = chunk instanceof Uint8Array ? chunk : await chunk.make();
      if (bytes.byteLength > BLOCK) await sink.append(bytes);
      else {
        small.push(bytes);
        gathered += bytes.byteLength;
      }
    }
    await flush();
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

  private push(chunk: Uint8Array | LaterBytes): this {
    this.chunks.push(chunk);
    this.byteLength += chunk.byteLength;
    return this;
  }
}
