/**
 * Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011): four random words as a function of a
 * 128-bit counter and a 64-bit key. The native kernels use the same generator.
 */
export function philox4x32(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): Uint32Array {
  let [c0, c1, c2, c3] = counter;
  let [k0, k1] = key;
  for (let round = 0; round < 10; round++) {
    const high0 = multiplyHigh(0xd2511f53, c0);
    const high1 = multiplyHigh(0xcd9e8d57, c2);
    const low0 = Math.imul(0xd2511f53, c0);
    const low1 = Math.imul(0xcd9e8d57, c2);
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1 >>> 0, (high0 ^ c3 ^ k1) >>> 0, low0 >>> 0];
    k0 = (k0 + 0x9e3779b9) >>> 0;
    k1 = (k1 + 0xbb67ae85) >>> 0;
  }
  return Uint32Array.of(c0, c1, c2, c3);
}

/** The key of a seed, a whole number below 2^53. */
export const philoxKey = (seed: number): [number, number] => [seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0];

/** The upper 32 bits of the product of two unsigned 32-bit numbers. */
function multiplyHigh(a: number, b: number): number {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16);
  const cross = (middle % 0x10000) + aLow * bHigh;
  return (aHigh * bHigh + Math.floor(middle / 0x10000) + Math.floor(cross / 0x10000)) >>> 0;
}

/**
 * A permutation of 0 … length − 1 as a function of (seed, epoch, stream): Fisher–Yates, where step i draws from the Philox
 * counter (i, stream, epoch, 0) and key = seed. A draw uses 53 bits, so its bias is below length / 2^53.
 */
export function permutation(length: number, seed: number, epoch: number, stream: number): Int32Array {
  const order = Int32Array.from({ length }, (_, i) => i);
  const key = philoxKey(seed);
  for (let i = length - 1; i > 0; i--) {
    const [high, low] = philox4x32([i, stream >>> 0, epoch >>> 0, 0], key) as unknown as [number, number];
    const j = Math.floor((((high >>> 5) * 0x4000000 + (low >>> 6)) / 2 ** 53) * (i + 1));
    const swap = order[i]!;
    order[i] = order[j]!;
    order[j] = swap;
  }
  return order;
}

/** Numbers of [0, 1), one a call, as a function of (seed, step, stream, item): the Philox counters (i, item, step, stream), 53 bits each. */
export function uniforms(seed: number, step: number, stream: number, item: number): () => number {
  const key = philoxKey(seed);
  let i = 0;
  return () => {
    const [high, low] = philox4x32([i++, item, step >>> 0, stream], key) as unknown as [number, number];
    return ((high >>> 5) * 0x4000000 + (low >>> 6)) / 2 ** 53;
  };
}
