export { type CountedWork, countWork } from './count.js';
export { Profile, type ProfileOptions } from './profile.js';
export { type EndOfWork, onLane, onThread, phase, recording, streamClosed, streamOpened } from './recorder.js';
export { type KernelSummary, type ProfileReport, readProfile, type StreamSummary } from './report.js';
