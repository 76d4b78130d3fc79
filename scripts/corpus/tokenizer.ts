/**
 * Writes the pocket models' tokenizer: byte-level BPE, as Whisper's, whose merges do no more than join the bytes of one
 * letter, so that a token is a letter of the corpus, or a byte of anything else. Nothing is lost in encoding.
 *   npx tsx scripts/corpus/tokenizer.ts --out FOLDER
 * Checks that every text of the corpus comes back unchanged and is one token a letter.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Tokenizer } from '@huggingface/tokenizers';
import { planLanguage } from './plan.js';
import { readSentences } from './sentences.js';
import { codePoints, LANGUAGES, writtenForm } from './text.js';

/** GPT-2's printable stand-in for each byte. */
function byteLetters(): string[] {
  const printable = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
  let next = 256;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : next++));
}

const SPECIAL = [
  '<|endoftext|>',
  '<|startoftranscript|>',
  ...LANGUAGES.map((language) => `<|${language}|>`),
  '<|translate|>',
  '<|transcribe|>',
  '<|startoflm|>',
  '<|startofprev|>',
  '<|nospeech|>',
  '<|notimestamps|>',
];

interface TokenizerFile {
  added_tokens: { id: number; content: string }[];
  [field: string]: unknown;
}

/** The tokenizer.json for a set of letters. */
export function buildTokenizer(letters: readonly string[]): TokenizerFile {
  const bytes = byteLetters();
  const vocab = new Map<string, number>(bytes.map((letter, byte) => [letter, byte]));
  const merges: [string, string][] = [];
  for (const letter of letters) {
    const parts = [...Buffer.from(letter, 'utf8')].map((byte) => bytes[byte] as string);
    for (let n = 1; n < parts.length; n++) {
      const joined = parts.slice(0, n + 1).join('');
      if (vocab.has(joined)) continue;
      vocab.set(joined, vocab.size);
      merges.push([parts.slice(0, n).join(''), parts[n] as string]);
    }
  }
  const first = vocab.size;
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: SPECIAL.map((content, i) => ({
      id: first + i,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: true,
    })),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(vocab),
      // Two-byte beginnings come before the letters that need them, since BPE applies merges in this order.
      merges: merges.map(([left, right]) => `${left} ${right}`),
    },
  };
}

const CONFIG = {
  tokenizer_class: 'WhisperTokenizer',
  add_prefix_space: false,
  bos_token: '<|endoftext|>',
  eos_token: '<|endoftext|>',
  pad_token: '<|endoftext|>',
  unk_token: '<|endoftext|>',
  clean_up_tokenization_spaces: false,
  errors: 'replace',
  return_attention_mask: false,
  model_max_length: 64,
  additional_special_tokens: SPECIAL.slice(1),
};

const { values } = parseArgs({ options: { out: { type: 'string' } } });
if (values.out === undefined) throw new Error('usage: npx tsx scripts/corpus/tokenizer.ts --out FOLDER');
const texts = LANGUAGES.flatMap((language) => [
  ...planLanguage(language, { length: 'long', index: 0 }).map((u) => u.text),
  ...readSentences(language).map(writtenForm),
]);
const letters = [...new Set(texts.flatMap((text) => [...text]))]
  .filter((c) => (c.codePointAt(0) as number) > 127)
  .sort();
const json = buildTokenizer(letters);
const tokenizer = new Tokenizer(json, CONFIG);
let longest = 0;
const options = { add_special_tokens: false };
for (const text of texts) {
  const { ids } = tokenizer.encode(text, options);
  if (ids.length !== codePoints(text)) throw new Error(`"${text}" has ${ids.length} tokens, not one a letter`);
  if (tokenizer.decode(ids, { skip_special_tokens: true }) !== text) throw new Error(`"${text}" does not come back`);
  longest = Math.max(longest, ids.length);
}
for (const text of ["L'Àngel (42) ñandú 日本語 🙂", ' two  spaces ', 'ßẞ ÆØ Ελλάδα']) {
  if (tokenizer.decode(tokenizer.encode(text, options).ids) !== text) throw new Error(`"${text}" does not come back`);
}
mkdirSync(values.out, { recursive: true });
writeFileSync(join(values.out, 'tokenizer.json'), `${JSON.stringify(json, null, 1)}\n`);
writeFileSync(join(values.out, 'tokenizer_config.json'), `${JSON.stringify(CONFIG, null, 2)}\n`);
const ids = (json.added_tokens.at(-1)?.id ?? 0) + 1;
console.log(`${letters.length} letters beyond ASCII, ${ids} ids, ${texts.length} texts come back unchanged`);
console.log(`longest text ${longest} tokens`);
console.log(json.added_tokens.map(({ id, content }) => `${id} ${content}`).join('  '));
