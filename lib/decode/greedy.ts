import type { Whisper } from '../model/index.js';
import type { Tensor } from '../tensor/index.js';
import { type DecodedSequence, EMPTY, extended, type Hypothesis, sequenceOf } from './hypothesis.js';
import { checkOptions, type DecodingOptions, measuredItems, throwIfAborted } from './options.js';
import { TokenSteps } from './token-steps.js';

export type GreedyOptions = DecodingOptions;

/**
 * Greedy decoding of a batch: every item goes on by its likeliest token. features f32 [B, mels, frames]; one sequence an item
 * comes back. A step's tensors go after every token: those of the caller on this stream, `features` included, are gone after
 * the call. Calls on the same stream may overlap.
 * Errors: ERR_ARGUMENT (prompts, languages, token ids, maxTokens), ERR_SHAPE (features), ERR_INTERRUPTED, ERR_KERNEL (NaN).
 */
export async function greedy(model: Whisper, features: Tensor, options: GreedyOptions): Promise<DecodedSequence[]> {
  const limit = checkOptions(model, features.shape[0] ?? 0, options);
  const { prompts, endOfText, signal } = options;
  const measured = measuredItems(model, options);
  const items: Hypothesis[] = prompts.map(() => EMPTY);
  const steps = new TokenSteps(model, features, options, 1, 1);
  try {
    let ids: number[] | null = null;
    for (let length = prompts[0]?.length ?? 0; length < limit && items.some((item) => !item.finished); length++) {
      throwIfAborted(signal);
      const said = items.map(({ tokens }) => tokens);
      const proposals = await steps.next(ids && { ids, parents: null, said });
      for (const [i, item] of items.entries()) {
        if (!item.finished) items[i] = extended(item, proposals, i, 0, endOfText);
      }
      ids = items.map(({ finished, tokens }) => (finished ? model.config.pad_token_id : tokens.at(-1)!));
    }
  } finally {
    steps.dispose();
  }
  return items.map((item, i) => sequenceOf(item, measured[i]!));
}
