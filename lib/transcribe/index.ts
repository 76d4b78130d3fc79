/** From audio to transcripts. */
export { type DetectedLanguage, detectLanguage } from './language.js';
export type { TimedText } from './segments.js';
export type { AudioSamples, AudioSource } from './sources.js';
export { formatSrt, formatTimed, formatVtt, oneLine } from './subtitles.js';
export {
  type TranscribeOptions,
  type TranscribeProgress,
  Transcriber,
  type TranscriberOptions,
  type Transcript,
  type TranscriptSegment,
} from './transcriber.js';
export { cutWindows, type Window } from './windows.js';
