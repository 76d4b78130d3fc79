/**
 * Runs of small numbers, as parquet has levels, numbers of a dictionary and differences, gone through without making values of them: the
 * library takes their lengths as they are written. Source: the format's Encodings.md, "RLE/bit-packing hybrid" and "Delta encoding".
 */

/** Reads unsigned numbers of seven bits a byte; beyond the end it stands still. */
class Numbers {
  at = 0;

  constructor(readonly bytes: Uint8Array) {}

  get ended(): boolean {
    return this.at >= this.bytes.length;
  }

  next(): number {
    let value = 0;
    for (let shift = 0; shift < 70 && !this.ended; shift += 7) {
      const byte = this.bytes[this.at++]!;
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
    throw new Error('a number that does not end');
  }
}

/**
 * Throws an Error where a run of `bytes` is longer than what is left of `count` numbers of `width` bits. Runs of single numbers end with
 * the bytes, and the last one may be filled up.
 */
export function checkRuns(bytes: Uint8Array, width: number, count: number): void {
  const numbers = new Numbers(bytes);
  for (let seen = 0; seen < count && !numbers.ended; ) {
    const head = numbers.next();
    const half = Math.floor(head / 2);
    if (head % 2 === 1) {
      if (half * width > bytes.length) throw new Error('a run of more numbers than bytes');
      // The library takes a byte of an empty run too.
      numbers.at += Math.max(half * width, 1);
      seen += half * 8;
    } else {
      if (half > count - seen) throw new Error('a run of more values than its page');
      numbers.at += Math.ceil(width / 8);
      seen += half;
    }
  }
}

const MAX_DELTA_BLOCK = 1 << 16;

/** Throws an Error where a block of differences is of a size that its library would go backward by. */
export function checkDelta(bytes: Uint8Array): void {
  const numbers = new Numbers(bytes);
  const [block, parts] = [numbers.next(), numbers.next()];
  if (!(parts > 0 && block % parts === 0 && block > 0 && block <= MAX_DELTA_BLOCK))
    throw new Error(`a block of ${block} differences in ${parts} parts`);
}
