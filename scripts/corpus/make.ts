/**
 * Makes the synthetic speech corpus. Needs g++, libespeak-ng-dev, festival with festvox-ca-ona-hts,
 * flite and opus-tools (all packages of Debian).
 *
 *   npx tsx scripts/corpus/make.ts --kind embedded --out corpus
 *   npx tsx scripts/corpus/make.ts --kind whole --out FOLDER        all of the tests and of fine-tuning, of which `embedded` is a share
 *   npx tsx scripts/corpus/make.ts --kind pretrain --out FOLDER     [--lengths short,long] [--parts 3]
 *
 * A language, or a part of its pre-training speech, is a piece: made in a process of its own, into a folder and a table of its own. A
 * piece that is there is not made again.
 */
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { describeChannel } from './conditions.js';
import { LENGTHS, type Length, type Part, planLanguage, SEED, TARGETS, type Utterance } from './plan.js';
import { hash } from './random.js';
import { RATE, toWav } from './sound.js';
import { compileSpeaker, encodeOpus, synthesise } from './speech.js';
import { codePoints, comparisonKey, LANGUAGES, type Language } from './text.js';

type Kind = 'embedded' | 'whole' | 'pretrain';
const KINDS: readonly Kind[] = ['embedded', 'whole', 'pretrain'];

/** How many utterances of a group are embedded. */
function embedded({ language, split }: Utterance): number {
  if (split === 'train') return language === TARGETS[0] ? Number.POSITIVE_INFINITY : 0;
  if (split === 'validation') return language === TARGETS[0] ? 60 : 20;
  return language === TARGETS[0] ? 60 : 16;
}

/** How many training or validation texts the evaluation could not tell from a test's. */
function overlap(all: readonly Utterance[]): number {
  const tests = new Set(all.filter((u) => u.split === 'test').map((u) => comparisonKey(u.text)));
  return all.filter((u) => u.split !== 'test' && tests.has(comparisonKey(u.text))).length;
}

function grouped<T>(all: readonly T[], groupOf: (one: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const one of all) {
    const name = groupOf(one);
    const group = groups.get(name);
    if (group) group.push(one);
    else groups.set(name, [one]);
  }
  return groups;
}

interface Row {
  id: string;
  audio: string;
  text: string;
  language: string;
  split: string;
  domain: string;
  kind: string;
  voice: string;
  channel: string;
  seconds: number;
}

/** What one process makes. */
interface Piece {
  language: Language;
  part?: Part | undefined;
}

const nameOf = ({ language, part }: Piece): string => (part ? `${language}-${part.length}-${part.index}` : language);
const tableOf = (out: string, piece: Piece): string => join(out, `${nameOf(piece)}.jsonl`);

/** Makes a piece; its table is written last. */
async function make(piece: Piece, kind: Kind, out: string): Promise<void> {
  const { language } = piece;
  const plan = planLanguage(language, piece.part);
  const same = overlap(plan);
  if (same > 0) throw new Error(`${language}: ${same} test texts stand among the others`);
  const chosen = plan.filter((u) => (u.domain === 'broad') === (kind === 'pretrain'));
  const share = kind === 'embedded' ? chosen.filter((u) => u.index < embedded(u)) : chosen;
  const groups = grouped(share, (u) => `${u.split} ${u.domain}`);
  mkdirSync(join(out, nameOf(piece)), { recursive: true });
  const program = compileSpeaker();
  const rows: Row[] = [];
  const encoders = new Set<Promise<boolean>>();
  for (const group of groups.values()) {
    let i = 0;
    for await (const samples of synthesise(group, SEED, program)) {
      const utterance = group[i++] as Utterance;
      if (!samples) continue;
      rows.push(rowOf(utterance, piece, samples.length / RATE));
      const file = join(out, rows.at(-1)!.audio);
      if (kind === 'pretrain') writeFileSync(file, toWav(samples));
      else {
        // Encoders run beside the next synthesis, a few at a time.
        const encoder: Promise<boolean> = encodeOpus(samples, file, hash(utterance.id)).then(() =>
          encoders.delete(encoder),
        );
        encoders.add(encoder);
        if (encoders.size >= 4) await Promise.race(encoders);
      }
    }
  }
  await Promise.all(encoders);
  const table = tableOf(out, piece);
  writeFileSync(`${table}.part`, rows.map((row) => `${JSON.stringify(row)}\n`).join(''));
  renameSync(`${table}.part`, table);
  console.log(`${nameOf(piece)}: ${rows.length} utterances in ${Math.round(performance.now() / 1000)} s`);
}

