import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { isDistilWhisperError } from '../../lib/errors/index.js';
import {
  basicNormalizer,
  cer,
  extendedNormalizer,
  LANGUAGES,
  nonSpeechTokens,
  resolveLanguage,
  suppressAtBegin,
  suppressTokens,
  tokenizerFromCharacters,
  tokenizerFromTiktoken,
  WhisperTokenizer,
  wer,
} from '../../lib/text/index.js';

const shared = new URL('../../../shared/', import.meta.url);
const golden = new URL('../golden/text/', import.meta.url);

type Row = Record<string, string>;

function load(url: URL) {
  return JSON.parse(readFileSync(url, 'utf8'));
}

/** The errors' codes and sentences are part of the API: asserts both and returns the message. */
function refuses(t: ExecutionContext, action: () => unknown, code: string, ...parts: (string | RegExp)[]) {
  const error = t.throws(action);
  t.true(isDistilWhisperError(error), String(error));
  t.is((error as unknown as { code: string }).code, code, error?.message);
  for (const part of parts)
    typeof part === 'string'
      ? t.true(error?.message.includes(part), `${error?.message} lacks ${part}`)
      : t.regex(error?.message ?? '', part);
}

async function refusesLater(t: ExecutionContext, promise: Promise<unknown>, code: string, part: string) {
  const error = await t.throwsAsync(promise);
  t.true(isDistilWhisperError(error), String(error));
  t.is((error as unknown as { code: string }).code, code, error?.message);
  t.true(error?.message.includes(part), error?.message);
}

const sharedTest = existsSync(shared) ? test : test.skip;
if (!existsSync(shared)) console.log('../shared is absent: the full golden cases 5 and 6 are skipped');

const whisper = new Map<number, WhisperTokenizer>();
function realTokenizer(languages = 99): WhisperTokenizer {
  const known = whisper.get(languages);
  if (known) return known;
  const ranks = readFileSync(new URL('tokenizer/multilingual.tiktoken', shared), 'utf8');
  const made = WhisperTokenizer.fromJSON(tokenizerFromTiktoken(ranks, { languages }));
  whisper.set(languages, made);
  return made;
}

// ---------------------------------------------------------------- languages

test('languages: 100 in the order of the tokens, names lower-case, each code, name and alias resolves', (t) => {
  t.is(LANGUAGES.length, 100);
  t.is(new Set(LANGUAGES.map(({ code }) => code)).size, 100);
  t.is(new Set(LANGUAGES.map(({ name }) => name)).size, 100);
  t.is(LANGUAGES.map(({ code }) => code).join(' '), load(new URL('languages.json', golden)).codes);
  for (const language of LANGUAGES) {
    t.deepEqual(resolveLanguage(language.code), language);
    t.deepEqual(resolveLanguage(language.name), language);
    t.is(language.name, language.name.toLowerCase());
  }
  t.deepEqual(resolveLanguage('  Catalan '), { code: 'ca', name: 'catalan' });
  t.is(resolveLanguage('CA').name, 'catalan');
  t.is(resolveLanguage('haitian creole').code, 'ht');
  t.is(resolveLanguage('YUE').name, 'cantonese');
  const aliases = 'burmese my valencian ca flemish nl haitian ht letzeburgesch lb pushto ps panjabi pa moldavian ro';
  const pairs = `${aliases} moldovan ro sinhalese si castilian es mandarin zh`.split(' ');
  for (let i = 0; i < pairs.length; i += 2) t.is(resolveLanguage(pairs[i]!).code, pairs[i + 1]!);
});

