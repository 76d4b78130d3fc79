import type { Proposals } from './token-steps.js';

export interface DecodedSequence {
  /** The tokens chosen, without prompt and end; timestamps included. */
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

/** A sequence as far as a search has come with it. */
export interface Hypothesis {
  /** Without prompt and end. */
  readonly tokens: readonly number[];
  readonly logProbability: number;
  readonly finished: boolean;
  /** Gates that it has been through, and those of them that chose the expert. */
  readonly gates: number;
  readonly open: number;
}

/** What every sequence begins as. */
export const EMPTY: Hypothesis = { tokens: [], logProbability: 0, finished: false, gates: 0, open: 0 };

/** The sequence of row `row` with its proposal `choice` behind it. */
export function extended(
  { tokens, logProbability, gates, open }: Hypothesis,
  proposals: Proposals,
  row: number,
  choice: number,
  endOfText: number,
): Hypothesis {
  const at = row * proposals.count + choice;
  const id = proposals.ids[at]!;
  const finished = id === endOfText;
  return {
    tokens: finished ? tokens : [...tokens, id],
    logProbability: logProbability + proposals.logProbabilities[at]!,
    finished,
    gates: gates + proposals.gates,
    open: open + proposals.open[row]!,
  };
}

/** The sequence of an item whose gates were `measured` or not. */
export function sequenceOf(hypothesis: Hypothesis, measured: boolean): DecodedSequence {
  const { tokens, logProbability, finished, gates, open } = hypothesis;
  const chosen = tokens.length + (finished ? 1 : 0);
  return {
    tokens: [...tokens],
    logProbability,
    averageLogProbability: chosen > 0 ? logProbability / chosen : 0,
    finished,
    gateShare: measured && gates > 0 ? open / gates : null,
  };
}
