/** Tables of text by their fields: manifests as TSV, CSV and JSON lines. */
import type { Random } from '../random.js';
import { mutateBytes, mutateList } from './bytes.js';
import { mutateNode, toNode, writeNode } from './json.js';
import { someText } from './text.js';

const FIELDS = [
  '',
  ' ',
  '"',
  '""',
  '"a',
  '\t',
  '\r',
  '\0',
  '-1',
  '0',
  'NaN',
  '1e999',
  'Infinity',
  'auto',
  'zh-CN',
  '__proto__',
  '.',
  '..',
  '/',
  'file:///x',
  'translate',
  '\ufeff',
  '\ud800',
  'a\u2028b',
];

export function mutateTable(rows: readonly (readonly string[])[], separator: string, random: Random): string {
  const table = rows.map((row) => [...row]);
  for (let times = random.count(5); times > 0 && table.length > 0; times--) {
    const row = random.pick(table);
    switch (random.below(7)) {
      case 0:
        mutateList(table, random);
        break;
      case 1:
        mutateList(row, random);
        break;
      case 2:
        row[random.below(row.length + 1)] = random.pick(FIELDS);
        break;
      case 3:
        row[random.below(row.length + 1)] = someText(random, 300);
        break;
      case 4:
        row[random.below(row.length)] = random
          .pick(['"', 'x', '""', '\t', ' '])
          .repeat(random.count(random.chance(0.02) ? (random.chance(0.02) ? 20_000_000 : 200_000) : 500));
        break;
      case 5:
        table[0] = [
          ...table[0]!,
          random.pick(['audio', 'text', 'language', 'id', 'split', 'duration', 'task', '', '__proto__']),
        ];
        break;
      default:
        row[0] = (row[0] ?? '') + random.pick(FIELDS);
    }
  }
  const end = random.pick(['\n', '\r\n', '\n\n', '\r', '\n']);
  return (
    (random.chance(0.05) ? '\ufeff' : '') +
    table.map((row) => row.join(separator)).join(end) +
    (random.chance(0.5) ? end : '')
  );
}

/** JSON lines, or with `array` one JSON array. */
export function mutateJsonRows(rows: readonly object[], array: boolean, random: Random): string {
  if (array) return writeNode(mutateNode(toNode(rows), random));
  const lines = rows.map((row) => writeNode(toNode(row)));
  for (let times = random.count(3); times > 0 && lines.length > 0; times--) {
    const at = random.below(lines.length);
    if (random.chance(0.7)) lines[at] = writeNode(mutateNode(toNode(rows[at % rows.length]), random));
    else mutateList(lines, random);
  }
  return lines.join(random.pick(['\n', '\r\n', '\n\n', '']));
}

export function textBytes(text: string, random: Random): Uint8Array {
  const bytes = new TextEncoder().encode(text);
  return random.chance(0.08) ? mutateBytes(bytes, random, [], 1) : bytes;
}
