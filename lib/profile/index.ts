export {
  type CeilingName,
  type CeilingOptions,
  type Ceilings,
  measureCeiling,
  measureCeilings,
} from './ceilings.js';
export { type CountedWork, countWork } from './count.js';
export { Profile, type ProfileOptions } from './profile.js';
export { type KernelSummary, type ProfileReport, readProfile, type StreamSummary } from './report.js';
