/** Text as it comes: languages by any of their names, patterns and texts that would take for ever, normalisers in linear time. */
import test from 'ava';
import {
  basicNormalizer,
  cer,
  extendedNormalizer,
  isDistilWhisperError,
  LANGUAGES,
  resolveLanguage,
  tokenizerFromCharacters,
  tokenizerFromTiktoken,
  WhisperTokenizer,
  wer,
} from '../../lib/index.js';
import { processorSeconds } from '../support/load.js';
import { generator, refused } from '../support/weights.js';

// ---------------------------------------------------------------- languages

test('languages: tags of locales, FLEURS, Common Voice and POSIX mean their language', (t) => {
  const expected =
    'iw he,jv jw,nb no,nn nn,in id,ji yi,mo ro,zh-CN zh,zh_TW zh,zh-Hant-HK zh,zh-yue yue,zh-cmn-Hans-CN zh,sv-SE sv,pt-BR pt,ca_es ca,' +
    'cmn_hans_cn zh,yue_hant_hk yue,fil_ph tl,es_419 es,jv_id jw,nb_no no,nb-NO no,nn-NO nn,hy-AM hy,pa-IN pa,ne-NP ne,ps_af ps,' +
    'pt_BR.UTF-8 pt,sr_RS@latin sr,sr-Latn-RS sr,ca-valencia ca,de-1996 de,ZH-cn zh,Ca_ES ca,<|ca|> ca,' +
    'Haitian_Creole ht';
  for (const pair of expected.split(',')) {
    const [tag, code] = pair.split(' ');
    t.is(resolveLanguage(tag!).code, code!, tag);
  }
  t.is(resolveLanguage('NORWEGIAN').code, 'no');
  t.is(resolveLanguage(' Norwegian Nynorsk\n').code, 'nn');
  t.is(resolveLanguage('Farsi').code, 'fa');
  t.is(resolveLanguage(`ca${' '.repeat(200)}`).code, 'ca');
});

test('languages: the codes of ISO 639-2 and 639-3, both of those that have two; none of them means two languages', (t) => {
  const pairs =
    'cat ca,deu de,ger de,cmn zh,zho zh,chi zh,fra fr,fre fr,ces cs,cze cs,nld nl,dut nl,eus eu,baq eu,ell el,gre el';
  for (const pair of `${pairs},nob no,nno nn,fil tl,arb ar,swh sw,lao lo,haw haw,yue yue`.split(',')) {
    const [iso, code] = pair.split(' ');
    t.is(resolveLanguage(iso!).code, code!, iso);
    t.is(resolveLanguage(iso!.toUpperCase()).code, code!, iso);
  }
  for (const { code, name } of LANGUAGES) {
    t.is(resolveLanguage(`${code}-Latn-XX`).code, code);
    t.is(resolveLanguage(name.toUpperCase()).code, code);
  }
});

test('languages: a tag of another language is refused, and what is nearly a name is told it', async (t) => {
  const others =
    'ast_es ceb_ph ckb ckb_iq ff_sn ga-IE ig_ng kam_ke kea_cv ky_kg lg_ug luo_ke nso_za ny_mw om_et or_in umb_ao';
  const broken =
    'nan-tw zh-nan rm-sursilv wo_sn xh_za zu_za fy-NL en- -en ca- ca_es_ ca--es _ - en-! catalan-es auto <||> ca\u0000';
  for (const tag of `${others} ${broken}`.split(' ')) {
    await refused(t, 'ERR_LANGUAGE', /Unknown language/, () => resolveLanguage(tag));
  }
  await refused(t, 'ERR_LANGUAGE', /'catalan' \(ca\)/, () => resolveLanguage('Catalna'));
  await refused(t, 'ERR_LANGUAGE', /'english' \(en\)/, () => resolveLanguage('englsh'));
  await refused(t, 'ERR_LANGUAGE', /'chinese' \(zh\)/, () => resolveLanguage('chinese-CN'));
});

