import type { DecoderState, Forward, ModelPass, ReplayedPosition, Whisper } from '../model/index.js';
import { kernels, type Tensor } from '../tensor/index.js';
import { onThread } from '../trace/index.js';
import { type DecodingOptions, measuredItems } from './options.js';
import { ReplayedStep } from './replayed-step.js';
import { TimestampRules } from './timestamp-rules.js';

/** What each sequence of a batch may say next, best first; sequences are rows, those of an item behind one another. */
export interface Proposals {
  /** Ids [rows, count], and their log-probabilities after suppression. */
  ids: Int32Array;
  logProbabilities: Float32Array;
  count: number;
  /** Gates that each row went through in this step; how many of them chose the expert, by row. */
  gates: number;
  open: Float64Array;
}

/** A token of every row, and the row of its item's (from 0) that it follows; null: its own. */
export interface NextTokens {
  ids: readonly number[];
  parents: readonly number[] | null;
  /** All that a row has said, this token included and the prompt left out; of rows that have ended anything. */
  said: readonly (readonly number[])[];
}

/** Gates of one forward pass, summed over its layers: f32, as many for each item. */
interface Gates {
  sum: Tensor;
  layers: number;
  items: number;
}

/** What the calls of one token give: logits f32 [rows, V], and of each the best, their ids and log-probabilities. */
interface Choice {
  logits: Tensor;
  values: Tensor;
  ids: Tensor;
  gates: Gates | null;
}

/**
 * Token by token decoding of a batch with key/value caches, for a search that keeps `beams` sequences an item, which share the
 * keys and values of what they hear. Everything of one token is queued at once, so that calls on the same
 * stream may overlap. On a GPU the calls of a token are captured as a CUDA graph, which each token after the first launches.
 * A step's tensors go after every token: those of the caller on this stream are gone after it. Options have been checked.
 */
export class TokenSteps {
  private readonly rows: number;
  private readonly measures: boolean;
  private readonly rules: TimestampRules | null;
  private readonly suppressed: Tensor | null;
  private readonly suppressedAtBegin: Tensor | null;
  private state: DecoderState | null = null;
  private replayed: ReplayedStep<Choice> | null = null;

  /** features f32 [items, mels, frames]; `count` proposals are made for a row. */
  constructor(
    private readonly model: Whisper,
    private readonly features: Tensor,
    private readonly options: DecodingOptions,
    private readonly beams: number,
    private readonly count: number,
  ) {
    const { suppressAtBegin = [], prompts, timestamps, endOfText } = options;
    const suppress = [...(options.suppress ?? []), ...(timestamps ? [timestamps.noTimestamps] : [])];
    this.rules = timestamps ? new TimestampRules(timestamps, endOfText) : null;
    this.rows = prompts.length * beams;
    this.measures = measuredItems(model, options).includes(true);
    this.suppressed = this.idList(suppress);
    this.suppressedAtBegin = this.idList([...suppress, ...suppressAtBegin]);
  }

  /** What may follow `next`, or at first (null) the prompts. Errors: ERR_SHAPE (features), ERR_KERNEL (NaN). */
  async next(next: NextTokens | null): Promise<Proposals> {
    const { rows, count } = this;
    const [ids, logProbabilities, gates] = await onThread('queue a token', () => this.step(next));
    const open = new Float64Array(rows);
    let each = 0;
    for (const { sums, layers, items } of gates) {
      const per = sums.length / items;
      each += per * layers;
      for (let row = 0; row < rows; row++) {
        const first = Math.floor((row * items) / rows) * per;
        for (let i = first; i < first + per; i++) open[row]! += sums[i]!;
      }
    }
    return { ids, logProbabilities, count, gates: each, open };
  }

  dispose(): void {
    this.replayed?.dispose();
    this.state?.dispose();
    this.suppressed?.dispose();
    this.suppressedAtBegin?.dispose();
  }

