/**
 * The kernels: a function for each operation of the addon, and the only place that knows in which order it takes tensors and
 * numbers. Arguments and results have names, those of the addon's messages with abbreviations written out. A call is queued on its
 * stream and returns at once with its results; `dx` is the gradient of x, and where a tensor is written in place the docstring says
 * so. Nothing is recorded on a tape: that is ops.ts.
 *
 * Errors of all, thrown at the call and naming the argument, what was expected and what came: ERR_SHAPE, ERR_DTYPE, ERR_ARGUMENT (a
 * number out of range, a frozen tensor to be written), ERR_DISPOSED, ERR_STREAM, ERR_OUT_OF_MEMORY, and ERR_CUDA where a device
 * has no such kernel. What only the data show (an id out of range) rejects the next read.
 */
export * from './attention.js';
export * from './audio.js';
export * from './convolution.js';
export * from './decode.js';
export * from './decoder-layer.js';
export type * from './experts.js';
export * from './gated-ffn.js';
export * from './linear.js';
export * from './loss.js';
export * from './norm.js';
export * from './optimizer.js';
export * from './random.js';
export * from './rows.js';
