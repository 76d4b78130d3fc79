/** Models as files of ONNX. */
export type { Graph } from './graph.js';
export {
  crossGraph,
  decoderStepGraph,
  encoderGraph,
  mergedDecoderGraph,
  type OnnxWeights,
  readValues,
  type Values,
} from './whisper.js';
