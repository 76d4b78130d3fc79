/** Comparing evaluations: the statistics against values known otherwise, the verdicts, files, the command. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { pairedBootstrap, studentQuantile, welchInterval } from '../../lib/evaluate/index.js';
import { compare, compareFiles, formatComparison, type Hypothesis, readHypotheses } from '../../lib/index.js';
import { cli, scratchFolder } from '../support/cli.js';
import { normals, random } from '../support/random.js';

const { path: scratch, remove } = scratchFolder();
test.after.always(remove);

test("Student's quantiles are those of the tables", (t) => {
  for (const [freedom, want] of [
    [1, 12.7062],
    [2, 4.30265],
    [4, 2.77645],
    [9, 2.26216],
    [30, 2.04227],
    [1000, 1.96234],
  ] as const)
    t.true(
      Math.abs(studentQuantile(0.975, freedom) / want - 1) < 1e-5,
      `${freedom}: ${studentQuantile(0.975, freedom)}`,
    );
  t.true(Math.abs(studentQuantile(0.95, 2.5) / 2.55822 - 1) < 1e-3);
});

test("Welch's interval by hand; of one run none can be told", (t) => {
  // Means 2 and 6, variances of the means 1/3 and 1/3: 4 degrees of freedom.
  const { low, high } = welchInterval([1, 2, 3], [5, 6, 7], 0.95)!;
  const reach = 2.776445 * Math.sqrt(2 / 3);
  t.true(Math.abs(low - (4 - reach)) < 1e-4 && Math.abs(high - (4 + reach)) < 1e-4);
  t.deepEqual(welchInterval([1, 1], [3, 3], 0.95), { low: 2, high: 2 });
  t.is(welchInterval([1], [1, 2], 0.95), null);
});

test('the bootstrap of many utterances has the interval of the normal distribution, the same in every call', (t) => {
  const n = 900;
  const next = random(3);
  const gaps = Float64Array.from(normals(n, next), (x) => x + 0.1);
  const counts = { lengths: new Float64Array(n).fill(1), a: new Float64Array(n), b: gaps };
  const options = { resamples: 4000, seed: 1, level: 0.95 };
  const { interval, p } = pairedBootstrap(counts, options);
  const mean = gaps.reduce((a, b) => a + b, 0) / n;
  const reach = 1.96 * Math.sqrt(gaps.reduce((sum, x) => sum + (x - mean) ** 2, 0) / n / n);
  t.true(Math.abs(interval.low - (mean - reach)) < 0.1 * reach, `${interval.low} and ${mean - reach}`);
  t.true(Math.abs(interval.high - (mean + reach)) < 0.1 * reach);
  t.is(interval.low > 0, p < 0.05);
  t.deepEqual(pairedBootstrap(counts, options), { interval, p });
  t.notDeepEqual(pairedBootstrap(counts, { ...options, seed: 2 }), { interval, p });
  // Both sides the same: no difference in any draw.
  t.deepEqual(pairedBootstrap({ ...counts, b: counts.a }, options), { interval: { low: 0, high: 0 }, p: 1 });
});

/** Utterances of four words; of `wrong(i)` of each a run says something else. */
const heard = (count: number, wrong: (i: number) => number): Hypothesis[] =>
  Array.from({ length: count }, (_, i) => ({
    id: `u${i}`,
    language: i % 2 === 0 ? 'ca' : 'uk',
    domain: 'in',
    reference: 'one two three four',
    hypothesis: Array.from(['one', 'two', 'three', 'four'], (word, w) => (w < wrong(i) ? 'x' : word)).join(' '),
  }));

test('translations are not compared by their words', async (t) => {
  const [bad, good] = [heard(20, () => 2), heard(20, () => 1)];
  const all = (side: Hypothesis[], wrong: string): Hypothesis[] => [
    ...side,
    ...side.map((one) => ({ ...one, id: `${one.id}-en`, task: 'translate' as const, hypothesis: wrong })),
  ];
  t.deepEqual(compare([all(bad, 'one two three four')], [all(good, 'x')]), compare([bad], [good]));
  const file = join(scratch, 'translations.jsonl');
  writeFileSync(
    file,
    all(bad, 'x')
      .map((one) => `${JSON.stringify(one)}\n`)
      .join(''),
  );
  t.deepEqual(await readHypotheses(file), all(bad, 'x'));
  writeFileSync(file, `${JSON.stringify({ ...bad[0], task: 'sing' })}\n`);
  await t.throwsAsync(readHypotheses(file), { code: 'ERR_MANIFEST', message: /line 1 has a task .*"sing"/ });
  const only = all(bad, 'x').slice(20);
  t.throws(() => compare([only], [only]), { code: 'ERR_ARGUMENT', message: /a transcribed utterance/ });
});

