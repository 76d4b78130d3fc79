/**
 * Makes the synthetic speech corpus. Needs g++, libespeak-ng-dev, festival with festvox-ca-ona-hts,
 * flite and opus-tools (all packages of Debian).
 *
 *   npx tsx scripts/corpus/make.ts --kind embedded --out corpus
 *   npx tsx scripts/corpus/make.ts --kind pretrain --out FOLDER [--languages ca,cs] [--jobs 2] [--limit 50]
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { EMBEDDED_VALIDATION, planLanguage, SEED, type Utterance } from './plan.js';
import { hash } from './random.js';
import { RATE, toWav } from './sound.js';
import { compileSpeaker, encodeOpus, Speaker, synthesise } from './speech.js';
import { codePoints, comparisonKey, LANGUAGES, type Language } from './text.js';

/** The utterances of one of the two products. Both share the tests and the first validation rows. */
export function choose(all: readonly Utterance[], kind: 'embedded' | 'pretrain'): Utterance[] {
  return all.filter((u) => {
    const number = Number(u.id.slice(-4));
    if (kind === 'pretrain') return u.split !== 'test' && !u.id.includes('-train-');
    if (u.split === 'validation') return number < EMBEDDED_VALIDATION(u.language);
    return !u.id.includes('-pretrain-');
  });
}

/** How many training or validation texts the evaluation could not tell from a test's. */
export function overlap(all: readonly Utterance[]): number {
  const tests = new Set(all.filter((u) => u.split === 'test').map((u) => u.language + comparisonKey(u.text)));
  return all.filter((u) => u.split !== 'test' && tests.has(u.language + comparisonKey(u.text))).length;
}

const { values } = parseArgs({
  options: {
    kind: { type: 'string' },
    out: { type: 'string' },
    languages: { type: 'string', default: LANGUAGES.join(',') },
    jobs: { type: 'string', default: '2' },
    limit: { type: 'string' },
  },
});
const { kind, out } = values;
if ((kind !== 'embedded' && kind !== 'pretrain') || out === undefined) {
  throw new Error('usage: npx tsx scripts/corpus/make.ts --kind embedded|pretrain --out FOLDER');
}

const wanted = values.languages.split(',') as Language[];
const plan = wanted.flatMap((language) => planLanguage(language, SEED));
console.log(`${plan.length} utterances planned, ${overlap(plan)} test texts among the others`);
const limit = values.limit === undefined ? Number.POSITIVE_INFINITY : Number(values.limit);
const chosen = choose(plan, kind).filter((u) => Number(u.id.slice(-4)) < limit);
for (const language of wanted) mkdirSync(join(out, language), { recursive: true });

const started = Date.now();
const seconds = new Map<string, number>();
const program = compileSpeaker();
const queue = [...wanted];
async function work(): Promise<void> {
  for (let language = queue.shift(); language !== undefined; language = queue.shift()) {
    const speaker = new Speaker(program);
    const encoders = new Set<Promise<boolean>>();
    for (const utterance of chosen) {
      if (utterance.language !== language) continue;
      const samples = await synthesise(utterance, SEED, speaker);
      seconds.set(utterance.id, samples.length / RATE);
      const file = join(out as string, fileOf(utterance));
      if (kind === 'pretrain') writeFileSync(file, toWav(samples));
      else {
        // Encoders run beside the next synthesis, a few at a time.
        const encoder: Promise<boolean> = encodeOpus(samples, file, hash(utterance.id)).then(() =>
          encoders.delete(encoder),
        );
        encoders.add(encoder);
        if (encoders.size >= 4) await Promise.race(encoders);
      }
      if (seconds.size % 1000 === 0)
        console.log(`${seconds.size} of ${chosen.length}, ${(Date.now() - started) / 1000} s`);
    }
    await Promise.all(encoders);
    speaker.close();
  }
}
function fileOf(utterance: Utterance): string {
  const name = utterance.id.slice(utterance.language.length + 1);
  return `${utterance.language}/${name}.${kind === 'pretrain' ? 'wav' : 'opus'}`;
}
await Promise.all(Array.from({ length: Number(values.jobs) }, work));

const rows = chosen.map((u) => ({
  id: u.id,
  audio: fileOf(u),
  text: u.text,
  language: u.language,
  split: u.split,
  domain: u.domain,
  kind: u.kind,
  voice: u.voice.engine === 'espeak-ng' ? `espeak-ng ${u.voice.name}` : `${u.voice.engine} ${u.voice.name}`,
  seconds: Math.round((seconds.get(u.id) as number) * 1000) / 1000,
}));
writeFileSync(join(out, 'manifest.jsonl'), rows.map((row) => `${JSON.stringify(row)}\n`).join(''));

const table = new Map<string, { count: number; seconds: number }>();
for (const row of rows) {
  const key = `${row.language} ${row.split} ${row.domain}`;
  const entry = table.get(key) ?? { count: 0, seconds: 0 };
  table.set(key, { count: entry.count + 1, seconds: entry.seconds + row.seconds });
}
for (const [key, entry] of table) console.log(`${key}: ${entry.count}, ${(entry.seconds / 3600).toFixed(3)} h`);
const longest = rows.reduce((a, b) => (b.seconds > a.seconds ? b : a));
const widest = rows.reduce((a, b) => (codePoints(b.text) > codePoints(a.text) ? b : a));
console.log(
  `longest audio ${longest.seconds} s (${longest.id}); longest text ${codePoints(widest.text)} (${widest.id})`,
);
console.log(`${rows.length} utterances in ${(Date.now() - started) / 1000} s`);
