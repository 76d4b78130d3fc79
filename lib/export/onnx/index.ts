/** Models as files of ONNX. */
export type { OnnxDtype, OnnxWeights } from './builder.js';
export type { Graph } from './graph.js';
export { crossGraph, decoderStepGraph, encoderGraph, mergedDecoderGraph, type OnnxModel } from './whisper.js';
