/** Manifests as corpora bring them: their formats, their columns, where their audio lies; every bad row at once; what is no manifest. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';
import test from 'ava';
import { type BadRow, BadRowsError, encodeWav, type ManifestOptions, readManifest } from '../../lib/index.js';
import { processorSeconds } from '../support/load.js';

const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-manifests-'));
test.after.always(() => rmSync(scratch, { recursive: true, force: true }));
const wav = encodeWav(new Float32Array(160).fill(0.1), 16000);
let count = 0;

/** A folder with files; audio is written for names that end with .wav. */
function corpus(files: Record<string, string | Uint8Array | null>): (name: string) => string {
  const folder = join(scratch, `corpus-${count++}`);
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), content ?? wav);
  }
  return (name) => join(folder, name);
}
const lines = (...rows: object[]): string => rows.map((row) => JSON.stringify(row)).join('\n');
const brief = (path: string, options?: ManifestOptions): string[][] =>
  readManifest(path, options).map(({ audio, text, language }) => [audio, text, language]);
const good = { audio: 'a.wav', text: 'bon dia', language: 'ca' };

test("Hugging Face's rows: an audio object, file_name and transcription, raw_transcription, NeMo's audio_filepath", (t) => {
  const at = corpus({
    'a.wav': null,
    'objects.jsonl': lines(
      { audio: { path: 'a.wav', bytes: null }, sentence: 'u', locale: 'ca' },
      { audio: { path: null, bytes: null }, path: 'a.wav', transcription: 'dos', language: 'ca' },
      {
        audio: { path: 'a.wav', array: [0, 0.5], sampling_rate: 16000 },
        text: null,
        raw_transcription: 'Tres.',
        language: 'ca',
      },
      { file_name: 'a.wav', transcription: 'quatre', raw_transcription: 'Quatre!', language: 'ca' },
      { audio_filepath: 'a.wav', duration: 0.5, text: 'cinc', language: 'ca' },
    ),
  });
  t.deepEqual(
    brief(at('objects.jsonl')),
    ['u', 'dos', 'Tres.', 'quatre', 'cinc'].map((text) => [at('a.wav'), text, 'ca']),
  );
  const bytes = corpus({ 'rows.jsonl': lines({ ...good, audio: { path: null, bytes: 'UklGRg==' } }) });
  t.throws(() => readManifest(bytes('rows.jsonl')), {
    code: 'ERR_MANIFEST',
    message: /line 1: column audio holds the audio itself: expected the path of a file/,
  });
});

test('file:// URLs are paths, in whatever case and encoding; other URLs are told as what they are', (t) => {
  const at = corpus({ 'amb espais.wav': null });
  const url = pathToFileURL(at('amb espais.wav')).href;
  t.regex(url, /%20/);
  writeFileSync(at('rows.jsonl'), lines({ ...good, audio: url }, { ...good, audio: url.replace('file:', 'FILE:') }));
  t.deepEqual(
    readManifest(at('rows.jsonl')).map(({ audio }) => audio),
    [at('amb espais.wav'), at('amb espais.wav')],
  );
  writeFileSync(
    at('bad.jsonl'),
    lines(
      ...['https://example.com/a.wav', 's3://a/b.wav', 'file://elsewhere/a.wav'].map((audio) => ({ ...good, audio })),
    ),
  );
  const error = t.throws(() => readManifest(at('bad.jsonl')), { instanceOf: BadRowsError });
  t.deepEqual(
    error.rows.map(({ line, reason }) => [
      line,
      /must be a path or a file:\/\/ URL|is no URL of a file here/.test(reason),
    ]),
    [
      [1, true],
      [2, true],
      [3, true],
    ],
  );
});

test('a JSON array, with any ending and any breaks of lines, has the rows of JSON lines; a .json may hold either', (t) => {
  const rows = [
    { ...good, id: 'u1', text: 'a "b", [c] {d}\\' },
    { ...good, id: 'u2', domain: 'in' },
  ];
  const at = corpus({
    'a.wav': null,
    'pretty.json': JSON.stringify(rows, null, 2),
    'one-line.json': JSON.stringify(rows),
    'array.jsonl': `\ufeff\n${JSON.stringify(rows)}\n`,
    'array.txt': JSON.stringify(rows, null, '\t').replaceAll('\n', '\r\n'),
    'lines.json': lines(...rows),
    'lines.ndjson': lines(...rows),
  });
  const plain = (name: string) => readManifest(at(name)).map(({ manifest, line, ...rest }) => rest);
  const expected = plain('lines.ndjson');
  for (const name of ['pretty.json', 'one-line.json', 'array.jsonl', 'array.txt', 'lines.json'])
    t.deepEqual(plain(name), expected, name);
  t.deepEqual(
    readManifest(at('pretty.json')).map(({ line }) => line),
    [2, 8],
  );
});

