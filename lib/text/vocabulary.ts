import { DistilWhisperError } from '../errors/index.js';
import { LANGUAGES, resolveLanguage } from './languages.js';
import { addedToken, byteLevelTokenizer, type TokenizerJSON } from './tokenizer-json.js';

export interface VocabularyOptions {
  /** The languages that get a token, in this order: codes or names, or how many of Whisper's list. Default 99 (up to large-v2). */
  languages?: number | readonly string[];
  /** How many timestamp tokens from `<|0.00|>` in steps of 0.02 s. Default 1501, a window of 30 s. */
  timestamps?: number;
}

/**
 * A tokenizer.json from byte-pair ranks in tiktoken's format (a line per token: base64 of its bytes, a space, its rank),
 * such as Whisper's multilingual.tiktoken, with Whisper's special tokens behind: `<|endoftext|>`, `<|startoftranscript|>`,
 * the languages, the tasks, `<|startoflm|>`, `<|startofprev|>`, `<|nospeech|>`, `<|notimestamps|>`, the timestamps.
 * @throws ERR_TOKENIZER naming the line when the ranks are not those of a byte-pair vocabulary; ERR_LANGUAGE, ERR_ARGUMENT
 */
export function tokenizerFromTiktoken(ranks: string, options: VocabularyOptions = {}): TokenizerJSON {
  const vocab: [string, number][] = [];
  const byRank = new Map<string, number>();
  const lines = ranks.split('\n');
  for (let line = 0; line < lines.length; line++) {
    const content = lines[line]!.trim();
    if (content === '') continue;
    const match = /^([A-Za-z0-9+/]*={0,2}) (\d+)$/.exec(content);
    if (!match || Number(match[2]) !== vocab.length) {
      throw new DistilWhisperError(
        'ERR_TOKENIZER',
        `tiktoken ranks, line ${line + 1}: expected base64, a space and the rank ${vocab.length}, got '${content.slice(0, 60)}'.`,
      );
    }
    const token = byteString(Buffer.from(match[1]!, 'base64'));
    if (byRank.has(token)) {
      throw new DistilWhisperError(
        'ERR_TOKENIZER',
        `tiktoken ranks, line ${line + 1}: the same bytes have the rank ${byRank.get(token)} already.`,
      );
    }
    byRank.set(token, vocab.length);
    vocab.push([token, vocab.length]);
  }
  const merges: [string, string][] = [];
  for (const [token, rank] of vocab) {
    if (token.length < 2) continue;
    const parts = mergeBelow(token, rank, byRank);
    if (parts.length !== 2) {
      throw new DistilWhisperError(
        'ERR_TOKENIZER',
        `tiktoken ranks: the token of rank ${rank} is not a merge of two tokens of lower rank.`,
      );
    }
    merges.push([parts[0]!, parts[1]!]);
  }
  return assemble(vocab, merges, options);
}

/**
 * A small byte-level tokenizer.json for the characters of some texts: 256 bytes, a token for every other character (and
 * the byte prefixes it is merged from), then the special tokens as in {@link tokenizerFromTiktoken}. Any text can be
 * encoded, characters not in `texts` as bytes. For pocket models; no timestamps unless asked for.
 */
export function tokenizerFromCharacters(texts: Iterable<string>, options: VocabularyOptions = {}): TokenizerJSON {
  const characters = new Set<string>();
  for (const text of texts) for (const character of text) characters.add(character);
  const tokens = new Set(Array.from({ length: 256 }, (_, byte) => byteString([byte])));
  const merges: [string, string][] = [];
  for (const character of [...characters].sort((a, b) => a.codePointAt(0)! - b.codePointAt(0)!)) {
    const bytes = byteString(Buffer.from(character, 'utf8'));
    for (let length = 2; length <= bytes.length; length++) {
      const token = bytes.slice(0, length);
      if (tokens.has(token)) continue;
      tokens.add(token);
      merges.push([bytes.slice(0, length - 1), bytes[length - 1]!]);
    }
  }
  const vocab = [...tokens].map((token, id): [string, number] => [token, id]);
  return assemble(vocab, merges, { timestamps: 0, ...options });
}

/** Bytes as the printable characters by which byte-level vocabularies write them: one character a byte. */
function byteString(bytes: ArrayLike<number>): string {
  return Array.from(bytes, (byte) => BYTE_CHARACTERS[byte]).join('');
}

/** The characters that stand for the 256 bytes in a byte-level vocabulary. */
export const BYTE_CHARACTERS: readonly string[] = (() => {
  const printable = (byte: number): boolean =>
    (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
})();

/** Byte-pair encoding of one token by the ranks below its own: what is left are the parts that its merge joins. */
function mergeBelow(token: string, rank: number, ranks: ReadonlyMap<string, number>): string[] {
  const parts = [...token];
  for (;;) {
    let best = rank;
    let at = -1;
    for (let i = 0; i + 1 < parts.length; i++) {
      const joined = ranks.get(parts[i]! + parts[i + 1]!);
      if (joined !== undefined && joined < best) {
        best = joined;
        at = i;
      }
    }
    if (at < 0) return parts;
    parts.splice(at, 2, parts[at]! + parts[at + 1]!);
  }
}

function assemble(vocab: [string, number][], merges: [string, string][], options: VocabularyOptions): TokenizerJSON {
  const { languages = 99, timestamps = 1501 } = options;
  if (!Number.isSafeInteger(timestamps) || timestamps < 0 || timestamps > 100_000) {
    throw new DistilWhisperError('ERR_ARGUMENT', `timestamps must be a count from 0 to 100000, got ${timestamps}.`);
  }
  if (
    typeof languages === 'number' &&
    !(Number.isSafeInteger(languages) && languages >= 0 && languages <= LANGUAGES.length)
  ) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `languages must be a list, or a count from 0 to 100, got ${languages}.`,
    );
  }
  const codes =
    typeof languages === 'number'
      ? LANGUAGES.slice(0, languages).map((language) => language.code)
      : [...new Set(languages.map((language) => resolveLanguage(language).code))];
  const names = ['endoftext', 'startoftranscript', ...codes, 'translate', 'transcribe'];
  names.push('startoflm', 'startofprev', 'nospeech', 'notimestamps');
  const special = names.map((name, index) => addedToken(vocab.length + index, `<|${name}|>`, true));
  const begin = vocab.length + special.length;
  const times = Array.from({ length: timestamps }, (_, step) => addedToken(begin + step, timestampToken(step), false));
  return byteLevelTokenizer(
    { added_tokens: [...special, ...times], vocab: Object.fromEntries(vocab), merges },
    { add_prefix_space: false, affix: null },
  );
}

/** The timestamp token of a step of 0.02 s: 54 → `<|1.08|>`. */
export function timestampToken(step: number): string {
  return `<|${(step / 50).toFixed(2)}|>`;
}