test('languages: what is none is ERR_LANGUAGE and names the nearest', (t) => {
  refuses(t, () => resolveLanguage('catalonian'), 'ERR_LANGUAGE', "'catalonian'", "'catalan' (ca)");
  refuses(t, () => resolveLanguage('Ukranian'), 'ERR_LANGUAGE', "'ukrainian' (uk)");
  refuses(t, () => resolveLanguage('czec'), 'ERR_LANGUAGE', "'czech' (cs)");
  refuses(t, () => resolveLanguage('ji-Q9'), 'ERR_LANGUAGE', "'ji-Q9'");
  for (const text of ['', ' ', 'xqzzw', 'toString', '__proto__', 'constructor', 'é', 'x'.repeat(1e5)]) {
    refuses(t, () => resolveLanguage(text), 'ERR_LANGUAGE', 'Unknown language');
  }
  t.true(t.throws(() => resolveLanguage('x'.repeat(1e5)))!.message.length < 300);
  for (const value of [undefined, null, 7, {}, ['ca']])
    refuses(t, () => resolveLanguage(value as never), 'ERR_LANGUAGE', 'got');
});

// ---------------------------------------------------------------- tokenizer, the published vocabulary

sharedTest(
  "tokenizer: Whisper's vocabulary gives the recorded ids for all texts of golden case 5, and they decode back",
  (t) => {
    const { cases } = load(new URL('golden/case5_tokenizer/tokenizer.json', shared));
    const tokenizer = realTokenizer();
    t.true(cases.length >= 50);
    for (const { text, ids, utf8_hex } of cases) {
      t.is(Buffer.from(text, 'utf8').toString('hex'), utf8_hex);
      t.deepEqual(tokenizer.encode(text), ids, JSON.stringify(text));
      t.is(tokenizer.decode(ids), text, JSON.stringify(text));
    }
  },
);

sharedTest('tokenizer: broken UTF-8 and special tokens decode as recorded in golden case 5', (t) => {
  const tokenizer = realTokenizer();
  for (const row of load(new URL('golden/case5_tokenizer/tokenizer.json', shared)).decode_cases) {
    t.is(tokenizer.decode(row.ids, { skipSpecial: false }), row.decode_drop_timestamps);
    t.is(tokenizer.decode(row.ids, { skipSpecial: false, timestamps: true }), row.decode_with_timestamps);
  }
  t.is(tokenizer.decode([50258, 50270, 50359, 50363, 3]), '$');
  t.is(tokenizer.decode([50364, 2425, 50414, 50257]), ' Hello');
  t.is(tokenizer.decode([50364, 2425, 50414, 50257], { timestamps: true }), '<|0.00|> Hello<|1.00|>');
  // The halves of a character join over a dropped token, and do not over a written one.
  t.is(tokenizer.decode([13125, 50364, 222]), '😀');
  t.is(tokenizer.decode([13125, 50364, 222], { timestamps: true }), '\ufffd<|0.00|>\ufffd');
});

sharedTest('tokenizer: start sequences, special ids and suppression lists are those of golden case 5', (t) => {
  const file = load(new URL('golden/case5_tokenizer/tokenizer.json', shared));
  for (const row of file.sot_sequences) {
    const tokenizer = realTokenizer(row.num_languages);
    const { language, task } = row;
    t.deepEqual(tokenizer.prompt({ language, task, timestamps: true }), row.sot_sequence);
    t.deepEqual(tokenizer.prompt({ language, task }), row.sot_sequence_including_notimestamps);
  }
  const tokenizer = realTokenizer();
  const special = file.special_99_languages;
  t.is(tokenizer.endOfText, special.eot);
  t.is(tokenizer.startOfTranscript, special.sot);
  t.is(tokenizer.translate, special.translate);
  t.is(tokenizer.transcribe, special.transcribe);
  t.is(tokenizer.id('<|startoflm|>'), special.sot_lm);
  t.is(tokenizer.id('<|startofprev|>'), special.sot_prev);
  t.is(tokenizer.id('<|nospeech|>'), special.no_speech);
  t.is(tokenizer.noTimestamps, special.no_timestamps);
  t.is(tokenizer.timestampBegin, special.timestamp_begin);
  t.is(tokenizer.vocabSize, special.n_vocab);
  t.deepEqual(tokenizer.languages, Object.keys(special.language_tokens));
  for (const [code, id] of Object.entries(special.language_tokens)) t.is(tokenizer.languageId(code), id as number);
  t.is(realTokenizer(100).vocabSize, special.n_vocab + 1);
  t.deepEqual(nonSpeechTokens(tokenizer), file.non_speech_tokens);
  t.deepEqual(suppressTokens(tokenizer), file.openai_default_suppress_tokens);
  t.deepEqual(suppressAtBegin(tokenizer), file.blank_suppress_begin);
  refuses(t, () => tokenizer.languageId('cantonese'), 'ERR_LANGUAGE', 'cantonese', '<|yue|>');
});

