import { DistilWhisperError } from '../errors/index.js';
import { type LinearOptions, linear, linearGelu, type Parameter, type Pass, type Tensor } from '../tensor/index.js';

/** What is learned beside a linear layer whose weight is frozen; LoRA is one (Hu et al. 2021): B·A·x. */
export interface Adapter {
  /** y [.., out] with the adapter's share of x [.., in] added, in y's type; on the pass's tape. */
  add(pass: Pass, x: Tensor, y: Tensor): Tensor;
}

/** A linear layer of a model, y = x·Wᵀ + b. All of them run here, but for those that a kernel computes with others. */
export class Linear<Bias extends Parameter | null = Parameter> {
  adapter: Adapter | null = null;

  /** matrix [out, in], bias [out]. */
  constructor(
    private readonly matrix: Parameter,
    readonly bias: Bias,
  ) {}

  /** W for a kernel that computes more than this layer. Throws ERR_MODEL where that would leave out an adapter. */
  get weight(): Parameter {
    if (this.adapter) {
      throw new DistilWhisperError(
        'ERR_MODEL',
        `${this.matrix.name}: expected no adapter where a kernel computes the layer with others, got one`,
      );
    }
    return this.matrix;
  }

  /** x [.., in] → [.., out], and the adapter's share. */
  forward(pass: Pass, x: Tensor, options: LinearOptions = {}): Tensor {
    const y = linear(pass, x, this.matrix, this.bias, options);
    return this.adapter ? this.adapter.add(pass, x, y) : y;
  }

  /** gelu of that, in one kernel. */
  forwardGelu(this: Linear, pass: Pass, x: Tensor): Tensor {
    return linearGelu(pass, x, this.weight, this.bias);
  }
}
