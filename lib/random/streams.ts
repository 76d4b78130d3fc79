/**
 * Which Philox stream (`op`, the last word of the counter) training draws from for what: two draws of one seed and step never
 * share one. native/core/philox_streams.h says the same of what kernels draw.
 */

/** Which layers leave their expert out. */
export const SKIP_STREAM = 1;
/** Of one layer's gated FFN, from the layer's first stream on. */
export const GATE_STREAMS = { gateNoise: 0, gateMask: 1, expertMask: 2 } as const;

/** The first stream of a layer, encoder and decoder counted as one; clear of the others. */
export const layerStream = (layer: number): number => 1024 + 4 * layer;
