/** A transcript as `transcribe` writes it, and where. */
import { join, parse } from 'node:path';
import { formatSrt, formatTimed, formatVtt, type Transcript } from '../decode/index.js';
import { DistilWhisperError } from '../errors/index.js';
import { checkOutputFile, isFolder } from './options.js';

export const FORMATS = ['text', 'srt', 'vtt'] as const;
export type Format = (typeof FORMATS)[number];

/** As text, `lead` stands before each line. */
export function formatTranscript(
  { text, segments }: Transcript,
  { format, timestamps = false }: { format: Format; timestamps?: boolean },
  lead = '',
): string {
  if (format === 'srt') return formatSrt(segments);
  if (format === 'vtt') return formatVtt(segments);
  const lines = timestamps ? segments.map(formatTimed) : [text];
  return lines.map((line) => `${lead}${line}\n`).join('');
}

/**
 * The file that each transcript goes to; null: all go to one place. Subtitles of several audio files are as many files, named as
 * those, in the folder `output`. What could not be written is refused. Errors: ERR_ARGUMENT, ERR_FILE_WRITE.
 */
export async function outputFiles(
  files: readonly string[],
  format: Format,
  output: string | undefined,
): Promise<string[] | null> {
  if (format === 'text' || output === undefined || !(await isFolder(output))) {
    if (format !== 'text' && files.length > 1) {
      const place = output === undefined ? 'no --output' : `--output ${output}`;
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `--format ${format}: expected one file, or an existing folder as --output, got ${files.length} files and ${place}`,
      );
    }
    await checkOutputFile(output);
    return null;
  }
  const paths = files.map((file) => join(output, `${parse(file).name}.${format}`));
  for (const [i, path] of paths.entries()) {
    const first = paths.indexOf(path);
    if (first < i) {
      throw new DistilWhisperError(
        'ERR_ARGUMENT',
        `--output: expected files of different names, got ${files[first]} and ${files[i]}, which would both be ${path}`,
      );
    }
    await checkOutputFile(path);
  }
  return paths;
}
