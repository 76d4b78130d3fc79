import { DistilWhisperError } from '../errors/index.js';

/**
 * The samples of a source by their position in it, although they come only once and in order. A position may be anywhere from
 * the last one on; what lies before it is let go, so that of hours no more is held than what is read at once.
 */
export class SampleReader {
  private readonly pieces: AsyncIterator<Float32Array, unknown, undefined>;
  /** Its first `length` samples are those from `position` on. */
  private held = new Float32Array(0);
  private length = 0;
  private position = 0;
  /** What has come and lies behind what is held. */
  private rest: Float32Array = new Float32Array(0);

  /** `sampleRate`: of the pieces, in Hz. */
  constructor(
    pieces: AsyncIterable<Float32Array>,
    readonly sampleRate: number,
  ) {
    this.pieces = pieces[Symbol.asyncIterator]();
  }

  /**
   * The `count` samples from `position` on, fewer where the source ends before; they stay as they are until the next call.
   * Errors: ERR_ARGUMENT for a position that lies before the last one; what the pieces throw.
   */
  async read(position: number, count: number): Promise<Float32Array> {
    if (position < this.position) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `position: expected a sample from ${this.position} on (those before are not held any more), got ${position}`,
      );
    }
    const gone = Math.min(position - this.position, this.length);
    this.held.copyWithin(0, gone, this.length);
    this.length -= gone;
    for (let left = position - this.position - gone; left > 0 && (await this.more()); ) left -= this.take(left).length;
    this.position = position;
    while (this.length < count && (await this.more())) {
      const taken = this.take(count - this.length);
      this.room(this.length + taken.length, count).set(taken, this.length);
      this.length += taken.length;
    }
    return this.held.subarray(0, Math.min(count, this.length));
  }

  /** Nothing more is read. */
  async close(): Promise<void> {
    await this.pieces.return?.();
  }

  /** Whether there is a rest; waits for it. */
  private async more(): Promise<boolean> {
    while (this.rest.length === 0) {
      const { done, value } = await this.pieces.next();
      if (done) return false;
      this.rest = value;
    }
    return true;
  }

  private take(most: number): Float32Array {
    const taken = this.rest.subarray(0, most);
    this.rest = this.rest.subarray(taken.length);
    return taken;
  }

  /** Doubles what holds samples until it holds so many; to no more than `most`. */
  private room(length: number, most: number): Float32Array {
    if (this.held.length >= length) return this.held;
    const larger = new Float32Array(Math.min(most, Math.max(length, 2 * this.held.length)));
    larger.set(this.held.subarray(0, this.length));
    this.held = larger;
    return larger;
  }
}
