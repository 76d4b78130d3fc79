import { DistilWhisperError } from '../errors/index.js';
import type { DecoderState, ModelPass, ReplayedPosition, Whisper } from '../model/index.js';
import { onThread } from '../profile/index.js';
import { dtypeNumber, type Tensor } from '../tensor/index.js';
import { ReplayedStep } from './replayed-step.js';

export interface GreedyOptions {
  /** Start sequence of each item, such as `tokenizer.prompt()` gives; all of one length, at least one token. */
  prompts: readonly (readonly number[])[];
  /** Lower-case language name of each item, whose expert it takes if the model has it. null: none. Default: no experts. */
  languages?: readonly (string | null)[];
  /** Ids that are never chosen. */
  suppress?: readonly number[];
  /** Ids that are not chosen right behind the prompt. */
  suppressAtBegin?: readonly number[];
  endOfText: number;
  /** Tokens of a whole sequence, prompt and end included; the decoder's positions are the limit. */
  maxTokens: number;
  /** Measure the gates: fills in `gateShare`. Default false. */
  gateValues?: boolean;
  /** When aborted, decoding stops between two tokens with ERR_INTERRUPTED. */
  signal?: AbortSignal;
}

export interface DecodedSequence {
  /** The tokens chosen, without prompt and end. */
  tokens: number[];
  /** Sum of the natural log-probabilities (after suppression) of the tokens chosen, the end included. */
  logProbability: number;
  /** The same per token chosen; 0 when there was room for none. */
  averageLogProbability: number;
  /** Whether the end of the text came before `maxTokens`. */
  finished: boolean;
  /**
   * Share of the gates (encoder frames, the silence behind the speech included, and decoder tokens, in all layers) that chose
   * the expert; null when none ran for this item or `gateValues` was not asked for.
   */
  gateShare: number | null;
}

/** Gates of one forward pass, summed over its layers: f32 [rows]. */
interface Gates {
  sum: Tensor;
  layers: number;
}

/** What the calls of one token give: logits f32 [B, V], and of each the best, its id and log-probability. */
interface Choice {
  logits: Tensor;
  values: Tensor;
  ids: Tensor;
  gates: Gates | null;
}

/**
 * Greedy decoding of a batch with key/value caches. features f32 [B, mels, frames]; one sequence an item comes back.
 * A step's tensors go after every token: those of the caller on this stream, `features` included, are gone after the call.
 * Everything of one token is queued at once, so that calls on the same stream may overlap. On a GPU the calls of a token are
 * captured as a CUDA graph, which each token after the first launches.
 * Errors: ERR_ARGUMENT (prompts, languages, token ids, maxTokens), ERR_SHAPE (features), ERR_INTERRUPTED, ERR_KERNEL (NaN).
 */