sharedTest("labels: the reference's format and the paper's, as recorded in golden case 5", (t) => {
  const file = load(new URL('golden/case5_tokenizer/hf_label_format.json', shared));
  const tokenizer = realTokenizer();
  const reference = file["label_ids('Bon dia.')"];
  t.deepEqual(tokenizer.labels('Bon dia.', { language: 'ca', task: 'transcribe', compat: 'reference' }), reference);
  t.deepEqual(tokenizer.labels('Bon dia.', { compat: 'reference' }), reference);
  t.deepEqual(tokenizer.labels('Bon dia.', { language: 'Catalan' }), file["label_ids('Bon dia.') after"]);
  t.deepEqual(
    reference.map((id: number) => tokenizer.token(id)),
    file.tokens,
  );
  const forced = file["get_decoder_prompt_ids(language='Catalan', task='transcribe')"];
  t.deepEqual(
    tokenizer.prompt({ language: 'catalan' }).slice(1),
    forced.map(([, id]: number[]) => id),
  );
});

sharedTest('tokenizer: 3,000 random Unicode texts survive encoding and decoding with the published vocabulary', (t) => {
  const tokenizer = realTokenizer();
  const random = lcg(5);
  for (let i = 0; i < 3000; i++) {
    const text = randomText(random);
    t.is(tokenizer.decode(tokenizer.encode(text)), text);
  }
});

sharedTest('tokenizer: U+0085 is white space and U+FEFF is none, as in the byte-pair reference', (t) => {
  const tokenizer = realTokenizer();
  t.deepEqual(tokenizer.encode('a\u0085 b'), [
    ...tokenizer.encode('a'),
    ...tokenizer.encode('\u0085'),
    ...tokenizer.encode(' b'),
  ]);
  // ' \ufeff!' is one piece, so that the space may merge with what follows.
  t.is(tokenizer.encode(' \ufeff').length, tokenizer.encode(' \ufeff!').length - 1);
});

// ---------------------------------------------------------------- tokenizer, small vocabularies

const pocketTexts = ['bon dia', 'l’àvia i l’enginyer', 'Zażółć gęślą jaźń', 'สวัสดี', 'привіт 😀'];
const pocket = WhisperTokenizer.fromJSON(
  tokenizerFromCharacters(pocketTexts, { languages: ['Catalan', 'pl', 'th', 'uk'], timestamps: 251 }),
);

test('tokenizer: a pocket vocabulary has its languages, tasks and timestamps, and one id per character', (t) => {
  t.deepEqual(pocket.languages, ['ca', 'pl', 'th', 'uk']);
  for (const text of pocketTexts) {
    t.is(pocket.encode(text).length, [...text].length, text);
    t.is(pocket.decode(pocket.encode(text)), text);
  }
  t.is(pocket.encode('漢').length, 3);
  t.is(pocket.decode(pocket.encode('漢 字\ud800')), '漢 字\ufffd');
  t.is(pocket.languageId('valencian'), pocket.startOfTranscript + 1);
  t.deepEqual(pocket.prompt({ language: 'th' }), [
    pocket.startOfTranscript,
    pocket.id('<|th|>'),
    pocket.transcribe,
    pocket.noTimestamps,
  ]);
  t.deepEqual(pocket.prompt({ task: 'translate', timestamps: true }), [pocket.startOfTranscript, pocket.translate]);
  t.is(pocket.vocabSize, pocket.noTimestamps + 252);
  const labels = pocket.labels('bon dia', { language: 'ca' });
  t.deepEqual(labels, [...pocket.prompt({ language: 'ca' }), ...pocket.encode('bon dia'), pocket.endOfText]);
  t.is(pocket.decode(labels), 'bon dia');
  t.is(
    pocket.decode(labels, { skipSpecial: false }),
    '<|startoftranscript|><|ca|><|transcribe|><|notimestamps|>bon dia<|endoftext|>',
  );
  t.false(suppressTokens(pocket).includes(pocket.encode(' ')[0]!));
});

