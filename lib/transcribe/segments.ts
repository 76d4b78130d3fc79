import type { WhisperTokenizer } from '../text/index.js';

/** Text between two timestamps, in seconds from the start of the audio. */
export interface TimedText {
  start: number;
  end: number;
  text: string;
}

/**
 * What a window's `tokens` say between pairs of timestamps. Timestamps count from the window's `begin`; `begin` and `end` are in
 * seconds from the start of the audio, and no segment reaches beyond them: a timestamp behind the end (of a window that is
 * shorter than what the model hears) is the end. Text behind the last, unpaired, timestamp goes on to the end; what has no text
 * is left out.
 */
export function timedTexts(
  tokens: readonly number[],
  tokenizer: WhisperTokenizer,
  { begin, end }: { begin: number; end: number },
): TimedText[] {
  const segments: TimedText[] = [];
  let start = begin;
  let ids: number[] = [];
  const close = (at: number): void => {
    const text = tokenizer.decode(ids).trim();
    if (text !== '') segments.push({ start, end: at, text });
    ids = [];
  };
  for (const id of tokens) {
    if (!tokenizer.isTimestamp(id)) {
      ids.push(id);
      continue;
    }
    const at = Math.min(end, begin + tokenizer.timestampSeconds(id));
    close(at);
    start = at;
  }
  close(end);
  return segments;
}
