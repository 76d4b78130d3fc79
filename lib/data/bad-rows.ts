/** Rows of a manifest that cannot be used: gathered, so that all of them are told at once. */
import { DistilWhisperError, type ErrorCode, isDistilWhisperError } from '../errors/index.js';

/** A row that cannot be used, and why. */
export interface BadRow {
  manifest: string;
  /** 1-based line in the manifest. */
  line: number;
  code: ErrorCode;
  /** A sentence on one line: what was expected and what came. */
  reason: string;
}

/** Rows that are named one by one; of the others the number is told. */
const LISTED = 20;

/**
 * Bad rows that nobody asked to leave out. Its code is theirs where they have one in common, else ERR_MANIFEST; the message names
 * the first twenty, `rows` has all.
 */
export class BadRowsError extends DistilWhisperError {
  readonly rows: readonly BadRow[];

  /** `hint` says how to go on without them, where that can be done. */
  constructor(rows: readonly BadRow[], hint?: string) {
    const [first, ...others] = rows;
    const end = hint === undefined ? '' : `; ${hint}`;
    const message =
      first && others.length === 0
        ? `${hint ? placed(first).replace(/\.$/, '') : placed(first)}${end}`
        : `${rows.length} bad rows${end}:\n${listRows(rows)}`;
    super(first && others.every(({ code }) => code === first.code) ? first.code : 'ERR_MANIFEST', message);
    this.rows = rows;
  }
}

/** The first rows with their reasons, a line each, and how many more there are. */
export function listRows(rows: readonly BadRow[]): string {
  const lines = rows.slice(0, LISTED).map((row) => `  ${placed(row)}`);
  if (rows.length > LISTED) lines.push(`  and ${(rows.length - LISTED).toLocaleString('en')} more`);
  return lines.join('\n');
}

const placed = ({ manifest, line, reason }: BadRow): string => `${manifest} line ${line}: ${reason}`;

/** The bad row that an error makes of an entry. */
export const badRow = (
  { manifest, line }: { manifest: string; line: number },
  error: { code: ErrorCode; message: string },
): BadRow => ({
  manifest,
  line,
  code: error.code,
  // A name or a text out of a file may hold anything: a reason stays one line that a terminal only shows.
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  reason: error.message.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, (c) => escaped(c)),
});

const escaped = (character: string): string => {
  const short = { '\n': '\\n', '\r': '\\r', '\t': '\\t' }[character];
  return short ?? `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
};

const BLAMES: ReadonlySet<ErrorCode> = new Set([
  'ERR_ARGUMENT',
  'ERR_FILE_NOT_FOUND',
  'ERR_FILE_READ',
  'ERR_LABEL_TOO_LONG',
  'ERR_LANGUAGE',
  'ERR_MANIFEST',
  'ERR_PACKED',
  'ERR_TOKENIZER',
]);

/** Whether an error that came up with a row is the row's own fault: neither the machine's nor an interruption. */
export const blamesRow = (error: unknown): error is DistilWhisperError =>
  isDistilWhisperError(error) && (error.code.startsWith('ERR_AUDIO_') || BLAMES.has(error.code));

/** In the order of the manifests and their lines. */
export function sortRows(rows: readonly BadRow[]): BadRow[] {
  const manifests = [...new Set(rows.map(({ manifest }) => manifest))];
  const order = ({ manifest }: BadRow): number => manifests.indexOf(manifest);
  return [...rows].sort((a, b) => order(a) - order(b) || a.line - b.line);
}
