/** Label ids of many utterances, one behind the other. */
export class LabelStore {
  private ids = new Uint32Array(1 << 12);
  private readonly ends: Uint32Array;
  private added = 0;

  constructor(utterances: number) {
    this.ends = new Uint32Array(utterances + 1);
  }

  add(labels: readonly number[]): void {
    const start = this.ends[this.added]!;
    const end = start + labels.length;
    if (end > this.ids.length) {
      const wider = new Uint32Array(Math.max(end, 2 * this.ids.length));
      wider.set(this.ids);
      this.ids = wider;
    }
    this.ids.set(labels, start);
    this.ends[++this.added] = end;
  }

  /** Replaces a label, counted from the end. */
  set(i: number, fromEnd: number, id: number): void {
    this.ids[this.ends[i + 1]! - fromEnd] = id;
  }

  count(i: number): number {
    return this.ends[i + 1]! - this.ends[i]!;
  }

  get(i: number): number[] {
    return Array.from(this.ids.subarray(this.ends[i]!, this.ends[i + 1]!));
  }
}
