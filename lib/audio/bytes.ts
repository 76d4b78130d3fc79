/** Bytes of a file, a pipe or memory, read forward in pieces: no file lies in memory whole. */

/** Bytes in one piece of a source that lies in memory. */
const PIECE = 1 << 16;

export class ByteReader {
  private held: Uint8Array = new Uint8Array(0);
  private ended = false;
  private at = 0;

  /**
   * @param pieces the source's bytes in order, in pieces of any size
   * @param size bytes of the whole source, where they are known (a regular file, memory); undefined for a pipe
   */
  constructor(
    private readonly pieces: AsyncIterator<Uint8Array, unknown, undefined>,
    readonly size?: number,
  ) {}

  /** Of bytes that lie in memory. */
  static of(bytes: Uint8Array): ByteReader {
    return new ByteReader(ByteReader.pieces(bytes), bytes.length);
  }

  static async *pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array, void, undefined> {
    for (let from = 0; from < bytes.length; from += PIECE) yield bytes.subarray(from, from + PIECE);
  }

  /** Bytes that were taken or skipped so far: the offset in the source of what comes next. */
  get position(): number {
    return this.at;
  }

  /**
   * The next bytes without taking them: at least `n` (there may be more), fewer only where the source ends before. What is
   * returned is valid until the next call; it may start at any address, so it is no ground for a typed view.
   */
  async peek(n: number): Promise<Uint8Array> {
    if (this.held.length >= n || this.ended) return this.held;
    const parts = [this.held];
    let length = this.held.length;
    while (length < n) {
      const { done, value } = await this.pieces.next();
      if (done) {
        this.ended = true;
        break;
      }
      // Not a Buffer, whose slice() does not copy.
      parts.push(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
      length += value.length;
    }
    if (parts.length === 2 && this.held.length === 0) {
      this.held = parts[1]!;
      return this.held;
    }
    this.held = concat(parts);
    return this.held;
  }

  /** Takes the next `n` bytes, fewer only at the end of the source. Valid until the next call. */
  async take(n: number): Promise<Uint8Array> {
    const taken = (await this.peek(n)).subarray(0, n);
    this.held = this.held.subarray(taken.length);
    this.at += taken.length;
    return taken;
  }

  /** Takes what comes next, 1 to `n` bytes, without waiting for all of them; none only at the end of the source. */
  async some(n: number): Promise<Uint8Array> {
    await this.peek(1);
    return this.take(Math.min(n, this.held.length));
  }

  /** Goes over the next `n` bytes; returns how many there were. */
  async skip(n: number): Promise<number> {
    let left = n;
    while (left > 0) {
      const { length } = await this.some(left);
      if (length === 0) break;
      left -= length;
    }
    return n - left;
  }

  /** Whether the source ends here. */
  async atEnd(): Promise<boolean> {
    return (await this.peek(1)).length === 0;
  }
}

/** The parts in one piece, at an address of its own. */
export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
