export {
  type CeilingName,
  type CeilingOptions,
  type Ceilings,
  measureCeiling,
  measureCeilings,
} from './ceilings.js';
export { type CountedWork, countWork } from './count.js';
export { Profile, type ProfileOptions } from './profile.js';
export { readProfile } from './report.js';
export type { KernelSummary, PartSummary, ProfileReport, StreamSummary } from './summary.js';