test('tokenizer: timestamps go from seconds to ids and back, and refuse what lies outside', (t) => {
  for (const seconds of [0, 0.02, 1.08, 4.98, 5]) {
    const id = pocket.timestampId(seconds);
    t.is(pocket.timestampSeconds(id), seconds);
    t.is(pocket.token(id), `<|${seconds.toFixed(2)}|>`);
    t.is(pocket.id(`<|${seconds.toFixed(2)}|>`), id);
    t.true(pocket.isTimestamp(id));
    t.false(pocket.isSpecial(id));
  }
  t.is(pocket.timestampId(1.009), pocket.timestampId(1));
  const { begin, end, noTimestamps } = pocket.timestampTokens;
  t.deepEqual([begin, end - 1, noTimestamps], [pocket.timestampId(0), pocket.timestampId(5), begin - 1]);
  t.true(pocket.hasTimestamps);
  for (const seconds of [-0.02, 5.02, NaN, Infinity])
    refuses(t, () => pocket.timestampId(seconds), 'ERR_ARGUMENT', '5.00');
  refuses(t, () => pocket.timestampSeconds(pocket.noTimestamps), 'ERR_ARGUMENT', 'not a timestamp');
});

test('tokenizer: a vocabulary that ends with <|notimestamps|> has 30 s of unlisted timestamps behind', (t) => {
  const old = WhisperTokenizer.fromJSON(tokenizerFromCharacters(['a'], { languages: 2 }));
  t.is(old.timestampBegin, old.vocabSize);
  t.deepEqual([old.hasTimestamps, old.timestampTokens.end], [true, old.vocabSize + 1501]);
  t.is(old.decode([old.timestampId(30), ...old.encode('a')], { timestamps: true }), '<|30.00|>a');
  refuses(t, () => old.token(old.vocabSize + 1501), 'ERR_TOKENIZER', 'no token with the id');
});

test('tokenizer: text that looks like a special token is encoded as text', (t) => {
  for (const text of ['<|endoftext|>', 'a <|ca|> b', '<|1.08|>', '<|startoftranscript|><|notimestamps|>']) {
    const ids = pocket.encode(text);
    t.is(ids.length, text.length);
    t.true(ids.every((id) => !pocket.isSpecial(id) && !pocket.isTimestamp(id)));
    t.is(pocket.decode(ids), text);
  }
});

test('tokenizer: absent tokens, languages and ids, and wrong arguments are typed errors', (t) => {
  refuses(t, () => pocket.id('<|nothing|>'), 'ERR_TOKENIZER', '<|nothing|>');
  refuses(t, () => pocket.languageId('en'), 'ERR_LANGUAGE', 'english', 'ca pl th uk');
  refuses(t, () => pocket.prompt({ language: 'klingon' }), 'ERR_LANGUAGE', 'klingon');
  refuses(t, () => pocket.prompt({ task: 'summarise' as never }), 'ERR_ARGUMENT', 'summarise');
  refuses(t, () => pocket.encode(undefined as never), 'ERR_ARGUMENT', 'string');
  for (const id of [-1, pocket.vocabSize, 1.5, NaN, 1e12])
    refuses(t, () => pocket.decode([id]), 'ERR_TOKENIZER', 'the id');
  t.deepEqual(pocket.encode(''), []);
  t.is(pocket.decode([]), '');
  const json = tokenizerFromCharacters(['a'], { languages: 0 });
  const bare = WhisperTokenizer.fromJSON({ ...json, added_tokens: [] });
  for (const name of [
    'startOfTranscript',
    'endOfText',
    'transcribe',
    'translate',
    'noTimestamps',
    'timestampBegin',
  ] as const) {
    refuses(t, () => bare[name], 'ERR_TOKENIZER', 'no t');
  }
  refuses(t, () => bare.languageId('ca'), 'ERR_LANGUAGE', 'no languages');
});

