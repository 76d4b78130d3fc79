export type { Isa, NativeMemory } from '../native/index.js';
export * as kernels from './kernels/index.js';
export {
  type AttentionOptions,
  addPositions,
  attention,
  type DropOptions,
  drop,
  embedding,
  feedForward,
  gelu,
  LAYER_NORM_EPSILON,
  type LinearOptions,
  layerNorm,
  linear,
  linearGelu,
  type Pass,
  unfold,
} from './ops.js';
export { Parameter } from './parameter.js';
export { Recording } from './recording.js';
export { Stream, type StreamOptions } from './stream.js';
export { Tape } from './tape.js';
export {
  bf16ToFloat32,
  byteLength,
  type DType,
  dtypeNumber,
  dtypes,
  type FloatType,
  type MappedValues,
  type StepPart,
  stepParts,
  Tensor,
  type TensorData,
} from './tensor.js';
export { chosenType, elementType, type FloatName, typeName } from './type-names.js';
