import {
  drop,
  gelu,
  type LinearOptions,
  linear,
  linearGelu,
  type Parameter,
  type Pass,
  type Tensor,
} from '../tensor/index.js';

/** Dropout of what an adapter reads, in training: of the Philox draw (seed, step, the layer's stream). */
export interface AdapterDropout {
  readonly rate: number;
  readonly seed: number;
  readonly step: number;
  /** Recorded instead of drawn: a 0/1 keep mask f32 in the shape of the layer's input. */
  mask?(module: string): Tensor | null;
}

/** A pass, and which adapter its linear layers take beside their weights. */
export interface AdaptedPass extends Pass {
  readonly adapter?: { readonly name: string; readonly dropout: AdapterDropout | null } | null | undefined;
}

/** What an adapter adds to one linear layer: scale · B·A·x (LoRA, Hu et al. 2021). A [r, in], B [out, r]. */
export interface LowRank {
  /** Name of the layer. */
  readonly module: string;
  readonly a: Parameter;
  readonly b: Parameter;
  readonly scale: number;
  /** Philox stream of its dropout. */
  readonly stream: number;
}

/** A linear layer of a model, y = x·Wᵀ + b. All of them run here, but for those that a kernel computes with others. */
export class Linear<Bias extends Parameter | null = Parameter> {
  /** By the adapter's name. */
  readonly adapters = new Map<string, LowRank>();

  /** weight [out, in], bias [out]. */
  constructor(
    readonly weight: Parameter,
    readonly bias: Bias,
  ) {}

  /** Whether an adapter changes it in this pass. */
  isAdapted({ adapter }: AdaptedPass): boolean {
    return adapter ? this.adapters.has(adapter.name) : false;
  }

  /** x [.., in] → [.., out], and the adapter's share. */
  forward(pass: AdaptedPass, x: Tensor, options: LinearOptions = {}): Tensor {
    const low = pass.adapter ? this.adapters.get(pass.adapter.name) : undefined;
    if (!low) return linear(pass, x, this.weight, this.bias, options);
    const out = options.out ?? (options.residual ? 'f32' : pass.compute);
    const share = lowRank(pass, x, low, pass.adapter!.dropout, { ...options, out });
    return linear(pass, x, this.weight, this.bias, { residual: share, out });
  }

  /** gelu of that, in one kernel where no adapter comes between. */
  forwardGelu(this: Linear, pass: AdaptedPass, x: Tensor): Tensor {
    return this.isAdapted(pass) ? gelu(pass, this.forward(pass, x)) : linearGelu(pass, x, this.weight, this.bias);
  }
}

/** scale · B·A·dropout(x) + residual: the product's own sum comes on top of it. */
function lowRank(
  pass: Pass,
  x: Tensor,
  { module, a, b, scale, stream }: LowRank,
  dropout: AdapterDropout | null,
  options: LinearOptions,
): Tensor {
  const mask = dropout?.mask?.(module) ?? null;
  if (dropout && (dropout.rate > 0 || mask)) {
    const { rate: p, seed, step } = dropout;
    const kept = drop(pass, x, { mask, p, scale, seed, step, op: stream });
    return linear(pass, linear(pass, kept, a, null), b, null, options);
  }
  const inner = linear(pass, x, a, null);
  const scaled = scale === 1 ? inner : drop(pass, inner, { p: 0, scale, seed: 0, step: 0, op: 0 });
  return linear(pass, scaled, b, null, options);
}
