/** The Hugging Face hub: names to folders, by a cache that Python's huggingface_hub shares; and uploads. */
export { TOKENIZER_FILES } from './choice.js';
export { repositoryOf, SIZES } from './names.js';
export {
  type HubOptions,
  type HubProgress,
  resolveAdapter,
  resolveDataset,
  resolveExperts,
  resolveModel,
} from './resolve.js';
export { checkRepositoryName, type UploadFile, type UploadOptions, upload } from './upload.js';