test('a difference is one where utterances and runs agree', (t) => {
  const bad = (shift: number) => heard(40, (i) => 2 + ((i + shift) % 2));
  const good = (shift: number) => heard(40, (i) => (i + shift) % 2);
  const one = compare([bad(0)], [good(0)]);
  t.like(one.total, { utterances: 40, a: 2.5 / 4, b: 0.5 / 4, difference: -0.5, better: 'unknown', overRuns: null });
  t.deepEqual(
    one.groups.map(({ language, utterances, a }) => [language, utterances, a]),
    [
      ['ca', 20, 0.5],
      ['uk', 20, 0.75],
    ],
  );
  const runs = compare([bad(0), bad(1), bad(2)], [good(0), good(1), good(2)]);
  t.is(runs.total.better, 'b');
  t.is(compare([good(0), good(1)], [bad(0), bad(1)]).total.better, 'a');
  // As good on average, but one seed in three is much worse: the utterances cannot know.
  const moody = compare([good(0), good(0), heard(40, () => 4)], [good(0), good(0), good(0)]);
  t.true(moody.total.interval.high < 0, 'the utterances say that b is better');
  t.is(moody.total.better, 'none');
  t.is(compare([good(0)], [good(0)]).total.better, 'none');
  t.is(compare([bad(0)], [good(0)], { metric: 'cer' }).metric, 'cer');
  const table = formatComparison(runs);
  t.regex(table, /^all +all +40 +62\.5 +12\.5 +-50\.0 +-\d+\.\d to -\d+\.\d +-50\.0 to -50\.0 +b$/m);
});

test('what cannot be compared is refused by name', (t) => {
  const run = heard(4, () => 1);
  const refused = (a: Hypothesis[][], b: Hypothesis[][], message: RegExp, options = {}): void => {
    t.throws(() => compare(a, b, options), { code: 'ERR_ARGUMENT', message });
  };
  refused([], [run], /expected one evaluation of each at least/);
  refused([run], [run.slice(1)], /run 1 of b: .*got none with the id "u0"/);
  refused([run.slice(1)], [run], /run 1 of b: .*got "u0" too/);
  refused([run], [run, [...run, run[2]!]], /run 2 of b: utterance "u2" is there twice/);
  refused([run], [run.map((one) => ({ ...one, reference: 'other' }))], /utterance "u0" has another reference/);
  refused([run.map((one) => ({ ...one, reference: '!' }))], [run], /normaliser leaves something of/);
  refused([run], [run], /resamples: expected a whole number from 100/, { resamples: 3 });
  refused([run], [run], /level/, { level: 2 });
  refused([run], [run], /metric: expected wer or cer/, { metric: 'bleu' });
});

test('the command: two files, or runs against runs; what is no file of hypotheses', async (t) => {
  const file = (name: string, lines: unknown[]): string => {
    const path = join(scratch, name);
    writeFileSync(path, lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n'));
    return path;
  };
  const a = file(
    'a.jsonl',
    heard(30, () => 2),
  );
  const b = file(
    'b.jsonl',
    heard(30, () => 1),
  );
  t.deepEqual(
    await readHypotheses(a),
    heard(30, () => 2),
  );
  const shown = await cli(['compare', a, b]);
  t.is(shown.code, 0, shown.stderr);
  t.regex(shown.stdout, /^all +all +30 +50\.0 +25\.0 +-25\.0 .*\?$/m);
  const told = await cli(['compare', a, a, '--against', b, b, '--json']);
  t.deepEqual(JSON.parse(told.stdout), JSON.parse(JSON.stringify(await compareFiles([a, a], [b, b]))));
  t.is((await cli(['compare', a])).code, 2);
  const none = await cli(['compare', a, join(scratch, 'none.jsonl'), '--json']);
  t.is(JSON.parse(none.stdout).error.code, 'ERR_FILE_NOT_FOUND');
  for (const [line, message] of [
    ['{"id": 3}', /line 1 has no text as its id, got 3/],
    ['[1]', /line 1 is no JSON object/],
    ['{', /line 1 is not valid JSON/],
    ['', /expected utterances, got none/],
  ] as const)
    await t.throwsAsync(readHypotheses(file('wrong.jsonl', [line])), { code: 'ERR_MANIFEST', message });
});
