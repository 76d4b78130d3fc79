/** What a benchmark's file may say, and what its tables say. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { benchmarkCsv, benchmarkMarkdown } from '../../lib/recipes/benchmark/report.js';
import { benchmarkHtml } from '../../lib/recipes/benchmark/report-html.js';
import { recipeOf } from '../../lib/recipes/benchmark/spec.js';
import { type BenchmarkSummary, spread } from '../../lib/recipes/benchmark/summary.js';
import { type BenchmarkSpec, benchmark, planBenchmark, readBenchmark } from '../../lib/recipes/index.js';
import { root, scratchFolder } from '../support/cli.js';

const { path: scratch, remove } = scratchFolder();
const at = (name: string): string => join(scratch, name);
test.after.always(remove);

const rows = { manifest: 'rows.jsonl' };
const sound: BenchmarkSpec = {
  model: 'student',
  teacher: 'teacher',
  languages: ['ca', 'Czech'],
  methods: { experts: { learningRates: [1e-3, 1e-2] }, distil: {}, lora: { lora: { rank: 2 } }, full: { steps: 3 } },
  seeds: [1, 2, 3],
  train: { ...rows, split: 'train' },
  validation: { ...rows, split: 'validation' },
  test: { ...rows, split: 'test' },
  epochs: 2,
};

test("README's example is a benchmark", (t) => {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const section = readme.slice(readme.indexOf('## Which method is better')).split('\n## ')[0]!;
  const json = section.slice(section.indexOf('{'), section.lastIndexOf('}') + 1);
  // Two languages; experts try three rates, and go on with four seeds; three more ways have five.
  t.deepEqual(planBenchmark(JSON.parse(json)), { cells: 2 * (3 + 4 + 3 * 5), rates: 6 });
});

test('a benchmark counts its runs: every method, language and seed, and each learning rate once', (t) => {
  // Experts try two rates with one seed and go on with two; the others have three seeds.
  t.deepEqual(planBenchmark(sound), { cells: 2 * (2 + 2 + 3 * 3), rates: 4 });
});

test('one way may be there with several options, each under a name of its own', (t) => {
  const calm = { way: 'distil', options: { gateNoise: 0.5 }, learningRates: [1e-3, 1e-2] };
  t.deepEqual(planBenchmark({ ...sound, methods: { distil: {}, calm } }), { cells: 2 * (3 + 2 + 2), rates: 4 });
  const recipe = recipeOf(
    { ...sound, methods: { calm } },
    { way: 'calm', language: 'ca', learningRate: 1e-3, seed: 2 },
  );
  t.like(recipe, { method: 'distil', teacher: 'teacher' });
  t.like(recipe.options, { gateNoise: 0.5, learningRate: 1e-3, seed: 2 });
});

test('a file that cannot be meant is refused by the name of its field, before anything is written', async (t) => {
  const cases: [object, RegExp, string?][] = [
    [{ seeds: [] }, /seeds: expected a list of whole numbers/],
    [{ seeds: [1, 1] }, /seeds: .*each once/],
    [{ seeds: [-1] }, /seeds/],
    [{ languages: 'ca' }, /languages: expected a list of languages/],
    [{ languages: ['klingon'] }, /klingon/, 'ERR_LANGUAGE'],
    [{ methods: {} }, /methods: expected an object of experts, distil/],
    [{ methods: { clsr: {} } }, /methods: expected experts.*clsr/],
    [{ methods: { experts: { rates: [1] } } }, /rates/],
    [{ methods: { calm: { way: 'clsr' } } }, /methods\.calm\.way: expected experts.*clsr/],
    [{ methods: { calm: { way: 'distil' } }, teacher: undefined }, /teacher: expected one for calm, got none/],
    [{ methods: { '../calm': { way: 'experts' } } }, /methods: expected names of .*calm/],
    [{ methods: { experts: [] } }, /methods.experts: expected an object/],
    [{ methods: { experts: { learningRates: ['x'] } } }, /methods.experts.learningRates/],
    [{ methods: { full: { lora: { rank: 2 } } } }, /methods.full: lora: expected with method 'lora'/],
    [{ methods: { experts: { options: { gateNoise: -1 } } } }, /methods.experts: gateNoise/],
    [{ teacher: undefined }, /teacher: expected one for distil, got none/],
    [{ train: {} }, /train: expected either data or a manifest, got neither/],
    [{ test: { data: 'a', manifest: 'b' } }, /test: expected either data or a manifest, got both/],
    [{ validation: undefined }, /validation: expected an object/],
    [{ epochs: 0 }, /methods.experts: epochs: expected a number above 0/],
    [{ steps: 5 }, /steps: expected either epochs or steps/],
    [{ sedes: [1] }, /sedes.*seeds/],
  ];
  for (const [change, message, code = 'ERR_ARGUMENT'] of cases) {
    const spec = { ...sound, ...change } as BenchmarkSpec;
    await t.throwsAsync(benchmark({ spec, output: at('refused') }), { code, message }, JSON.stringify(change));
    writeFileSync(at('spec.json'), JSON.stringify(spec));
    await t.throwsAsync(readBenchmark(at('spec.json')), { code, message }, JSON.stringify(change));
  }
  writeFileSync(at('spec.json'), '[]');
  await t.throwsAsync(readBenchmark(at('spec.json')), { code: 'ERR_ARGUMENT' });
  await t.throwsAsync(benchmark({ spec: sound, output: at('refused'), parallel: 0 }), { message: /parallel/ });
  t.false(existsSync(at('refused')));
});

const interval = { low: -0.05, high: -0.01 };
const compared = {
  language: 'ca',
  domain: 'in',
  utterances: 10,
  a: 0.3,
  b: 0.27,
  difference: -0.03,
  interval,
  p: 0.01,
  runs: { a: [0.3, 0.3], b: [0.27, 0.27] },
  overRuns: interval,
  better: 'b' as const,
};
const row = (way: string, language: string, rates: number[]) => ({
  way,
  taught: way === 'before' ? null : 'ca',
  language,
  domain: 'in',
  task: 'transcribe' as const,
  utterances: 10,
  wer: spread(rates),
  cer: spread(rates),
  bleu: null,
  chrf: null,
  gateShare: null,
  unchanged: way === 'full' ? 0.2 : 1,
});
const cost = (way: string) => ({
  way,
  taught: 'ca',
  rates: [{ learningRate: null, validation: 0.3 }],
  learningRate: null,
  seeds: [1, 2],
  trainable: 1000,
  parameters: 5000,
  active: 4000,
  memory: 2 ** 20,
  seconds: 3,
  bestUpdate: null,
  layerShares: null,
});
const summary: BenchmarkSummary = {
  format: 1,
  model: 'a <model>',
  teacher: null,
  rows: [
    row('before', 'ca', [0.5]),
    row('before', 'cs', [0.2]),
    row('experts', 'ca', [0.3, 0.32]),
    row('experts', 'cs', [0.2, 0.2]),
    row('full', 'ca', [0.27, 0.27]),
    row('full', 'cs', [0.9, 1.1]),
  ],
  costs: [cost('experts'), cost('full')],
  comparisons: [
    {
      taught: 'ca',
      a: 'experts',
      b: 'full',
      comparison: {
        metric: 'wer',
        level: 0.95,
        groups: [compared],
        total: { ...compared, domain: 'all', language: 'all' },
      },
    },
  ],
  curves: [],
  worst: [
    {
      way: 'full',
      taught: 'ca',
      id: 'x',
      domain: 'in',
      reference: 'bon <dia> tothom',
      before: 'bo',
      after: 'bon dia a tothom',
      wer: 1,
      audio: null,
    },
  ],
};

test('the tables: means and spread over seeds, what differs, what the other languages lost', (t) => {
  const text = benchmarkMarkdown(summary);
  t.true(text.includes('| before | 50.0 | 20.0 | 100.0 |'));
  t.true(text.includes('| experts | 31.0 ± 1.4 | 20.0 | 100.0 |'));
  t.true(text.includes('| full | 27.0 ± 0.0 + | 100.0 | 20.0 |'));
  t.regex(text, /full − experts \| -3\.0 \| -5\.0 to -1\.0 \| -5\.0 to -1\.0 \| full/);
  const lines = benchmarkCsv(summary).trimEnd().split('\n');
  t.is(lines.length, 7);
  t.is(lines[3], 'experts,ca,ca,in,transcribe,10,0.310000,0.014142,0.310000,0.014142,,,,,,1.000000,2');
});

test('translations have a table of their own, and are in none of error rates', (t) => {
  const translated = { ...row('experts', 'ca', [2, 2]), task: 'translate' as const };
  const scored = { ...translated, bleu: spread([20.04, 22.04]), chrf: spread([40, 41]) };
  const both = { ...summary, rows: [...summary.rows, scored] };
  const text = benchmarkMarkdown(both);
  t.true(text.includes('## Translations into English'));
  t.true(text.includes('| ca | experts | ca | in | 10 | 21.0 ± 1.4 | 40.5 ± 0.7 |'));
  t.is(text.split('\n## Translations')[0], benchmarkMarkdown(summary).split('\n## What it took')[0]);
  t.false(benchmarkMarkdown(summary).includes('Translations'));
  t.true(benchmarkHtml(both).includes('<td>21.0 ± 1.4</td>'));
  const csv = benchmarkCsv(both).trimEnd().split('\n').at(-1)!;
  t.is(
    csv,
    'experts,ca,ca,in,translate,10,2.000000,0.000000,2.000000,0.000000,21.0400,1.4142,40.5000,0.7071,,1.000000,2',
  );
});

test('the page asks for nothing, closes what it opens, and shows texts as texts', (t) => {
  const html = benchmarkHtml(summary);
  t.notRegex(html, /https?:|src="(?!data:)|<script/);
  t.true(html.includes('a &lt;model&gt;'));
  t.true(html.includes('bon &lt;dia&gt; tothom'));
  t.true(html.includes('bon <del>dia</del> <del>a</del> tothom'));
  t.true(html.includes('<span class="better">27.0 ± 0.0 ▼</span>'));
  for (const tag of ['div', 'table', 'tr', 'td', 'figure', 'svg', 'span', 'main', 'h2'])
    t.is((html.match(new RegExp(`<${tag}[ >]`, 'g')) ?? []).length, html.split(`</${tag}>`).length - 1, tag);
});
