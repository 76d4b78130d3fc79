/** Evaluation: error counts by language and domain against counts by hand, gate shares, the table, JSON, bad input. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { encodeWav } from '../../lib/audio/index.js';
import { type ManifestEntry, readManifest } from '../../lib/data/index.js';
import {
  type ErrorCounts,
  type EvaluationReport,
  evaluate,
  formatHypotheses,
  formatTable,
  toJSON,
} from '../../lib/evaluate/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { bleu, chrf } from '../../lib/text/index.js';
import { type TranscribeOptions, type TranscribeProgress, Transcriber } from '../../lib/transcribe/index.js';
import { attachRandomExpert } from '../support/experts.js';
import { createTalker, generation, sound, tokenizer } from '../support/talker.js';
import { refused } from '../support/weights.js';

const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-evaluate-'));
const stream = new Stream({ threads: 2 });
const model = await createTalker(stream);
attachRandomExpert(model, 'catalan', 21);
attachRandomExpert(model, 'thai', 22);
const transcriber = new Transcriber(model, tokenizer, { generation, batchSize: 4 });
const LENGTHS = [0.3, 0.5, 0.25, 0.75, 1.5];
const audio = LENGTHS.map((seconds, i) => {
  const path = join(scratch, `${i}.wav`);
  writeFileSync(path, encodeWav(sound(50 + i, seconds, 16000).samples, 16000));
  return path;
});

/** What is said in the five utterances, and what the model is taken to have understood: [language, domain, said, heard]. */
const UTTERANCES = [
  ['ca', 'out', 'the cat sat', 'the cat sat'],
  ['pl', 'in', 'one two three four', 'one too three'],
  ['ca', 'in', 'abcde', 'abxde fg'],
  ['ca', 'out', 'a b', ''],
  ['th', undefined, 'yes no', 'no yes no'],
] as const;

const entryOf = (i: number, text: string): ManifestEntry => {
  const [language, domain] = UTTERANCES[i]!;
  return {
    id: `u${i}`,
    audio: audio[i]!,
    text,
    language,
    ...(domain && { domain }),
    manifest: join(scratch, 'manifest.jsonl'),
    line: i + 1,
  };
};
const entries = UTTERANCES.map(([, , said], i) => entryOf(i, said));

/** What the model really says about each utterance, and its gates. */
const spoken = await Promise.all(
  UTTERANCES.map(async ([language], i) => (await transcriber.transcribe([audio[i]!], { language }))[0]!),
);
/** The normaliser that reads what the model says as what it is taken to have understood. */
const heard = new Map(UTTERANCES.map(([, , , text], i) => [spoken[i]!.text, text as string]));
const normalizer = (text: string): string => heard.get(text) ?? text;

const close = (a: number, b: number, by = 1e-9): boolean => Math.abs(a - b) <= by;

test.after.always(async () => {
  await transcriber.close();
  stream.close();
  rmSync(scratch, { recursive: true, force: true });
});

test('the utterances are told apart by what is said about them', (t) => {
  t.is(heard.size, UTTERANCES.length);
  for (const [, , said] of UTTERANCES) t.false(heard.has(said));
});

test.serial('words and characters are counted by language and domain as by hand', async (t) => {
  const report = await evaluate(transcriber, entries, { normalizer });
  t.deepEqual(
    report.groups.map(({ language, domain }) => [language, domain]),
    [
      ['ca', 'in'],
      ['ca', 'out'],
      ['pl', 'in'],
      ['th', ''],
    ],
  );
  const counts = [
    // abcde / abxde fg: one word exchanged, one put in; one letter exchanged, three put in.
    { utterances: 1, words: 1, wordErrors: 2, characters: 5, characterErrors: 4, seconds: 0.25 },
    // the cat sat, right; a b, all left out.
    { utterances: 2, words: 5, wordErrors: 2, characters: 14, characterErrors: 3, seconds: 0.3 + 0.75 },
    // two / too: one word and one letter exchanged; four left out with its space.
    { utterances: 1, words: 4, wordErrors: 2, characters: 18, characterErrors: 6, seconds: 0.5 },
    // yes no / no yes no: one word put in, with its space.
    { utterances: 1, words: 2, wordErrors: 1, characters: 6, characterErrors: 3, seconds: 1.5 },
    { utterances: 5, words: 12, wordErrors: 7, characters: 43, characterErrors: 16, seconds: 3.3 },
  ];
  for (const [i, { seconds, ...expected }] of counts.entries()) {
    const got: ErrorCounts = report.groups[i] ?? report.total;
    t.like(got, expected);
    t.is(got.wer, expected.wordErrors / expected.words);
    t.is(got.cer, expected.characterErrors / expected.characters);
    t.true(close(got.seconds, seconds));
  }
  t.deepEqual(
    report.hypotheses,
    entries.map(({ id, language, domain = '', text }, i) => ({
      ...{ id, language, domain, task: undefined, reference: text },
      hypothesis: spoken[i]!.text,
    })),
  );
  t.is(report.skipped, 0);
  t.true(report.secondsTaken > 0);
});

