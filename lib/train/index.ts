export { AudioBatches, type AudioBatchOptions, labelsOf } from './batches.js';
export { checkTeacher, type Randomness, type TrainBatch, TrainingEngine, type UpdateReport } from './engine.js';
export { learningRate, lossWorkspace, type TrainingOptions, trainingDefaults, trainingOptions } from './options.js';
export { RunFolder, type RunState } from './run-folder.js';
export { type BatchSource, type RunReport, Trainer, type TrainerSettings, type ValidationReport } from './trainer.js';
