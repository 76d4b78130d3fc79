/** Manifests, and from one to batches. */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { DecodePool, encodeWav } from '../../lib/audio/index.js';
import { EpochSampler, PrefetchLoader, readManifest } from '../../lib/data/index.js';

const shared = new URL('../../../shared/', import.meta.url).pathname;
const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-test-'));
test.after.always(() => rmSync(scratch, { recursive: true, force: true }));
mkdirSync(join(scratch, 'clips'));
for (const name of ['a', 'b', 'c', 'd'])
  writeFileSync(join(scratch, 'clips', `${name}.wav`), encodeWav(new Float32Array(160).fill(0.1), 16000));

let count = 0;
function manifest(content: string | Uint8Array, ending = 'tsv'): string {
  const path = join(scratch, `manifest-${count++}.${ending}`);
  writeFileSync(path, content);
  return path;
}
const tsv = (...rows: string[][]) => rows.map((row) => row.join('\t')).join('\n');
const HEADER = ['audio', 'text', 'language'];

test('a TSV and a JSONL manifest with all columns give the same entries, with absolute audio paths and line numbers', (t) => {
  const header = ['id', 'audio', 'text', 'language', 'split', 'domain', 'duration', 'speaker', 'task'];
  const rows = [
    ['u1', 'clips/a.wav', 'bon dia', 'ca', 'train', 'in', '1.5', 's1', 'transcribe'],
    ['u2', 'clips/b.wav', 'dobrý den', 'Czech', 'test', 'out', '2', 's2', 'translate'],
  ];
  const table = manifest(tsv(header, ...rows));
  const lines = rows.map((row) => JSON.stringify(Object.fromEntries(row.map((value, i) => [header[i], value]))));
  const json = manifest(`${lines.join('\n')}\n`, 'jsonl');
  const entries = readManifest(table);
  t.deepEqual(entries[1], {
    id: 'u2',
    audio: join(scratch, 'clips', 'b.wav'),
    text: 'dobrý den',
    language: 'cs',
    split: 'test',
    domain: 'out',
    duration: 2,
    speaker: 's2',
    task: 'translate',
    manifest: table,
    line: 3,
  });
  t.deepEqual(
    readManifest(json).map(({ manifest, line, ...rest }) => rest),
    entries.map(({ manifest, line, ...rest }) => rest),
  );
  t.is(readManifest(json)[1]!.line, 2);
});

test('other column names are known (path, transcript, sentence, locale, seconds) or can be mapped', (t) => {
  const common = manifest(tsv(['path', 'sentence', 'locale'], ['a.wav', 'hola', 'ca']));
  t.is(readManifest(common, { audioRoot: join(scratch, 'clips') })[0]!.audio, join(scratch, 'clips', 'a.wav'));
  const shared = manifest(
    tsv(['path', 'language', 'transcript', 'seconds'], ['clips/a.wav', 'pl', 'dzień dobry', '0.64']),
  );
  t.is(readManifest(shared)[0]!.duration, 0.64);
  const own = manifest(tsv(['file', 'raw', 'audio'], ['clips/a.wav', 'witaj', 'other']));
  const [entry] = readManifest(own, { columns: { audio: 'file', text: 'raw' }, defaultLanguage: 'polish' });
  t.deepEqual([entry!.id, entry!.text, entry!.language], ['clips/a.wav', 'witaj', 'pl']);
});

test('filters by split, domain and language; a filter that leaves nothing is an error that says so', (t) => {
  const path = manifest(
    tsv(
      ['audio', 'text', 'language', 'split', 'domain'],
      ['clips/a.wav', 'u', 'ca', 'train', 'in'],
      ['clips/b.wav', 'dos', 'ca', 'test', 'out'],
      ['clips/c.wav', 'raz', 'pl', 'test', 'in'],
      ['clips/d.wav', 'dwa', 'pl', '', ''],
    ),
  );
  const ids = (options: Parameters<typeof readManifest>[1]) => readManifest(path, options).map(({ line }) => line);
  t.deepEqual(ids({ split: 'test' }), [3, 4]);
  t.deepEqual(ids({ split: ['train', 'test'], domain: 'in' }), [2, 4]);
  t.deepEqual(ids({ language: 'Polish' }), [4, 5]);
  t.throws(() => ids({ split: 'dev' }), { code: 'ERR_MANIFEST', message: /none of its 4 rows has split dev/ });
  t.throws(() => ids({ language: 'klingon' }), { code: 'ERR_LANGUAGE' });
});

