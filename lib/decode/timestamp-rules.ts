import type { TimestampTokens } from '../text/index.js';

/** Steps of 0.02 s in the second in which what is said must begin (max_initial_timestamp of OpenAI's Whisper). */
const INITIAL_STEPS = 50;

/** Ids that a sequence may go on by: [text, textEnd) and [times, timesEnd). */
export type AllowedIds = [text: number, textEnd: number, times: number, timesEnd: number];

/**
 * What a sequence with timestamps may say next, by the rules of OpenAI's Whisper (whisper/decoding.py: ApplyTimestampRules):
 * a timestamp of the first second comes first; timestamps come in pairs, except right before the end of the text; they never
 * fall, and a segment that has begun ends later than that. That timestamps must be taken where they are likelier together than
 * every text token depends on the logits, and is done where those are (`top_k`).
 */
export class TimestampRules {
  constructor(
    private readonly tokens: TimestampTokens,
    private readonly endOfText: number,
  ) {}

  /** Ids that are allowed behind what was `said`, the prompt left out. */
  allowed(said: readonly number[]): AllowedIds {
    const { begin, end } = this.tokens;
    if (said.length === 0) return [begin, begin, begin, Math.min(end, begin + INITIAL_STEPS + 1)];
    const isTime = (id: number): boolean => id >= begin;
    const last = isTime(said.at(-1)!);
    const before = said.length < 2 || isTime(said.at(-2)!);
    // A segment has begun: text, or the end.
    if (last && before) return [0, begin, end, end];
    const latest = said.findLast(isTime) ?? begin - 1;
    // A segment has ended: the next begins, at its end at the earliest, or all does. Of the ids from the end of the text on only
    // that one is left by the usual suppression.
    if (last) return [this.endOfText, begin, latest, end];
    return [0, begin, Math.min(end, latest + 1), end];
  }
}
