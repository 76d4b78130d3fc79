import type { FloatType, Pass, Stream, Tape, Tensor } from '../tensor/index.js';
import type { SoftGates } from './gated-ffn.js';

/** What a forward through a model runs with. */
export interface ModelPass {
  /** null: inference. */
  tape?: Tape | null | undefined;
  /** Soft gates for training, and their randomness; without them gates are hard. */
  gates?: SoftGates | undefined;
  /** Language (lower-case name) of each item of the batch; null or absent: no expert. */
  languages?: readonly (string | null)[] | undefined;
  /** On a tape: keep each layer's inputs only, and run its forward again in the backward (Chen et al. 2016). */
  gradientCheckpointing?: boolean | undefined;
}

/** What a forward gives. */
export interface Forward {
  /** Last hidden rows [B, T, D]. */
  hidden: Tensor;
  /** The gates g f32 [rows] of every gated layer, in their order; empty where no item has an expert. */
  gates: readonly Tensor[];
}

/** What one layer runs with. */
export interface LayerPass extends Pass {
  /** null: hard gates. */
  readonly gates: SoftGates | null;
}

/** Rows [B, T, D], and the gate of a layer that has one. */
export type LayerResult = readonly [y: Tensor, gate?: Tensor];

/** A forward under way: how long its tensors live, and the gates that it has come by. */
export class ForwardPass {
  private readonly pass: LayerPass;
  private readonly checkpoints: boolean;
  private readonly gates: Tensor[] = [];

  constructor(stream: Stream, compute: FloatType, { tape = null, gates, gradientCheckpointing }: ModelPass) {
    this.pass = { stream, tape, compute, gates: gates ?? null };
    this.checkpoints = tape !== null && gradientCheckpointing === true;
  }

  /** The whole of it. In inference what `body` leaves behind is freed; on a tape it is kept for the backward. */
  run(body: (pass: Pass) => Tensor): Forward {
    const { pass, gates } = this;
    const [hidden] = pass.tape ? [body(pass)] : pass.stream.tidy(() => [body(pass), ...gates]);
    return { hidden: hidden!, gates };
  }

  /** One layer of `inputs`: freed behind it in inference, kept on a tape, or run again in the backward. */
  layer<Inputs extends readonly Tensor[]>(
    inputs: Inputs,
    body: (pass: LayerPass, ...inputs: Inputs) => LayerResult,
  ): Tensor {
    const { pass } = this;
    const made = (tape: Tape | null): Tensor[] => body({ ...pass, tape }, ...inputs).filter((t) => t !== undefined);
    const [y, gate] = this.checkpoints
      ? pass.tape!.checkpoint(inputs, made)
      : pass.tape
        ? made(pass.tape)
        : pass.stream.tidy(() => made(null));
    if (gate) this.gates.push(gate);
    return y!;
  }
}
