/** How a data set is named: `[kind:]path[#split[+split…]][:weight]`. */
import { DistilWhisperError } from '../errors/index.js';

export type CorpusKind = 'cv' | 'fleurs' | 'parquet' | 'audiofolder' | 'manifest' | 'packed';
const KINDS: readonly CorpusKind[] = ['cv', 'fleurs', 'parquet', 'audiofolder', 'manifest', 'packed'];

export interface DatasetSpec {
  /** What it is; told by what is there where it is not said. */
  kind: CorpusKind | undefined;
  /** Or a name of the hub, where nothing has it for its path. */
  path: string;
  splits: readonly string[] | undefined;
  /** How often each of its rows comes in an epoch, on average. */
  weight: number;
}

const refuse = (spec: string, what: string): never => {
  throw new DistilWhisperError('ERR_ARGUMENT', `data: ${what}, got ${JSON.stringify(spec.slice(0, 120))}`);
};

/**
 * Reads the name of a data set: what it is (cv, fleurs, parquet, audiofolder, manifest, packed; without it what lies there tells), its path,
 * its splits behind '#', with '+' between several, and a weight behind ':'. 'cv:corpora/cv-13/ca#train:0.5' takes half of the training clips
 * in each epoch. Throws ERR_ARGUMENT.
 */
export function parseSpec(spec: string): DatasetSpec {
  let rest = spec;
  let weight = 1;
  const weighted = /^(.*):(\d*\.?\d+(?:e[+-]?\d+)?)$/i.exec(rest);
  if (weighted) {
    rest = weighted[1]!;
    weight = Number(weighted[2]);
    if (!(weight > 0 && weight <= 1000)) refuse(spec, 'expected a weight above 0 and at most 1000 behind the colon');
  }
  let splits: string[] | undefined;
  const hash = rest.lastIndexOf('#');
  if (hash >= 0) {
    splits = rest.slice(hash + 1).split('+');
    rest = rest.slice(0, hash);
    if (splits.some((name) => !/^[\w.-]+$/.test(name)))
      refuse(spec, "expected names of splits behind '#', with '+' between them");
  }
  const [, prefix, behind] = /^([a-z_]+):(.*)$/s.exec(rest) ?? [];
  const kind = KINDS.find((name) => name === prefix);
  if (kind !== undefined) rest = behind!;
  if (rest === '') refuse(spec, 'expected the path of a data set');
  return { kind, path: rest, splits, weight };
}
