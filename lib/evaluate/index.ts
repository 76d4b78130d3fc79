export { checkAudio } from './check.js';
export {
  type ComparedGroup,
  type CompareOptions,
  type Comparison,
  compare,
  formatComparison,
} from './compare.js';
export {
  defaultNormalizer,
  type ErrorCounts,
  type EvaluateOptions,
  type EvaluationGroup,
  type EvaluationReport,
  evaluate,
  type Hypothesis,
} from './evaluate.js';
export { formatHypotheses, formatTable, toJSON } from './format.js';
export { type Interval, mean, pairedBootstrap, studentQuantile, welchInterval } from './statistics.js';
export { formatColumns } from './table.js';