test('tokenizer: a character vocabulary without bytes names the letter that it lacks instead of dropping it', (t) => {
  const json = {
    model: { type: 'BPE', vocab: { a: 0, b: 1, ' ': 2, '<|endoftext|>': 3 }, merges: [] },
    decoder: { type: 'Fuse' },
  };
  const tokenizer = WhisperTokenizer.fromJSON(json);
  t.deepEqual(tokenizer.encode('ab ba'), [0, 1, 2, 1, 0]);
  t.is(tokenizer.decode([0, 1, 2, 3, 1]), 'ab b');
  t.is(tokenizer.endOfText, 3);
  refuses(t, () => tokenizer.encode('abc'), 'ERR_TOKENIZER', "'c'", 'U+0063');
  const withUnknown = WhisperTokenizer.fromJSON({
    ...json,
    model: { ...json.model, vocab: { ...json.model.vocab, '?': 4 }, unk_token: '?' },
  });
  t.deepEqual(withUnknown.encode('abc'), [0, 1, 4]);
});

test('tokenizer: what is no byte-pair tokenizer.json is refused with the reason', (t) => {
  const good = tokenizerFromCharacters(['a'], { languages: ['ca'] });
  const cases: [unknown, string][] = [
    [null, 'got null'],
    [[], 'a list'],
    ['{}', 'a string'],
    [{}, "'model'"],
    [{ model: { type: 'Unigram', vocab: [] } }, 'Unigram'],
    [{ model: { type: 'BPE', merges: [] } }, 'model.vocab'],
    [{ model: { type: 'BPE', vocab: { a: 0 } } }, 'model.merges'],
    [{ model: { type: 'BPE', vocab: {}, merges: [] } }, 'empty'],
    [{ ...good, added_tokens: {} }, 'added_tokens'],
    [{ ...good, added_tokens: ['x'] }, 'to be an object'],
    [{ ...good, added_tokens: [{ id: 3 }] }, 'no text'],
    [{ ...good, added_tokens: [{ id: -1, content: '<|x|>' }] }, "'<|x|>'"],
    [{ ...good, added_tokens: [{ id: 1e9, content: '<|x|>' }] }, "'<|x|>'"],
    [{ ...good, added_tokens: [{ id: 3, content: '<|x|>' }] }, 'both claim the id 3'],
    [{ ...good, added_tokens: [{ id: 900, content: 'a' }] }, 'two ids'],
    [{ ...good, decoder: { type: 'Nonsense' } }, 'Nonsense'],
    [{ ...good, added_tokens: [{ id: 400, content: '<|0.02|>' }] }, 'timestamp'],
  ];
  for (const [json, part] of cases)
    refuses(t, () => WhisperTokenizer.fromJSON(json), 'ERR_TOKENIZER', 'tokenizer.json', part);
});

