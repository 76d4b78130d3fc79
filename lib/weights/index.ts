/** Weights on disk: safetensors, Hugging Face model folders, expert files, PyTorch checkpoints. */
export {
  canonicalName,
  checkWeights,
  DEFAULT_SUPPRESSION,
  GATE_SIZE,
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
  writeFolderFile,
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
export { type OnnxFile, type OnnxValue, openOnnx } from './onnx.js';
export { type OpenAiModel, openAiName, openOpenAiModel, type SpecialIds } from './openai.js';
export {
  type AdapterFolder,
  adapterFiles,
  type LoraConfig,
  type LoraModule,
  linearModules,
  loraModules,
  loraTensorNames,
  openAdapter,
  writeAdapter,
} from './peft.js';
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
export { WEIGHTS_FILES } from './shards.js';
export { importTorchCheckpoint, type TorchCheckpoint } from './torch.js';
