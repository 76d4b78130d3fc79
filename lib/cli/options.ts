/** Options that several commands have, their parsers, and the ends of their help. */
import { stat } from 'node:fs/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type BadRow, BadRowsError, listRows } from '../data/index.js';
import { isCudaDevice } from '../native/index.js';

/** A whole number of at least `least`. */
export const whole =
  (least: number) =>
  (text: string): number => {
    const value = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= least) return value;
    throw new InvalidArgumentError(`Expected a whole number of at least ${least}.`);
  };

export function real(text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isFinite(value)) return value;
  throw new InvalidArgumentError('Expected a number.');
}

export function positive(text: string): number {
  const value = real(text);
  if (value > 0) return value;
  throw new InvalidArgumentError('Expected a number above 0.');
}

/** Two numbers with a comma between them. */
export function pair(text: string): [number, number] {
  const parts = text.split(',');
  if (parts.length === 2) return [real(parts[0]!), real(parts[1]!)];
  throw new InvalidArgumentError('Expected two numbers with a comma between them, such as 0.9,0.98.');
}

export const skipBadOption = (): Option =>
  new Option(
    '--skip-bad',
    'go on without the rows that cannot be used, and tell how many (default: refuse, naming all)',
  );

export const strictOption = (): Option =>
  new Option(
    '--strict',
    'refuse audio that is unusual or damaged but could be decoded (default: decode it, with a warning)',
  );

export const maxDurationOption = (): Option =>
  new Option('--max-duration <seconds>', 'refuse audio that lasts longer (default: 86400, a day)').argParser(positive);

/** What the two say, as the API takes it. */
export const audioOptions = ({ strict, maxDuration }: { strict?: boolean; maxDuration?: number }) => ({
  strict,
  maxDuration,
});

/** Runs `work`; where bad rows end it, the error says what the option is for. */
export async function hintingSkipBad<T>(skipBad: boolean | undefined, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof BadRowsError) || skipBad) throw error;
    throw new BadRowsError(error.rows, '--skip-bad goes on without them');
  }
}

/** What was left out, in words and a line each. */
export function leftOutNote(rows: readonly BadRow[]): string {
  const number = rows.length === 1 ? '1 bad row' : `${rows.length.toLocaleString('en')} bad rows`;
  return `${number} left out:\n${listRows(rows)}`;
}

export const audioRootOption = (): Option =>
  new Option('--audio-root <folder>', "where relative audio paths start from (default: the manifest's folder)");

/** What a manifest may be, for the ends of help texts. */
export const MANIFESTS =
  'A manifest is JSON lines, a JSON array, TSV or CSV with the columns audio (or path, file_name), text (or sentence,\n' +
  'transcription) and language (or locale; where no row has one, that of --language), or the tables of Common Voice and FLEURS\n' +
  'as they are downloaded.';

/** Types by the names that the command line has for them. */
const COMPUTE_TYPES = { auto: 'auto', fp32: 'f32', bf16: 'bf16', int8: 'int8' } as const;
type ComputeName = keyof typeof COMPUTE_TYPES;

/** The type that computes, one of `names`; it is read back by `computeType`. */
export const computeTypeOption = (names: readonly ComputeName[], otherwise: ComputeName, meaning: string): Option =>
  new Option('--compute-type <type>', meaning).choices(names).default(otherwise);

export const computeType = <N extends ComputeName>(name: N): (typeof COMPUTE_TYPES)[N] => COMPUTE_TYPES[name];

export const threadsOption = (): Option =>
  new Option('--threads <n>', 'threads (default: the processors that this process may use)').argParser(whole(1));

export const deviceOption = (): Option =>
  new Option('--device <device>', "where it computes: 'cpu', 'cuda' (the first GPU) or 'cuda:N'")
    .default('cpu')
    .argParser((text) => {
      if (text === 'cpu' || isCudaDevice(text)) return text;
      throw new InvalidArgumentError("Expected 'cpu', 'cuda' or 'cuda:N'.");
    });

export const copyWeightsOption = (): Option =>
  new Option(
    '--copy-weights',
    'read weights into memory instead of mapping their files: for files that others may write into or cut short while they are in use',
  );

export const jsonOption = (what: string): Option =>
  new Option('--json', `print ${what} as JSON on standard output; an error becomes {"error":{"code","message"}}`);

export const profileOption = (): Option =>
  new Option(
    '--profile <file>',
    "write a trace of where the time goes there, for https://ui.perfetto.dev and for 'distilwhisper profile'",
  );

export interface HelpEnd {
  examples: readonly string[];
  /** Replace the usual sentences. */
  exit?: Partial<Record<0 | 1 | 2 | 130, string>>;
  notes?: string;
}

const EXIT = {
  0: 'done',
  1: 'an input was refused, or the run failed; the message says why',
  2: 'wrong usage: an unknown command or option, a missing argument',
  130: 'interrupted by Ctrl-C (a second one quits at once)',
};

/** Examples, notes and exit codes below a command's options. */
export function endHelp(command: Command, { examples, exit, notes }: HelpEnd): void {
  const codes = Object.entries({ ...EXIT, ...exit }).map(([code, meaning]) => `  ${code.padEnd(4)} ${meaning}`);
  const parts = [
    ...(notes ? [notes] : []),
    `Examples:\n${examples.map((example) => `  ${example}`).join('\n')}`,
    `Exit codes:\n${codes.join('\n')}`,
  ];
  command.addHelpText('after', `\n${parts.join('\n\n')}`);
}

/** Whether there is a folder of this name. */
export const isFolder = (path: string): Promise<boolean> =>
  stat(path).then(
    (kind) => kind.isDirectory(),
    () => false,
  );
