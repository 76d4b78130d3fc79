/** Packed shards: what goes in comes out, resumed work ends with the same bytes, damage is refused or told by row. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { BadRowsError, type Dataset, openDataset, prepare } from '../../lib/index.js';
import { scratchFolder } from '../support/cli.js';
import { tone, voiceRows, writeFleurs, writeVoice } from '../support/corpora.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
test.after.always(remove);

const fleurs = at('data', 'ca_es');
const rows = Array.from({ length: 12 }, (_, i) => ({
  id: i,
  file: `${i}.wav`,
  text: `text ${i}`,
  seconds: 0.1 + 0.02 * i,
}));
const size = 3 * 6400;
test.before(async () => {
  await writeFleurs(fleurs, { train: rows.slice(0, 9), test: rows.slice(9) }, 'folder');
  await using data = await openDataset(fleurs);
  await prepare(data, { output: at('shards'), shardBytes: size });
});

const bytesIn = (folder: string): Record<string, string> =>
  Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name)).toString('base64')]));
const told = (data: Dataset): unknown[] =>
  [...data.entries()].map(({ id, text, language, split, duration }) => [id, text, language, split, duration]);

test('rows come back with text, language, split, duration and samples', async (t) => {
  await using shards = await openDataset(at('shards'));
  await using source = await openDataset(fleurs);
  t.deepEqual(told(shards), told(source));
  t.true(readdirSync(at('shards')).length > 3);
  for (const i of [11, 0, 5]) {
    const audio = (await shards.audio(i)) as { samples: Float32Array; sampleRate: number };
    const wav = tone(rows[i]!.seconds, 1 + (rows[i]!.id % 7));
    t.is(audio.sampleRate, 16000);
    t.deepEqual(Buffer.from(Int16Array.from(audio.samples, (x) => 32768 * x).buffer), Buffer.from(wav.slice(44)));
  }
  await using test = await openDataset(`${at('shards')}#test`);
  t.is(test.length, 3);
  await using one = await openDataset(at('shards', 'shard-00001.packed'));
  t.true(one.length > 0 && one.length < 9);
});

test('rows of two data sets with the same ids, with and without a split, all come back', async (t) => {
  const row = (id: number) => ({
    id: `${id}`,
    audio: join(fleurs, 'audio', 'train', `${id}.wav`),
    text: `text ${id}`,
    language: 'ca',
  });
  const [own, other] = [at('own.jsonl'), at('other.jsonl')];
  writeFileSync(own, [0, 1, 2].map((id) => JSON.stringify({ ...row(id), split: 'train' })).join('\n'));
  writeFileSync(other, [0, 1, 2].map((id) => JSON.stringify(row(id))).join('\n'));
  await using data = await openDataset([own, other], { split: 'all' });
  await prepare(data, { output: at('both') });
  await using all = await openDataset(at('both'));
  t.deepEqual(
    [...all.entries()].map(({ text, split }) => [text, split]).sort(),
    [0, 1, 2]
      .flatMap((id) => [
        [`text ${id}`, undefined],
        [`text ${id}`, 'train'],
      ])
      .sort(),
  );
  await using train = await openDataset(`${at('both')}#train`);
  t.is(train.length, 3);
});

test('work that was interrupted goes on behind the last shard and ends with the same bytes', async (t) => {
  await using data = await openDataset(fleurs);
  const output = at('resumed');
  const abort = new AbortController();
  const stopped = prepare(data, {
    output,
    shardBytes: size,
    signal: abort.signal,
    onProgress: ({ shards }) => shards === 2 && abort.abort(),
  });
  await t.throwsAsync(stopped, { code: 'ERR_INTERRUPTED' });
  t.deepEqual(readdirSync(output).sort(), ['shard-00000.packed', 'shard-00001.packed', 'shards.json']);
  await t.throwsAsync(openDataset(output), { code: 'ERR_MANIFEST', message: /is not finished/ });
  // What a killed process leaves.
  writeFileSync(join(output, 'shard-00002.packed.0123456789ab.tmp'), 'half');
  const progress: number[] = [];
  const report = await prepare(data, { output, shardBytes: size, onProgress: ({ done }) => progress.push(done) });
  t.true(progress[0]! > 1);
  t.deepEqual(bytesIn(output), bytesIn(at('shards')));
  t.deepEqual(report.counts, { train: { ca: 9 }, test: { ca: 3 } });
  // Once more: there is nothing left to do.
  t.deepEqual(await prepare(data, { output, shardBytes: size }), report);
});

test('a folder of something else, of other rows or of other sizes is refused', async (t) => {
  await using data = await openDataset(`${fleurs}#test`);
  mkdirSync(at('other'));
  writeFileSync(at('other', 'thesis.tex'), '');
  await t.throwsAsync(prepare(data, { output: at('other') }), { code: 'ERR_FILE_WRITE', message: /holds thesis\.tex/ });
  t.deepEqual(readdirSync(at('other')), ['thesis.tex']);
  await t.throwsAsync(prepare(data, { output: at('shards'), shardBytes: size }), { message: /shards of other rows/ });
  await using whole = await openDataset(fleurs);
  await t.throwsAsync(prepare(whole, { output: at('shards') }), { message: new RegExp(`shards of ${size} bytes`) });
  await t.throwsAsync(prepare(data, { output: at('x'), shardBytes: 0 }), { code: 'ERR_ARGUMENT' });
});

test('rows whose audio cannot be used are left out and told, or end the work', async (t) => {
  const folder = at('voice', 'ca');
  writeVoice(folder, { train: voiceRows('t', 4) });
  writeFileSync(join(folder, 'clips', 'common_voice_ca_t1.mp3'), 'no mp3');
  writeFileSync(join(folder, 'clips', 'common_voice_ca_t3.mp3'), '');
  await using data = await openDataset(folder);
  const report = await prepare(data, { output: at('voice-shards') });
  t.is(report.rows, 2);
  t.deepEqual(
    report.badRows.map(({ line }) => line),
    [3, 5],
  );
  await t.throwsAsync(prepare(data, { output: at('strict'), strict: true }), { instanceOf: BadRowsError });
  await using none = await openDataset(`${folder}#train`, { limit: 4 });
  await t.throwsAsync(prepare(none.select([1, 3]), { output: at('none') }), { instanceOf: BadRowsError });
});

test('a flipped bit in a record is that row’s fault; in an index or a header, or a shard that is missing, all is refused', async (t) => {
  const folder = at('bent');
  mkdirSync(folder);
  for (const name of readdirSync(at('shards'))) writeFileSync(join(folder, name), readFileSync(at('shards', name)));
  const shard = join(folder, 'shard-00000.packed');
  const sound = readFileSync(shard);
  const bent = Buffer.from(sound);
  // In the second record's samples: the first has 3,200 bytes.
  bent[4500]! ^= 1;
  writeFileSync(shard, bent);
  {
    await using data = await openDataset(folder);
    t.is(data.length, 12);
    await t.throwsAsync(data.audio(1), { code: 'ERR_PACKED', message: /shard-00000\.packed is damaged: record 1 of/ });
    t.truthy(await data.audio(0));
    t.truthy(await data.audio(2));
  }
  for (const at of [10, sound.length - 40]) {
    const bytes = Buffer.from(sound);
    bytes[at]! ^= 4;
    writeFileSync(shard, bytes);
    await t.throwsAsync(openDataset(folder), { code: 'ERR_PACKED', message: /shard-00000\.packed/ });
  }
  writeFileSync(shard, sound.subarray(0, 5000));
  await t.throwsAsync(openDataset(folder), { code: 'ERR_PACKED', message: /is cut short: it ends in record 1/ });
  writeFileSync(join(folder, 'shards.json'), '{"shards": [{"file": "../x", "rows": 1}], "complete": true}');
  await t.throwsAsync(openDataset(folder), {
    code: 'ERR_MANIFEST',
    message: /shards\.json: expected a list of shards/,
  });
});
