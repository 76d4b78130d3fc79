/** Models in other programs' files. */
export {
  type Converted,
  type ConvertOptions,
  type ConvertProgress,
  convert,
  FORMAT_TYPES,
  type ModelFormat,
} from './convert.js';
export { plainFields, preprocessorOf } from './source.js';
export type { WeightType } from './tensors.js';
