import { EMPTY, extended, type Hypothesis } from './hypothesis.js';
import type { Proposals } from './token-steps.js';

/**
 * The sequences of one utterance in a beam search, by the rules of OpenAI's Whisper (whisper/decoding.py: BeamSearchDecoder and
 * MaximumLikelihoodRanker): at most `size` go on, and the search is done when `capacity` have ended.
 */
export class Beams {
  /** Best first. At the beginning one: all beams would propose the same. */
  private live: readonly Hypothesis[] = [EMPTY];
  private parents: readonly number[] = [0];
  private readonly ended: Hypothesis[] = [];
  private stuck = false;

  constructor(
    private readonly size: number,
    private readonly capacity: number,
    private readonly endOfText: number,
  ) {}

  get done(): boolean {
    return this.stuck || this.ended.length >= this.capacity;
  }

  /** Goes on by the best of what its rows propose, of which `first` is the first. */
  advance(proposals: Proposals, first: number): void {
    const { logProbabilities, count } = proposals;
    const candidates: { beam: number; choice: number; sum: number }[] = [];
    for (const [beam, { logProbability }] of this.live.entries()) {
      for (let choice = 0; choice < count; choice++) {
        const sum = logProbability + logProbabilities[(first + beam) * count + choice]!;
        // Suppressed tokens are proposed where there are too few others.
        if (sum > Number.NEGATIVE_INFINITY) candidates.push({ beam, choice, sum });
      }
    }
    // Stable: of equals the better beam's comes first, then the lower id.
    candidates.sort((a, b) => b.sum - a.sum);
    const live: Hypothesis[] = [];
    const parents: number[] = [];
    for (const { beam, choice } of candidates) {
      const next = extended(this.live[beam]!, proposals, first + beam, choice, this.endOfText);
      if (next.finished) {
        if (this.ended.length < this.capacity) this.ended.push(next);
        continue;
      }
      live.push(next);
      parents.push(beam);
      if (live.length === this.size) break;
    }
    this.stuck = live.length === 0;
    if (candidates.length === 0) return;
    this.live = live;
    this.parents = parents;
  }

  /**
   * The last token of each of its rows, the row that it follows, and all that the row has said; rows without a beam follow
   * themselves and have said nothing.
   */
  rows(padding: number): { ids: number[]; parents: number[]; said: (readonly number[])[] } {
    const live = this.done ? [] : this.live;
    const rows = Array.from({ length: this.size }, (_, row) => row);
    return {
      ids: rows.map((row) => live[row]?.tokens.at(-1) ?? padding),
      parents: rows.map((row) => (live[row] ? this.parents[row]! : row)),
      said: rows.map((row) => live[row]?.tokens ?? []),
    };
  }

  /**
   * The likeliest sequence by its length, of those that ended and, where fewer than `size` have, of the best that did not: by the
   * log-probability per token, the end not counted, or with a penalty α by ((5 + length) / 6)^α (Wu et al. 2016).
   */
  best(lengthPenalty: number | undefined): Hypothesis {
    const missing = this.ended.length < this.capacity ? Math.max(0, this.size - this.ended.length) : 0;
    const score = ({ logProbability, tokens: { length } }: Hypothesis): number =>
      logProbability / (lengthPenalty === undefined ? Math.max(1, length) : ((5 + length) / 6) ** lengthPenalty);
    return [...this.ended, ...this.live.slice(0, missing)].reduce((a, b) => (score(b) > score(a) ? b : a));
  }
}
