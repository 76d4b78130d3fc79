import { add } from './kernels/index.js';
import type { Stream, Tensor } from './tensor.js';

/**
 * Reverse-mode differentiation. An op that runs on a tape pushes its own backward; `backward` replays them in reverse.
 * Gradients are handed along: a backward kernel that can add takes the gradient so far as its `residual` argument, so that
 * sums over branches cost no pass of their own. Outputs, saved tensors and spent gradients are disposed of on the way back.
 */
export class Tape {
  private readonly entries: {
    output: Tensor;
    backward: (gradient: Tensor) => void;
    saved: readonly (Tensor | null)[];
  }[] = [];
  private readonly gradients = new Map<number, Tensor>();
  private readonly wanted = new Set<number>();

  constructor(readonly stream: Stream) {}

  /** Declares that a gradient for `t` is wanted although no trainable parameter made it. */
  watch(t: Tensor): void {
    this.wanted.add(t.id);
  }

  /** Whether any of these tensors needs a gradient: an op whose inputs need none records nothing. */
  needs(...tensors: (Tensor | null)[]): boolean {
    return tensors.some((t) => t !== null && this.wanted.has(t.id));
  }

  /** `saved`: tensors that only this backward reads, disposed of after it ran. */
  record(output: Tensor, backward: (gradient: Tensor) => void, saved: readonly (Tensor | null)[] = []): void {
    this.wanted.add(output.id);
    this.entries.push({ output, backward, saved });
  }

  /** The gradient that has reached `t` so far, or null. */
  gradient(t: Tensor): Tensor | null {
    return this.gradients.get(t.id) ?? null;
  }

  /** Replaces the gradient of `t`, by a tensor that already holds the sum. */
  set(t: Tensor, gradient: Tensor): void {
    this.gradients.set(t.id, gradient);
  }

  /** Adds to the gradient of `t`. */
  add(t: Tensor, gradient: Tensor): void {
    const sofar = this.gradients.get(t.id);
    if (!sofar) {
      this.gradients.set(t.id, gradient);
      return;
    }
    const out = sofar.dtype === 'f32' || gradient.dtype === 'f32' ? 'f32' : 'bf16';
    this.gradients.set(t.id, add(this.stream, { a: sofar, b: gradient, out }).y);
  }

  /**
   * Runs `body` without keeping what its backward would read, and once more in the backward: memory for time. `body` records on
   * the tape that it is given and must come to the same numbers again; `inputs` are the tensors from outside whose gradients
   * may be wanted. Gradients reach it through its first output; those of the others must have been set. They, and those of the
   * inputs, are summed in the order that they would have been without.
   */
  checkpoint(inputs: readonly Tensor[], body: (tape: Tape) => readonly Tensor[]): readonly Tensor[] {
    const inside = (): Tape => {
      const tape = new Tape(this.stream);
      for (const t of inputs) if (this.needs(t)) tape.watch(t);
      return tape;
    };
    const first = inside();
    const outputs = this.stream.tidy(() => body(first));
    if (!first.needs(outputs[0]!)) return outputs;
    this.record(outputs[0]!, () => {
      this.stream.tidy(() => {
        const again = inside();
        const made = body(again);
        for (const [from, to] of [
          ...outputs.map((t, i) => [t, made[i]!] as const),
          ...inputs.map((t) => [t, t] as const),
        ]) {
          const gradient = this.gradient(from);
          if (gradient) again.set(to, gradient);
        }
        again.backward();
        const wanted = inputs.filter((t) => this.needs(t) && again.gradient(t));
        for (const t of wanted) this.set(t, again.gradient(t)!);
        return wanted.map((t) => this.gradient(t)!);
      });
    });
    return outputs;
  }

  /** Runs every backward from the last op to the first; the gradients of losses must have been set. Clears the tape. */
  backward(): void {
    while (this.entries.length) {
      const { output, backward, saved } = this.entries.pop()!;
      const gradient = this.gradients.get(output.id);
      if (gradient) backward(gradient);
      for (const t of saved) t?.dispose();
      output.dispose();
      this.gradients.delete(output.id);
      // A gradient may have been handed on as it is (to a residual): then it is still somebody's.
      if (gradient && ![...this.gradients.values()].includes(gradient)) gradient.dispose();
    }
  }
}
