/** Texts and what is made of them: normalisers, tokenizers, languages, error rates, subtitles. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  basicNormalizer,
  cer,
  extendedNormalizer,
  formatSrt,
  formatTimed,
  formatVtt,
  LANGUAGES,
  resolveLanguage,
  type TimedText,
  tokenizerFromCharacters,
  tokenizerFromTiktoken,
  WhisperTokenizer,
  wer,
} from '../../../lib/index.js';
import { mutateNode, type Node, toNode, writeNode } from '../mutators/json.js';
import { longText, packText, someText, unpackText } from '../mutators/text.js';
import type { Random } from '../random.js';
import { promised, type Reader, root } from '../reader.js';

/** A reader of text. */
function text(
  name: string,
  about: string,
  open: () => { make(random: Random): string; read(text: string): unknown },
): Reader {
  return {
    name,
    about,
    open() {
      const { make, read } = open();
      return { make: (random) => packText(make(random)), read: (input) => read(unpackText(input)) };
    },
  };
}

/** Separates the parts of an input; no part holds it, or it is another part. */
const NEXT = '\x1e';

const wellFormed = (text: string): boolean => !/\p{Surrogate}/u.test(text);

const small = () => tokenizerFromCharacters(['aàéx'], { languages: ['en', 'ca', 'th'], timestamps: 20 });

/** Settings of tokenizer.json that published ones have, and every kind that holds a pattern. */
function tokenizerSeeds(): Node[] {
  const json = small();
  const split = { type: 'Split', pattern: { Regex: '\\p{L}+|\\s+' }, behavior: 'Isolated', invert: false };
  const level = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false };
  const replace = { type: 'Replace', pattern: { Regex: ' {2,}' }, content: ' ' };
  const sequence = { type: 'Sequence', normalizers: [{ type: 'NFKC' }, { type: 'Lowercase' }, replace] };
  return [
    json,
    { ...json, pre_tokenizer: { type: 'Sequence', pretokenizers: [split, level] } },
    { ...json, normalizer: sequence, post_processor: { type: 'ByteLevel', trim_offsets: true } },
    { ...json, normalizer: { type: 'Prepend', prepend: '_' }, pre_tokenizer: { type: 'Metaspace', replacement: '_' } },
    {
      ...json,
      model: { ...json.model, unk_token: 'a', byte_fallback: true, fuse_unk: true },
      pre_tokenizer: { type: 'Whitespace' },
    },
  ].map(toNode);
}