test('JSON arrays: a bad element is a bad row; one that never ends, or goes on behind its end, is no manifest', (t) => {
  const at = corpus({ 'a.wav': null });
  const read = (text: string): (() => unknown) => {
    writeFileSync(at('rows.json'), text);
    return () => readManifest(at('rows.json'));
  };
  const one = JSON.stringify(good);
  const bad: BadRow[] = [];
  read(`[\n${one},\n{"audio": tru},\n7,\n${one},,\n["x"], {"a": 1]\n]`);
  t.is(readManifest(at('rows.json'), { onBadRow: (row) => bad.push(row) }).length, 2);
  t.deepEqual(
    bad.map(({ line, code }) => [line, code]),
    [3, 4, 5, 6, 6].map((line) => [line, 'ERR_MANIFEST']),
  );
  t.throws(read(`[${one},]`), { message: /line 1: expected a JSON object here/ });
  t.throws(read(`[\n${one}`), { code: 'ERR_MANIFEST', message: /line 2: the array is never closed/ });
  t.throws(read(`[${one}]\n${one}`), { code: 'ERR_MANIFEST', message: /line 2: expected nothing behind the array/ });
  t.throws(read(JSON.stringify(good, null, 2)), { code: 'ERR_MANIFEST', message: /got one object over several lines/ });
  t.throws(read('[]'), { code: 'ERR_MANIFEST', message: /it has no rows/ });
});

