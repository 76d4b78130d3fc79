/** Transcripts as the files that players read, in the forms of OpenAI's Whisper. */
import type { TimedText } from './segments.js';

/** SubRip: numbered, hours always there, a comma before the milliseconds. */
export function formatSrt(segments: readonly TimedText[]): string {
  return segments
    .map((segment, i) => `${i + 1}\n${cue(segment, srtTime)}\n${oneLine(segment.text).replaceAll('-->', '->')}\n\n`)
    .join('');
}

/** WebVTT (W3C): a header, hours where there are any, a dot before the milliseconds, and `&`, `<` and `>` as entities. */
export function formatVtt(segments: readonly TimedText[]): string {
  const escaped = (text: string): string =>
    text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
  return `WEBVTT\n\n${segments.map((segment) => `${cue(segment, vttTime)}\n${escaped(oneLine(segment.text))}\n\n`).join('')}`;
}

/** A line for people: `[00:00.000 --> 00:03.200]  text`. */
export function formatTimed(segment: TimedText): string {
  return `[${cue(segment, vttTime)}]  ${oneLine(segment.text)}`;
}

/** A cue lasts a millisecond at least: WebVTT has none that do not, and players skip them. */
function cue({ start, end }: TimedText, time: (milliseconds: number) => string): string {
  const [from, to] = [Math.round(start * 1000), Math.round(end * 1000)];
  return `${time(from)} --> ${time(Math.max(from + 1, to))}`;
}

const pad = (value: number, digits = 2): string => String(value).padStart(digits, '0');

function srtTime(milliseconds: number): string {
  return `${pad(Math.floor(milliseconds / 3_600_000))}:${minutes(milliseconds, ',')}`;
}

function vttTime(milliseconds: number): string {
  const hours = milliseconds >= 3_600_000 ? `${pad(Math.floor(milliseconds / 3_600_000))}:` : '';
  return hours + minutes(milliseconds, '.');
}

function minutes(milliseconds: number, point: string): string {
  const seconds = Math.floor(milliseconds / 1000);
  return `${pad(Math.floor(seconds / 60) % 60)}:${pad(seconds % 60)}${point}${pad(milliseconds % 1000, 3)}`;
}

/** A blank line would end a cue. */
export const oneLine = (text: string): string =>
  text
    .split(/[\r\n]+/)
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .join(' ');
