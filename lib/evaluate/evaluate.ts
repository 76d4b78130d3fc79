import {
  type BadRow,
  BadRowsError,
  badRow,
  blamesRow,
  Dataset,
  type ManifestEntry,
  type RowAudio,
  sortRows,
  type Task,
} from '../data/index.js';
import type { BeamOptions } from '../decode/index.js';
import { checkOptions, DistilWhisperError } from '../errors/index.js';
import { bleu, cer, chrf, extendedNormalizer, type Normalizer, wer } from '../text/index.js';
import type { TranscribeProgress, Transcriber, Transcript } from '../transcribe/index.js';
import { checkAudio } from './check.js';
import { groupsOf } from './groups.js';

/** Of the beam options `beamSize` is 1 by default: greedy decoding. */
export interface EvaluateOptions extends Partial<BeamOptions> {
  /** Utterances that are decoded together. Default: the transcriber's. */
  batchSize?: number | undefined;
  /** Applied to references and hypotheses before errors are counted. Default `defaultNormalizer`. */
  normalizer?: Normalizer | undefined;
  /** After every batch; `done` and `total` count utterances. */
  onProgress?: ((progress: TranscribeProgress) => unknown) | undefined;
  /** When aborted, the call rejects with ERR_INTERRUPTED. */
  signal?: AbortSignal | undefined;
  /** Run each language's expert where the model has one. Default true. */
  useExperts?: boolean | undefined;
  /** Go on without rows whose language or audio is refused, and report them. Default false: all of them in one error, first. */
  skipBad?: boolean | undefined;
  /** Rows of the same manifests that were refused before: they are told with the others. */
  badRows?: readonly BadRow[] | undefined;
  /** The audio was decoded before, so that it need not be tried before anything is transcribed. Default false. */
  checked?: boolean | undefined;
  /** Refuse audio that is unusual or damaged but could be decoded, instead of warning of it. Default false. */
  strict?: boolean | undefined;
  /** Refuse audio that lasts longer, in seconds. Default 86,400: a day. */
  maxDuration?: number | undefined;
  /** Audio that is unusual but was decoded; once for each that is. */
  onWarning?: ((audio: string, warning: string) => void) | undefined;
  /** While the audio is tried, which it is without `skipBad`. */
  onCheck?: ((done: number, total: number) => unknown) | undefined;
}

const OPTIONS: Record<keyof EvaluateOptions, true> = {
  batchSize: true,
  normalizer: true,
  onProgress: true,
  signal: true,
  useExperts: true,
  skipBad: true,
  badRows: true,
  checked: true,
  strict: true,
  maxDuration: true,
  onWarning: true,
  onCheck: true,
  beamSize: true,
  patience: true,
  lengthPenalty: true,
};

/** Errors over some utterances. Rates are fractions of sums (micro averages); they may exceed 1. */
export interface ErrorCounts {
  utterances: number;
  /** Of audio. */
  seconds: number;
  wer: number;
  cer: number;
  /** Words and characters of the normalised references, and the edits that the hypotheses need. */
  words: number;
  wordErrors: number;
  characters: number;
  characterErrors: number;
  /** Share of the gates that chose the expert, a mean over the utterances that one ran for; null when none did. */
  gateShare: number | null;
  /**
   * BLEU and chrF2 of translations, 0 to 100, of the texts as they are (`bleu` and `chrf` with their defaults, which are sacrebleu's);
   * null of what is transcribed.
   */
  bleu: number | null;
  chrf: number | null;
}

export interface EvaluationGroup extends ErrorCounts {
  /** Whisper's code. */
  language: string;
  /** The manifest's; empty where it gives none. */
  domain: string;
  task: Task;
}

export interface Hypothesis {
  id: string;
  /** That is spoken. */
  language: string;
  domain: string;
  /** Default 'transcribe'. */
  task?: Task | undefined;
  /** Both as they are, before the normaliser. */
  reference: string;
  hypothesis: string;
}

