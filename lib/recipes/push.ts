/** What a run has made, and a card that says what it is, to a repository of the hub. */
import { readdir, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { checkOptions, DistilWhisperError, fileReadError, shown } from '../errors/index.js';
import { isFile, isJsonObject, type JsonObject, readJsonObject } from '../files/index.js';
import { checkRepositoryName, type HubProgress, type UploadFile, upload } from '../hub/index.js';
import { LANGUAGES } from '../text/index.js';
import { expertFileName } from '../weights/index.js';
import { type CardRow, modelCard } from './model-card.js';

export interface PushSettings {
  /** Folder of a finished run. */
  run: string;
  /** The repository, "org/name"; it is made where it is not. */
  to: string;
  /** A new repository is private. Default: as its owner's settings say. */
  private?: boolean | undefined;
  /** Say what would be uploaded, and ask nobody. Default false. */
  dryRun?: boolean | undefined;
  /** What `evaluate --json` printed, for the card's table. Default: the run's evaluation.json, if there is one. */
  evaluation?: string | undefined;
  /** Repository of the model that the expert belongs to. Default: that of the name that the run was given. */
  baseModel?: string | undefined;
  signal?: AbortSignal | undefined;
  onProgress?: ((progress: HubProgress) => unknown) | undefined;
}

const SETTINGS: Record<keyof PushSettings, true> = {
  run: true,
  to: true,
  private: true,
  dryRun: true,
  evaluation: true,
  baseModel: true,
  signal: true,
  onProgress: true,
};

export interface PushResult {
  /** The repository's page; null for a dry run. */
  url: string | null;
  /** In the order of their names; sizes in bytes. */
  files: { path: string; bytes: number }[];
  /** The README.md. */
  card: string;
}

/**
 * Uploads the experts of a finished run, or with method 'lora' its adapter, with 'full' its model, with a model card, in one commit. Errors: ERR_ARGUMENT,
 * ERR_RUN (no run, an unfinished one, an evaluation that is none), ERR_FILE_NOT_FOUND, ERR_FILE_READ, and those
 * of the hub: ERR_HUB, ERR_HUB_ACCESS, ERR_HUB_OFFLINE, ERR_INTERRUPTED.
 */
export async function push(settings: PushSettings): Promise<PushResult> {
  checkOptions('push', settings, SETTINGS);
  const { run, to, dryRun = false, signal, onProgress } = settings;
  if (typeof run !== 'string' || run === '') {
    throw new DistilWhisperError('ERR_ARGUMENT', `run: expected the folder of a run, got ${shown(run)}`);
  }
  checkRepositoryName('to', to);
  if (settings.baseModel !== undefined) checkRepositoryName('baseModel', settings.baseModel);
  const { identity, report } = await readRun(run);
  const languages = languagesOf(report);
  const kind = identity.method === 'lora' ? 'adapter' : identity.method === 'full' ? 'model' : 'experts';
  if (kind === 'experts' && languages.length === 0)
    throw new DistilWhisperError('ERR_RUN', `${run}: expected the languages of its experts in report.json, got none`);
  const files: UploadFile[] =
    kind === 'experts'
      ? languages.map(expertOf).map((name) => ({ path: name, content: { file: join(run, name) } }))
      : await filesOf(join(run, kind));
  const sources = isJsonObject(report.sources) ? report.sources : {};
  const source = (name: string): string | null => (typeof sources[name] === 'string' ? sources[name] : null);
  const model = source('model') ?? 'a model';
  const card = modelCard({
    repository: to,
    languages,
    kind,
    baseModel: settings.baseModel ?? source('repository'),
    sources: { model, teacher: source('teacher'), data: Array.isArray(sources.data) ? sources.data.map(String) : [] },
    options: isJsonObject(identity.options) ? identity.options : {},
    batchSize: numberOf(identity, 'batchSize', run),
    compute: String(identity.compute),
    utterances: numberOf(report, 'utterances', run),
    updates: numberOf(report, 'steps', run),
    trainable: numberOf(report, 'trainable', run),
    parameters: numberOf(report, 'parameters', run),
    best: bestOf(report.best),
    evaluation: await evaluationOf(run, settings.evaluation),
  });
  files.push({ path: 'README.md', content: card });
  files.sort((a, b) => (a.path < b.path ? -1 : 1));
  const sizes = await Promise.all(files.map(sizeOf));
  const what = { experts: `Expert for ${languages.join(', ')}`, adapter: 'Adapter', model: 'Trained model' }[kind];
  const title = `${what}, ${String(report.steps)} updates`;
  const url = dryRun ? null : await upload(to, files, { private: settings.private, title, signal, onProgress });
  return { url, files: sizes, card };
}

/** run.json and report.json of a run that has come to its end. Throws ERR_RUN. */
async function readRun(run: string): Promise<{ identity: JsonObject; report: JsonObject }> {
  if (!(await isFile(join(run, 'run.json')))) {
    throw new DistilWhisperError('ERR_RUN', `${run}: expected the folder of a run, with run.json in it, got none`);
  }
  if (!(await isFile(join(run, 'report.json')))) {
    throw new DistilWhisperError(
      'ERR_RUN',
      `${run}: expected a finished run, got one without report.json: train it on`,
    );
  }
  const identity = await readJsonObject(join(run, 'run.json'), 'ERR_RUN');
  const report = await readJsonObject(join(run, 'report.json'), 'ERR_RUN');
  const { options } = identity;
  // Its result is that of the shorter run that it was.
  if (isJsonObject(options) && typeof options.steps === 'number' && options.steps !== report.steps) {
    throw new DistilWhisperError(
      'ERR_RUN',
      `${run}: expected a finished run, got one of ${options.steps} updates with the report of ${shown(report.steps)}: train it on`,
    );
  }
  return { identity, report };
}

/** Codes of the languages that a run taught. */
function languagesOf({ taught, language }: JsonObject): string[] {
  const all = Array.isArray(taught) ? taught : [language];
  return all.filter((code) => typeof code === 'string');
}

function expertOf(code: string): string {
  const language = LANGUAGES.find((one) => one.code === code);
  if (language) return expertFileName(language.name);
  throw new DistilWhisperError('ERR_RUN', `report.json: expected the code of a language, got ${shown(code)}`);
}

function numberOf(object: JsonObject, name: string, run: string): number {
  const value = object[name];
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw new DistilWhisperError('ERR_RUN', `${run}: expected ${name} to be a number, got ${shown(value)}`);
}

const bestOf = (best: unknown): { score: number; step: number } | null =>
  isJsonObject(best) && typeof best.score === 'number' && typeof best.step === 'number'
    ? { score: best.score, step: best.step }
    : null;

/** The files of a model folder. */
async function filesOf(folder: string): Promise<UploadFile[]> {
  try {
    const names = await readdir(folder);
    return names
      .filter((name) => /^\w[\w.-]*$/.test(name) && name !== 'README.md')
      .map((name) => ({ path: name, content: { file: join(folder, name) } }));
  } catch (error) {
    throw fileReadError(error, folder);
  }
}

async function sizeOf({ path, content }: UploadFile): Promise<{ path: string; bytes: number }> {
  if (typeof content === 'string') return { path, bytes: Buffer.byteLength(content) };
  try {
    return { path, bytes: (await stat(content.file)).size };
  } catch (error) {
    throw fileReadError(error, content.file);
  }
}

/** The rows of an evaluation; null where none is there and none was asked for. Throws ERR_RUN for a file that is no evaluation. */
async function evaluationOf(run: string, given: string | undefined): Promise<CardRow[] | null> {
  const path = given ?? join(run, 'evaluation.json');
  if (given === undefined && !(await isFile(path))) return null;
  const { groups, total } = await readJsonObject(path, 'ERR_RUN');
  const rows = Array.isArray(groups) ? groups : [];
  const isRow = (row: unknown): row is JsonObject =>
    isJsonObject(row) && ['utterances', 'wer', 'cer'].every((name) => typeof row[name] === 'number');
  if (rows.length === 0 || ![...rows, total].every(isRow)) {
    throw new DistilWhisperError(
      'ERR_RUN',
      `${basename(path)}: expected what 'evaluate --json' prints, with groups and total, got something else`,
    );
  }
  const cell = (row: JsonObject, language: unknown, domain: unknown): CardRow => ({
    language: String(language),
    domain: String(domain ?? ''),
    utterances: row.utterances as number,
    wer: row.wer as number,
    cer: row.cer as number,
  });
  const table = rows.map((row: JsonObject) => cell(row, row.language, row.domain));
  return rows.length === 1 ? table : [...table, cell(total as JsonObject, 'all', 'all')];
}
