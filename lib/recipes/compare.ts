import { DistilWhisperError, shown } from '../errors/index.js';
import { type CompareOptions, type Comparison, compare, type Hypothesis } from '../evaluate/index.js';
import { isJsonObject, parseJson, readTextFile } from '../files/index.js';

/**
 * What an evaluation heard, from the file of `evaluate --hypotheses`: JSON lines with id, reference, hypothesis, language and domain (without
 * these two, as earlier files are, all are one group), and the task of translations. Errors: ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_MANIFEST with the line.
 */
export async function readHypotheses(path: string): Promise<Hypothesis[]> {
  const lines = (await readTextFile(path, 'ERR_MANIFEST')).split('\n');
  const found = lines.flatMap((line, i) => {
    if (line.trim() === '') return [];
    const refuse = (what: string): never => {
      throw new DistilWhisperError('ERR_MANIFEST', `${path}: line ${i + 1} ${what}`);
    };
    let value: unknown;
    try {
      value = parseJson(line);
    } catch (error) {
      return refuse((error as Error).message);
    }
    if (!isJsonObject(value)) return refuse('is no JSON object, as evaluate --hypotheses writes them');
    const { id, reference, hypothesis, language = '', domain = '', task } = value;
    const utterance = { id, reference, hypothesis, language, domain };
    for (const [name, text] of Object.entries(utterance))
      if (typeof text !== 'string') return refuse(`has no text as its ${name}, got ${shown(text)}`);
    if (task === undefined) return [utterance as Hypothesis];
    if (task !== 'transcribe' && task !== 'translate')
      return refuse(`has a task that is neither transcribe nor translate, but ${shown(task)}`);
    return [{ ...utterance, task } as Hypothesis];
  });
  if (found.length === 0) throw new DistilWhisperError('ERR_MANIFEST', `${path}: expected utterances, got none`);
  return found;
}

/** `compare` of files of `evaluate --hypotheses`: of each side one, or one a seed. Errors: those of `readHypotheses` and `compare`. */
export async function compareFiles(
  a: readonly string[],
  b: readonly string[],
  options: CompareOptions = {},
): Promise<Comparison> {
  const read = (paths: readonly string[]): Promise<Hypothesis[][]> => Promise.all(paths.map(readHypotheses));
  const [heardByA, heardByB] = [await read(a), await read(b)];
  return compare(heardByA, heardByB, options);
}
