export type { Isa } from '../native/index.js';
export { Stream, type StreamOptions } from './stream.js';
export {
  bf16ToFloat32,
  bytesPerElement,
  type DType,
  dtypeNumber,
  dtypes,
  type FloatType,
  Tensor,
  type TensorData,
} from './tensor.js';
