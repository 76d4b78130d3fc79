import { DistilWhisperError, shown } from '../errors/index.js';

export interface AddedTokenJSON {
  id: number;
  content: string;
  single_word: boolean;
  lstrip: boolean;
  rstrip: boolean;
  normalized: boolean;
  special: boolean;
}

/** What a Hugging Face `tokenizer.json` holds, as far as a Whisper vocabulary needs it. */
export interface TokenizerJSON {
  version?: string;
  added_tokens: AddedTokenJSON[];
  normalizer: Record<string, unknown> | null;
  pre_tokenizer: Record<string, unknown> | null;
  post_processor: Record<string, unknown> | null;
  decoder: Record<string, unknown> | null;
  model: {
    type: 'BPE';
    vocab: Record<string, number>;
    merges: (string | [string, string])[];
    [option: string]: unknown;
  };
  [section: string]: unknown;
}

/** A token beside the vocabulary that a text holds as it is. */
export const addedToken = (id: number, content: string, special: boolean): AddedTokenJSON => ({
  id,
  content,
  single_word: false,
  lstrip: false,
  rstrip: false,
  normalized: false,
  special,
});

/** The tokenizer.json of a byte-level vocabulary of byte pairs. `affix`: how its model says that it marks no parts of words. */
export function byteLevelTokenizer(
  tokens: Pick<TokenizerJSON, 'added_tokens'> & Pick<TokenizerJSON['model'], 'vocab' | 'merges'>,
  options: { add_prefix_space: boolean; affix: '' | null; ignore_merges?: boolean | undefined },
): TokenizerJSON {
  const { add_prefix_space, affix, ignore_merges } = options;
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: tokens.added_tokens,
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: affix,
      end_of_word_suffix: affix,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges,
      vocab: tokens.vocab,
      merges: tokens.merges,
    },
  };
}

/** How Whisper (GPT-2) cuts a text into the pieces that merges never cross. */
export const PIECES = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

export const SPECIAL = /^<\|[^|]*\|>$/;
export const TIMESTAMP = /^<\|\d+\.\d\d\|>$/;

/**
 * Checks a parsed tokenizer.json and completes it: absent sections become null, tokens that only tokenizer_config.json
 * lists (`added_tokens_decoder`) are added.
 * @throws ERR_TOKENIZER naming `source` when it is not a byte-pair tokenizer or two tokens claim one id
 */
export function checkTokenizerJSON(json: unknown, config: unknown, source: string): TokenizerJSON {
  const fail = (what: string): DistilWhisperError => new DistilWhisperError('ERR_TOKENIZER', `${source}: ${what}`);
  if (!isRecord(json)) throw fail(`expected a JSON object, got ${describe(json)}.`);
  const model = json.model;
  if (!isRecord(model)) throw fail(`expected a section 'model', got ${describe(model)}.`);
  if (model.type !== undefined && model.type !== 'BPE') {
    throw fail(`expected a byte-pair model (model.type 'BPE'), got ${shown(model.type)}.`);
  }
  if (!isRecord(model.vocab)) throw fail(`expected model.vocab to map tokens to ids, got ${describe(model.vocab)}.`);
  if (!Array.isArray(model.merges)) throw fail(`expected model.merges to be a list, got ${describe(model.merges)}.`);
  const listed = json.added_tokens ?? [];
  if (!Array.isArray(listed)) throw fail(`expected added_tokens to be a list, got ${describe(listed)}.`);

  const contents = new Map<number, string>();
  const ids = new Map<string, number>();
  const claim = (content: unknown, id: unknown, where: string): void => {
    if (typeof content !== 'string') throw fail(`a token in ${where} has no text.`);
    if (!Number.isSafeInteger(id) || (id as number) < 0 || (id as number) > 0xffffff) {
      throw fail(`the id of '${content}' in ${where} must be a whole number from 0, got ${shown(id)}.`);
    }
    const holder = contents.get(id as number);
    if (holder !== undefined && holder !== content) throw fail(`'${holder}' and '${content}' both claim the id ${id}.`);
    const other = ids.get(content as string);
    if (other !== undefined && other !== id) throw fail(`'${content}' is listed with two ids, ${other} and ${id}.`);
    contents.set(id as number, content as string);
    ids.set(content as string, id as number);
  };
  for (const [content, id] of Object.entries(model.vocab)) claim(content, id, 'model.vocab');
  const added: AddedTokenJSON[] = [];
  const add = (token: unknown, id: unknown, where: string): void => {
    if (!isRecord(token)) throw fail(`expected every token in ${where} to be an object, got ${describe(token)}.`);
    const content = token.content as string;
    claim(content, id, where);
    added.push({
      id: id as number,
      content,
      single_word: token.single_word === true,
      lstrip: token.lstrip === true,
      rstrip: token.rstrip === true,
      normalized: token.normalized === true,
      special: token.special === true,
    });
  };
  for (const token of listed) add(token, isRecord(token) ? token.id : undefined, 'added_tokens');
  const decoder = isRecord(config) ? config.added_tokens_decoder : undefined;
  if (isRecord(decoder)) {
    const known = new Set(added.map((token) => token.id));
    for (const [id, token] of Object.entries(decoder)) {
      if (!known.has(Number(id))) add(token, Number(id), 'added_tokens_decoder of tokenizer_config.json');
    }
  }
  if (contents.size === 0) throw fail('the vocabulary is empty.');
  const { normalizer = null, pre_tokenizer = null, post_processor = null, decoder: decoding = null } = json;
  return {
    ...json,
    added_tokens: added,
    normalizer,
    pre_tokenizer,
    post_processor,
    decoder: decoding,
    model: { ...model, type: 'BPE' },
  } as TokenizerJSON;
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function describe(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (value === null) return 'null';
  return Array.isArray(value) ? 'a list' : `a ${typeof value}`;
}
