/** Randomness as a function of what it is drawn for: never a state. */
export { permutation, philox4x32, philoxKey, uniforms } from './philox.js';
export {
  ADAPTER_STREAMS,
  AUGMENTATION_STREAMS,
  BACKBONE_STREAM,
  EXPERT_STREAM,
  GATE_STREAMS,
  layerStream,
  noiseStream,
  SAMPLER_STREAMS,
  SKIP_STREAM,
} from './streams.js';
