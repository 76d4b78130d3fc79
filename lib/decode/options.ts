/** What every search is asked for. */
import { DistilWhisperError } from '../errors/index.js';
import type { Whisper } from '../model/index.js';
import type { TimestampTokens } from '../text/index.js';
import { TimestampRules } from './timestamp-rules.js';

export interface DecodingOptions {
  /** Start sequence of each item, such as `tokenizer.prompt()` gives; all of one length, at least one token. */
  prompts: readonly (readonly number[])[];
  /** Lower-case language name of each item, whose expert it takes if the model has it. null: none. Default: no experts. */
  languages?: readonly (string | null)[] | undefined;
  /** Name of the adapter that the model takes; null: none. Default: its active one. */
  adapter?: string | null | undefined;
  /** Ids that are never chosen. */
  suppress?: readonly number[] | undefined;
  /** Ids that are not chosen right behind the prompt. */
  suppressAtBegin?: readonly number[] | undefined;
  endOfText: number;
  /**
   * Follow the rules of timestamps, which are where this says (`tokenizer.timestampTokens`): they are among the tokens of a
   * sequence then. The prompts must lack `<|notimestamps|>`. Default: no rules.
   */
  timestamps?: TimestampTokens | undefined;
  /** Tokens of a whole sequence, prompt and end included; the decoder's positions are the limit. */
  maxTokens: number;
  /** Measure the gates: fills in `gateShare`. Default false. */
  gateValues?: boolean | undefined;
  /** When aborted, decoding stops between two tokens with ERR_INTERRUPTED. */
  signal?: AbortSignal | undefined;
}

/** Whose gates are measured: items of a language that has an expert, where it is asked for. */
export const measuredItems = (model: Whisper, { prompts, languages, gateValues }: DecodingOptions): boolean[] =>
  prompts.map((_, i) => gateValues === true && model.experts.has(languages?.[i] ?? ''));

/** Returns the longest sequence that may come of it. */
export function checkOptions(model: Whisper, batch: number, options: DecodingOptions): number {
  const { vocab_size: vocabulary, max_target_positions: positions } = model.config;
  const { prompts, languages, maxTokens } = options;
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
  if (options.timestamps) checkTimestamps(options, options.timestamps, vocabulary);
  if (new Set([...suppress, ...suppressAtBegin]).size >= vocabulary) {
    refuse(`suppress: expected to leave a token to choose, got all ${vocabulary} of the vocabulary`);
  }
  return limit;
}

function checkTimestamps(options: DecodingOptions, tokens: TimestampTokens, vocabulary: number): void {
  const { suppress = [], suppressAtBegin = [], endOfText } = options;
  const { begin, end, noTimestamps } = tokens;
  const whole = [begin, end, noTimestamps].every(Number.isInteger);
  if (!(whole && endOfText < begin && begin < end && end <= vocabulary && noTimestamps >= 0 && noTimestamps < begin)) {
    refuse(
      `timestamps: expected noTimestamps and endOfText (${endOfText}) < begin < end ≤ ${vocabulary}, got ${JSON.stringify(tokens)}`,
    );
  }
  const suppressed = new Set([...suppress, ...suppressAtBegin]);
  const [, , first, behind] = new TimestampRules(tokens, endOfText).allowed([]);
  if (every(first, behind, (id) => suppressed.has(id))) {
    refuse(`suppress: expected to leave a timestamp to begin with, got all from ${first} to ${behind - 1}`);
  }
  const never = new Set([...suppress, noTimestamps]);
  if (every(0, begin, (id) => never.has(id))) {
    refuse(`suppress: expected to leave text to choose, got all ids below ${begin}, the first timestamp's`);
  }
}

function every(from: number, to: number, holds: (id: number) => boolean): boolean {
  for (let id = from; id < to; id++) if (!holds(id)) return false;
  return true;
}

/** Throws ERR_INTERRUPTED once the signal is aborted. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new DistilWhisperError('ERR_INTERRUPTED', 'decoding was interrupted before its end', {
      cause: signal.reason,
    });
  }
}

function refuse(what: string): never {
  throw new DistilWhisperError('ERR_ARGUMENT', what);
}
