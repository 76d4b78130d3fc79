export {
  type BenchmarkComparison,
  type BenchmarkCost,
  type BenchmarkResult,
  type BenchmarkRow,
  type BenchmarkSettings,
  type BenchmarkSpec,
  type BenchmarkSummary,
  benchmark,
  benchmarkMarkdown,
  type CellPlan,
  estimateBenchmark,
  type MethodSpec,
  planBenchmark,
  type RowsSpec,
  readBenchmark,
  WAYS,
} from './benchmark/index.js';
export {
  type CacheTeacherPlan,
  type CacheTeacherRecipe,
  type CacheTeacherResult,
  cacheTeacher,
} from './cache-teacher.js';
export { compareFiles, readHypotheses } from './compare.js';
export {
  DEMO_EPOCHS,
  DEMO_LANGUAGE,
  DEMO_OPTIONS,
  type DemoResult,
  type DemoRow,
  type DemoSettings,
  type DemoStage,
  demo,
  embedded,
  formatDemo,
} from './demo.js';
export { exportOnnx, type OnnxExport, type OnnxExportOptions } from './export-onnx.js';
export { memoryParts } from './plan.js';
export { type PushResult, type PushSettings, push } from './push.js';
export {
  type BatchPlan,
  gibibytes,
  type MemoryPlan,
  recipeDefaults,
  type SaveType,
  saveTypes,
  type TeacherKind,
  type TimePlan,
  type TrainMethod,
  type TrainPlan,
  type TrainRecipe,
  type TrainResult,
} from './recipe.js';
export { planTraining, train } from './train.js';
