import type { FloatType, Stream, Tape, Tensor } from '../tensor/index.js';
import type { SoftGates } from './gated-ffn.js';
import type { AdaptedPass, AdapterDropout } from './linear.js';

/** What a forward through a model runs with. */
export interface ModelPass {
  /** null: inference. */
  tape?: Tape | null | undefined;
  /** Soft gates for training, and their randomness; without them gates are hard. */
  gates?: SoftGates | undefined;
  /** Language (lower-case name) of each item of the batch; null or absent: no expert. */
  languages?: readonly (string | null)[] | undefined;
  /** Name of the adapter that linear layers take; null: none. Default: the model's active one. */
  adapter?: string | null | undefined;
  /** Dropout of what the adapter reads, in training. */
  adapterDropout?: AdapterDropout | undefined;
  /** On a tape: keep each layer's inputs only, and run its forward again in the backward (Chen et al. 2016). */
  gradientCheckpointing?: boolean | undefined;
}

/** What a forward gives. */
export interface Forward {
  /** Last hidden rows [B, T, D]. */
  hidden: Tensor;
  /** The gates g f32 [rows] of every gated layer, in their order; empty where no item has an expert. */
  gates: readonly Tensor[];
  /** With soft gates, beside them: 1 where inference would choose the expert, else 0. */
  chosen: readonly Tensor[];
}

/** What one layer runs with. */
export interface LayerPass extends AdaptedPass {
  /** null: hard gates. */
  readonly gates: SoftGates | null;
}

/** Rows [B, T, D], and the gate of a layer that has one; a soft one with what inference would choose. */
export type LayerResult = readonly [y: Tensor, gate?: Tensor, chosen?: Tensor];

/** A forward under way: how long its tensors live, and the gates that it has come by. */
export class ForwardPass {
  private readonly pass: LayerPass;
  private readonly checkpoints: boolean;
  private readonly gates: Tensor[] = [];
  private readonly chosen: Tensor[] = [];

  constructor(
    stream: Stream,
    compute: FloatType,
    adapter: AdaptedPass['adapter'],
    { tape = null, gates, gradientCheckpointing }: ModelPass,
  ) {
    this.pass = { stream, tape, compute, adapter, gates: gates ?? null };
    this.checkpoints = tape !== null && gradientCheckpointing === true;
  }

  /** The whole of it. In inference what `body` leaves behind is freed; on a tape it is kept for the backward. */
  run(body: (pass: AdaptedPass) => Tensor): Forward {
    const { pass, gates, chosen } = this;
    const [hidden] = pass.tape ? [body(pass)] : pass.stream.tidy(() => [body(pass), ...gates, ...chosen]);
    return { hidden: hidden!, gates, chosen };
  }

  /** One layer of `inputs`: freed behind it in inference, kept on a tape, or run again in the backward. */
  layer<Inputs extends readonly Tensor[]>(
    inputs: Inputs,
    body: (pass: LayerPass, ...inputs: Inputs) => LayerResult,
  ): Tensor {
    const { pass } = this;
    const made = (tape: Tape | null): Tensor[] => body({ ...pass, tape }, ...inputs).filter((t) => t !== undefined);
    const [y, gate, chosen] = this.checkpoints
      ? pass.tape!.checkpoint(inputs, made)
      : pass.tape
        ? made(pass.tape)
        : pass.stream.tidy(() => made(null));
    if (gate) this.gates.push(gate);
    if (chosen) this.chosen.push(chosen);
    return y!;
  }
}