test.serial(
  'translations are groups of their own, with BLEU and chrF; the total is of what was transcribed',
  async (t) => {
    // The model's random words are taken to be this: BLEU asks for four that are right in a row.
    const heardAs = 'the cat sat on the mat';
    const interpreter: Transcriber = Object.assign(Object.create(transcriber), {
      transcribe: async (sources: string[], options: TranscribeOptions) =>
        (await transcriber.transcribe(sources, options)).map((each) => each && { ...each, text: heardAs }),
    });
    const said = ['the cat sat on a mat', 'a cat sat on the mat', 'the cat sat on the mat today', heardAs, 'no'];
    const translated = entries.map((entry, i) => ({ ...entry, task: 'translate' as const, text: said[i]! }));
    const all = [...entries, ...translated.slice(2, 4).map((entry) => ({ ...entry, id: `${entry.id}-en` }))];
    const report = await evaluate(interpreter, all);
    t.deepEqual(
      report.groups.slice(0, 4).map(({ domain, task, utterances }) => [domain, task, utterances]),
      [
        ['in', 'transcribe', 1],
        ['in', 'translate', 1],
        ['out', 'transcribe', 2],
        ['out', 'translate', 1],
      ],
    );
    t.is(report.hypotheses.filter(({ task }) => task === 'translate').length, 2);
    for (const [i, group] of [report.groups[1]!, report.groups[3]!].entries()) {
      t.is(group.bleu, bleu([said[2 + i]!], [heardAs]).score);
      t.is(group.chrf, chrf([said[2 + i]!], [heardAs]).score);
    }
    t.true(report.groups[1]!.bleu! > 50 && report.groups[1]!.bleu! < 99 && report.groups[3]!.bleu! > 99);
    t.true(
      [report.groups[0]!, report.groups[2]!, report.total].every(({ bleu, chrf }) => bleu === null && chrf === null),
    );
    const alone = await evaluate(interpreter, entries);
    t.like(report.total, { utterances: alone.total.utterances, wer: alone.total.wer, cer: alone.total.cer });
    // Where there is nothing else the total is of the translations: a corpus' score, not a mean of its groups'.
    const only = await evaluate(interpreter, translated);
    const texts = said.map(() => heardAs);
    t.is(only.total.bleu, bleu(said, texts).score);
    t.is(only.total.chrf, chrf(said, texts).score);
    t.is(only.total.utterances, translated.length);
  },
);

test.serial("the gates' share is the mean of the utterances that an expert ran for", async (t) => {
  const { groups, total } = await evaluate(transcriber, entries, { normalizer });
  const share = (...utterances: number[]): number =>
    utterances.reduce((sum, i) => sum + spoken[i]!.gateShare!, 0) / utterances.length;
  const [caIn, caOut, pl, th] = groups.map(({ gateShare }) => gateShare);
  // A batch of another size may round a gate's sum to the other side.
  t.true(close(caIn!, share(2), 1e-3));
  t.true(close(caOut!, share(0, 3), 1e-3));
  t.is(pl, null);
  t.true(close(th!, share(4), 1e-3));
  t.true(close(total.gateShare!, share(0, 2, 3, 4), 1e-3));
  const without = await evaluate(transcriber, entries, { normalizer, useExperts: false });
  t.true([...without.groups, without.total].every(({ gateShare }) => gateShare === null));
  const polish = await evaluate(transcriber, [entries[1]!], { normalizer });
  t.like(polish.total, { gateShare: null, wer: 0.5 });
});

test.serial('the report does not depend on the order of the entries or the size of a batch', async (t) => {
  const counted = ({ groups, total, skipped }: EvaluationReport) =>
    [...groups, { ...total, language: 'all', domain: 'all' }, { skipped }].map((group) =>
      'words' in group
        ? { ...group, gateShare: group.gateShare?.toFixed(3), seconds: group.seconds.toFixed(6) }
        : group,
    );
  const expected = await evaluate(transcriber, entries, { normalizer });
  for (const batchSize of [1, 2, 16]) {
    const backwards = await evaluate(transcriber, [...entries].reverse(), { normalizer, batchSize });
    t.deepEqual(counted(backwards), counted(expected));
    t.deepEqual([...backwards.hypotheses].reverse(), expected.hypotheses);
  }
});

