export { checkAudio } from './check.js';
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
export { formatColumns } from './table.js';
