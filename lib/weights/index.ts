/** Weights on disk: safetensors, Hugging Face model folders, expert files, PyTorch checkpoints. */
export {
  canonicalName,
  checkWeights,
  DEFAULT_SUPPRESSION,
  parseWhisperConfig,
  type Side,
  suppressionList,
  type TensorInfos,
  type WhisperConfig,
  type WhisperSize,
  whisperConfigJson,
  whisperPreset,
  whisperTensorShapes,
} from './config.js';
export {
  type ClsrSplit,
  checkExpert,
  type Expert,
  type ExpertFile,
  type ExpertLayerNames,
  expertFileName,
  expertLayerNames,
  expertTensorNames,
  GATE_SIZE,
  openExpert,
  readExpert,
  splitClsrCheckpoint,
  writeExpert,
} from './experts.js';
export {
  type FolderFile,
  type ModelFolder,
  type ModelFolderContent,
  openModelFolder,
  type WriteFolderOptions,
  writeModelFolder,
} from './folder.js';
export { unfollowedSettings } from './generation.js';
export {
  DTYPE_BYTES,
  type FloatDtype,
  fromFloat32,
  type HostDtype,
  type HostTensor,
  type MappedTensor,
  type StoredTensor,
  type TensorInfo,
  toFloat32,
} from './host.js';
export {
  openSafetensors,
  parseSafetensors,
  type SafetensorsFile,
  serializeSafetensors,
  type TensorSource,
  type WeightEntry,
  weightEntries,
  writeSafetensors,
} from './safetensors.js';
export { importTorchCheckpoint, type TorchCheckpoint } from './torch.js';