// ---------------------------------------------------------------- tokenizers

const pocket = tokenizerFromCharacters(['bon dia', 'adéu'], { languages: ['ca', 'en'] });
const split = (pattern: string) => ({
  ...pocket,
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [
      { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false },
      { type: 'ByteLevel', add_prefix_space: false, use_regex: false },
    ],
  },
});

test('tokenizer: a regular expression that may take for ever is refused by name, wherever it stands', async (t) => {
  const slow = [
    '(a+)+b',
    '(a|a)*b',
    '(?:a|aa)+$',
    '(.*)*x',
    '(x+x+)+y',
    'a?a?a?a?a?a?a?a?aaaaaaaa',
    '(a|a)(a|a)(a|a)b',
    '.*.*=.*',
    '\\s+$',
    'a+b',
    '^a',
    'a{1,1000}b',
    '(a)\\1',
    '(?=a+)b',
    'a++b',
    'a*?b',
    '(a',
    'a)',
    '[a',
    'a|'.repeat(400),
  ];
  for (const pattern of slow) {
    const named = pattern.slice(0, 90).replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
    await refused(t, 'ERR_TOKENIZER', new RegExp(`tokenizer\\.json: the regular expression '${named}`), () =>
      WhisperTokenizer.fromJSON(split(pattern)),
    );
  }
  const replace = { type: 'Replace', pattern: { Regex: '(a+)+b' }, content: '' };
  for (const section of ['normalizer', 'decoder', 'pre_tokenizer']) {
    const sequence = { type: 'Sequence', [section === 'pre_tokenizer' ? 'pretokenizers' : `${section}s`]: [replace] };
    for (const value of [replace, sequence]) {
      await refused(t, 'ERR_TOKENIZER', /'\(a\+\)\+b'/, () =>
        WhisperTokenizer.fromJSON({ ...pocket, [section]: value }),
      );
    }
  }
  await refused(t, 'ERR_TOKENIZER', /to be text/, () => WhisperTokenizer.fromJSON(split(7 as never)));
  let deep: unknown = replace;
  for (let i = 0; i < 20_000; i++) deep = { type: 'Sequence', normalizers: [deep] };
  await refused(t, 'ERR_TOKENIZER', /nest/, () => WhisperTokenizer.fromJSON({ ...pocket, normalizer: deep }));
});

test('tokenizer: patterns of published tokenizers run, and in time on what goes back furthest', (t) => {
  const published = [
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+",
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s+(?!\\S)|\\s+",
    ' {2,}',
    '\\d',
    '[\\r\\n]+',
  ];
  const plain = WhisperTokenizer.fromJSON(pocket);
  const begin = processorSeconds();
  for (const pattern of published) {
    const tokenizer = WhisperTokenizer.fromJSON(split(pattern));
    for (const text of [
      "it's 12 dies  i mig\n",
      ' '.repeat(20_000),
      'a'.repeat(20_000),
      `${' '.repeat(20_000)}a`,
      "'".repeat(20_000),
    ]) {
      t.is(tokenizer.decode(tokenizer.encode(text)), text);
    }
    if (pattern.includes('(?!')) t.deepEqual(tokenizer.encode("it's  bon dia"), plain.encode("it's  bon dia"));
  }
  t.true(processorSeconds() - begin < 30);
});

test('tokenizer: added tokens made of what is special in patterns are found as they are written', (t) => {
  const next = 1000;
  const contents = ['(a+)+b', '[[[', '.*', '\\\\', '^$', '(?=', 'a{1,1000}', '*'.repeat(300)];
  const added = contents.map((content, i) => ({ ...pocket.added_tokens[0]!, id: next + i, content, special: false }));
  const tokenizer = WhisperTokenizer.fromJSON({ ...pocket, added_tokens: [...pocket.added_tokens, ...added] });
  for (const [i, content] of contents.entries())
    t.true(tokenizer.encode(`bon${content}dia`).includes(next + i), content);
});

