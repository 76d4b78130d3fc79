/** The files of a model folder that a tokenizer is made of: tokenizer.json, or what older tools leave instead of it. */
import { join } from 'node:path';
import { DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { type JsonObject, readJsonObject, readTextFile } from '../files/index.js';
import { addedToken, byteLevelTokenizer, SPECIAL, TIMESTAMP, type TokenizerJSON } from './tokenizer-json.js';

export interface TokenizerFiles {
  json: unknown;
  /** Of tokenizer_config.json. */
  config: JsonObject | undefined;
  /** The file that errors name. */
  source: string;
  /** What generation_config.json says in `is_multilingual`; undefined where it says nothing. */
  multilingual: boolean | undefined;
}

/**
 * Reads a folder's tokenizer.json, or vocab.json and merges.txt with added_tokens.json and special_tokens_map.json.
 * @throws ERR_FILE_NOT_FOUND, ERR_FILE_READ, ERR_TOKENIZER, ERR_CONFIG
 */
export async function readTokenizerFiles(folder: string): Promise<TokenizerFiles> {
  const at = (name: string): string => join(folder, name);
  const config = await unlessAbsent(readJsonObject(at('tokenizer_config.json'), 'ERR_TOKENIZER'));
  const generation = await unlessAbsent(readJsonObject(at('generation_config.json'), 'ERR_CONFIG'));
  const flag = generation?.is_multilingual;
  const multilingual = typeof flag === 'boolean' ? flag : undefined;
  const json = await unlessAbsent(readJsonObject(at('tokenizer.json'), 'ERR_TOKENIZER'));
  if (json) return { json, config, source: at('tokenizer.json'), multilingual };
  const vocab = await unlessAbsent(readJsonObject(at('vocab.json'), 'ERR_TOKENIZER'));
  const merges = await unlessAbsent(readTextFile(at('merges.txt'), 'ERR_TOKENIZER'));
  if (!vocab || merges === undefined) {
    const lacks = vocab
      ? 'merges.txt beside its vocab.json'
      : 'tokenizer.json, and no vocab.json with merges.txt instead';
    throw new DistilWhisperError('ERR_FILE_NOT_FOUND', `${folder} has no ${lacks}: a model folder needs a tokenizer.`);
  }
  const added = (await unlessAbsent(readJsonObject(at('added_tokens.json'), 'ERR_TOKENIZER'))) ?? {};
  const names = await unlessAbsent(readJsonObject(at('special_tokens_map.json'), 'ERR_TOKENIZER'));
  const special = new Set([...specialTokens(names), ...specialTokens(config)]);
  const pairs = readMerges(merges, vocab, at('merges.txt'));
  return { json: assembled(vocab, pairs, added, special, config), config, source: at('vocab.json'), multilingual };
}

async function unlessAbsent<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (isDistilWhisperError(error) && error.code === 'ERR_FILE_NOT_FOUND') return undefined;
    throw error;
  }
}

/** The tokens that a special_tokens_map.json or tokenizer_config.json names, each as text or as an object with `content`. */
function specialTokens(map: JsonObject | undefined): string[] {
  const named = Object.entries(map ?? {}).filter(([key]) => /_tokens?$/.test(key));
  const content = (token: unknown): unknown =>
    typeof token === 'object' && token !== null && 'content' in token ? token.content : token;
  return named
    .flatMap(([, value]) => (Array.isArray(value) ? value : [value]))
    .map(content)
    .filter((token): token is string => typeof token === 'string');
}

/** A line a merge, the two parts with a space between them; the first line may say a version. */
function readMerges(text: string, vocab: JsonObject, file: string): [string, string][] {
  const merges: [string, string][] = [];
  for (const [i, line] of text.split('\n').entries()) {
    const merge = line.replace(/\r$/, '');
    if (merge === '' || (i === 0 && merge.startsWith('#version'))) continue;
    const [left, right, ...more] = merge.split(' ');
    const refuse = (what: string): never => {
      throw new DistilWhisperError('ERR_TOKENIZER', `${file} line ${i + 1}: ${what}`);
    };
    if (!left || !right || more.length > 0) {
      return refuse(`expected two tokens with a space between them, got '${merge.slice(0, 60)}'.`);
    }
    for (const token of [left, right, left + right]) {
      if (!Object.hasOwn(vocab, token)) refuse(`'${token.slice(0, 60)}' is not in vocab.json.`);
    }
    merges.push([left, right]);
  }
  return merges;
}

/** The tokenizer.json that says the same. Ids are checked where every tokenizer.json's are. */
function assembled(
  vocab: JsonObject,
  merges: [string, string][],
  added: JsonObject,
  special: ReadonlySet<string>,
  config: JsonObject | undefined,
): TokenizerJSON {
  const listed = new Map(Object.entries(added));
  for (const token of special) if (Object.hasOwn(vocab, token)) listed.set(token, vocab[token]);
  const tokens = [...listed].map(([content, id]) =>
    addedToken(id as number, content, !TIMESTAMP.test(content) && (special.has(content) || SPECIAL.test(content))),
  );
  // What is no number is refused where ids are checked.
  tokens.sort((a, b) => (typeof a.id === 'number' && typeof b.id === 'number' ? a.id - b.id : 0));
  return byteLevelTokenizer(
    { added_tokens: tokens, vocab: vocab as Record<string, number>, merges },
    { add_prefix_space: config?.add_prefix_space === true, affix: '', ignore_merges: false },
  );
}