test('a BOM, CRLF, blank lines, quotes and missing last columns are handled', (t) => {
  const path = manifest(
    `\ufeff${HEADER.join('\t')}\tspeaker\r\n\r\nclips/a.wav\t"Va dir ""no"" i prou"\tca\r\nclips/b.wav\t"Hola" va dir\tca\ts\r\n`,
  );
  const entries = readManifest(path);
  t.deepEqual(
    entries.map(({ text, line, speaker }) => [text, line, speaker]),
    [
      ['Va dir "no" i prou', 3, undefined],
      ['"Hola" va dir', 4, 's'],
    ],
  );
  const json = manifest('\ufeff{"audio":"clips/a.wav","text":"hola","language":"ca","id":7}\r\n\r\n', 'txt');
  t.is(readManifest(json)[0]!.id, '7');
});

test('the same audio twice without ids gets ids of its own', (t) => {
  const path = manifest(tsv(HEADER, ['clips/a.wav', 'u', 'ca'], ['clips/a.wav', 'one', 'en']));
  t.deepEqual(
    readManifest(path).map(({ id }) => id),
    ['clips/a.wav', 'clips/a.wav:3'],
  );
});

test('bad manifests: typed errors with the file and the line', (t) => {
  const row = ['clips/a.wav', 'hola', 'ca'];
  const good = JSON.stringify({ audio: 'clips/a.wav', text: 'hola', language: 'ca' });
  const cases: [content: string | Uint8Array, ending: string, message: RegExp][] = [
    [tsv(['audio', 'language'], ['clips/a.wav', 'ca']), 'tsv', /line 1: missing column text or transcript or sentence/],
    [
      tsv(['file', 'text', 'language'], row),
      'tsv',
      /line 1: missing column audio or path or file_name.*; the header has file, text/,
    ],
    [tsv(['audio', 'text'], ['clips/a.wav', 'hola']), 'tsv', /line 1: missing column language/],
    [tsv(HEADER, row, ['clips/b.wav', 'hola']), 'tsv', /line 3: missing column language/],
    [tsv(HEADER, row, ['clips/b.wav', ' ', 'ca']), 'tsv', /line 3: column text is empty/],
    [tsv(HEADER, row, ['', 'hola', 'ca']), 'tsv', /line 3: column audio is empty/],
    [tsv(HEADER, row, ['clips/b.wav', 'hola', 'xx']), 'tsv', /line 3: .*'?xx/],
    [tsv(HEADER, row, ['clips/b.wav', 'ho', 'la', 'ca']), 'tsv', /line 3: expected 3 columns.*got 4/],
    [tsv(['audio', 'text', 'language', 'text'], [...row, 'x']), 'tsv', /line 1: the header names column "text" twice/],
    [tsv([...HEADER, 'id'], [...row, 'u1'], [...row, 'u1']), 'tsv', /line 3: id "u1" was already used on line 2/],
    [tsv([...HEADER, 'duration'], [...row, 'long']), 'tsv', /line 2: duration must be a positive number/],
    [tsv([...HEADER, 'duration'], [...row, '-1']), 'tsv', /line 2: duration/],
    [tsv([...HEADER, 'task'], [...row, 'sing']), 'tsv', /line 2: task must be transcribe or translate, got "sing"/],
    [tsv(HEADER), 'tsv', /it has no rows/],
    ['', 'tsv', /it has no rows/],
    ['', 'jsonl', /it has no rows/],
    [`${good}\n{"audio": "clips/b.wav", "text": "ho`, 'jsonl', /line 2: .*not valid JSON/],
    [`${good}\n{"audio": "clips/b.wav", "language": "ca"}`, 'jsonl', /line 2: missing column text/],
    [`${good}\n{"audio": "clips/b.wav", "text": null, "language": "ca"}`, 'jsonl', /line 2: missing column text/],
    [`${good}\n{"audio": {"path": 1}, "text": "a", "language": "ca"}`, 'jsonl', /line 2: column audio must be text/],
    [`${good}\n["clips/b.wav"]`, 'jsonl', /line 2: expected one JSON object a line/],
    ['[\n{"audio": 1}\n]', 'txt', /line 2: missing column text/],
    [Buffer.from(`${HEADER.join('\t')}\nclips/a.wav\tM\xfcller\tde\n`, 'latin1'), 'tsv', /line 2: expected UTF-8/],
  ];
  for (const [content, ending, message] of cases) {
    const path = manifest(content, ending);
    const error = t.throws(() => readManifest(path), { code: 'ERR_MANIFEST', message }, `${content}`);
    t.true(error!.message.startsWith(path));
  }
});

test('a missing manifest, a directory and a missing audio file are typed errors', (t) => {
  t.throws(() => readManifest(join(scratch, 'none.tsv')), { code: 'ERR_FILE_NOT_FOUND', message: /none\.tsv/ });
  t.throws(() => readManifest(scratch), { code: 'ERR_FILE_READ', message: /directory/ });
  for (const missing of ['clips/z.wav', 'clips']) {
    const path = manifest(tsv(HEADER, ['clips/a.wav', 'u', 'ca'], [missing, 'dos', 'ca']));
    t.throws(() => readManifest(path), { code: 'ERR_FILE_NOT_FOUND', message: /line 3: there is no audio file/ });
    t.is(readManifest(path, { checkFiles: false }).length, 2);
  }
});

test('emptyText: skip leaves out rows with an empty text, but not rows without the column', (t) => {
  const path = manifest(tsv(HEADER, ['clips/a.wav', '', 'ca'], ['clips/b.wav', 'dos', 'ca']));
  t.deepEqual(
    readManifest(path, { emptyText: 'skip' }).map(({ line }) => line),
    [3],
  );
  t.throws(() => readManifest(manifest(tsv(HEADER, ['clips/a.wav', '', 'ca'])), { emptyText: 'skip' }), {
    code: 'ERR_MANIFEST',
    message: /none of its 1 rows has text/,
  });
  const json = manifest('{"audio":"clips/a.wav","language":"ca"}', 'jsonl');
  t.throws(() => readManifest(json, { emptyText: 'skip' }), {
    code: 'ERR_MANIFEST',
    message: /line 1: missing column/,
  });
});

if (!existsSync(shared)) console.log('../shared is absent: the test on its manifest is skipped');
(existsSync(shared) ? test : test.skip)(
  "../shared/speech's manifest reads as it is; clips without transcript need emptyText: skip",
  (t) => {
    const path = join(shared, 'speech', 'manifest.tsv');
    t.throws(() => readManifest(path), { code: 'ERR_MANIFEST', message: /line \d+: column text is empty/ });
    const entries = readManifest(path, { emptyText: 'skip' });
    t.true(entries.length > 1000);
    t.true(entries.every(({ duration }) => duration! > 0));
    t.true(readManifest(path, { language: 'pl', emptyText: 'skip' }).length >= 350);
  },
);

test('manifest → sampler → loader over a DecodePool: a resumed run sees the batches of an uninterrupted one', async (t) => {
  const names = ['a', 'b', 'c', 'd'];
  const path = manifest(tsv(HEADER, ...names.map((name) => [`clips/${name}.wav`, name, 'ca'])));
  const examples = readManifest(path);
  const run = async (from: { epoch: number; position: number }) => {
    const pool = new DecodePool();
    const sampler = new EpochSampler(examples, { batchSize: 3, seed: 1 });
    const loader = new PrefetchLoader({
      examples,
      batches: sampler.iterate({ ...from, epochs: 3 }),
      load: async ({ audio, text }) => ({ text, samples: (await pool.decode(audio)).samples.length }),
      collate: (items) => items.map(({ text, samples }) => `${text}${samples}`).join(),
      onClose: () => pool.close(),
    });
    const seen: string[] = [];
    for await (const { epoch, position, data } of loader) seen.push(`${epoch}.${position} ${data}`);
    t.is(pool.threads, 0);
    return seen;
  };
  const whole = await run({ epoch: 0, position: 0 });
  t.is(whole.length, 6);
  t.regex(whole[0]!, /^0\.0 [a-d]160,[a-d]160,[a-d]160$/);
  t.deepEqual(await run({ epoch: 1, position: 1 }), whole.slice(3));
});