test('tokenizer: a text of 20 MB is refused; the longest that is taken ends', async (t) => {
  const tokenizer = WhisperTokenizer.fromJSON(pocket);
  await refused(t, 'ERR_ARGUMENT', /at most 100000 characters, got 20000000/, () => tokenizer.encode('a'.repeat(20e6)));
  t.is(tokenizer.encode('a'.repeat(100_000)).length, 100_000);
  t.is(tokenizer.decode(tokenizer.encode('( '.repeat(50_000))), '( '.repeat(50_000));
});

test('tokenizer: sections that make no sense fail typed when they are used', async (t) => {
  const broken = WhisperTokenizer.fromJSON({
    ...pocket,
    normalizer: { type: 'Prepend' },
    post_processor: { type: 'TemplateProcessing' },
  });
  const error = await t.throwsAsync(async () => broken.encode('bon'), undefined, 'it encodes');
  t.true(isDistilWhisperError(error) && error.code === 'ERR_TOKENIZER', `${error?.stack}`);
});

test('tokenizer: tiktoken ranks with a byte-order mark are read', (t) => {
  const ranks = ['a', 'b', 'ab'].map((token, i) => `${Buffer.from(token).toString('base64')} ${i}`).join('\r\n');
  t.deepEqual(
    WhisperTokenizer.fromJSON(tokenizerFromTiktoken(`\ufeff${ranks}`, { languages: ['en'] })).encode('ab'),
    [2],
  );
});

// ---------------------------------------------------------------- normalisers

/** The normalisers as they are stated: by the patterns of Whisper and of the reference, whatever time these take. */
function stated(
  text: string,
  options: { removeDiacritics?: boolean; splitLetters?: boolean },
  extended: boolean,
): string {
  const spoken = text
    .toLowerCase()
    .replace(/[<[][^>\]]*[>\]]/gu, '')
    .replace(/\([^)]+\)/gu, '');
  const plain = options.removeDiacritics ? spoken.normalize('NFKD').replace(/\p{Mn}/gu, '') : spoken.normalize('NFKC');
  let out = plain.replace(/[\p{M}\p{S}\p{P}]/gu, ' ').toLowerCase();
  const segments = new Intl.Segmenter('und', { granularity: 'grapheme' });
  const unspaced = /[\u0e00-\u109f\u3000-\u9fff\uac00-\ud7af]/gu;
  if (options.splitLetters && !extended) out = Array.from(segments.segment(out), (part) => part.segment).join(' ');
  if (options.splitLetters && extended) out = out.replace(unspaced, ' $& ').replace(/^[ \n]+|[ \n]+$/g, '');
  return out.replace(/[ \n]+/gu, ' ');
}

test('normalisers: on 40,000 random texts exactly what the patterns say', (t) => {
  const next = generator(3);
  const characters = [...'()<>[]()<>[]a Σb\né\u0301\u0323漢ไ한가', '😀', '\u200d', '\ud800'];
  const normalizers = [basicNormalizer, extendedNormalizer].flatMap((make) =>
    [{}, { removeDiacritics: true }, { splitLetters: true }, { removeDiacritics: true, splitLetters: true }].map(
      (options) => ({ normalize: make(options), options, extended: make === extendedNormalizer }),
    ),
  );
  for (let i = 0; i < 40_000; i++) {
    const text = Array.from({ length: next(16) }, () => characters[next(characters.length)]).join('');
    const { normalize, options, extended } = normalizers[i % normalizers.length]!;
    const got = normalize(text);
    const expected = stated(text, options, extended);
    if (got !== expected) return t.is(got, expected, JSON.stringify({ text, options, extended }));
  }
  t.pass();
});