test('CSV by RFC 4180: quotes, commas and lines within quotes, CRLF, a byte-order mark, semicolons, empty columns at the end', (t) => {
  const expected = ['Va dir "no", i prou', 'dues\nlínies', '5" de llarg', 'hola'];
  // A quote within a field that does not open with one is text.
  const quoted = (text: string): string =>
    /[",;\n]/.test(text) && text !== expected[2] ? `"${text.replaceAll('"', '""')}"` : text;
  for (const [delimiter, end, ending] of [
    [',', '\r\n', 'csv'],
    [',', '\n', 'CSV'],
    [';', '\r\n', 'csv'],
    ['\t', '\n', 'csv'],
  ] as const) {
    const rows = ['file_name', ...expected.map(() => 'a.wav')].map((name, i) =>
      [
        name,
        i === 0 ? 'transcription' : quoted(expected[i - 1]!),
        i === 0 ? 'language' : 'ca',
        i === 3 ? '' : undefined,
      ]
        .filter((field) => field !== undefined)
        .join(delimiter),
    );
    const at = corpus({ 'a.wav': null, [`metadata.${ending}`]: `\ufeff${rows.join(end)}${end}${end}` });
    const entries = readManifest(at(`metadata.${ending}`));
    t.deepEqual(
      entries.map(({ text }) => text),
      expected,
    );
    t.deepEqual(
      entries.map(({ line }) => line),
      [2, 3, 5, 6],
    );
  }
});

test('CSV: what is wrong with a row is told in its place; a quote that is never closed ends the reading', (t) => {
  const at = corpus({ 'a.wav': null });
  const write = (...rows: string[]) => writeFileSync(at('rows.csv'), ['audio,text,language', ...rows].join('\n'));
  write('a.wav,"u" i mig,ca', 'a.wav,dos,ca,x', 'a.wav,tres', 'a.wav,"quatre",ca');
  const bad: BadRow[] = [];
  t.deepEqual(
    readManifest(at('rows.csv'), { onBadRow: (row) => bad.push(row) }).map(({ text }) => text),
    ['quatre'],
  );
  for (const [i, message] of [
    /behind the closing quote of column 2/,
    /expected 3 columns.*got 4/,
    /missing column language/,
  ].entries()) {
    t.is(bad[i]!.line, i + 2);
    t.regex(bad[i]!.reason, message);
  }
  write('a.wav,u,ca', 'a.wav,"dos,ca', 'a.wav,tres,ca');
  t.throws(() => readManifest(at('rows.csv'), { onBadRow: () => {} }), {
    code: 'ERR_MANIFEST',
    message: /rows\.csv line 3: a quote that opens here is never closed/,
  });
});

const FLEURS = [
  ['1', '100.wav', 'Bon dia!', 'bon dia', 'b o n | d i a', '24000', 'FEMALE'],
  ['1', '101.wav', 'Bon dia!', 'bon dia', 'b o n | d i a', '8000', 'MALE'],
];
const fleurs = FLEURS.map((row) => row.join('\t')).join('\n');

test("FLEURS' tables have no header; the folder names the language, the clips lie in audio/<split>/ or <split>/", (t) => {
  const inAudio = corpus({
    'catalan/train.tsv': fleurs,
    'catalan/audio/train/100.wav': null,
    'catalan/audio/train/101.wav': null,
  });
  const entries = readManifest(inAudio('catalan/train.tsv'));
  t.deepEqual(
    entries.map(({ id, audio, text, language, duration, line }) => ({ id, audio, text, language, duration, line })),
    [
      {
        id: '100.wav',
        audio: inAudio('catalan/audio/train/100.wav'),
        text: 'bon dia',
        language: 'ca',
        duration: 1.5,
        line: 1,
      },
      {
        id: '101.wav',
        audio: inAudio('catalan/audio/train/101.wav'),
        text: 'bon dia',
        language: 'ca',
        duration: 0.5,
        line: 2,
      },
    ],
  );
  const beside = corpus({ 'ca/dev.tsv': fleurs, 'ca/dev/100.wav': null, 'ca/dev/101.wav': null });
  t.is(readManifest(beside('ca/dev.tsv'))[1]!.audio, beside('ca/dev/101.wav'));
  t.throws(() => readManifest(beside('ca/dev.tsv'), { language: 'es' }), {
    message: /none of its 2 rows has language es/,
  });
  const nowhere = corpus({ 'data/test.tsv': fleurs, 'data/test/100.wav': null, 'data/test/101.wav': null });
  t.throws(() => readManifest(nowhere('data/test.tsv')), {
    code: 'ERR_MANIFEST',
    message: /a table of FLEURS does not name its language: expected a folder named after it, or an option/,
  });
  for (const options of [{ language: 'ca' }, { defaultLanguage: 'Catalan' }])
    t.is(readManifest(nowhere('data/test.tsv'), options)[0]!.language, 'ca');
});

test('a Common Voice folder as it is downloaded: clips/ beside the table; audioRoot moves all of it', (t) => {
  const header = 'client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tlocale\tsegment';
  const table = `${header}\nx\tcv_1.wav\ts1\t"""Hola"", va dir."\t\t2\tca\t\n`;
  const at = corpus({ 'cv/train.tsv': table, 'cv/clips/cv_1.wav': null, 'tables/train.tsv': table });
  t.deepEqual(brief(at('cv/train.tsv')), [[at('cv/clips/cv_1.wav'), '"Hola", va dir.', 'ca']]);
  for (const root of ['cv', 'cv/clips'])
    t.is(readManifest(at('tables/train.tsv'), { audioRoot: at(root) })[0]!.audio, at('cv/clips/cv_1.wav'));
  t.throws(() => readManifest(at('tables/train.tsv')), {
    code: 'ERR_FILE_NOT_FOUND',
    message: /train\.tsv line 2: there is no audio file .*tables\/cv_1\.wav/,
  });
});

test('rows that name no language take the one that is asked for, unless others name theirs', (t) => {
  const at = corpus({
    'a.wav': null,
    'none.jsonl': lines({ file_name: 'a.wav', transcription: 'u' }),
    'none.csv': 'file_name,transcription\na.wav,u',
    'some.jsonl': lines({ audio: 'a.wav', text: 'u' }, good),
  });
  for (const name of ['none.jsonl', 'none.csv']) {
    t.deepEqual(brief(at(name), { language: 'Catalan' }), [[at('a.wav'), 'u', 'ca']]);
    t.throws(() => readManifest(at(name)), {
      code: 'ERR_MANIFEST',
      message: /line 1: missing column language or locale/,
    });
    t.throws(() => readManifest(at(name), { language: ['ca', 'es'] }), { message: /missing column language/ });
  }
  t.throws(() => readManifest(at('some.jsonl'), { language: 'ca' }), { message: /line 1: missing column language/ });
});

test('byte-order marks of UTF-8 and UTF-16, and lines that end with CR alone', (t) => {
  const text = 'audio\ttext\tlanguage\na.wav\tdobrý den\tcs\n';
  const utf16 = Buffer.from(`\ufeff${text}`, 'utf16le');
  const at = corpus({
    'a.wav': null,
    'utf8.tsv': `\ufeff${text}`,
    'utf16le.tsv': utf16,
    'utf16be.tsv': Buffer.from(utf16).swap16(),
    'cr.tsv': text.replaceAll('\n', '\r'),
    'joined.jsonl': `\ufeff${lines(good)}\n\ufeff${lines(good)}`,
  });
  for (const name of ['utf8.tsv', 'utf16le.tsv', 'utf16be.tsv', 'cr.tsv'])
    t.deepEqual(brief(at(name)), [[at('a.wav'), 'dobrý den', 'cs']], name);
  t.is(readManifest(at('joined.jsonl')).length, 2);
});

test('what is no manifest is named: Git LFS pointers, Parquet, gzip, audio, NUL bytes, too many bytes, a device', (t) => {
  const cases: [name: string, content: string | Uint8Array, message: RegExp][] = [
    [
      'm.jsonl',
      'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n',
      /a Git LFS pointer.*git lfs pull/,
    ],
    ['m.tsv', 'PAR1\x15\x04', /a Parquet file/],
    ['m.jsonl', gzipSync(lines(good)), /a gzip file: unpack it first/],
    ['m.csv', wav, /a WAV file/],
    ['m.csv', Buffer.from('audio,text\n\0\0', 'latin1'), /a binary file \(it holds NUL bytes\)/],
    ['m.jsonl', Buffer.alloc(2 ** 28 + 1, ' '), /more than 268,435,456 bytes/],
  ];
  for (const [name, content, message] of cases) {
    const at = corpus({ [name]: content });
    t.throws(() => readManifest(at(name)), { code: 'ERR_MANIFEST', message }, String(message));
    rmSync(at(name));
  }
  if (existsSync('/dev/zero'))
    t.throws(() => readManifest('/dev/zero'), { code: 'ERR_FILE_READ', message: /got a device or socket/ });
});

test('rows that are nested too deep or too long, and hostile quotes, are bad rows or refused, quickly', (t) => {
  const at = corpus({ 'a.wav': null });
  const deep = '['.repeat(20000) + ']'.repeat(20000);
  const one = JSON.stringify(good);
  const bad = (name: string, content: string): BadRow[] => {
    const rows: BadRow[] = [];
    writeFileSync(at(name), content);
    t.is(readManifest(at(name), { onBadRow: (row) => rows.push(row) }).length, 1);
    return rows;
  };
  const begin = processorSeconds();
  for (const name of ['deep.jsonl', 'deep.json']) {
    const rows = name === 'deep.json' ? `[{"audio":${deep}},\n${one}]` : `{"audio":${deep},"text":"x"}\n${one}`;
    t.regex(bad(name, rows)[0]!.reason, /nests its lists and objects deeper than 100/);
  }
  const table = (text: string) => `audio\ttext\tlanguage\na.wav\t${text}\tca\na.wav\tu\tca\n`;
  t.regex(
    bad('long.tsv', table(`"${'x'.repeat(20e6)}`))[0]!.reason,
    /a row of at most 16,777,216 characters, got 20,0/,
  );
  t.regex(bad('long.tsv', table('x'.repeat(2e6)))[0]!.reason, /column text must have at most 1,048,576 characters/);
  writeFileSync(at('quotes.tsv'), table(`"${'""'.repeat(4e5)}"`));
  t.is(readManifest(at('quotes.tsv'))[0]!.text, '"'.repeat(4e5));
  writeFileSync(at('quotes.csv'), `audio,text,language\n${'"\n'.repeat(2e6)}"`);
  t.throws(() => readManifest(at('quotes.csv')), { code: 'ERR_MANIFEST', message: /never closed/ });
  writeFileSync(at('open.json'), '['.repeat(5e6));
  t.throws(() => readManifest(at('open.json')), { code: 'ERR_MANIFEST', message: /never closed/ });
  t.true(processorSeconds() - begin < 30, `${processorSeconds() - begin} s`);
});

test('every bad row at once: in the order of the lines, the first twenty in the message, all of them in rows', (t) => {
  const at = corpus({ 'a.wav': null });
  const rows = Array.from({ length: 40 }, (_, i) => ({ ...good, ...(i % 2 && { audio: `gone-${i}.wav` }) }));
  writeFileSync(
    at('rows.jsonl'),
    `${lines(...rows)}\n{"audio": "a.wav"\n${lines({ ...good, language: 'xx' }, { ...good, text: ' ' })}`,
  );
  const error = t.throws(() => readManifest(at('rows.jsonl')), { instanceOf: BadRowsError, code: 'ERR_MANIFEST' });
  t.deepEqual(
    error.rows.map(({ line, code }) => `${line} ${code}`),
    [
      ...Array.from({ length: 20 }, (_, i) => `${2 * i + 2} ERR_FILE_NOT_FOUND`),
      ...[41, 42, 43].map((line) => `${line} ERR_MANIFEST`),
    ],
  );
  t.true(error.rows.every(({ manifest }) => manifest === at('rows.jsonl')));
  const said = error.message.split('\n');
  t.is(said[0], '23 bad rows:');
  t.is(said.length, 22);
  t.regex(said[1]!, /^ {2}.*rows\.jsonl line 2: there is no audio file .*gone-1\.wav$/);
  t.is(said[21], '  and 3 more');
  t.throws(() => readManifest(at('rows.jsonl'), { split: 'x' }), { message: /line 41: expected a JSON object/ });
  const seen: BadRow[] = [];
  t.is(readManifest(at('rows.jsonl'), { onBadRow: (row) => seen.push(row) }).length, 20);
  t.is(seen.length, 23);
  writeFileSync(at('all.jsonl'), lines({ ...good, audio: 'gone.wav' }));
  t.deepEqual(readManifest(at('all.jsonl'), { onBadRow: (row) => seen.push(row) }), []);
  t.throws(() => readManifest(at('all.jsonl')), { code: 'ERR_FILE_NOT_FOUND' }, 'the code of all of them');
});

test('a bad row is told on one line, whatever its names hold', (t) => {
  const at = corpus({ 'rows.jsonl': lines({ ...good, audio: 'x\u001b]0;pwned\u0007\n\u0085.wav' }) });
  const error = t.throws(() => readManifest(at('rows.jsonl')), { instanceOf: BadRowsError });
  t.true(error.message.endsWith('x\\u001b]0;pwned\\u0007\\n\\u0085.wav'), error.message);
});

test('unknown options of readManifest are refused with the nearest name, wrong ones with what was expected', (t) => {
  const at = corpus({ 'a.wav': null, 'rows.jsonl': lines(good) });
  const cases: [options: unknown, message: RegExp][] = [
    [{ audio_root: '.' }, /readManifest: unknown option "audio_root"; did you mean audioRoot\?/],
    [{ spilt: 'x' }, /did you mean split\?/],
    [{ beam: 1 }, /unknown option "beam"; it has format, columns/],
    [{ columns: { txt: 'a' } }, /did you mean text\?/],
    [{ format: 'parquet' }, /format: expected jsonl or json or tsv or csv, got parquet/],
    [{ emptyText: true }, /emptyText: expected error or skip/],
    [{ onBadRow: true }, /expected onBadRow to be a function, got boolean/],
    [{ split: 7 }, /expected filters to be names, got number/],
    [null, /expected an object of options, got null/],
    ['x', /expected an object of options, got string/],
  ];
  for (const [options, message] of cases)
    t.throws(() => readManifest(at('rows.jsonl'), options as ManifestOptions), { code: 'ERR_ARGUMENT', message });
  t.throws(() => readManifest(7 as unknown as string), {
    code: 'ERR_ARGUMENT',
    message: /path of a manifest, got number/,
  });
  t.is(readManifest(at('rows.jsonl'), { split: 'all' }).length, 1, 'all splits, also where there are none');
  t.is(readFileSync(at('rows.jsonl'), 'utf8'), lines(good));
});
