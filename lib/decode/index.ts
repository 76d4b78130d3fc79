/** Search: from features to tokens. */
export { type BeamOptions, type BeamSearchOptions, beamSearch, checkBeams } from './beam-search.js';
export { type GreedyOptions, greedy } from './greedy.js';
export type { DecodedSequence } from './hypothesis.js';
export { type DecodingOptions, throwIfAborted } from './options.js';
