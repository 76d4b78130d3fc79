/** Corpora in the layouts in which they are shipped, made of few clips. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { type ColumnSource, parquetWriteBuffer } from 'hyparquet-writer';
import { type Header, pack } from 'tar-stream';
import { encodeWav } from '../../lib/index.js';

const mp3 = fileURLToPath(new URL('../fixtures/audio/mono-info.mp3', import.meta.url));

/** The header of a release's tables, version 13. */
export const VOICE_HEADER =
  'client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\tsegment';
/** The same from version 17 on. */
export const VOICE_HEADER_17 =
  'client_id\tpath\tsentence_id\tsentence\tsentence_domain\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\tsegment';

export interface VoiceRow {
  path: string;
  sentence: string;
  up?: number;
  down?: number;
}

export const voiceLine = ({ path, sentence, up = 2, down = 0 }: VoiceRow, locale = 'ca'): string =>
  ['speaker-1', path, sentence, up, down, 'twenties', '', '', '', locale, ''].join('\t');

/** A release of one language: tables with their real header, and an mp3 for each row unless `clips` is false. */
export function writeVoice(
  folder: string,
  splits: Readonly<Record<string, readonly VoiceRow[]>>,
  locale = 'ca',
): string {
  mkdirSync(join(folder, 'clips'), { recursive: true });
  for (const [split, rows] of Object.entries(splits)) {
    const lines = [VOICE_HEADER, ...rows.map((row) => voiceLine(row, locale))];
    writeFileSync(join(folder, `${split}.tsv`), `${lines.join('\n')}\n`);
    for (const { path } of rows) if (path === basename(path)) cpSync(mp3, join(folder, 'clips', path));
  }
  return folder;
}

export const voiceRows = (prefix: string, count: number): VoiceRow[] =>
  Array.from({ length: count }, (_, i) => ({
    path: `common_voice_ca_${prefix}${i}.mp3`,
    sentence: `frase ${prefix} ${i}.`,
  }));

/** A wav of a tone, of so many seconds at 16 kHz, told from others by its pitch. */
export const tone = (seconds: number, pitch = 1): Uint8Array =>
  encodeWav(
    Float32Array.from({ length: Math.round(seconds * 16000) }, (_, i) => 0.2 * Math.sin((pitch * i) / 20)),
    16000,
  );

export interface FleursRow {
  id: number;
  file: string;
  text: string;
  seconds: number;
}

export const fleursLine = ({ id, file, text, seconds }: FleursRow): string =>
  [
    id,
    file,
    `${text.toUpperCase()}.`,
    text,
    [...text].join(' ').replaceAll('   ', ' | '),
    Math.round(seconds * 16000),
    'FEMALE',
  ].join('\t');

export interface TarMember {
  name: string;
  bytes?: Uint8Array;
  type?: Header['type'];
  linkname?: string;
}

export function tarOf(members: readonly TarMember[]): Promise<Buffer> {
  const tar = pack();
  for (const { name, bytes, type = 'file', linkname } of members) {
    if (bytes) tar.entry({ name, type }, Buffer.from(bytes));
    else tar.entry({ name, type, ...(linkname !== undefined && { linkname }) });
  }
  tar.finalize();
  return (async () => {
    const parts: Buffer[] = [];
    for await (const part of tar) parts.push(part as Buffer);
    return Buffer.concat(parts);
  })();
}

/** FLEURS of one language: tables without a header, wavs in a folder, or in their archive as they are downloaded. */
export async function writeFleurs(
  folder: string,
  splits: Readonly<Record<string, readonly FleursRow[]>>,
  form: 'folder' | 'tar.gz' | 'tar',
): Promise<string> {
  mkdirSync(join(folder, 'audio'), { recursive: true });
  for (const [split, rows] of Object.entries(splits)) {
    writeFileSync(join(folder, `${split}.tsv`), `${rows.map(fleursLine).join('\n')}\n`);
    const clips = rows.map(({ file, seconds, id }) => ({
      name: `${split}/${file}`,
      bytes: tone(seconds, 1 + (id % 7)),
    }));
    if (form === 'folder') {
      mkdirSync(join(folder, 'audio', split), { recursive: true });
      for (const { name, bytes } of clips) writeFileSync(join(folder, 'audio', name), bytes);
    } else {
      // In another order than the table's, as it is in the real archives.
      const tar = await tarOf([{ name: `${split}/`, type: 'directory' }, ...clips.reverse()]);
      writeFileSync(join(folder, 'audio', `${split}.${form}`), form === 'tar' ? tar : gzipSync(tar));
    }
  }
  return folder;
}

export interface ParquetRow {
  bytes: Uint8Array;
  text: string;
  language: string;
}

/** Parquet as `datasets` lays it out: a struct of bytes and path, so many rows in a group; texts in another encoding for `encoding`. */
export function parquetOf(rows: readonly ParquetRow[], rowGroupSize = 2, encoding?: ColumnSource['encoding']): Buffer {
  const optional = { repetition_type: 'OPTIONAL' } as const;
  const text = { type: 'BYTE_ARRAY', converted_type: 'UTF8', ...optional } as const;
  const texts = (name: 'text' | 'language'): ColumnSource => {
    const column = { name, data: rows.map((row) => row[name]) };
    return encoding ? { ...column, encoding } : column;
  };
  return Buffer.from(
    parquetWriteBuffer({
      rowGroupSize,
      schema: [
        { name: 'schema', num_children: 3 },
        { name: 'audio', num_children: 2, ...optional },
        { name: 'bytes', type: 'BYTE_ARRAY', ...optional },
        { name: 'path', ...text },
        { name: 'text', ...text },
        { name: 'language', ...text },
      ],
      columnData: [
        { name: 'audio', data: rows.map(({ bytes }, i) => ({ bytes, path: `clip-${i}.wav` })) },
        texts('text'),
        texts('language'),
      ],
    }),
  );
}

export const fixtureMp3 = (): Buffer => readFileSync(mp3);