test.serial('by default texts are compared as the reference normalises them', async (t) => {
  const texts = spoken.map(({ text }, i) => (i === 0 ? `${text.toUpperCase()}!` : `«${text}», [nois] (b)`));
  const right = await evaluate(
    transcriber,
    texts.map((text, i) => entryOf(i, text)),
  );
  t.like(right.total, { wordErrors: 0, characterErrors: 0, wer: 0, cer: 0, utterances: 5 });
  // Each Thai letter is a word of its own, its vowel signs are none.
  const thai = await evaluate(transcriber, [entryOf(4, 'ไทย ดี')]);
  t.is(thai.total.words, 4);
});

test.serial('entries of which the normaliser leaves nothing are left out and counted', async (t) => {
  const empty = ['…', '[music]', ' '].map((text) => entryOf(1, text));
  const report = await evaluate(transcriber, [empty[0]!, entries[1]!, ...empty.slice(1)]);
  t.is(report.skipped, 3);
  t.is(report.total.utterances, 1);
  t.deepEqual(
    report.hypotheses.map(({ id }) => id),
    ['u1'],
  );
  await refused(t, 'ERR_ARGUMENT', /^entries: expected one with a text .*got none in 3/, () =>
    evaluate(transcriber, empty),
  );
  await refused(t, 'ERR_ARGUMENT', /^entries: .*got none in 0/, () => evaluate(transcriber, []));
});

test.serial('progress counts the utterances of all languages', async (t) => {
  const steps: TranscribeProgress[] = [];
  await evaluate(transcriber, entries, { normalizer, batchSize: 1, onProgress: (step) => steps.push(step) });
  for (const [i, { done, total, seconds }] of steps.entries()) {
    t.is(total, 5);
    t.true(done >= (steps[i - 1]?.done ?? 0) && seconds > (steps[i - 1]?.seconds ?? 0));
  }
  t.is(steps.at(-1)!.done, 5);
  t.true(close(steps.at(-1)!.seconds, 3.3));
});

test.serial('an unknown language, bad audio, a wrong batch size and an abort end an evaluation by name', async (t) => {
  const with_ = (change: Partial<ManifestEntry>) => [...entries, { ...entries[0]!, ...change }];
  const nowhere = join(scratch, 'nowhere.wav');
  await refused(t, 'ERR_LANGUAGE', /manifest\.jsonl line 1: .*no token for french/, () =>
    evaluate(transcriber, with_({ language: 'fr' })),
  );
  await refused(t, 'ERR_LANGUAGE', /klingon/i, () => evaluate(transcriber, with_({ language: 'klingon' })));
  await refused(t, 'ERR_FILE_NOT_FOUND', /nowhere\.wav/, () => evaluate(transcriber, with_({ audio: nowhere })));
  const broken = join(scratch, 'broken.flac');
  writeFileSync(broken, 'fLaC, it says');
  await refused(t, 'ERR_AUDIO_FORMAT', /broken\.flac/, () => evaluate(transcriber, with_({ audio: broken })));
  await refused(t, 'ERR_ARGUMENT', /^batchSize: .*got 0/, () => evaluate(transcriber, entries, { batchSize: 0 }));
  const controller = new AbortController();
  await refused(t, 'ERR_INTERRUPTED', /interrupted/, () =>
    evaluate(transcriber, entries, {
      batchSize: 1,
      signal: controller.signal,
      onProgress: ({ done }) => done === 2 && controller.abort(),
    }),
  );
  t.is((await evaluate(transcriber, entries)).total.utterances, 5);
});

test.serial('rows of a manifest go through as they are', async (t) => {
  const path = join(scratch, 'rows.tsv');
  const rows = UTTERANCES.map(([language, domain, said], i) => [`${i}.wav`, said, language, domain ?? ''].join('\t'));
  writeFileSync(path, ['audio\ttext\tlanguage\tdomain', ...rows].join('\n'));
  const { total, groups } = await evaluate(transcriber, readManifest(path), { normalizer });
  t.like(total, { words: 12, wordErrors: 7, characters: 43, characterErrors: 16 });
  t.is(groups.length, 4);
});

