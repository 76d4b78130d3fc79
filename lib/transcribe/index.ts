/** From audio to transcripts. */
export { type Decoding, decodingOf } from './decoding.js';
export { type DetectedLanguage, detectLanguage } from './language.js';
export type { TranscribeOptions, TranscribeProgress, TranscriberOptions } from './options.js';
export type { TimedText } from './segments.js';
export type { AudioSamples, AudioSource } from './sources.js';
export { formatSrt, formatTimed, formatVtt, oneLine } from './subtitles.js';
export { Transcriber } from './transcriber.js';
export type { Transcript, TranscriptSegment } from './transcript.js';
export { cutWindows, type Window } from './windows.js';