function rowOf(utterance: Utterance, piece: Piece, seconds: number): Row {
  const { id, text, language, split, domain, voice } = utterance;
  return {
    id,
    audio: `${nameOf(piece)}/${id.slice(language.length + 1)}.${piece.part ? 'wav' : 'opus'}`,
    text,
    language,
    split,
    domain,
    kind: utterance.kind,
    voice: `${voice.engine} ${voice.name}`,
    channel: describeChannel(utterance.channel),
    seconds: Math.round(seconds * 1000) / 1000,
  };
}

/** Makes a piece in another process. */
function run({ language, part }: Piece): Promise<void> {
  const own = ['--languages', language, '--piece', part ? `${part.length} ${part.index}` : ''];
  const args = [...process.execArgv, fileURLToPath(import.meta.url), ...process.argv.slice(2), ...own];
  return new Promise((resolve, reject) => {
    spawn(process.execPath, args, { stdio: 'inherit' }).on('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${nameOf({ language, part })} was not made`)),
    );
  });
}

function summary(rows: readonly Row[]): void {
  for (const [group, members] of grouped(rows, (row) => `${row.language} ${row.split} ${row.domain}`)) {
    const hours = members.reduce((sum, { seconds }) => sum + seconds, 0) / 3600;
    const letters = members.reduce((sum, { text }) => sum + codePoints(text), 0) / members.length;
    console.log(`${group}: ${members.length}, ${hours.toFixed(3)} h, ${letters.toFixed(1)} letters each`);
  }
}

const { values } = parseArgs({
  options: {
    kind: { type: 'string' },
    out: { type: 'string' },
    languages: { type: 'string', default: LANGUAGES.join(',') },
    jobs: { type: 'string', default: '2' },
    lengths: { type: 'string', default: Object.keys(LENGTHS).join(',') },
    parts: { type: 'string', default: '3' },
    piece: { type: 'string' },
  },
});
const { out, piece } = values;
const kind = KINDS.find((each) => each === values.kind);
const languages = values.languages.split(',').map((name) => {
  const language = LANGUAGES.find((each) => each === name);
  if (!language) throw new Error(`--languages: expected some of ${LANGUAGES.join()}, got ${name}`);
  return language;
});
if (!kind || !out) throw new Error(`usage: npx tsx scripts/corpus/make.ts --kind ${KINDS.join('|')} --out FOLDER`);

if (piece !== undefined) {
  const [length, index] = piece.split(' ');
  const part = index === undefined ? undefined : { length: length as Length, index: Number(index) };
  await make({ language: languages[0]!, part }, kind, out);
} else {
  const indices = Array.from({ length: Number(values.parts) }, (_, index) => index);
  const lengths = values.lengths.split(',') as Length[];
  const parts =
    kind === 'pretrain' ? lengths.flatMap((length) => indices.map((index) => ({ length, index }))) : [undefined];
  const pieces = parts.flatMap((part) => languages.map((language): Piece => ({ language, part })));
  const queue = pieces.filter((each) => !existsSync(tableOf(out, each)));
  const work = async (): Promise<void> => {
    for (let next = queue.shift(); next !== undefined; next = queue.shift()) await run(next);
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, work));
  const tables = pieces.map((each) => readFileSync(tableOf(out, each), 'utf8'));
  // Of pre-training speech each length is a corpus of its own.
  for (const length of kind === 'pretrain' ? lengths : []) {
    const own = tables.filter((_, i) => pieces[i]!.part!.length === length);
    writeFileSync(join(out, `${length}.jsonl`), own.join(''));
  }
  if (kind !== 'pretrain') writeFileSync(join(out, 'manifest.jsonl'), tables.join(''));
  if (kind === 'embedded') for (const each of pieces) rmSync(tableOf(out, each));
  summary(
    tables.flatMap((table) =>
      table
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line) as Row),
    ),
  );
}