test('tokenizer: fromFolder reads what was written, takes tokens from tokenizer_config.json, and names what is wrong', async (t) => {
  const folder = await mkdtemp(join(tmpdir(), 'text-'));
  t.teardown(() => rm(folder, { recursive: true }));
  await refusesLater(t, WhisperTokenizer.fromFolder(folder), 'ERR_FILE_NOT_FOUND', 'tokenizer.json');
  await refusesLater(t, WhisperTokenizer.fromFolder(join(folder, 'absent')), 'ERR_FILE_NOT_FOUND', 'absent');
  const file = join(folder, 'tokenizer.json');
  await writeFile(file, JSON.stringify(pocket));
  const read = await WhisperTokenizer.fromFolder(folder);
  t.deepEqual(read.labels('bon dia', { language: 'ca' }), pocket.labels('bon dia', { language: 'ca' }));
  t.is(read.vocabSize, pocket.vocabSize);
  await writeFile(
    join(folder, 'tokenizer_config.json'),
    JSON.stringify({
      clean_up_tokenization_spaces: true,
      added_tokens_decoder: { 5000: { content: '<|extra|>', special: true } },
    }),
  );
  const extended = await WhisperTokenizer.fromFolder(folder);
  t.is(extended.id('<|extra|>'), 5000);
  t.is(extended.decode(extended.encode("do n't , no .")), "do n't , no .");
  await writeFile(file, '{"model":');
  await refusesLater(t, WhisperTokenizer.fromFolder(folder), 'ERR_TOKENIZER', 'not valid JSON');
  await writeFile(file, '');
  await refusesLater(t, WhisperTokenizer.fromFolder(folder), 'ERR_TOKENIZER', 'tokenizer.json');
  await rm(file);
  await mkdir(file);
  await refusesLater(t, WhisperTokenizer.fromFolder(folder), 'ERR_FILE_READ', 'tokenizer.json');
});

test('tokenizer: a compact tiktoken file gives the ids that longest-known merges imply, and broken ranks are refused', (t) => {
  const ranks = (tokens: string[]) =>
    tokens.map((token, i) => `${Buffer.from(token).toString('base64') || '='} ${i}`).join('\n');
  const tokenizer = WhisperTokenizer.fromJSON(
    tokenizerFromTiktoken(ranks(['a', 'b', ' ', 'ab', ' ab', 'abab', '']), { languages: ['en'], timestamps: 0 }),
  );
  t.deepEqual(tokenizer.encode('abab ab ba'), [5, 4, 2, 1, 0]);
  t.is(tokenizer.endOfText, 7);
  t.is(tokenizer.languageId('en'), 9);
  refuses(t, () => tokenizer.encode('abc'), 'ERR_TOKENIZER', "'c'");
  refuses(t, () => tokenizerFromTiktoken('YQ== 0\nYg== 2'), 'ERR_TOKENIZER', 'line 2');
  refuses(t, () => tokenizerFromTiktoken('YQ== 0\n<html> 1'), 'ERR_TOKENIZER', 'line 2');
  refuses(t, () => tokenizerFromTiktoken('YQ== 0\nYQ== 1'), 'ERR_TOKENIZER', 'line 2');
  refuses(t, () => tokenizerFromTiktoken(ranks(['a', 'b', 'aba'])), 'ERR_TOKENIZER', 'rank 2');
  for (const languages of [-1, 101, 1.5])
    refuses(t, () => tokenizerFromTiktoken('YQ== 0', { languages }), 'ERR_ARGUMENT', 'languages');
  refuses(t, () => tokenizerFromTiktoken('YQ== 0', { languages: ['zz'] }), 'ERR_LANGUAGE', 'zz');
  for (const timestamps of [-1, 0.5, NaN])
    refuses(t, () => tokenizerFromTiktoken('YQ== 0', { timestamps }), 'ERR_ARGUMENT', 'timestamps');
});

test('tokenizer: a real part of the published vocabulary (in this repository) gives the recorded ids', (t) => {
  const { ranks, published, cases } = load(new URL('tiny-tokenizer.json', golden));
  const labels = load(new URL('hf_label_format.json', golden));
  const tokenizer = WhisperTokenizer.fromJSON(tokenizerFromTiktoken(ranks, { languages: 99, timestamps: 1501 }));
  const toPublished = (id: number): number => (id < published.length ? published[id] : id + 50257 - published.length);
  t.true(cases.length > 10);
  for (const { text, ids } of cases) {
    t.deepEqual(tokenizer.encode(text).map(toPublished), ids, text);
    t.is(tokenizer.decode(tokenizer.encode(text)), text);
  }
  const reference = labels["label_ids('Bon dia.')"];
  const made = tokenizer.labels('Bon dia.', { language: 'ca', compat: 'reference' });
  t.deepEqual(made.map(toPublished), reference);
  t.deepEqual(
    made.map((id) => tokenizer.token(id)),
    labels.tokens,
  );
  t.deepEqual(tokenizer.labels('Bon dia.', { language: 'ca' }).map(toPublished), labels["label_ids('Bon dia.') after"]);
});

