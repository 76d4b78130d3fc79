/** A small seeded generator (mulberry32), uniform in [0, 1). */
export function random(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** `n` normal values. */
export function normals(n: number, next: () => number, scale = 1): Float32Array {
  const values = new Float32Array(n);
  for (let i = 0; i < n; i++) values[i] = scale * Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  return values;
}

/** `count` items of `size` normal values, one behind the other. */
export function normalItems(count: number, size: number, next: () => number): Float32Array[] {
  const values = normals(count * size, next);
  return Array.from({ length: count }, (_, i) => values.subarray(i * size, (i + 1) * size));
}
