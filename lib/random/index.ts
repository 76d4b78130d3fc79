/** Randomness as a function of what it is drawn for: never a state. */
export { permutation, philox4x32 } from './philox.js';
export { GATE_STREAMS, layerStream, SKIP_STREAM } from './streams.js';
