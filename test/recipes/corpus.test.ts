import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import decodeOpus from '@audio/decode-opus';
import { Tokenizer } from '@huggingface/tokenizers';
import test from 'ava';

interface Row {
  id: string;
  audio: string;
  text: string;
  language: string;
  split: string;
  domain: string;
  kind: string;
  voice: string;
  seconds: number;
}

const LANGUAGES = ['ca', 'cs', 'en', 'hu', 'pl', 'ta', 'th', 'uk'];
const rows: Row[] = readFileSync('corpus/manifest.jsonl', 'utf8')
  .trimEnd()
  .split('\n')
  .map((line) => JSON.parse(line));

/** What the extended normaliser leaves of a text, without spaces: two texts with one key count as one sentence. */
const key = (row: Row): string => row.language + row.text.normalize('NFKC').replace(/[\p{M}\s]/gu, '');

const group = (language: string, split: string, domain: string): Row[] =>
  rows.filter((row) => row.language === language && row.split === split && row.domain === domain);

test('the embedded corpus holds every split of every language, and every row has its audio file', (t) => {
  for (const language of LANGUAGES) {
    const target = language === 'ca';
    t.is(group(language, 'test', 'in').length, target ? 80 : 40, language);
    t.is(group(language, 'test', 'out').length, target ? 80 : 40, language);
    t.is(group(language, 'validation', 'in').length, target ? 60 : 40, language);
    t.is(group(language, 'train', 'in').length, target ? 900 : 0, language);
  }
  t.is(new Set(rows.map((row) => row.id)).size, rows.length);
  t.deepEqual(
    rows.filter((row) => !existsSync(join('corpus', row.audio))).map((row) => row.audio),
    [],
  );
});

test('no sentence stands in two groups of the embedded corpus', (t) => {
  const seen = new Map<string, string>();
  for (const row of rows) {
    t.is(seen.get(key(row)), undefined, `${row.id}: ${row.text}`);
    seen.set(key(row), row.id);
  }
});

test('out of domain shares no voice and, but for read sentences, no kind of sentence with the rest', (t) => {
  const inside = rows.filter((row) => row.domain === 'in');
  const voices = new Set(inside.map((row) => row.voice));
  const kinds = new Set(inside.map((row) => row.kind));
  for (const row of rows.filter((each) => each.domain === 'out')) {
    t.false(voices.has(row.voice), row.voice);
    if (!['sentence'].includes(row.kind)) t.false(kinds.has(row.kind), row.kind);
  }
});

test('the embedded corpus is at most 12 MB and every utterance fits a window of five seconds', (t) => {
  const bytes = rows.reduce((sum, row) => sum + statSync(join('corpus', row.audio)).size, 0);
  t.true(bytes <= 12e6, `${bytes} bytes`);
  for (const row of rows) t.true(row.seconds > 0.2 && row.seconds <= 4.6, `${row.id}: ${row.seconds} s`);
});

test('one utterance of every group decodes to its length and is not silent', async (t) => {
  const groups = new Map(rows.map((row) => [`${row.language} ${row.split} ${row.domain}`, row]));
  for (const row of groups.values()) {
    const { channelData, sampleRate } = await decodeOpus(readFileSync(join('corpus', row.audio)));
    const samples = channelData[0] as Float32Array;
    t.true(Math.abs(samples.length / sampleRate - row.seconds) < 0.1, `${row.id}: ${samples.length / sampleRate} s`);
    const level = Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
    t.true(level > 0.01 && level < 0.7, `${row.id}: ${level}`);
  }
});

test('every text is lower case without punctuation, and the pocket tokenizer gives a token a letter and loses nothing', (t) => {
  const read = (name: string): Record<string, unknown> =>
    JSON.parse(readFileSync(join('models/pocket-student', name), 'utf8'));
  const tokenizer = new Tokenizer(read('tokenizer.json'), read('tokenizer_config.json'));
  for (const row of rows) {
    t.is(row.text, row.text.toLowerCase().trim().normalize('NFC'));
    t.notRegex(row.text, /[\p{P}\p{S}]|\s\s/u, row.id);
    const { ids } = tokenizer.encode(row.text, { add_special_tokens: false });
    t.is(ids.length, [...row.text].length, row.id);
    t.is(tokenizer.decode(ids, { skip_special_tokens: true }), row.text);
  }
  for (const text of ["L'Àngel (42)", '日本語 🙂', ' two  spaces ']) {
    t.is(tokenizer.decode(tokenizer.encode(text, { add_special_tokens: false }).ids), text);
  }
});
