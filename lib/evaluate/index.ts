export {
  type ErrorCounts,
  type EvaluateOptions,
  type EvaluationGroup,
  type EvaluationReport,
  evaluate,
  type Hypothesis,
} from './evaluate.js';
export { formatTable, toJSON } from './format.js';
