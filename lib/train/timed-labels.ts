/** Labels that say when they are spoken. */
import { createHash } from 'node:crypto';
import type { ManifestEntry, TextSegment } from '../data/index.js';
import { DistilWhisperError } from '../errors/index.js';
import type { TimestampTokens } from '../text/index.js';

/**
 * Whether an utterance is one of the `share` whose labels have timestamps: a function of its id alone, so that what a teacher said of it serves runs
 * of any seed.
 */
export function isTimed(id: string, share: number): boolean {
  if (share >= 1) return true;
  return createHash('sha256').update(id).digest().readUInt32LE(0) / 2 ** 32 < share;
}

/**
 * The parts of an utterance's text with their times: as its table has them, or one from 0 to its end, `measured` seconds where its table does
 * not tell. Throws ERR_MANIFEST for times behind the model's window.
 */
export function timedText(
  { text, segments, duration }: Pick<ManifestEntry, 'text' | 'segments' | 'duration'>,
  window: number,
  measured: number,
): readonly TextSegment[] {
  if (!segments) return [{ start: 0, end: Math.min(duration ?? measured, window), text }];
  const { end } = segments.at(-1)!;
  if (end <= window + 1e-3) return segments;
  throw new DistilWhisperError(
    'ERR_MANIFEST',
    `segments: expected times within the model's window of ${window} s, got ${end} s`,
  );
}

/** Labels of an utterance that is heard at another speed: its timestamps come sooner, or later up to `last`. */
export function atSpeed(
  labels: readonly number[],
  speed: number,
  { begin, end }: TimestampTokens,
  last: number,
): number[] {
  if (speed === 1) return [...labels];
  const most = Math.min(end - 1, last);
  return labels.map((id) => (id >= begin && id < end ? Math.min(begin + Math.round((id - begin) / speed), most) : id));
}
