/** Methods against each other: every cell trained and evaluated, and the reports. */
export {
  type BenchmarkResult,
  type BenchmarkSettings,
  benchmark,
  estimateBenchmark,
  planBenchmark,
} from './benchmark.js';
export type { CellPlan } from './plan.js';
export { benchmarkMarkdown } from './report.js';
export { type BenchmarkSpec, type MethodSpec, type RowsSpec, readBenchmark, WAYS } from './spec.js';
export type { BenchmarkComparison, BenchmarkCost, BenchmarkRow, BenchmarkSummary } from './summary.js';
