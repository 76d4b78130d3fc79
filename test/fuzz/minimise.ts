/** Smaller inputs with the same fault: pieces are left out, halves first, single bytes last. */

/** `still`: whether an input shows the fault. Ends after `tries` tries or at `until`. */
export async function minimise(
  input: Uint8Array,
  still: (input: Uint8Array) => Promise<boolean>,
  { tries, until }: { tries: number; until: number },
): Promise<Uint8Array> {
  let best = input;
  let left = tries;
  for (let size = Math.max(1, best.length >> 1); best.length > 0; size = Math.max(1, size >> 1)) {
    let shrunk = false;
    for (let at = 0; at < best.length; ) {
      if (left-- <= 0 || Date.now() > until) return best;
      const smaller = new Uint8Array(best.length - Math.min(size, best.length - at));
      smaller.set(best.subarray(0, at));
      smaller.set(best.subarray(at + size), at);
      if (await still(smaller)) {
        best = smaller;
        shrunk = true;
      } else {
        at += size;
      }
    }
    if (size === 1 && !shrunk) return best;
  }
  return best;
}
