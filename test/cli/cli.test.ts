// The command line as a user runs it: the compiled program in a process of its own, on models with random weights.
import { copyFileSync, cpSync, existsSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { recipeDefaults } from '../../lib/recipes/index.js';
import { trainingDefaults } from '../../lib/train/index.js';
import { cli, root } from '../support/cli.js';
import { at, json, manifest, scratch, speech, trainArgs } from '../support/cli-models.js';

const COMMANDS = [
  'transcribe',
  'train',
  'cache-teacher',
  'prepare',
  'evaluate',
  'compare',
  'push',
  'export',
  'convert',
  'profile',
  'doctor',
  'demo',
];

test('help: every command has its options, examples and exit codes, on standard output, with code 0', async (t) => {
  const top = await cli(['--help']);
  t.is(top.code, 0);
  t.is(top.stderr, '');
  await Promise.all(
    COMMANDS.map(async (name) => {
      t.regex(top.stdout, new RegExp(`^ {2}${name} `, 'm'));
      const { code, stdout, stderr } = await cli([name, '--help']);
      t.is(code, 0, name);
      t.is(stderr, '', name);
      t.regex(stdout, new RegExp(`Usage: distilwhisper ${name} `));
      t.regex(stdout, new RegExp(`Examples:\\n(.*\\n)*.*distilwhisper ${name}`));
      t.regex(stdout, /Exit codes:\n {2}0 .*\n {2}1 .*\n {2}2 .*\n {2}130 /);
      t.regex(stdout, /--json/);
    }),
  );
  t.is((await cli(['--version'])).stdout, `${JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version}\n`);
});

test('the help of train states the defaults in force', async (t) => {
  const words = (await cli(['train', '--help'])).stdout.replaceAll(/\s+/g, ' ');
  const option = (name: string): string => `--${name.replaceAll(/[A-Z]/g, (c) => `-${c.toLowerCase()}`)} <`;
  const { compute: _, ...recipe } = recipeDefaults;
  // These two are chosen by the memory that there is.
  const shown = { ...trainingDefaults, ...recipe, batchSize: 'auto', computeType: 'auto' };
  for (const [name, value] of Object.entries(shown)) {
    const from = words.indexOf(option(name));
    t.true(from > 0, name);
    const text = words.slice(from, words.indexOf(' --', from + 2));
    t.regex(text, new RegExp(`default: "?${String(value).replaceAll('.', '\\.')}"?\\)`), text);
  }
});

test('wrong usage: code 2, the reason on standard error, nothing on standard output', async (t) => {
  const cases: [string[], RegExp][] = [
    [['transcibe', 'a.wav'], /unknown command 'transcibe'.*\n?.*transcribe/],
    [['transcribe'], /missing required argument 'files'/],
    [['transcribe', 'a.wav', '--langage', 'ca'], /unknown option '--langage'.*\n?.*--language/],
    [['transcribe', 'a.wav', '--batch-size', '0'], /whole number of at least 1/],
    [['transcribe', 'a.wav', '--beam-size', '0'], /whole number of at least 1/],
    [['evaluate', '--patience', 'much'], /Expected a number/],
    [['transcribe', 'a.wav', '--compute-type', 'f8'], /Allowed choices are auto, fp32, bf16, int8/],
    [['train', '--model', 'm'], /required option '--output <folder>' not specified/],
    [['train', '--model', 'm', '--output', 'o', '--manifest', 'x', '--sigma', '1'], /two numbers with a comma/],
    [['train', '--model', 'm', '--output', 'o', '--manifest', 'x', '--learning-rate', 'fast'], /Expected a number/],
    [['evaluate', 'manifest.jsonl'], /too many arguments/],
    [['doctor', '--epochs', '3'], /unknown option '--epochs'/],
    [[], /Usage: distilwhisper/],
  ];
  await Promise.all(
    cases.map(async ([args, reason]) => {
      const { code, stdout, stderr } = await cli(args, { cwd: scratch });
      t.is(code, 2, args.join(' '));
      t.is(stdout, '', args.join(' '));
      t.regex(stderr, reason);
      t.notRegex(stderr, /^\s+at /m, 'no stack');
    }),
  );
});

test('wrong usage with --json is told as an error there too', async (t) => {
  const { code, stdout, stderr } = await cli(['transcribe', 'a.wav', '--langage', 'ca', '--json'], { cwd: scratch });
  t.is(code, 2);
  t.regex(stderr, /unknown option '--langage'/);
  t.is(json(t, stdout).error.code, 'ERR_ARGUMENT');
  t.regex(json(t, stdout).error.message, /^unknown option '--langage'/);
});

test('doctor: what is loaded, in words and as JSON', async (t) => {
  const words = await cli(['doctor']);
  t.is(words.code, 0, words.stdout);
  t.is(words.stderr, '');
  t.regex(words.stdout, /^\+ addon .*\.node$/m);
  t.regex(words.stdout, /^[-+] cuda +\S/m);
  t.regex(words.stdout, /^\+ flac .*loaded$/m);
  const { code, stdout } = await cli(['doctor', '--json'], { env: { DISTILWHISPER_CPU: 'portable' } });
  t.is(code, 0);
  const found = json(t, stdout);
  t.true(found.ok);
  t.true(existsSync(found.addon.value.file));
  t.is(found.cpu.value.inUse, 'portable');
  t.is(found.cpu.value.override, 'portable');
  t.true(found.cpu.value.machineHas.includes('portable'));
  t.true(found.threads.default >= 1 && found.memory.totalBytes > 0);
  t.is(found.node.version, process.version);
  t.true('value' in found.embedded.manifest);
});

test('doctor: an override that this package or machine does not know is said, with code 1', async (t) => {
  const { code, stdout } = await cli(['doctor'], { env: { DISTILWHISPER_CPU: 'sse9' } });
  t.is(code, 1);
  t.regex(stdout, /^! cpu .*DISTILWHISPER_CPU: expected one of portable, .* got 'sse9'$/m);
});

test('doctor: without an addon it runs, says why, and ends with code 1; other commands give the same reason', async (t) => {
  const folder = at('package');
  mkdirSync(folder);
  cpSync(join(root, 'dist'), join(folder, 'dist'), { recursive: true });
  for (const name of ['package.json', 'binding.gyp']) copyFileSync(join(root, name), join(folder, name));
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  const program = join(folder, 'dist', 'cli', 'main.js');
  const { code, stdout, stderr } = await cli(['doctor'], { program });
  t.is(code, 1, stdout + stderr);
  t.regex(stdout, /^! addon .*does not load for .*npm rebuild/m);
  t.regex(stdout, /^\+ opus .*loaded$/m);
  t.notRegex(stdout + stderr, /^\s+at /m, 'no stack');
  const other = await cli(['transcribe', speech(0), '--model', 'pocket-student', '--json'], { program });
  t.is(other.code, 1);
  t.is(json(t, other.stdout).error.code, 'ERR_NATIVE_LOAD');
  t.is((await cli(['train', '--help'], { program })).code, 0);
});

test('train, evaluate and transcribe with the expert', async (t) => {
  const output = at('runs', 'ca');
  const trained = await cli(trainArgs(output, '--steps', '12', '--validate-every', '6', '--json'));
  t.is(trained.code, 0, trained.stderr);
  const report = json(t, trained.stdout);
  const expert = join(output, 'expert.catalan.safetensors');
  t.is(report.result, expert);
  t.true(existsSync(expert));
  t.like(report, { steps: 12, updates: 12, utterances: 24, language: 'ca' });
  t.true(report.trainable > 0 && report.active < report.parameters && report.trainable < report.active);
  // Not a terminal: lines, on standard error.
  t.regex(trained.stderr, /^checking audio 30\/30 \(\d+:\d\d(, [\d.]+\/s)?\)$/m);
  t.regex(
    trained.stderr,
    /^plan: 12 updates on 24 utterances \(0\.\d\d h\); [\d,]+ of [\d,]+ parameters train\n {2}batches of 8, fp32, as asked$/m,
  );
  t.regex(trained.stderr, /^training 1\/12 loss \d/m);
  t.regex(trained.stderr, /^training 12\/12 loss \d/m);
  t.regex(trained.stderr, /^validation after update 6: WER [\d.]+%.*\(best so far\)$/m);
  t.false(
    ['\r', '\u001b'].some((c) => trained.stderr.includes(c)),
    'no control characters',
  );

  const hypotheses = at('heard.jsonl');
  const evaluation = [
    'evaluate',
    '--model',
    at('student'),
    '--manifest',
    manifest,
    '--split',
    'test',
    '--expert',
    expert,
  ];
  const table = await cli([...evaluation, '--hypotheses', hypotheses]);
  t.is(table.code, 0, table.stderr);
  t.regex(table.stdout, /^language +domain +utterances +seconds +WER % +CER % +gate %$/m);
  for (const line of [/^ca +in +4 /m, /^ca +out +4 /m, /^cs +in +4 .* -$/m, /^all +all +12 /m])
    t.regex(table.stdout, line);
  t.regex(table.stderr, /^evaluating 12\/12 utterances/m);
  const heard = readFileSync(hypotheses, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.is(heard.length, 12);
  for (const one of heard)
    t.deepEqual(Object.keys(one), ['id', 'language', 'domain', 'reference', 'hypothesis', 'wer']);

  const some = await cli([
    ...evaluation,
    '--language',
    'Catalan',
    '--domain',
    'out',
    '--normalizer',
    'basic',
    '--json',
  ]);
  t.is(some.code, 0, some.stderr);
  t.deepEqual(
    json(t, some.stdout).groups.map((g: { language: string; domain: string }) => [g.language, g.domain]),
    [['ca', 'out']],
  );

  const one = await cli(['transcribe', speech(0), '--model', at('student'), '--expert', expert, '--language', 'ca']);
  t.is(one.code, 0, one.stderr);
  const { hypothesis } = heard[0];
  t.is(one.stdout, `${hypothesis}\n`, 'the text alone, as evaluation heard it');

  const several = await cli([
    'transcribe',
    speech(0),
    speech(5),
    '--model',
    at('student'),
    '--expert',
    expert,
    '--json',
  ]);
  t.is(several.code, 0, several.stderr);
  const parts = json(t, several.stdout);
  t.deepEqual(
    parts.map((part: { file: string }) => part.file),
    [speech(0), speech(5)],
  );
  for (const part of parts) {
    t.deepEqual(Object.keys(part), ['file', 'text', 'language', 'seconds', 'segments', 'gateShare', 'warnings']);
    t.is(typeof part.text, 'string');
    t.true(part.seconds > 0.5 && part.segments.length === 1);
  }

  // A finished run: nothing is trained again, and its report stays.
  const before = readFileSync(expert);
  const said = readFileSync(join(output, 'report.json'));
  const again = await cli(trainArgs(output, '--steps', '12', '--validate-every', '6'));
  t.is(again.code, 0, again.stderr);
  t.is(again.stdout, `${expert}\n`);
  t.regex(again.stderr, /done: 0 updates/);
  t.deepEqual(readFileSync(expert), before);
  t.deepEqual(readFileSync(join(output, 'report.json')), said);
});