export interface EvaluationReport {
  /** By language, then domain, then task, in the order of their codes. */
  groups: EvaluationGroup[];
  /** Of all that was transcribed; of the translations where there is nothing else. */
  total: ErrorCounts;
  /** In the order of the entries. */
  hypotheses: Hypothesis[];
  /** Entries left out because the normaliser leaves nothing of their reference. */
  skipped: number;
  /** Rows left out: with `skipBad`; without it only those whose audio was lost after it had been tried. */
  badRows: readonly BadRow[];
  secondsTaken: number;
}

/** How the reference counts: its normaliser, letters of unspaced scripts apart. */
export const defaultNormalizer: Normalizer = extendedNormalizer({ splitLetters: true });

/** Utterances whose audio is in memory together, where it is read from an archive. */
const READ_AT_ONCE = 128;

function partsOf<T>(list: readonly T[], length: number): T[][] {
  if (list.length <= length) return [[...list]];
  const parts = Array.from({ length: Math.ceil(list.length / length) }, (_, i) => i * length);
  return parts.map((from) => list.slice(from, from + length));
}

interface Scored {
  entry: ManifestEntry;
  transcript: Transcript;
}

/**
 * Transcribes the rows of a data set or a manifest, each in its own language, or translates those whose task that is, and counts word and
 * character errors by language, domain and task; translations have BLEU and chrF too. Utterances of the same language and similar
 * length are decoded together; what is reported does not depend on that order.
 * Errors: ERR_ARGUMENT when no entry has a reference left after the normaliser; BadRowsError (ERR_LANGUAGE, those of
 * `decodeAudio`) for rows that cannot be used, with `skipBad` when none is left; those of `Transcriber.transcribe`.
 */
