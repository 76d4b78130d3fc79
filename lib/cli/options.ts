/** Options that several commands have, their parsers, and the ends of their help. */
import { stat } from 'node:fs/promises';
import { type Command, InvalidArgumentError, Option } from 'commander';
import { type BadRow, BadRowsError, listRows } from '../data/index.js';
import type { ComputeType } from '../model/index.js';
import { isCudaDevice } from '../native/index.js';
import { typeName } from '../tensor/index.js';

/** A whole number of at least `least`. */
export const whole =
  (least: number) =>
  (text: string): number => {
    const value = Number(text);
    if (/^\d+$/.test(text) && Number.isSafeInteger(value) && value >= least) return value;
    throw new InvalidArgumentError(`Expected a whole number of at least ${least}.`);
  };

/** 'auto', or what `read` makes of the text. */
export const autoOr =
  <T>(read: (text: string) => T) =>
  (text: string): T | 'auto' =>
    text === 'auto' ? text : read(text);

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
    'go on without the rows that cannot be used, and tell how many (default: with --data, unless --strict)',
  );

export const strictOption = (): Option =>
  new Option(
    '--strict',
    'refuse rows that cannot be used, and audio that is unusual or damaged but could be decoded (default: leave out, and warn)',
  );

export const maxDurationOption = (): Option =>
  new Option('--max-duration <seconds>', 'refuse audio that lasts longer (default: 86400, a day)').argParser(positive);

/** What the two say, as the API takes it. */
export const audioOptions = ({ strict, maxDuration }: { strict?: boolean; maxDuration?: number }) => ({
  strict,
  maxDuration,
});

/** Whether bad rows are left out: a corpus is as others made it, a manifest is one's own. */
export const leavesOut = ({
  skipBad,
  data,
  strict,
}: {
  skipBad?: boolean;
  data?: unknown;
  strict?: boolean;
}): boolean => skipBad ?? (data !== undefined && !strict);

/** Runs `work`; where bad rows end it that could have been left out, the error says what the option is for. */
export async function hintingSkipBad<T>(
  options: { skipBad?: boolean; data?: unknown; strict?: boolean },
  work: () => Promise<T>,
): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof BadRowsError) || leavesOut(options)) throw error;
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

/** What may stand for a data set, for the ends of help texts. */
export const DATA =
  'A data set is a release of Common Voice (cv-corpus-13.0/ca), FLEURS (data/ca_es, wavs unpacked or in their tar.gz), parquet with embedded\n' +
  'audio, a folder of audio with metadata.csv or metadata.jsonl, packed shards (distilwhisper prepare), or a manifest, or the\n' +
  'name of a data set of the hub (org/name), of which the parquet files of the wanted splits and languages are fetched. What it is, is told by what lies\n' +
  'there; cv:, fleurs:, parquet:, audiofolder:, packed: or manifest: before the path says it. Splits may stand behind it, as in ca#train or\n' +
  'ca#train+dev, and how often its rows come in an epoch, as in ca#train:0.5.';

/** What a manifest may be, for the ends of help texts. */
export const MANIFESTS =
  'A manifest is JSON lines, a JSON array, TSV or CSV with the columns audio (or path, file_name), text (or sentence,\n' +
  'transcription) and language (or locale; where no row has one, that of --language), or the tables of Common Voice and FLEURS\n' +
  'as they are downloaded.';

/** An option that names a type. */
export function typeOption<N extends string>(
  flags: string,
  meaning: string,
  names: readonly N[],
  otherwise: N,
): Option {
  const option = new Option(flags, meaning).choices(names).default(otherwise);
  const check = option.parseArg!;
  return option.argParser((text) => check(typeName(text), undefined));
}

/** The type that computes, one of `names`. */
export const computeTypeOption = (names: readonly ComputeType[], otherwise: ComputeType, meaning: string): Option =>
  typeOption('--compute-type <type>', meaning, names, otherwise);

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

export const offlineOption = (): Option =>
  new Option('--offline', 'fetch nothing: take what names stand for from the cache (as HF_HUB_OFFLINE=1 does)');

/** What names are, for the ends of help texts. */
export const NAMES =
  'A model is a folder in Hugging Face layout, a name of the hub (org/name, org/name@revision), or a size of Whisper (tiny, base,\n' +
  'small, medium, large-v2, large-v3, turbo, small.en, …: openai/whisper-…); an expert is a file, a run folder or a name. Names are\n' +
  "fetched once, into the cache that Python's huggingface_hub shares (HF_HOME, HF_HUB_CACHE); HF_TOKEN is for what is private,\n" +
  'HF_ENDPOINT for another hub. A folder of that name here comes first.';

/** Whether there is a folder of this name. */
export const isFolder = (path: string): Promise<boolean> =>
  stat(path).then(
    (kind) => kind.isDirectory(),
    () => false,
  );