// ---------------------------------------------------------------- normalisers

function normalizerRows(t: ExecutionContext, rows: Row[]) {
  const columns = {
    openai_basic: basicNormalizer(),
    openai_basic_remove_diacritics: basicNormalizer({ removeDiacritics: true }),
    openai_basic_split_letters: basicNormalizer({ splitLetters: true }),
    openai_basic_remove_diacritics_split_letters: basicNormalizer({ removeDiacritics: true, splitLetters: true }),
    hf_basic: basicNormalizer(),
    hf_basic_remove_diacritics: basicNormalizer({ removeDiacritics: true }),
    hf_basic_split_letters: basicNormalizer({ splitLetters: true }),
    'naver_extended_split_letters (used for all reported WER/CER)': extendedNormalizer({ splitLetters: true }),
    naver_extended_no_split: extendedNormalizer(),
  };
  for (const row of rows) {
    for (const [column, normalize] of Object.entries(columns)) {
      if (column in row) t.is(normalize(row.input!), row[column]!, `${column} of ${JSON.stringify(row.input)}`);
    }
  }
}

sharedTest('normalisers: every basic and extended column of golden case 6', (t) => {
  const rows = load(new URL('golden/case6_text/normalizers.json', shared)).basic;
  t.true(rows.length >= 70);
  normalizerRows(t, rows);
});

test('normalisers: the recorded cases in this repository', (t) => {
  const rows = load(new URL('normalizers.json', golden));
  t.true(rows.length >= 30);
  normalizerRows(t, rows);
});

test('normalisers: white space is that of Python, and only unspaced scripts are taken apart', (t) => {
  const extended = extendedNormalizer({ splitLetters: true });
  t.is(basicNormalizer()('a\u001c\u0085b\u180ec'), 'a b\u180ec');
  t.is(extended('\u0085 ÀB 你好\ufeff ກຂ မြန်မာ ཀཁ カナ ꀀ 한글'), 'àb 你 好 \ufeff ກ ຂ မ န မ ཀ ཁ カ ナ ꀀ 한 글');
  t.is(extended('नमस्ते'), 'नमस त');
  t.is(extended('𠜎𠜱'), '𠜎𠜱');
  t.is(extendedNormalizer({ splitLetters: true, removeDiacritics: true })('Łódź 你'), 'lodz 你');
});

// ---------------------------------------------------------------- error rates

function rateRows(t: ExecutionContext, pairs: Record<string, unknown>[]) {
  const extended = extendedNormalizer({ splitLetters: true });
  for (const pair of pairs) {
    const prepare = pair.naver_normalised ? extended : (text: string) => text;
    const reference = prepare(pair.reference as string);
    const hypothesis = prepare(pair.hypothesis as string);
    t.is(reference, pair.ref_used as string);
    t.is(hypothesis, pair.hyp_used as string);
    const words = wer([reference], [hypothesis]);
    t.deepEqual(words, { errors: pair.word_errors, length: pair.ref_words, rate: pair.wer } as never, reference);
    const characters = cer([reference], [hypothesis]);
    t.deepEqual(characters, { errors: pair.char_errors, length: pair.ref_chars, rate: pair.cer } as never, reference);
  }
}

sharedTest('error rates: every pair and both corpora of golden case 6', (t) => {
  const file = load(new URL('golden/case6_text/wer_cer.json', shared));
  rateRows(t, file.pairs);
  for (const [name, normalised] of [
    ['raw', false],
    ['naver_normalised', true],
  ] as const) {
    const rows = file.pairs.filter((pair: { naver_normalised: boolean }) => pair.naver_normalised === normalised);
    const references = rows.map((row: { ref_used: string }) => row.ref_used);
    const hypotheses = rows.map((row: { hyp_used: string }) => row.hyp_used);
    const want = file.corpus[name];
    t.deepEqual(wer(references, hypotheses), { errors: want.word_errors, length: want.ref_words, rate: want.wer });
    t.deepEqual(cer(references, hypotheses), { errors: want.char_errors, length: want.ref_chars, rate: want.cer });
  }
});