export async function greedy(model: Whisper, features: Tensor, options: GreedyOptions): Promise<DecodedSequence[]> {
  const { stream, config } = model;
  const batch = features.shape[0] ?? 0;
  const limit = checkOptions(model, batch, options);
  const { prompts, endOfText } = options;
  const start = prompts[0]?.length ?? 0;
  const languages = options.languages ? { languages: options.languages } : {};
  const items = prompts.map((_, i) => {
    const language = options.languages?.[i] ?? null;
    const measured = options.gateValues === true && language !== null && model.experts.has(language);
    return { tokens: [] as number[], logProbability: 0, drawn: 0, finished: false, measured, gates: 0, open: 0 };
  });
  if (batch === 0 || start >= limit) return items.map(result);

  const idList = (ids: Iterable<number>): Tensor | null => {
    const list = Int32Array.from(new Set(ids));
    return list.length > 0 ? stream.persistent(list, [list.length], 'i32') : null;
  };
  const hidden = idList(options.suppress ?? []);
  const hiddenAtBegin = idList([...(options.suppress ?? []), ...(options.suppressAtBegin ?? [])]);
  let state: DecoderState | null = null;
  let replayed: ReplayedStep<Choice> | null = null;

  const measured = (run: (pass: ModelPass) => Tensor): [value: Tensor, gates: Gates | null] => {
    if (!items.some((item) => item.measured)) return [run(languages), null];
    const gateValues: Tensor[] = [];
    const value = run({ ...languages, gateValues });
    const [first, ...rest] = gateValues;
    if (!first) return [value, null];
    const sum = rest.reduce((a, b) => stream.call('add', [a, b], [1, 1, dtypeNumber('f32')])[0]!, first);
    return [value, { sum, layers: gateValues.length }];
  };
  const best = (logits: Tensor, suppressed: Tensor | null): { values: Tensor; ids: Tensor } => {
    const [values, ids] = stream.call('top_k', [logits, suppressed], [1]);
    return { values: values!, ids: ids! };
  };
  const choose = (ids: Tensor, suppressed: Tensor | null, at?: ReplayedPosition): Choice => {
    const [rows, gates] = measured((pass) => model.decode(ids, null, { ...pass, state: state!, ...(at && { at }) }));
    const logits = model.logits(rows.reshape([batch, config.d_model]));
    return { logits, ...best(logits, suppressed), gates };
  };
  const upload = (rows: readonly (readonly number[])[]): Tensor =>
    stream.tensor(Int32Array.from(rows.flat()), [batch, rows[0]!.length], 'i32');
  /** Queues one token for every item and ends the step; the reads are on their way. */
  const step = (rows: readonly (readonly number[])[]) => {
    const gates: (Gates | null)[] = [];
    try {
      const first = state === null;
      const suppressed = first ? hiddenAtBegin : hidden;
      if (!state) {
        const [memory, heard] = measured((pass) => model.encode(features, pass));
        gates.push(heard);
        state = model.startDecoding(memory);
        // All but the prompt's last token only fill the caches.
        if (start > 1) {
          const ids = upload(rows.map((row) => row.slice(0, -1)));
          gates.push(measured((pass) => model.decode(ids, null, { ...pass, state: state! }))[1]);
        }
        if (stream.graphs) {
          replayed = new ReplayedStep(stream, state, config.max_target_positions, (ids, at) => choose(ids, hidden, at));
        }
      }
      const last = rows.map((row) => row.at(-1)!);
      const choice = replayed ? replayed.run(last) : choose(upload(last.map((id) => [id])), suppressed);
      gates.push(choice.gates);
      // What is replayed leaves out what the first token must not be.
      const { ids, values } = replayed && first ? best(choice.logits, suppressed) : choice;
      const readings = gates
        .filter((g) => g !== null)
        .map(async ({ sum, layers }) => ({ sums: await sum.floats(), layers }));
      return Promise.all([ids.read(), values.floats(), Promise.all(readings)]);
    } finally {
      stream.endStep();
    }
  };

  try {
    let rows = prompts;
    for (let length = start; length < limit && items.some((item) => !item.finished); length++) {
      throwIfAborted(options.signal);
      const [ids, values, gates] = await onThread('queue a token', () => step(rows));
      for (const [i, item] of items.entries()) {
        if (item.finished) continue;
        for (const { sums, layers } of gates) {
          const perItem = sums.length / batch;
          for (let row = i * perItem; row < (i + 1) * perItem; row++) item.open += sums[row]!;
          item.gates += perItem * layers;
        }
        item.logProbability += values[i]!;
        item.drawn++;
        if (ids[i] === endOfText) item.finished = true;
        else item.tokens.push(ids[i]!);
      }
      rows = items.map((item, i) => [item.finished ? config.pad_token_id : ids[i]!]);
    }
  } finally {
    (replayed as ReplayedStep<Choice> | null)?.dispose();
    (state as DecoderState | null)?.dispose();
    hidden?.dispose();
    hiddenAtBegin?.dispose();
  }
  return items.map(result);
}

function result(item: {
  tokens: number[];
  logProbability: number;
  drawn: number;
  finished: boolean;
  measured: boolean;
  gates: number;
  open: number;
}): DecodedSequence {
  const { tokens, logProbability, drawn, finished } = item;
  return {
    tokens,
    logProbability,
    averageLogProbability: drawn > 0 ? logProbability / drawn : 0,
    finished,
    gateShare: item.measured && item.gates > 0 ? item.open / item.gates : null,
  };
}

/** Returns the longest sequence that may come of it. */
function checkOptions(model: Whisper, batch: number, options: GreedyOptions): number {
  const { vocab_size: vocabulary, max_target_positions: positions } = model.config;
  const { prompts, languages, maxTokens } = options;
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_ARGUMENT', what);
  };
  if (prompts.length !== batch) refuse(`prompts: expected one for each of ${batch} items, got ${prompts.length}`);
  if (languages && languages.length !== batch) {
    refuse(`languages: expected one for each of ${batch} items, got ${languages.length}`);
  }
  if (!Number.isInteger(maxTokens) || maxTokens < 1) {
    refuse(`maxTokens: expected a whole number from 1, got ${maxTokens}`);
  }
  const limit = Math.min(maxTokens, positions);
  const length = prompts[0]?.length ?? 1;
  for (const [i, prompt] of prompts.entries()) {
    if (prompt.length !== length) {
      refuse(`prompts: expected all of one length, got ${length} tokens in item 0 and ${prompt.length} in item ${i}`);
    }
  }
  if (length < 1) refuse('prompts: expected at least one token, got none');
  if (length > limit) refuse(`prompts: expected at most ${limit} tokens (maxTokens, or the positions), got ${length}`);
  const check = (name: string, ids: readonly number[]): void => {
    const bad = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary);
    if (bad !== undefined) refuse(`${name}: expected token ids from 0 to ${vocabulary - 1}, got ${bad}`);
  };
  for (const prompt of prompts) check('prompts', prompt);
  const { suppress = [], suppressAtBegin = [] } = options;
  check('suppress', suppress);
  check('suppressAtBegin', suppressAtBegin);
  check('endOfText', [options.endOfText]);
  if (new Set([...suppress, ...suppressAtBegin]).size >= vocabulary) {
    refuse(`suppress: expected to leave a token to choose, got all ${vocabulary} of the vocabulary`);
  }
  return limit;
}

/** Throws ERR_INTERRUPTED once the signal is aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new DistilWhisperError('ERR_INTERRUPTED', 'decoding was interrupted before its end', {
      cause: signal.reason,
    });
  }
}
