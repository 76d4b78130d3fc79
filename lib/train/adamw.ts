import { kernels, type Parameter, type Stream, type Tensor } from '../tensor/index.js';

export interface AdamWOptions {
  betas: readonly [number, number];
  epsilon: number;
  weightDecay: number;
  /** transformers' AdamW (decay after the step, ε outside of the bias correction) instead of PyTorch's. */
  compat: 'paper' | 'reference';
}

interface Moments {
  m: Tensor;
  v: Tensor;
  /** Updates that this parameter took part in. */
  steps: number;
}

/** AdamW over the parameters that a step has touched; the others keep value and moments (docs/method.md, section 4). */
export class AdamW {
  private readonly moments = new Map<Parameter, Moments>();

  constructor(
    private readonly stream: Stream,
    readonly parameters: readonly Parameter[],
    private readonly options: AdamWOptions,
    /** The learning rate of a parameter, times that of an update. Default 1. */
    private readonly rateOf: (name: string) => number = () => 1,
  ) {
    for (const p of parameters) {
      const { shape } = p.value;
      this.moments.set(p, { m: stream.persistent(null, shape), v: stream.persistent(null, shape), steps: 0 });
    }
  }

  /**
   * One update; clears the gradients. `norm`: the global gradient norm before clipping, f32 [1]. When it is not finite, the
   * kernels leave parameters and moments as they are, and `refuse()` takes back that the update was counted.
   */
  update(learningRate: number, maxNorm: number): { norm: Tensor; refuse: () => void } {
    const { stream, options } = this;
    const touched = this.parameters.filter((p) => p.touched);
    const { norm, scale } = kernels.globalNorm(stream, { gradients: touched.map((p) => p.gradient!), maxNorm });
    const byRate = new Map<number, Parameter[]>();
    for (const p of touched) {
      const rate = this.rateOf(p.name);
      const members = byRate.get(rate);
      if (members) members.push(p);
      else byRate.set(rate, [p]);
    }
    const { betas, epsilon, weightDecay, compat } = options;
    for (const [rate, members] of byRate) {
      const groups = members.map((p) => {
        const state = this.moments.get(p)!;
        return { step: ++state.steps, value: p.value, gradient: p.gradient, m: state.m, v: state.v };
      });
      kernels.adamw(stream, { scale, groups, learningRate: rate * learningRate, betas, epsilon, weightDecay, compat });
    }
    for (const p of touched) p.clearGradient();
    const refuse = (): void => {
      for (const p of touched) this.moments.get(p)!.steps--;
    };
    return { norm, refuse };
  }

  /** The state for a checkpoint: tensors by name, and how many updates each parameter took. */
  state(): { tensors: Map<string, Tensor>; steps: Record<string, number> } {
    const tensors = new Map<string, Tensor>();
    const steps: Record<string, number> = {};
    for (const [p, state] of this.moments) {
      tensors.set(`m.${p.name}`, state.m);
      tensors.set(`v.${p.name}`, state.v);
      steps[p.name] = state.steps;
    }
    return { tensors, steps };
  }

  restore(steps: Readonly<Record<string, number>>): void {
    for (const [p, state] of this.moments) state.steps = steps[p.name] ?? 0;
  }

  dispose(): void {
    for (const { m, v } of this.moments.values()) {
      m.dispose();
      v.dispose();
    }
  }
}