test('error rates: the recorded pairs in this repository', (t) => {
  const pairs = load(new URL('wer_cer.json', golden));
  t.true(pairs.length >= 20);
  rateRows(t, pairs);
});

test('error rates: code points count, not UTF-16 units; tabs inside a word stay, runs of white space are one space', (t) => {
  t.deepEqual(cer(['😀𠜎'], ['😀']), { errors: 1, length: 2, rate: 0.5 });
  t.deepEqual(wer(['a\tb c'], ['a\tb  \u0085 c']), { errors: 0, length: 2, rate: 0 });
  t.deepEqual(wer(['a b', 'c'], ['a b', 'd e']), { errors: 2, length: 3, rate: 2 / 3 });
});

test('error rates: equal to the full-matrix distance on 500 random pairs, and symmetric in errors', (t) => {
  const random = lcg(11);
  const words = ['a', 'b', 'c', 'dd'];
  const sentence = () =>
    Array.from({ length: 1 + Math.floor(random() * 9) }, () => words[Math.floor(random() * 4)]).join(' ');
  for (let i = 0; i < 500; i++) {
    const [left, right] = [sentence(), sentence()];
    t.is(wer([left], [right]).errors, matrixDistance(left.split(' '), right.split(' ')));
    t.is(cer([left], [right]).errors, matrixDistance([...left], [...right]));
    t.is(wer([left], [right]).errors, wer([right], [left]).errors);
  }
});

test('error rates: an empty reference is an error with its row; so are unequal lists and what is no string', (t) => {
  refuses(t, () => wer(['a', ' \u0085 ', 'b'], ['a', 'b', 'c']), 'ERR_ARGUMENT', 'row 2');
  refuses(t, () => cer(['a', 'b', ''], ['a', 'b', '']), 'ERR_ARGUMENT', 'row 3');
  refuses(t, () => wer(['a'], []), 'ERR_ARGUMENT', '1 and 0');
  refuses(t, () => wer([], []), 'ERR_ARGUMENT', '0 and 0');
  refuses(t, () => wer('a' as never, 'a' as never), 'ERR_ARGUMENT', 'arrays');
  refuses(t, () => cer(['a', 'b'], ['a', undefined as never]), 'ERR_ARGUMENT', 'hypothesis of row 2');
  t.deepEqual(wer(['a b'], ['']), { errors: 2, length: 2, rate: 1 });
});

function matrixDistance(a: string[], b: string[]): number {
  const table = Array.from({ length: a.length + 1 }, (_, i) =>
    Array.from({ length: b.length + 1 }, (_, j) => (i ? (j ? 0 : i) : j)),
  );
  for (let i = 1; i <= a.length; i++) {
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      table[i]![j] = Math.min(table[i - 1]![j - 1]! + same, table[i - 1]![j]! + 1, table[i]![j - 1]! + 1);
    }
  }
  return table[a.length]![b.length]!;
}

function lcg(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Up to 30 characters from scripts, spaces, marks, controls and the astral planes. */
function randomText(random: () => number): string {
  const ranges = [
    [0, 0x7f],
    [0x20, 0x7e],
    [0xa0, 0x24f],
    [0x300, 0x36f],
    [0x400, 0x45f],
    [0xb80, 0xbff],
    [0xe00, 0xe7f],
    [0x2000, 0x206f],
    [0x4e00, 0x9fff],
    [0x1f600, 0x1f64f],
  ];
  return Array.from({ length: Math.floor(random() * 30) }, () => {
    const [low, high] = ranges[Math.floor(random() * ranges.length)]!;
    return String.fromCodePoint(low! + Math.floor(random() * (high! - low! + 1)));
  }).join('');
}
