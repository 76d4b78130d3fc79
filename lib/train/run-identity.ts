/** What a run is, as run.json says it: what goes on must be the same, but for its length. */
import { DistilWhisperError } from '../errors/index.js';
import { isJsonObject, readJsonObject } from '../files/index.js';
import { typeName } from '../tensor/index.js';
import { trainingDefaults } from './options.js';

/** How it is written down: 1 named its model and manifest by their paths. */
export const FORMAT = 2;
/** Of a digest, in run.json. */
const DIGEST = /^sha256:/;

/** A run that goes on with another length, from which its schedules follow. */
export interface Extension {
  /** Its length before, and now, in updates. */
  from: number;
  to: number;
  /** Updates that were done. */
  at: number;
}

const refuse = (what: string): never => {
  throw new DistilWhisperError('ERR_RUN', what);
};

/** The first field in which two JSON objects differ, as "options.steps = 10, got 20"; null when they are equal. */
function difference(earlier: object, now: object, at = ''): string | null {
  const [a, b] = [new Map(Object.entries(earlier)), new Map(Object.entries(now))];
  const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;
  for (const key of new Set([...a.keys(), ...b.keys()])) {
    const [x, y] = [a.get(key), b.get(key)];
    if (JSON.stringify(x) === JSON.stringify(y)) continue;
    if ([x, y].every((value) => typeof value === 'string' && DIGEST.test(value))) return `other ${at}${key}`;
    const nested = isObject(x) && isObject(y) && !Array.isArray(x);
    const found = nested
      ? difference(x, y, `${at}${key}.`)
      : `${at}${key} = ${JSON.stringify(x)}, got ${JSON.stringify(y)}`;
    if (found !== null) return found;
  }
  return null;
}

/** Updates of the whole run; null where it does not say them. */
export function lengthOf({ options }: Record<string, unknown>): number | null {
  const steps = isJsonObject(options) ? options.steps : null;
  return Number.isSafeInteger(steps) ? (steps as number) : null;
}

/**
 * Holds the run in a folder, of which so many updates are `done`, against `now`. `run`: what run.json is to say, and whether that `changes` it: the
 * new length, with those before and up to which update each was meant. Errors: ERR_RUN for another run, or one that has done more.
 */
export async function sameRun(
  path: string,
  file: string,
  now: Record<string, unknown>,
  done: number,
): Promise<{ run: Record<string, unknown>; changes: boolean; extension: Extension | null }> {
  const earlier = await readJsonObject(file, 'ERR_RUN');
  if (earlier.format !== FORMAT) {
    refuse(
      `${file}: expected a run of format ${FORMAT}, got ${JSON.stringify(earlier.format) ?? 'none'}, which does not say what ` +
        'it was trained on; use another folder',
    );
  }
  const { lengths = [], ...run } = earlier;
  const [from, to] = [lengthOf(run), lengthOf(now)];
  // Runs have said f32 for fp32.
  if (typeof run.compute === 'string') run.compute = typeName(run.compute);
  if (isJsonObject(run.options)) {
    // An option that they did not have yet was what its default is.
    run.options = { ...trainingDefaults, ...run.options, ...(from !== null && to !== null && { steps: to }) };
  }
  const changed = difference(run, now);
  if (changed !== null) refuse(`run folder ${path}: it holds a run with ${changed}; use another folder`);
  if (from === null || to === null || from === to) return { run: earlier, changes: false, extension: null };
  if (to < done) {
    refuse(
      `run folder ${path}: it has done ${done} of ${from} updates; expected a length of at least ${done}, got ${to}`,
    );
  }
  // Nothing was done by the length before.
  if (done === 0) return { run: now, changes: true, extension: null };
  const before = [...(Array.isArray(lengths) ? lengths : []), { steps: from, until: done }];
  return { run: { ...now, lengths: before }, changes: true, extension: { from, to, at: done } };
}