export async function evaluate(
  transcriber: Transcriber,
  data: Dataset | readonly ManifestEntry[],
  options: EvaluateOptions = {},
): Promise<EvaluationReport> {
  checkOptions('evaluate', options, OPTIONS);
  if (!(data instanceof Dataset) && !Array.isArray(data))
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `entries: expected a list of manifest entries or a data set, got ${typeof data}`,
    );
  const dataset = data instanceof Dataset ? data : Dataset.of(data);
  const entries = [...dataset.entries()];
  const numbers = new Map(entries.map((entry, row) => [entry, row]));
  const { normalizer = defaultNormalizer, onProgress, beamSize = 1, patience = 1, lengthPenalty } = options;
  const { skipBad = false, signal, strict = false, maxDuration, onWarning } = options;
  const decoding = { strict, maxDuration, signal };
  const start = performance.now();
  const bad = [...(options.badRows ?? [])];
  const rowOf = (entry: ManifestEntry): number => numbers.get(entry)!;
  const kept = entries.filter((entry) => normalizer(entry.text).trim() !== '');
  if (kept.length === 0 && bad.length === 0) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `entries: expected one with a text that the normaliser leaves something of, got none in ${entries.length}`,
    );
  }
  const runs = new Map<string, ManifestEntry[]>();
  for (const entry of kept) {
    // An unknown language is found before any audio is transcribed.
    try {
      transcriber.tokenizer.checkLanguage(entry.language);
    } catch (error) {
      if (!blamesRow(error)) throw error;
      bad.push(badRow(entry, error));
      continue;
    }
    const key = `${entry.language} ${entry.task ?? 'transcribe'}`;
    const run = runs.get(key);
    if (run) run.push(entry);
    else runs.set(key, [entry]);
  }
  if (!skipBad) {
    if (!options.checked) {
      const { onCheck: onProgress } = options;
      const tried = dataset.select([...runs.values()].flat().map(rowOf));
      bad.push(...(await checkAudio(tried, { ...decoding, onProgress })));
    }
    if (bad.length > 0) throw new BadRowsError(sortRows(bad));
  }
  const total = [...runs.values()].reduce((sum, run) => sum + run.length, 0);
  const transcripts = new Map<ManifestEntry, Transcript>();
  let [done, seconds] = [0, 0];
  // Where rows that lie together are read together they are taken in their order, some at a time.
  const atOnce = dataset.ordered ? READ_AT_ONCE : Number.POSITIVE_INFINITY;
  for (const part of [...runs.values()].flatMap((run) => partsOf(run, atOnce))) {
    // The text's length, not the audio's, says how many steps a batch takes: audio is padded to the window anyway.
    const sorted = [...part].sort((a, b) => b.text.length - a.text.length);
    const { language, task = 'transcribe' } = sorted[0]!;
    const before = { done, seconds };
    const heard: { entry: ManifestEntry; audio: RowAudio }[] = [];
    for (const entry of sorted) {
      try {
        heard.push({ entry, audio: await dataset.audio(rowOf(entry)) });
      } catch (error) {
        if (!blamesRow(error)) throw error;
        bad.push(badRow(entry, error));
      }
    }
    const found = await transcriber.transcribe(
      heard.map(({ audio }) => audio),
      {
        language,
        task,
        useExperts: options.useExperts,
        batchSize: options.batchSize,
        beamSize,
        patience,
        lengthPenalty,
        ...decoding,
        onProgress: (progress) =>
          onProgress?.({
            done: before.done + progress.done,
            total,
            seconds: before.seconds + progress.seconds,
          }),
        onError: (source, error) => {
          if (!blamesRow(error)) throw error;
          bad.push(badRow(heard[source]!.entry, error));
        },
      },
    );
    done += part.length;
    for (const [i, transcript] of found.entries()) {
      if (!transcript) continue;
      const { entry } = heard[i]!;
      transcripts.set(entry, transcript);
      seconds += transcript.duration;
      for (const warning of transcript.warnings) onWarning?.(entry.audio, warning);
    }
  }
  const badRows = sortRows(bad);
  if (transcripts.size === 0) throw new BadRowsError(badRows);
  const scored = kept.flatMap((entry): Scored[] => {
    const transcript = transcripts.get(entry);
    return transcript ? [{ entry, transcript }] : [];
  });
  const transcribed = scored.filter(({ entry }) => !isTranslation(entry));
  return {
    groups: groupsOf(scored, ({ entry }) => entry).map(({ members, ...group }) => ({
      ...group,
      ...count(members, normalizer),
    })),
    total: count(transcribed.length > 0 ? transcribed : scored, normalizer),
    hypotheses: scored.map(({ entry, transcript }) => ({
      id: entry.id,
      language: entry.language,
      domain: entry.domain ?? '',
      task: isTranslation(entry) ? 'translate' : undefined,
      reference: entry.text,
      hypothesis: transcript.text,
    })),
    skipped: entries.length - kept.length,
    badRows,
    secondsTaken: (performance.now() - start) / 1000,
  };
}

const isTranslation = ({ task }: { task?: Task | undefined }): boolean => task === 'translate';

/** Of one task. */
function count(scored: readonly Scored[], normalizer: Normalizer): ErrorCounts {
  const translated = isTranslation(scored[0]!.entry);
  const texts = scored.map(({ entry }) => entry.text);
  const heard = scored.map(({ transcript }) => transcript.text);
  const references = texts.map(normalizer);
  const hypotheses = heard.map(normalizer);
  const words = wer(references, hypotheses);
  const characters = cer(references, hypotheses);
  const shares = scored.flatMap(({ transcript }) => transcript.gateShare ?? []);
  return {
    utterances: scored.length,
    seconds: scored.reduce((sum, { transcript }) => sum + transcript.duration, 0),
    wer: words.rate,
    cer: characters.rate,
    words: words.length,
    wordErrors: words.errors,
    characters: characters.length,
    characterErrors: characters.errors,
    gateShare: shares.length > 0 ? shares.reduce((a, b) => a + b, 0) / shares.length : null,
    bleu: translated ? bleu(texts, heard).score : null,
    chrf: translated ? chrf(texts, heard).score : null,
  };
}
