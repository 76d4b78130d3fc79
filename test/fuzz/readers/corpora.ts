/** Corpora: parquet, archives, tables of Common Voice, packed shards. */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { openDataset, prepare } from '../../../lib/index.js';
import { parquetOf, tarOf, tone, VOICE_HEADER, voiceLine, writeFleurs } from '../../support/corpora.js';
import { mutateBytes } from '../mutators/bytes.js';
import { mutateTable, textBytes } from '../mutators/table.js';
import { promised, type Reader } from '../reader.js';

/** Opens what lies at a path, and asks for the audio of its first rows; rows that are refused are told. */
async function readSome(path: string, options: object = {}): Promise<void> {
  await using data = await openDataset(path, { ...options, onBadRow: () => {} });
  for (const { reason, line } of data.badRows) promised(reason !== '' && line >= 0, 'a bad row without a reason');
  for (const i of data.numbers()) {
    const { id, text, audio } = data.entry(i);
    promised(id !== '' && text !== '' && text === text.normalize('NFC') && audio !== '', `row ${i} is not whole`);
    if (i < 8) await data.audio(i);
  }
}

const rows = Array.from({ length: 5 }, (_, i) => ({
  bytes: tone(0.01, i),
  text: `paraules ${i}`,
  language: i % 2 ? 'ca' : 'cs',
}));

export const corpusReaders: readonly Reader[] = [
  {
    name: 'parquet',
    about: 'openDataset: parquet with embedded audio',
    open(scratch) {
      const seeds = [
        parquetOf(rows, 2),
        parquetOf(rows.slice(0, 1), 10),
        parquetOf([...rows, ...rows], 10, 'RLE_DICTIONARY'),
        parquetOf(rows, 10, 'DELTA_LENGTH_BYTE_ARRAY'),
      ];
      const path = join(scratch, 'shard.parquet');
      return {
        make: (random) => mutateBytes(random.pick(seeds), random, seeds),
        read(input) {
          writeFileSync(path, input);
          return readSome(path);
        },
      };
    },
  },
  {
    name: 'archive',
    about: "openDataset: FLEURS' wavs inside their tar.gz",
    async open(scratch) {
      const folder = join(scratch, 'ca_es');
      const clips = Array.from({ length: 4 }, (_, id) => ({
        id,
        file: `${id}.wav`,
        text: `text ${id}`,
        seconds: 0.01,
      }));
      await writeFleurs(folder, { train: clips }, 'tar.gz');
      const path = join(folder, 'audio', 'train.tar.gz');
      const tar = gunzipSync(readFileSync(path));
      const links = await tarOf([
        { name: '0.wav', type: 'link', linkname: '1.wav' },
        { name: '/1.wav', bytes: tone(0.01) },
      ]);
      const seeds = [tar, links];
      return {
        make(random) {
          const mutated = mutateBytes(random.pick(seeds), random, seeds);
          const packed = gzipSync(mutated);
          return random.chance(0.7) ? packed : random.chance(0.5) ? mutateBytes(packed, random) : mutated;
        },
        read(input) {
          writeFileSync(path, input);
          return readSome(folder);
        },
      };
    },
  },
  {
    name: 'common-voice',
    about: 'openDataset: the tables of a release',
    open(scratch) {
      mkdirSync(join(scratch, 'clips'));
      for (const i of [0, 1, 2]) writeFileSync(join(scratch, 'clips', `c${i}.mp3`), '');
      const lines = [
        VOICE_HEADER,
        ...[0, 1, 2].map((i) => voiceLine({ path: `c${i}.mp3`, sentence: `frase ${i}`, up: i })),
      ];
      const table = lines.map((line) => line.split('\t'));
      writeFileSync(join(scratch, 'clip_durations.tsv'), 'clip\tduration[ms]\nc0.mp3\t1200\n');
      return {
        make: (random) => textBytes(mutateTable(table, '\t', random), random),
        read(input) {
          writeFileSync(join(scratch, 'train.tsv'), input);
          return readSome(`cv:${scratch}`, input.length % 2 ? { subset: '3k' } : {});
        },
      };
    },
  },
  {
    name: 'packed',
    about: 'openDataset: a packed shard',
    async open(scratch) {
      const source = join(scratch, 'source.parquet');
      writeFileSync(source, parquetOf(rows, 2));
      await using data = await openDataset(source);
      await prepare(data, { output: join(scratch, 'shards') });
      const seed = readFileSync(join(scratch, 'shards', 'shard-00000.packed'));
      const path = join(scratch, 'one.packed');
      return {
        make: (random) => mutateBytes(seed, random, [seed]),
        read(input) {
          writeFileSync(path, input);
          return readSome(path);
        },
      };
    },
  },
];
