/**
 * Which Philox stream (`op`, the last word of the counter) is drawn from for what: two draws of one seed and step never share
 * one. native/core/philox_streams.h says the same of what kernels draw.
 */

/** Which layers leave their expert out. */
export const SKIP_STREAM = 1;
/** How an item of a micro-batch is augmented: its number in the batch is the second word. */
export const AUGMENTATION_STREAMS = { speed: 2, noise: 3, timeMasks: 4, featureMasks: 5 } as const;
/** The noise itself of an item of a micro-batch, which a kernel draws; clear of the others. */
export const noiseStream = (item: number): number => 2 ** 24 + item;
/** Of one layer's gated FFN, from the layer's first stream on. */
export const GATE_STREAMS = { gateNoise: 0, gateMask: 1, expertMask: 2 } as const;

/** The first stream of a layer, encoder and decoder counted as one; clear of the others. */
export const layerStream = (layer: number): number => 1024 + 4 * layer;

/** The first stream of a new model's weights, and of a new expert's: a stream a tensor. Both are drawn once, with their own seed. */
export const BACKBONE_STREAM = 0;
export const EXPERT_STREAM = 1 << 16;

/** Of the adapter of a model's linear layer, by the layer's number: the first values of a new one, and the dropout of its input. */
export const ADAPTER_STREAMS = { start: 1 << 17, dropout: 1 << 18 } as const;

/**
 * Of the permutations of one epoch (`stream` of `permutation`, the second word of the counter): its order, that of its batches,
 * and, from the last on, those of each language's passes.
 */
export const SAMPLER_STREAMS = { order: 0, batches: 1, passes: 2 } as const;
