/** What a name stands for: a path on this machine, a repository of the hub, or a model of the package. */
import { statSync } from 'node:fs';
import { join } from 'node:path';
import { DistilWhisperError } from '../errors/index.js';
import { packageRoot } from '../native/index.js';

/** What is looked for. */
export type Kind = 'model' | 'expert' | 'adapter' | 'dataset';

/** The sizes that OpenAI published, and their repositories. */
export const SIZES: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    ['tiny', 'tiny.en', 'base', 'base.en', 'small', 'small.en', 'medium', 'medium.en']
      .concat(['large-v1', 'large-v2', 'large-v3', 'large-v3-turbo'])
      .map((size) => [size, `openai/whisper-${size === 'large-v1' ? 'large' : size}`]),
  ),
  large: 'openai/whisper-large-v3',
  turbo: 'openai/whisper-large-v3-turbo',
};

/** Models of synthetic speech that lie in the package, for the demo. */
const POCKET: readonly string[] = ['pocket-student', 'pocket-teacher'];

export const DEFAULT_REVISION = 'main';

/** A repository of the hub at a branch, a tag or a commit. */
export interface Repository {
  readonly kind: Kind;
  /** "org/name" */
  readonly name: string;
  readonly revision: string;
}

export type Meaning = { readonly path: string } | { readonly repository: Repository };

const PART = /^[A-Za-z0-9_](?:[\w.-]*[A-Za-z0-9_])?$/;

/** Whether `name` is "org/name" by the hub's rules. */
export function isRepositoryName(name: string): boolean {
  const parts = name.split('/');
  return (
    parts.length === 2 &&
    name.length <= 96 &&
    parts.every((part) => PART.test(part) && !/--|\.\./.test(part)) &&
    !name.endsWith('.git')
  );
}

/** A branch, a tag, refs/pr/1 or a commit; it becomes a part of paths, so it must not leave its folder. */
const isRevision = (text: string): boolean =>
  text.length <= 200 && /^\w[\w.+-]*(\/\w[\w.+-]*)*$/.test(text) && !text.includes('..') && !text.endsWith('.lock');

/** Written as a path: absolute, from here or from home, of other parts than a repository has, or with a file's ending. */
const isPath = (name: string, kind: Kind): boolean =>
  /^([./~]|[A-Za-z]:)|\\|\/.*\/|\/$/.test(name) ||
  (kind !== 'dataset' && /\.(safetensors|bin|pt|pth|onnx)$/.test(name)) ||
  (kind === 'dataset' && /\.(jsonl?|tsv|csv|parquet)$/.test(name));

const WORDS: Record<Kind, { what: string; others: string }> = {
  model: {
    what: 'model folder',
    others: `a size (${Object.keys(SIZES).join(', ')}), or ${POCKET.join(' or ')}`,
  },
  expert: { what: 'expert file or folder', others: '' },
  adapter: { what: "adapter's folder", others: '' },
  dataset: { what: 'file or folder of data', others: '' },
};

/** What stands behind `kind` in sentences: "model folder". */
export const placeOf = (kind: Kind): string => WORDS[kind].what;

/**
 * What `name` stands for. What lies on this machine under that name is meant, whatever it looks like; then come the names of the
 * package and of sizes (models only), then "org/name" and "org/name@revision". Errors: ERR_ARGUMENT (no text, a revision that
 * cannot be one, two revisions), ERR_FILE_NOT_FOUND for what is neither.
 */
export function meaningOf(name: string, kind: Kind, revision?: string): Meaning {
  const { what, others } = WORDS[kind];
  if (typeof name !== 'string' || name === '') {
    const got = typeof name === 'string' ? 'an empty text' : typeof name;
    throw new DistilWhisperError('ERR_ARGUMENT', `${kind}: expected the path of a ${what}, or a name, got ${got}`);
  }
  const at = name.indexOf('@');
  const [base, given] = at < 0 ? [name, undefined] : [name.slice(0, at), name.slice(at + 1)];
  // A NUL is in no path.
  if (name.includes('\0') || isThere(name) || isPath(base, kind)) return { path: name };
  if (kind === 'model' && POCKET.includes(name)) return { path: join(packageRoot(), 'models', name) };
  const repository = kind === 'model' && Object.hasOwn(SIZES, base) ? SIZES[base]! : base;
  if (!isRepositoryName(repository)) {
    throw new DistilWhisperError(
      'ERR_FILE_NOT_FOUND',
      `There is no ${what} ${name}, and it is no name of the hub: expected a path, org/name, org/name@revision${others === '' ? '' : `, ${others}`}`,
    );
  }
  if (given !== undefined && revision !== undefined && given !== revision) {
    throw new DistilWhisperError('ERR_ARGUMENT', `revision: expected one, got ${name} and ${revision}`);
  }
  const wanted = given ?? revision ?? DEFAULT_REVISION;
  if (!isRevision(wanted)) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `revision: expected a branch, a tag or a commit, got ${JSON.stringify(wanted.slice(0, 80))}`,
    );
  }
  return { repository: { kind, name: repository, revision: wanted } };
}

/** The repository that a model's name stands for ("openai/whisper-small" for "small"); null for a path, and what is none. */
export function repositoryOf(name: string): string | null {
  try {
    const meaning = meaningOf(name, 'model');
    return 'repository' in meaning ? meaning.repository.name : null;
  } catch {
    return null;
  }
}

function isThere(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false }) !== undefined;
  } catch {
    // A part of the path is a file, or may not be looked into: whoever opens it says so.
    return false;
  }
}
