import type { Parameter } from '../tensor/index.js';

/** What the ranks of a run, each of which trains on micro-batches of its own, tell each other. */
export interface Exchange {
  /** This rank's share of the labelled tokens that all ranks have in a micro-batch, of which `tokens` are its own. */
  share(tokens: number): number;
  /** Queues that the gradients become their sums over all ranks: before they are clipped, in the order of the parameters. */
  sum(parameters: readonly Parameter[]): void;
}

/** A run of one rank. */
export const oneRank: Exchange = { share: () => 1, sum: () => {} };
