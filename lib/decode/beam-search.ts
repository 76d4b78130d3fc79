import { DistilWhisperError } from '../errors/index.js';
import type { Whisper } from '../model/index.js';
import type { Tensor } from '../tensor/index.js';
import { Beams } from './beams.js';
import { type DecodedSequence, sequenceOf } from './hypothesis.js';
import { checkOptions, type DecodingOptions, measuredItems, throwIfAborted } from './options.js';
import { type NextTokens, TokenSteps } from './token-steps.js';

/** Beams of an item: each proposes a token more than there are beams, and the kernel finds 32. */
const MOST_BEAMS = 31;

export interface BeamOptions {
  /** Sequences of an utterance that are followed, 1 to 31; with 1 (and patience 1) the search is greedy. */
  beamSize: number;
  /** The search ends when this many times `beamSize` sequences have (Kasai et al. 2022). Default 1. */
  patience?: number | undefined;
  /** α, 0 to 1: the likeliest by ((5 + length) / 6)^α (Wu et al. 2016). Default: by the length. */
  lengthPenalty?: number | undefined;
}

export interface BeamSearchOptions extends DecodingOptions, BeamOptions {}

/**
 * Beam search for a batch, all beams of all items in one pass over the weights, the encoder's keys and values of an item read
 * once for its beams. features f32 [B, mels, frames]; the likeliest sequence of each item that was found comes back. The rules are
 * those of OpenAI's Whisper: every beam proposes `beamSize` + 1 tokens, the candidates of an item are ranked by the sum of their
 * log-probabilities, and at the token limit unfinished beams fill up the finished ones.
 * A step's tensors go after every token: those of the caller on this stream, `features` included, are gone after the call. Calls
 * on the same stream may overlap.
 * Errors: ERR_ARGUMENT (beamSize, patience, lengthPenalty, and as `greedy`), ERR_SHAPE, ERR_INTERRUPTED, ERR_KERNEL.
 */
export async function beamSearch(
  model: Whisper,
  features: Tensor,
  options: BeamSearchOptions,
): Promise<DecodedSequence[]> {
  const limit = checkOptions(model, features.shape[0] ?? 0, options);
  const capacity = checkBeams(options);
  const { vocab_size: vocabulary, pad_token_id: padding } = model.config;
  const { prompts, endOfText, beamSize, lengthPenalty, signal } = options;
  const measured = measuredItems(model, options);
  const items = prompts.map(() => new Beams(beamSize, capacity, endOfText));
  const steps = new TokenSteps(model, features, options, beamSize, Math.min(beamSize + 1, vocabulary));
  try {
    let next: NextTokens | null = null;
    for (let length = prompts[0]?.length ?? 0; length < limit && items.some((item) => !item.done); length++) {
      throwIfAborted(signal);
      const proposals = await steps.next(next);
      for (const [i, item] of items.entries()) if (!item.done) item.advance(proposals, i * beamSize);
      const rows = items.map((item) => item.rows(padding));
      const parents = rows.flatMap((row) => row.parents);
      const moved = parents.some((parent, row) => parent !== row % beamSize);
      const said = rows.flatMap((row) => row.said);
      next = { ids: rows.flatMap((row) => row.ids), parents: moved ? parents : null, said };
    }
  } finally {
    steps.dispose();
  }
  return items.map((item, i) => sequenceOf(item.best(lengthPenalty), measured[i]!));
}

/** Returns how many sequences of an item end its search. Errors: ERR_ARGUMENT. */
export function checkBeams({ beamSize, patience = 1, lengthPenalty }: BeamOptions): number {
  const refuse = (what: string): never => {
    throw new DistilWhisperError('ERR_ARGUMENT', what);
  };
  if (!Number.isInteger(beamSize) || beamSize < 1 || beamSize > MOST_BEAMS) {
    refuse(`beamSize: expected a whole number from 1 to ${MOST_BEAMS}, got ${beamSize}`);
  }
  const capacity = Math.round(beamSize * patience);
  if (!(patience > 0 && capacity >= 1 && capacity < Number.POSITIVE_INFINITY)) {
    refuse(`patience: expected a finite number with a round(beamSize · patience) of at least 1, got ${patience}`);
  }
  if (lengthPenalty !== undefined && !(lengthPenalty >= 0 && lengthPenalty <= 1)) {
    refuse(`lengthPenalty: expected a number from 0 to 1, got ${lengthPenalty}`);
  }
  return capacity;
}
