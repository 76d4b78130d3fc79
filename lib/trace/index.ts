export {
  type EndOfWork,
  onLane,
  onThread,
  type ProfiledStream,
  phase,
  Recorder,
  recording,
  setRecorder,
  streamClosed,
  streamOpened,
} from './recorder.js';
export { TraceFile } from './trace-file.js';
