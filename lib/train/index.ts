export { AdamW, type AdamWOptions } from './adamw.js';
export { type BatchSource, BatchUploader, type TrainBatch, type UploadedBatch } from './batch.js';
export { AudioBatches, type AudioBatchOptions, labelsOf } from './batches.js';
export type { Exchange } from './exchange.js';
export { fillCache } from './fill-cache.js';
export { type GateHistogram, type Randomness, skipDraws, softGates } from './gates.js';
export {
  type DistillationLossArguments,
  distillationLoss,
  gateBudgetLoss,
  lossWeights,
  lossWorkspace,
} from './losses.js';
export { OnnxTeacher, type OnnxTeacherFiles, onnxFilesOf, onnxTeacherFiles } from './onnx-teacher.js';
export { type TrainingOptions, trainingDefaults, trainingOptions } from './options.js';
export type { Pace } from './pace.js';
export {
  type HowToRun,
  type PlannedModels,
  planStream,
  type StepCost,
  type StepMemory,
  StepPlanner,
} from './planner.js';
export { RecallingBatches } from './recall.js';
export { RunFolder, type RunState, TEACHER_CACHE } from './run-folder.js';
export type { Extension } from './run-identity.js';
export { gateNoise, learningRate } from './schedule.js';
export { TrainingEngine, type UpdateReport } from './step.js';
export { cachedTeacher, checkTeacher, liveTeacher, noTeacher, type Taught, type Teacher } from './teacher.js';
export { type CacheSource, TeacherCache, teacherKeys } from './teacher-cache.js';
export { type RunReport, Trainer, type TrainerSettings, type ValidationReport } from './trainer.js';