const counts = (change: Partial<ErrorCounts>): ErrorCounts => ({
  utterances: 2,
  seconds: 3.25,
  wer: 0.5,
  cer: 0.25,
  words: 4,
  wordErrors: 2,
  characters: 20,
  characterErrors: 5,
  gateShare: null,
  bleu: null,
  chrf: null,
  ...change,
});
const written: EvaluationReport = {
  groups: [
    { language: 'ca', domain: 'in', task: 'transcribe', ...counts({ gateShare: 0.6666666 }) },
    {
      language: 'ca',
      domain: 'мова',
      task: 'transcribe',
      ...counts({ utterances: 1234, seconds: 12345.678, wer: 1.23456789, cer: 2 / 3 }),
    },
    { language: 'pl', domain: '', task: 'transcribe', ...counts({ wer: 0 }) },
  ],
  total: counts({ utterances: 1238, seconds: 12352.1784, wer: 1 / 3, gateShare: 1 / 3 }),
  hypotheses: [
    { id: 'u1', language: 'ca', domain: 'in', reference: 'Bon dia, a tothom', hypothesis: 'bon dia tothom!' },
    { id: 'u2', language: 'pl', domain: '', reference: 'a', hypothesis: 'b c' },
  ],
  skipped: 1,
  badRows: [],
  secondsTaken: 1.23456,
};

test('the table: a row for each language and domain, aligned; the gates only where some ran', (t) => {
  t.is(
    formatTable(written),
    `language  domain  utterances  seconds  WER %  CER %  gate %
--------  ------  ----------  -------  -----  -----  ------
ca        in               2      3.3   50.0   25.0    66.7
ca        мова          1234  12345.7  123.5   66.7       -
pl        -                2      3.3    0.0   25.0       -
--------  ------  ----------  -------  -----  -----  ------
all       all           1238  12352.2   33.3   25.0    33.3
`,
  );
  const ungated = { ...written, groups: written.groups.slice(2), total: counts({}) };
  t.is(
    formatTable(ungated),
    `language  domain  utterances  seconds  WER %  CER %
--------  ------  ----------  -------  -----  -----
pl        -                2      3.3    0.0   25.0
--------  ------  ----------  -------  -----  -----
all       all              2      3.3   50.0   25.0
`,
  );
});

test('the table of translations: named by their direction, with the scores', (t) => {
  const [first] = written.groups;
  const translated = { ...first!, task: 'translate' as const, bleu: 12.345, chrf: 67.8912 };
  const report = {
    ...written,
    groups: [
      { ...first!, gateShare: null },
      { ...translated, gateShare: null },
    ],
  };
  t.is(
    formatTable(report),
    `language  domain  utterances  seconds  WER %  CER %  BLEU  chrF2
--------  ------  ----------  -------  -----  -----  ----  -----
ca        in               2      3.3   50.0   25.0     -      -
ca → en   in               2      3.3   50.0   25.0  12.3   67.9
--------  ------  ----------  -------  -----  -----  ----  -----
all       all           1238  12352.2   33.3   25.0     -      -
`,
  );
  t.like(toJSON(report).groups[1], { task: 'translate', bleu: 12.345, chrf: 67.8912 });
  const lines = formatHypotheses({ ...written, hypotheses: [{ ...written.hypotheses[0]!, task: 'translate' }] });
  t.like(JSON.parse(lines), { task: 'translate', domain: 'in' });
});

test('JSON: the same report, rates to six decimals and seconds to three; hypotheses as lines', (t) => {
  const before = structuredClone(written);
  const json = JSON.parse(JSON.stringify(toJSON(written)));
  t.deepEqual(written, before);
  t.like(json.groups[0], { language: 'ca', domain: 'in', gateShare: 0.666667, wer: 0.5 });
  t.like(json.groups[1], { seconds: 12345.678, wer: 1.234568, cer: 0.666667, gateShare: null });
  t.like(json.total, { seconds: 12352.178, wer: 0.333333, words: 4, wordErrors: 2 });
  t.is(json.secondsTaken, 1.235);
  t.is(json.skipped, 1);
  t.deepEqual(json.hypotheses, written.hypotheses);
  t.deepEqual(formatHypotheses(written).split('\n'), [
    '{"id":"u1","language":"ca","domain":"in","reference":"Bon dia, a tothom","hypothesis":"bon dia tothom!","wer":0.25}',
    '{"id":"u2","language":"pl","domain":"","reference":"a","hypothesis":"b c","wer":2}',
    '',
  ]);
});
