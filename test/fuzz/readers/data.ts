/** Manifests and profiles. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeWav, type ManifestOptions, readManifest, readProfile } from '../../../lib/index.js';
import { concat, mutateList } from '../mutators/bytes.js';
import { mutateNode, toNode, writeNode } from '../mutators/json.js';
import { mutateJsonRows, mutateTable, textBytes } from '../mutators/table.js';
import type { Random } from '../random.js';
import { promised, type Reader, root } from '../reader.js';

const COLUMNS = ['id', 'audio', 'text', 'language', 'split', 'domain', 'duration', 'speaker', 'task'];
const ROWS = [
  ['u1', 'a.wav', 'bon dia', 'ca', 'train', 'in', '1.5', 's1', 'transcribe'],
  ['u2', 'b.wav', 'dobrý "den"', 'Czech', 'test', 'out', '2', 's2', 'translate'],
  ['u3', 'a.wav', 'hola, tu', 'zh', 'train', 'in', '0.02', '', ''],
];
const VOICE = [
  ['client_id', 'path', 'sentence', 'up_votes', 'locale', 'segment'],
  ['x', 'a.mp3', 'Va dir ""no"".', '2', 'ca', ''],
];
const OBJECTS: readonly object[][] = [
  ROWS.map((row) => Object.fromEntries(row.map((value, i) => [COLUMNS[i], value]))),
  [{ audio: { path: 'a.wav', sampling_rate: 16000 }, text: 'hola', language: 'ca' }],
  [{ file_name: 'a.wav', transcription: 'hola', locale: 'ca_es', duration: 1.5 }],
  [
    {
      ...{ audio: 'a.wav', text: 'bon dia', language: 'ca' },
      segments: [
        { start: 0, end: 0.5, text: 'bon' },
        { start: 0.5, end: 1, text: ' dia' },
      ],
    },
  ],
];

/** How a manifest is named, and how one is made. */
const KINDS: readonly { ending: string; make(random: Random): string }[] = [
  { ending: 'tsv', make: (random) => mutateTable([COLUMNS, ...ROWS], '\t', random) },
  { ending: 'tsv', make: (random) => mutateTable(VOICE, '\t', random) },
  { ending: 'csv', make: (random) => mutateTable([COLUMNS, ...ROWS], ',', random) },
  { ending: 'txt', make: (random) => mutateTable(ROWS, random.pick(['|', '\t']), random) },
  { ending: 'jsonl', make: (random) => mutateJsonRows(random.pick(OBJECTS), false, random) },
  { ending: 'json', make: (random) => mutateJsonRows(random.pick(OBJECTS), true, random) },
  { ending: 'txt', make: (random) => mutateJsonRows(random.pick(OBJECTS), false, random) },
];
const OPTIONS: readonly ManifestOptions[] = [
  {},
  { checkFiles: false, emptyText: 'skip', segments: true },
  { defaultLanguage: 'ca', split: 'train' },
  { checkFiles: false, columns: { text: 'sentence' }, language: ['ca', 'cs'] },
];

/** A short profile: its head, its lanes and some events of every kind. */
function profileLines(): string[] {
  const lines = readFileSync(join(root, 'docs', 'traces', 'decode.json'), 'utf8')
    .trimEnd()
    .split('\n');
  const kinds = new Set<string>();
  const some = lines.slice(1, -1).filter((line) => {
    const { ph, cat, name } = JSON.parse(line.replace(/,$/, '')) as { ph: string; cat?: string; name: string };
    const kind = `${ph} ${cat} ${ph === 'M' ? line : name}`;
    return kinds.size < 40 && !kinds.has(kind) && kinds.add(kind);
  });
  return some.map((line) => line.replace(/,$/, ''));
}

export const dataReaders: readonly Reader[] = [
  {
    name: 'manifest',
    about: 'readManifest: TSV, CSV, JSON lines, a JSON array; the first byte of an input says which, and the options',
    open(scratch) {
      for (const name of ['a.wav', 'b.wav']) writeFileSync(join(scratch, name), encodeWav(new Float32Array(16), 16000));
      return {
        make(random) {
          const kind = random.below(KINDS.length);
          const options = random.below(OPTIONS.length);
          return concat([kind + 16 * options], textBytes(KINDS[kind]!.make(random), random));
        },
        read(input) {
          const first = input[0] ?? 0;
          const path = join(scratch, `rows.${KINDS[(first & 15) % KINDS.length]!.ending}`);
          writeFileSync(path, input.subarray(1));
          const rows = readManifest(path, OPTIONS[(first >> 4) % OPTIONS.length]);
          promised(rows.length > 0, 'no rows and no error');
          for (const { id, audio, line, duration, text, segments } of rows) {
            promised(id !== '' && audio.startsWith('/') && line >= 1 && duration !== 0, `row ${id} of line ${line}`);
            const said = segments?.map((segment) => segment.text).join('');
            promised(said === undefined || said === text.trimEnd(), `the segments of line ${line} are not its text`);
          }
        },
      };
    },
  },
  {
    name: 'profile',
    about: 'readProfile',
    open(scratch) {
      const lines = profileLines();
      const path = join(scratch, 'trace.json');
      return {
        make(random) {
          const mutated = [...lines];
          for (let times = random.count(4); times > 0 && mutated.length > 0; times--) {
            const at = random.below(mutated.length);
            if (random.chance(0.7))
              mutated[at] = writeNode(mutateNode(toNode(JSON.parse(lines[at % lines.length]!)), random));
            else mutateList(mutated, random);
          }
          return textBytes(`[\n${mutated.join(',\n')}${random.chance(0.8) ? '\n]\n' : ''}`, random);
        },
        async read(input) {
          writeFileSync(path, input);
          const { streams } = await readProfile(path, { byShape: input.length % 2 === 0 });
          promised(Array.isArray(streams), 'a report without streams');
        },
      };
    },
  },
];
