/** When the parts of a row's text are spoken. */
import { DistilWhisperError } from '../errors/index.js';
import { parseJson, TextError } from '../files/index.js';

/** A part of an utterance; times in seconds from the start of its audio. */
export interface TextSegment {
  start: number;
  end: number;
  text: string;
}

const fault = (what: string): DistilWhisperError => new DistilWhisperError('ERR_MANIFEST', `segments: ${what}`);

/** A list of segments as a manifest has it: start, end and text of each, or JSON of that; undefined where there is none. Throws ERR_MANIFEST. */
export function parseSegments(value: unknown): TextSegment[] | undefined {
  let list = value;
  if (typeof list === 'string' && list.trim() !== '') {
    try {
      list = parseJson(list);
    } catch (error) {
      throw error instanceof TextError ? fault(`expected a list, got ${error.message}`) : error;
    }
  }
  if (list === undefined || list === null || list === '') return undefined;
  if (!Array.isArray(list) || list.length === 0) throw fault('expected a list of at least one');
  let before = 0;
  return list.map((one: Partial<TextSegment> | null, i) => {
    const { start, end, text } = one ?? {};
    if (typeof start !== 'number' || typeof end !== 'number' || typeof text !== 'string')
      throw fault(`expected start and end in seconds and text of each, got ${JSON.stringify(one)?.slice(0, 80)}`);
    if (!(start >= before && end >= start && end < Number.POSITIVE_INFINITY))
      throw fault(`expected times that go forward from ${before} s on, got ${start} to ${end} s as number ${i + 1}`);
    before = end;
    return { start, end, text };
  });
}

/**
 * The segments with the very characters that the text has of each, the white space before it included: joined they are the text. Those of
 * white space alone are left out. Throws ERR_MANIFEST where they are not the text.
 */
export function alignedSegments(text: string, segments: readonly TextSegment[]): TextSegment[] {
  const aligned: TextSegment[] = [];
  let at = 0;
  for (const segment of segments) {
    const words = segment.text.normalize('NFC').trim();
    if (words === '') continue;
    const rest = text.slice(at);
    const space = rest.length - rest.trimStart().length;
    if (!rest.startsWith(words, space))
      throw fault(
        `expected their texts, one behind the other, to be the row's, got ${JSON.stringify(words.slice(0, 40))} where it has ${JSON.stringify(rest.trimStart().slice(0, 40))}`,
      );
    const end = at + space + words.length;
    aligned.push({ ...segment, text: text.slice(at, end) });
    at = end;
  }
  const left = text.slice(at).trim();
  if (left !== '')
    throw fault(`expected their texts to be all of the row's, which ends with ${JSON.stringify(left.slice(0, 40))}`);
  return aligned;
}