const SAMPLES = ['hola àé', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab', '  <|ca|> 12 x\u0301\n', 'x'.repeat(40)];

export const textReaders: readonly Reader[] = [
  text('normalizer', 'basicNormalizer and extendedNormalizer, with all options, texts to 200,000 characters', () => {
    const all = [basicNormalizer, extendedNormalizer].flatMap((make) =>
      [false, true].flatMap((removeDiacritics) =>
        [false, true].map((splitLetters) => make({ removeDiacritics, splitLetters })),
      ),
    );
    return {
      make: (random) => `${random.below(all.length)}${longText(random)}`,
      read: (input) =>
        promised(typeof all[Number(input[0] ?? 0) % all.length || 0]!(input.slice(1)) === 'string', 'no text'),
    };
  }),
  text('encode', 'encode, decode and labels of a byte-level tokenizer, texts to 200,000 characters', () => {
    const tokenizer = WhisperTokenizer.fromJSON(small());
    return {
      make: (random) => longText(random),
      read(input) {
        const decoded = tokenizer.decode(tokenizer.encode(input));
        promised(!wellFormed(input) || decoded === input, 'the decoded text is another');
      },
    };
  }),
  text(
    'tokenizer',
    'WhisperTokenizer.fromJSON on a mutated tokenizer.json, its patterns included, and texts through it',
    () => {
      const seeds = tokenizerSeeds();
      return {
        make: (random) => writeNode(mutateNode(random.pick(seeds), random)),
        read(input) {
          let json: unknown;
          try {
            json = JSON.parse(input);
          } catch {
            return;
          }
          const tokenizer = WhisperTokenizer.fromJSON(json);
          for (const sample of SAMPLES) tokenizer.decode(tokenizer.encode(sample));
          tokenizer.labels('hola', { language: 'ca' });
        },
      };
    },
  ),
  text('tiktoken', 'tokenizerFromTiktoken, and the tokenizer made of it', () => {
    const { ranks } = JSON.parse(readFileSync(join(root, 'test', 'golden', 'text', 'tiny-tokenizer.json'), 'utf8')) as {
      ranks: string;
    };
    const lines = ranks.split('\n').slice(0, 300);
    return {
      make(random) {
        const mutated = [...lines];
        for (let times = random.count(4); times > 0; times--) {
          const at = random.below(mutated.length);
          const other = random.pick([
            '',
            `IQ== ${at}`,
            'IQ==',
            `!! ${at}`,
            `${mutated[at]}\r`,
            `${mutated[at]!.split(' ')[0]} ${random.edge(32)}`,
            someText(random, 30),
          ]);
          if (random.chance(0.3)) mutated.splice(at, 1);
          else mutated[at] = other;
        }
        return mutated.slice(0, random.chance(0.3) ? random.below(300) : 300).join('\n');
      },
      read: (input) =>
        WhisperTokenizer.fromJSON(tokenizerFromTiktoken(input, { languages: 2, timestamps: 3 })).encode('hola'),
    };
  }),
  text('language', 'resolveLanguage', () => {
    const names = LANGUAGES.flatMap(({ code, name }) => [code, name]);
    return {
      make(random) {
        if (random.chance(0.2)) return someText(random, 100);
        let name = random.pick(names);
        for (let times = random.count(3); times > 0; times--) {
          const at = random.below(name.length + 1);
          const bits = ['-', '_', '-CN', '_hans', 'é', '\0', 'x', ' ', 'İ', '\u0301'];
          name = random.pick([
            name.slice(0, at) + random.pick(bits) + name.slice(at),
            name.slice(at),
            name.toUpperCase(),
            `${name}-${random.pick(names)}`,
          ]);
        }
        return name;
      },
      read: (input) => promised(LANGUAGES.includes(resolveLanguage(input)), 'a language that is none'),
    };
  }),
  text('wer', 'wer and cer of pairs of texts', () => ({
    make(random) {
      const rows = Array.from({ length: random.count(6) }, () => someText(random, 400));
      if (random.chance(0.02)) rows[0] = longText(random, 20_000);
      return rows
        .map((row) =>
          random.chance(0.5) ? row + NEXT + row.slice(random.below(row.length)) : row + NEXT + someText(random, 400),
        )
        .join(NEXT);
    },
    read(input) {
      const parts = input.split(NEXT);
      const references = parts.filter((_, i) => i % 2 === 0);
      const hypotheses = parts.filter((_, i) => i % 2 === 1);
      promised(wer(references, references).errors === 0, 'a text differs from itself');
      for (const { errors, length, rate } of [wer(references, hypotheses), cer(references, hypotheses)])
        promised(errors >= 0 && length > 0 && rate === errors / length, `${errors} errors of ${length}`);
    },
  })),
  text('subtitles', 'formatSrt, formatVtt and formatTimed', () => ({
    make(random) {
      const time = (): number => random.pick([0, 0.0004, random.below(100), random.next() / 1000, random.next() * 1e6]);
      const cues = Array.from({ length: random.count(5) }, () => [
        time(),
        time(),
        random.chance(0.02) ? longText(random) : someText(random, 200),
      ]);
      return cues.map((cue) => cue.join(NEXT)).join(NEXT + NEXT);
    },
    read(input) {
      const segments = input.split(NEXT + NEXT).map((cue): TimedText => {
        const [start, end, ...text] = cue.split(NEXT);
        return { start: Math.abs(Number(start)) || 0, end: Math.abs(Number(end)) || 0, text: text.join(' ') };
      });
      const lines = (output: string): number => output.split(/\r\n|\r|\n/).length - 1;
      promised(lines(formatSrt(segments)) === 4 * segments.length, 'a line break within a SubRip cue');
      promised(lines(formatVtt(segments)) === 2 + 3 * segments.length, 'a line break within a WebVTT cue');
      for (const segment of segments) promised(lines(formatTimed(segment)) === 0, 'a line break within a line');
    },
  })),
];