test('normalisers: long texts are those of their parts: graphemes over the pieces, spaces and pairs over the seams', (t) => {
  const split = basicNormalizer({ splitLetters: true });
  const long = `${'ab한국 👨‍👩‍👧 नमस्ते e\u0301 \u1100\u1161\u11a8'.repeat(300)}a${'\u200d'.repeat(5000)}b`;
  t.is(split(long), stated(long, { splitLetters: true }, false));
  const extended = extendedNormalizer({ splitLetters: true });
  for (const unit of ['漢 字  ', 'a \n b', '𠜎', ' 𠜎 ']) {
    const times = Math.ceil(2_100_001 / unit.length);
    for (const lead of ['', 'a']) {
      const expected = unit.includes('漢') ? ' 漢 字' : unit === '𠜎' ? unit : unit.replace(/\s+/g, ' ');
      const whole = `${lead}${expected.repeat(times)}`.replace(/ {2,}/g, ' ').trim();
      t.true(extended(lead + unit.repeat(times)) === whole, `${lead}${unit}`);
    }
  }
});

test('normalisers and error rates: 100,000 characters of any kind in a fraction of a second', (t) => {
  const units = [
    '(',
    '<',
    '[',
    '()',
    '(<[',
    ')',
    ' ',
    '\u3000',
    'a ',
    '\u0301\u0323',
    'a\u0301',
    'Σ',
    "Σ'",
    '漢',
    '\u1100\u1161',
    '👨‍👩‍👧',
    'x',
  ];
  const normalizers = {
    basic: basicNormalizer({ removeDiacritics: true, splitLetters: true }),
    extended: extendedNormalizer({ splitLetters: true }),
  };
  for (const unit of units) {
    const text = `a${unit.repeat(100_000 / unit.length)}b`;
    for (const [name, normalize] of Object.entries(normalizers)) {
      const seconds = timed(() => normalize(text));
      // 5 to 110 ms on one core; the quadratic forms took 5 to 50 s.
      t.true(seconds < 2, `${name} of ${JSON.stringify(unit)}: ${seconds} s`);
    }
    t.true(timed(() => wer([text], [`${text} `])) < 2);
  }
});

test('normalisers: a letter keeps the mark that it is joined with, behind and before any number of others', (t) => {
  const normalize = basicNormalizer();
  t.is(normalize(`e${'\u0323'.repeat(1000)}\u0301`), 'ẹ ');
  t.is(normalize(`e${'\u0301'.repeat(1000)}\u0323x`), 'ẹ x');
  t.is(normalize(`${'a\u0302\u0301'.repeat(30)}`), 'ấ'.repeat(30));
  for (const count of [63, 64, 65, 66, 200]) {
    const marks = Array.from({ length: count }, (_, i) => String.fromCharCode(0x300 + (i % 70))).join('');
    const text = `e${marks}o${marks}`;
    for (const removeDiacritics of [false, true]) {
      t.is(basicNormalizer({ removeDiacritics })(text), stated(text, { removeDiacritics }, false), `${count}`);
    }
  }
});

test('normalisers and error rates: beyond 10,000,000 characters, and what would take hours to align, is refused', async (t) => {
  const long = 'a'.repeat(20e6);
  await refused(t, 'ERR_ARGUMENT', /at most 10000000 characters/, () => basicNormalizer()(long));
  await refused(t, 'ERR_ARGUMENT', /at most 10000000 characters/, () => extendedNormalizer()(long));
  await refused(t, 'ERR_ARGUMENT', /hypothesis of row 1 .* at most 10000000/, () => wer(['a'], [long]));
  t.is(cer(['ab'.repeat(500_000)], [`${'ab'.repeat(500_000)}c`]).errors, 1);
  await refused(t, 'ERR_ARGUMENT', /row 1 are too long to be aligned \(1000000 by 1000000\)/, () =>
    cer(['ab'.repeat(500_000)], ['cd'.repeat(500_000)]),
  );
});

/** Seconds of computing: what else runs here does not count. */
function timed(work: () => unknown): number {
  const begin = processorSeconds();
  work();
  return processorSeconds() - begin;
}
