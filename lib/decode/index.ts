export { type DecodedSequence, type GreedyOptions, greedy } from './greedy.js';
export { type DetectedLanguage, detectLanguage } from './language.js';
export {
  type AudioSamples,
  type AudioSource,
  type TranscribeOptions,
  type TranscribeProgress,
  Transcriber,
  type TranscriberOptions,
  type Transcript,
  type TranscriptSegment,
} from './transcriber.js';
export { cutWindows, type Window } from './windows.js';
