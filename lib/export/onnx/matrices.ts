/** Matrices as the graphs hold them: transposed, in int8. */

/** w [rows, columns] → [columns, rows], by blocks that stay in the cache. */
export function transpose<T extends Float32Array | Uint8Array>(w: T, rows: number, columns: number): T {
  const out = new (w.constructor as new (n: number) => T)(w.length);
  const block = 32;
  for (let r0 = 0; r0 < rows; r0 += block) {
    for (let c0 = 0; c0 < columns; c0 += block) {
      for (let r = r0; r < Math.min(r0 + block, rows); r++) {
        for (let c = c0; c < Math.min(c0 + block, columns); c++) out[c * rows + r] = w[r * columns + c]!;
      }
    }
  }
  return out;
}

/** The scale of each row of w [N, K]: its largest number is 127 of them. */
export function rowScales(w: Float32Array, N: number, K: number): Float32Array {
  const scales = new Float32Array(N);
  for (let n = 0; n < N; n++) {
    let most = 0;
    for (let k = 0; k < K; k++) most = Math.max(most, Math.abs(w[n * K + k]!));
    scales[n] = most / 127 || 1;
  }
  return scales;
}

/** w [N, K] in int8, by its row's scale. */
export function quantise(w: Float32Array, N: number, K: number): Int8Array {
  const scales = rowScales(w, N, K);
  const out = new Int8Array(w.length);
  for (let n = 0; n < N; n++) {
    for (let k = 0; k < K; k++) out[n * K + k] = Math.round(w[n * K + k]! / scales[n]!);
  }
  return out;
}

/** The same numbers around 128. */
export const unsigned = (values: Int8Array): Uint8Array => Uint8Array.from(values, (x) => x + 128);
