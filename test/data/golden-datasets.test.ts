/** Data sets as `datasets` writes them, recorded: rows, samples and bytes. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { decodeAudio, openDataset } from '../../lib/index.js';
import { shared } from '../support/golden.js';

const golden = join(shared, 'golden', 'case14_datasets');
// The recorded data sets are bytes of others: they lie outside of the package.
const recorded = existsSync(golden) ? test : test.skip;

interface Recorded {
  file: string;
  text: string;
  language: string;
  seconds: number;
  sample_rate: number;
  channels: number;
  frames: number;
  sha256: string;
}
const json = <T>(name: string): T => JSON.parse(readFileSync(join(golden, name), 'utf8')) as T;
const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');

for (const name of [
  'hub',
  'hub_sharded',
  ...['none', 'gzip', 'zstd'].map((codec) => `parquet_variants/${codec}_groups_of_2.parquet`),
]) {
  recorded(`parquet: ${name} gives the recorded rows, bytes and samples`, async (t) => {
    const rows = json<Recorded[]>('rows.json');
    await using data = await openDataset(join(golden, name));
    t.is(data.length, rows.length);
    t.deepEqual(data.badRows, []);
    for (const [i, row] of rows.entries()) {
      const entry = data.entry(i);
      t.like(entry, { text: row.text.normalize('NFC'), language: row.language, split: 'train' });
      const bytes = (await data.audio(i)) as Uint8Array;
      t.is(sha256(bytes), row.sha256, row.file);
      const audio = await decodeAudio(bytes);
      t.is(audio.sampleRate, row.sample_rate);
      // A lossy file's padding is told apart by some readers only.
      const slack = /\.(mp3|ogg)$/.test(row.file) ? 3000 : 0;
      t.true(
        Math.abs(audio.samples.length - row.frames) <= slack,
        `${row.file}: ${audio.samples.length} of ${row.frames}`,
      );
    }
  });
}

for (const form of ['csv', 'jsonl']) {
  recorded(`audio folder: metadata.${form} gives the recorded rows and bytes`, async (t) => {
    const rows = json<{ file_name: string; text: string; language: string; sha256: string }[]>(
      `audiofolder_${form}_rows.json`,
    );
    await using data = await openDataset(join(golden, `audiofolder_${form}`));
    t.is(data.length, rows.length);
    for (const [i, row] of rows.entries()) {
      t.like(data.entry(i), { text: row.text.normalize('NFC'), language: row.language, split: 'train' });
      t.is(sha256(readFileSync((await data.audio(i)) as string)), row.sha256);
    }
  });
}
