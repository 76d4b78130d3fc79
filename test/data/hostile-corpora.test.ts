/** Corpora that are damaged or mean harm: refused, or told row by row; nothing is read outside of them, nothing ends the process. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import test from 'ava';
import { type BadRow, isDistilWhisperError, openDataset } from '../../lib/index.js';
import { scratchFolder } from '../support/cli.js';
import {
  fleursLine,
  parquetOf,
  tarOf,
  tone,
  VOICE_HEADER,
  voiceLine,
  voiceRows,
  writeVoice,
} from '../support/corpora.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
test.before(() => writeFileSync(at('secret.wav'), tone(0.1)));
test.after.always(remove);

const told = (rows: readonly BadRow[]): [number, string][] => rows.map(({ line, code }) => [line, code]);

test('Common Voice: absolute paths, paths with .., links out of the release, clips that are missing', async (t) => {
  const folder = at('cv', 'ca');
  writeVoice(folder, { train: voiceRows('t', 2) });
  symlinkSync(at('secret.wav'), join(folder, 'clips', 'link.mp3'));
  symlinkSync('common_voice_ca_t0.mp3', join(folder, 'clips', 'inside.mp3'));
  symlinkSync(scratch, join(folder, 'clips', 'way'));
  const names = [
    at('secret.wav'),
    '../../../secret.wav',
    '..\\secret.wav',
    'C:\\secret.wav',
    'link.mp3',
    'way/secret.wav',
    'gone.mp3',
  ];
  const rows = [...voiceRows('t', 2), ...['inside.mp3', ...names].map((path) => ({ path, sentence: path.slice(-12) }))];
  writeFileSync(join(folder, 'train.tsv'), [VOICE_HEADER, ...rows.map((row) => voiceLine(row))].join('\n'));
  await using data = await openDataset(folder);
  t.deepEqual(
    [...data.entries()].map(({ line }) => line),
    [2, 3, 4],
  );
  t.deepEqual(told(data.badRows), [
    ...[5, 6, 7, 8, 9, 10].map((line): [number, string] => [line, 'ERR_MANIFEST']),
    [11, 'ERR_FILE_NOT_FOUND'],
  ]);
  t.regex(data.badRows[0]!.reason, /within the corpus' folder, got ".*secret\.wav", an absolute path/);
  t.regex(data.badRows[4]!.reason, /"link\.mp3", a link to/);
});

test("the hub's cache: links of a snapshot lead to the blobs of its repository, and no further", async (t) => {
  const repository = at('hub', 'datasets--org--name');
  const snapshot = join(repository, 'snapshots', 'abc');
  mkdirSync(join(repository, 'blobs'), { recursive: true });
  mkdirSync(snapshot, { recursive: true });
  writeFileSync(join(repository, 'blobs', '1234'), tone(0.1));
  symlinkSync('../../blobs/1234', join(snapshot, 'a.wav'));
  symlinkSync(at('secret.wav'), join(snapshot, 'b.wav'));
  writeFileSync(join(snapshot, 'metadata.csv'), 'file_name,text,language\na.wav,u,ca\nb.wav,dos,ca\n');
  await using data = await openDataset(snapshot);
  t.is(data.length, 1);
  t.deepEqual(told(data.badRows), [[3, 'ERR_MANIFEST']]);
});

test('archives: links, absolute names, names with .., a missing clip, bits of damage, an end too early', async (t) => {
  const folder = at('fleurs', 'ca_es');
  mkdirSync(join(folder, 'audio'), { recursive: true });
  const files = ['a.wav', 'b.wav', 'c.wav', 'd.wav', 'e.wav'];
  const rows = files.map((file, id) => fleursLine({ id, file, text: `text ${id}`, seconds: 0.1 }));
  writeFileSync(join(folder, 'train.tsv'), rows.join('\n'));
  const sound = tone(0.1);
  const tar = await tarOf([
    { name: 'train/a.wav', bytes: sound },
    { name: '/etc/b.wav', bytes: sound },
    { name: 'train/../../c.wav', bytes: sound },
    { name: 'train/d.wav', type: 'symlink', linkname: '/etc/passwd' },
  ]);
  writeFileSync(join(folder, 'audio', 'train.tar.gz'), gzipSync(tar));
  const data = await openDataset(folder);
  t.deepEqual(
    [...data.entries()].map(({ text }) => text),
    ['text 0'],
  );
  t.deepEqual(
    told(data.badRows),
    [2, 3, 4, 5].map((line) => [line, line === 5 ? 'ERR_FILE_NOT_FOUND' : 'ERR_MANIFEST']),
  );
  t.deepEqual(
    data.badRows.map(({ reason }) => /absolute|'\.\.'|symlink|no audio/.exec(reason)?.[0]),
    ['absolute', "'..'", 'symlink', 'no audio'],
  );
  // It changes between the reading of the index and of the audio.
  writeFileSync(join(folder, 'audio', 'train.tar.gz'), gzipSync(await tarOf([])));
  await t.throwsAsync(data.audio(0), { code: 'ERR_MANIFEST', message: /has changed/ });
  await data.close();
  const whole = gzipSync(await tarOf(files.map((file) => ({ name: file, bytes: sound }))));
  const bent = Buffer.from(whole);
  bent[whole.length >> 1]! ^= 8;
  for (const bytes of [
    whole.subarray(0, whole.length >> 1),
    bent,
    Buffer.from('no archive at all'.repeat(100)),
    Buffer.alloc(0),
  ]) {
    writeFileSync(join(folder, 'audio', 'train.tar.gz'), bytes);
    const error = await t.throwsAsync(openDataset(folder));
    t.true(isDistilWhisperError(error), String(error));
  }
});

test('parquet: pages that are damaged are bad rows of their group; damaged metadata is refused', async (t) => {
  const file = at('shard.parquet');
  const rows = Array.from({ length: 6 }, (_, i) => ({ bytes: tone(0.05, i + 1), text: `words ${i}`, language: 'ca' }));
  const sound = parquetOf(rows, 2);
  writeFileSync(file, sound);
  const texts = await (async () => {
    await using data = await openDataset(file);
    return [...data.entries()].map(({ text }) => text);
  })();
  t.is(texts.length, 6);
  let [kept, refused, lost] = [0, 0, 0];
  for (let at = 5; at < sound.length; at += Math.ceil(sound.length / 150)) {
    const bent = Buffer.from(sound);
    bent.fill(0xff, at, at + 4);
    writeFileSync(file, bent);
    try {
      await using data = await openDataset(file, { onBadRow: () => {} });
      lost += data.badRows.length;
      for (const i of data.numbers()) {
        const audio = await data.audio(i).catch((error: unknown) => error);
        if (audio instanceof Error) {
          t.true(isDistilWhisperError(audio), String(audio));
          lost++;
        } else kept++;
      }
    } catch (error) {
      t.true(isDistilWhisperError(error), String(error));
      refused++;
    }
  }
  t.log(`${kept} rows read, ${lost} told as bad, ${refused} files refused`);
  t.true(kept > 0 && lost > 0 && refused > 0);
  for (const bytes of [sound.subarray(0, -9), sound.subarray(0, 100), Buffer.from('PAR1'), Buffer.alloc(0)]) {
    writeFileSync(file, bytes);
    await t.throwsAsync(openDataset(file), {
      code: 'ERR_MANIFEST',
      message: /^.*shard\.parquet: its metadata cannot be read/,
    });
  }
  writeFileSync(file, sound);
  await t.throwsAsync(openDataset(file, { columns: { text: 'words' } }), {
    code: 'ERR_MANIFEST',
    message: /missing column words/,
  });
  await t.throwsAsync(openDataset(file, { columns: { audio: 'sound' } }), {
    code: 'ERR_MANIFEST',
    message: /missing a column of audio/,
  });
});
