/** The generator that a fuzzed input is made by: the same input for the same reader, seed and index, on every machine. */

const BOUNDARIES = [0, 1, 2, 3, 4, 7, 8, 10, 12, 15, 16, 20, 24, 31, 32, 64, 100, 127, 128, 255, 256, 1000, 1023, 1024];

/** sfc32 with 128 bits of state. */
export class Random {
  private a: number;
  private b: number;
  private c: number;
  private counter = 1;

  constructor(name: string, seed: number, index: number) {
    let hash = 0x811c9dc5;
    for (let i = 0; i < name.length; i++) hash = Math.imul(hash ^ name.charCodeAt(i), 0x01000193);
    this.a = hash | 0;
    this.b = (seed ^ Math.imul(Math.floor(index / 2 ** 32), 0x9e3779b1)) | 0;
    this.c = index | 0;
    for (let i = 0; i < 12; i++) this.next();
  }

  /** A whole number below 2^32. */
  next(): number {
    const sum = (this.a + this.b + this.counter) | 0;
    this.counter = (this.counter + 1) | 0;
    this.a = this.b ^ (this.b >>> 9);
    this.b = (this.c + (this.c << 3)) | 0;
    this.c = ((this.c << 21) | (this.c >>> 11)) + sum;
    return sum >>> 0;
  }

  /** A whole number from 0 to below `count`. */
  below(count: number): number {
    return Math.floor((this.next() / 2 ** 32) * count);
  }

  /** A whole number from `least` to `most`. */
  between(least: number, most: number): number {
    return least + this.below(most - least + 1);
  }

  /** Small mostly, up to `most` now and then. */
  count(most: number): number {
    return Math.max(1, Math.floor(most ** (this.next() / 2 ** 32)));
  }

  chance(probability: number): boolean {
    return this.next() < probability * 2 ** 32;
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!;
  }

  /** A number that breaks things: at the ends of the types of `bits` bits, near powers of two, small or anything. */
  boundary(bits: number): bigint {
    const one = 1n;
    const full = one << BigInt(bits);
    switch (this.below(6)) {
      case 0:
        return BigInt(this.pick(BOUNDARIES)) & (full - one);
      case 1:
        return full - one - BigInt(this.below(4));
      case 2:
        return (full >> one) + BigInt(this.between(-2, 2));
      case 3:
        return ((one << BigInt(this.below(bits))) + BigInt(this.between(-1, 1))) & (full - one);
      case 4:
        return BigInt(this.below(2 ** Math.min(bits, 12)));
      default:
        return (BigInt(this.next()) | (BigInt(this.next()) << 32n)) & (full - one);
    }
  }

  /** As `boundary`, of at most 32 bits. */
  edge(bits: number): number {
    return Number(this.boundary(bits));
  }
}