  /** Queues one token for every row and ends the step; the reads are on their way. */
  private step(next: NextTokens | null) {
    const { stream } = this.model;
    const gates: (Gates | null)[] = [];
    try {
      const last = next?.ids ?? this.start(gates);
      const state = this.state!;
      if (next?.parents) state.reorder(this.upload(next.parents, this.beams));
      const suppressed = next ? this.suppressed : this.suppressedAtBegin;
      const allowed = this.allowed(next);
      const bounds = allowed && !(this.replayed && next) ? this.upload(allowed, 4) : null;
      const choice = this.replayed
        ? this.replayed.run(last, allowed ?? [])
        : this.choose(this.upload(last, 1), suppressed, bounds);
      gates.push(choice.gates);
      // What is replayed leaves out what the first token must not be.
      const { ids, values } = this.replayed && !next ? this.best(choice.logits, suppressed, bounds) : choice;
      const readings = gates
        .filter((g) => g !== null)
        .map(async ({ sum, layers, items }) => ({ sums: await sum.floats(), layers, items }));
      return Promise.all([ids.read() as Promise<Int32Array>, values.floats(), Promise.all(readings)]);
    } finally {
      stream.endStep();
    }
  }

  /** Encodes and fills the caches with all but the last token of the prompts, which is returned for each row. */
  private start(gates: (Gates | null)[]): number[] {
    const { model, beams, options } = this;
    const { languages, prompts } = options;
    const [memory, heard] = this.measured(prompts.length, languages, (pass) => model.encode(this.features, pass));
    gates.push(heard);
    const state = model.startDecoding(memory, { beams, adapter: options.adapter });
    this.state = state;
    const rows = this.ofRows(prompts);
    const filled = prompts[0]!.length - 1;
    if (filled > 0) {
      const ids = this.upload(
        rows.flatMap((row) => row.slice(0, filled)),
        filled,
      );
      gates.push(this.decode(ids)[1]);
    }
    // An adapter's calls are not for recordings.
    if (model.stream.graphs && state.adapter === null) {
      const { max_target_positions: positions } = model.config;
      const calls = (ids: Tensor, at: ReplayedPosition, allowed: Tensor | null): Choice =>
        this.choose(ids, this.suppressed, allowed, at);
      this.replayed = new ReplayedStep(model.stream, state, positions, calls, this.rules !== null);
    }
    return rows.map((row) => row[filled]!);
  }

  /** Four bounds for each row, of the ids that may follow; null: no rules. */
  private allowed(next: NextTokens | null): number[] | null {
    const { rules, rows } = this;
    return rules && (next?.said ?? Array<number[]>(rows).fill([])).flatMap((said) => rules.allowed(said));
  }

  private choose(ids: Tensor, suppressed: Tensor | null, allowed: Tensor | null, at?: ReplayedPosition): Choice {
    const { model, rows } = this;
    const [hidden, gates] = this.decode(ids, at);
    const logits = model.logits(hidden.reshape([rows, model.config.d_model]));
    return { logits, ...this.best(logits, suppressed, allowed), gates };
  }

  private best(logits: Tensor, suppressed: Tensor | null, allowed: Tensor | null): { values: Tensor; ids: Tensor } {
    return kernels.topK(this.model.stream, { logits, suppress: suppressed, allowed, k: this.count });
  }

  private decode(ids: Tensor, at?: ReplayedPosition): [hidden: Tensor, gates: Gates | null] {
    const { model, rows, options } = this;
    const state = this.state!;
    const languages = options.languages && this.ofRows(options.languages);
    return this.measured(rows, languages, (pass) => model.decode(ids, null, { ...pass, state, at }));
  }

  private measured(
    items: number,
    languages: DecodingOptions['languages'],
    run: (pass: ModelPass) => Forward,
  ): [hidden: Tensor, gates: Gates | null] {
    const { hidden, gates } = run({ languages: languages ?? undefined, adapter: this.options.adapter });
    const [first, ...rest] = gates;
    if (!this.measures || !first) return [hidden, null];
    const { stream } = this.model;
    const sum = rest.reduce((a, b) => kernels.add(stream, { a, b, out: 'f32' }).y, first);
    return [hidden, { sum, layers: gates.length, items }];
  }

  /** Of each row what its item has. */
  private ofRows<T>(items: readonly T[]): T[] {
    return items.flatMap((item) => Array<T>(this.beams).fill(item));
  }

  private upload(numbers: readonly number[], columns: number): Tensor {
    return this.model.stream.tensor(Int32Array.from(numbers), [numbers.length / columns, columns], 'i32');
  }

  private idList(ids: readonly number[]): Tensor | null {
    const list = Int32Array.from(new Set(ids));
    return list.length > 0 ? this.model.stream.persistent(list, [list.length], 'i32') : null;
  }
}
