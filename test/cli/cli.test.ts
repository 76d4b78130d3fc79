// The command line as a user runs it: the compiled program in a process of its own, on models with random weights.
import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { recipeDefaults } from '../../lib/recipes/index.js';
import { trainingDefaults } from '../../lib/train/index.js';
import { cli, corpusRows, root, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
const manifest = at('manifest.jsonl');
const rows = [
  ...corpusRows('ca', 'train', 'in', 24),
  ...corpusRows('ca', 'validation', 'in', 6),
  ...corpusRows('ca', 'test', 'in', 4),
  ...corpusRows('ca', 'test', 'out', 4),
  ...corpusRows('cs', 'test', 'in', 4),
];
const speech = (n: number): string => rows.filter((row) => row.split === 'test')[n]!.audio;

test.before(async () => {
  writeRows(manifest, rows);
  await writeTinyModel(at('student'), 1);
  await writeTinyModel(at('teacher'), 2, { d_model: 32, encoder_ffn_dim: 128, decoder_ffn_dim: 128 });
});
test.after.always(remove);

const COMMANDS = ['transcribe', 'train', 'evaluate', 'profile', 'doctor', 'demo'];

/** Standard output as JSON; fails when there is anything else. */
// biome-ignore lint/suspicious/noExplicitAny: output of many shapes
function json(t: ExecutionContext, stdout: string): any {
  t.true(stdout.endsWith('\n'));
  return JSON.parse(stdout);
}

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
  // Types go by the field's names there.
  const { compute, ...recipe } = recipeDefaults;
  const shown = { ...trainingDefaults, ...recipe, computeType: compute.replace('f32', 'fp32') };
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
  const other = await cli(['transcribe', speech(0), '--json'], { program });
  t.is(other.code, 1);
  t.is(json(t, other.stdout).error.code, 'ERR_NATIVE_LOAD');
  t.is((await cli(['train', '--help'], { program })).code, 0);
});

const TRAIN = [
  'train',
  '--language',
  'ca',
  '--split',
  'train',
  '--validation-split',
  'validation',
  '--batch-size',
  '8',
];
const trainArgs = (output: string, ...more: string[]): string[] => [
  ...[...TRAIN, '--model', at('student'), '--teacher', at('teacher'), '--manifest', manifest, '--output', output],
  ...['--learning-rate', '0.01', '--threads', '2', ...more],
];

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
  t.regex(trained.stderr, /^plan: 12 updates on 24 utterances; [\d,]+ of [\d,]+ parameters train$/m);
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
  for (const one of heard) t.deepEqual(Object.keys(one), ['id', 'reference', 'hypothesis', 'wer']);

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

test('beam search: transcribe and evaluate hear the same; a beam of 1 is the default', async (t) => {
  const search = ['--beam-size', '3', '--patience', '1.5', '--length-penalty', '0.5'];
  const model = ['--model', at('student')];
  const transcribed = async (...more: string[]) => {
    const { code, stdout, stderr } = await cli(['transcribe', speech(0), ...model, '--language', 'ca', ...more]);
    t.is(code, 0, stderr);
    return stdout;
  };
  const hypotheses = at('beams.jsonl');
  const evaluation = ['evaluate', ...model, '--manifest', manifest, '--split', 'test', ...search];
  const table = await cli([...evaluation, '--hypotheses', hypotheses]);
  t.is(table.code, 0, table.stderr);
  const [first] = readFileSync(hypotheses, 'utf8').split('\n');
  const text = await transcribed(...search);
  t.is(text, `${JSON.parse(first!).hypothesis}\n`);
  const plain = await transcribed();
  t.is(await transcribed('--beam-size', '1'), plain);
  t.not(text, plain, 'a model with random weights hears something else');
  for (const [option, value, message] of [
    ['--beam-size', '32', /ERR_ARGUMENT: beamSize: expected a whole number from 1 to 31, got 32/],
    ['--length-penalty', '-1', /ERR_ARGUMENT: lengthPenalty: expected a number from 0 to 1, got -1/],
  ] as const) {
    const { code, stderr } = await cli(['transcribe', speech(0), ...model, option, value]);
    t.is(code, 1);
    t.regex(stderr, message);
  }
});

test('one bad file among several: it is reported, the others go on, and the code is 1', async (t) => {
  writeFileSync(at('notes.wav'), 'these are notes, not sound');
  const files = [speech(0), at('notes.wav'), at('none.wav'), speech(1)];
  const args = ['transcribe', ...files, '--model', at('student'), '--language', 'ca'];
  const words = await cli(args);
  t.is(words.code, 1);
  const lines = words.stdout.trimEnd().split('\n');
  t.deepEqual(
    lines.map((line) => line.split('\t')[0]),
    [speech(0), speech(1)],
  );
  t.regex(words.stderr, /^error ERR_AUDIO_FORMAT: .*notes\.wav: expected WAV/m);
  t.regex(words.stderr, /^error ERR_FILE_NOT_FOUND: .*none\.wav: there is no such file$/m);
  t.regex(words.stderr, /^2 of 4 files were refused$/m);
  const output = at('texts.json');
  const written = await cli([...args, '--json', '--output', output]);
  t.is(written.code, 1);
  t.is(written.stdout, '');
  const parts = JSON.parse(readFileSync(output, 'utf8'));
  t.deepEqual(
    parts.map((part: { error?: { code: string } }) => part.error?.code ?? null),
    [null, 'ERR_AUDIO_FORMAT', 'ERR_FILE_NOT_FOUND', null],
  );
  t.is(`${speech(1)}\t${parts[3].text}`, lines[1]!);
});

test('all parameters, from scratch: the model folder that is written transcribes', async (t) => {
  const output = at('runs', 'scratch');
  const { code, stdout, stderr } = await cli([
    ...['train', '--model', at('student'), '--manifest', manifest, '--split', 'train', '--output', output],
    ...['--method', 'full', '--from-scratch', '--steps', '3', '--batch-size', '4', '--accumulation', '2'],
    ...['--save-as', 'f16', '--compute-type', 'bf16', '--checkpoint-every', '2'],
  ]);
  t.is(code, 0, stderr);
  t.is(stdout, `${join(output, 'model')}\n`);
  t.deepEqual(readdirSync(join(output, 'checkpoints')), ['step-00000002', 'step-00000003']);
  const text = await cli(['transcribe', speech(0), '--model', join(output, 'model'), '--json']);
  t.is(text.code, 0, text.stderr);
  t.is(json(t, text.stdout).length, 1);
});

test('Ctrl-C while training: code 130, and the same command goes on to the same bytes', async (t) => {
  const [whole, broken] = [at('runs', 'whole'), at('runs', 'broken')];
  const length = ['--steps', '120', '--validate-every', '25', '--checkpoint-every', '50'];
  t.is((await cli(trainArgs(whole, ...length))).code, 0);
  const interrupted = async (when: RegExp, signal: NodeJS.Signals): Promise<void> => {
    let sent = false;
    const { code, stdout, stderr } = await cli(trainArgs(broken, ...length, '--json'), {
      onStderr: (text, kill) => {
        if (sent || !when.test(text)) return;
        sent = true;
        kill(signal);
      },
    });
    t.is(code, signal === 'SIGINT' ? 130 : 143, stderr);
    t.is(json(t, stdout).error.code, 'ERR_INTERRUPTED');
    t.regex(stderr, /^stopping at the next safe point/m);
    t.regex(
      stderr,
      /^interrupted: training was interrupted after update \d+ of 120; its checkpoint is in .* the same command goes on/m,
    );
    t.false(existsSync(join(broken, 'expert.catalan.safetensors')));
  };
  await interrupted(/^training 1\//m, 'SIGINT');
  const [first] = readdirSync(join(broken, 'checkpoints'));
  t.truthy(first, 'a checkpoint was written');
  // Right behind a validation, and, the second time, by the signal of a batch system.
  await interrupted(/^validation after update 50/m, 'SIGINT');
  await interrupted(/^validation after update 75/m, 'SIGTERM');
  const rest = await cli(trainArgs(broken, ...length));
  t.is(rest.code, 0, rest.stderr);
  t.notRegex(rest.stderr, /checking audio/);
  const expert = (run: string): Buffer => readFileSync(join(run, 'expert.catalan.safetensors'));
  t.deepEqual(expert(broken), expert(whole));
  const log = (run: string): string => readFileSync(join(run, 'log.jsonl'), 'utf8');
  t.is(log(broken), log(whole));
});

(process.platform === 'win32' ? test.skip : test)(
  'Ctrl-C while a file keeps a command waiting, and a second one, which ends it at once',
  async (t) => {
    const pipe = at('pipe');
    execFileSync('mkfifo', [pipe]);
    let sent = 0;
    const { code, signal, stderr } = await cli(
      ['transcribe', speech(0), pipe, '--model', at('student'), '--batch-size', '1'],
      {
        onStderr: (text, kill) => {
          const due = ['transcribing 1/2', 'stopping'][sent];
          if (due === undefined || !text.includes(due)) return;
          sent++;
          kill('SIGINT');
        },
      },
    );
    t.deepEqual([code, signal], [null, 'SIGINT'], 'ended by the signal itself, which a shell reports as 130');
    t.regex(stderr, /Ctrl-C again quits at once/);
  },
);

test('demo: stages, one table, and a command that works, on models and data of its own', async (t) => {
  const output = at('demo run');
  const args = ['demo', '--output', output, '--epochs', '1', '--threads', '2'];
  args.push('--student', at('student'), '--teacher', at('teacher'), '--manifest', manifest);
  const words = await cli(args, { cwd: scratch });
  t.is(words.code, 0, words.stderr);
  t.regex(
    words.stderr,
    /\* the student before[\s\S]*^evaluating 12\/12 \([\s\S]*\* training[\s\S]*^training 2\/2[\s\S]*\* the student with its expert/m,
  );
  t.regex(words.stdout, /^ca \* +in +(un)?changed +4 +[\d.]+ +[\d.]+ +[\d.]+$/m);
  t.regex(words.stdout, /^cs +in +unchanged +4 +([\d.]+) +\1 +-$/m);
  t.regex(words.stdout, /^parameters .* trained, .* active for a row$/m);
  const command = /Hear it again with the expert:\n {2}node (.*main\.js) (.*)\n/.exec(words.stdout)!;
  t.truthy(command, words.stdout);
  t.regex(command[2]!, /'[^']*demo run\/expert\.catalan\.safetensors'/);
  const heard = execFileSync('sh', ['-c', `"${process.execPath}" ${command[1]} ${command[2]} 2>/dev/null`], {
    cwd: scratch,
  });
  t.is(String(heard), `${/^after +(.*)$/m.exec(words.stdout)![1]}\n`);

  const again = await cli([...args, '--json'], { cwd: scratch });
  t.is(again.code, 0, again.stderr);
  t.regex(again.stderr, /holds a finished run: nothing was trained/);
  const result = json(t, again.stdout);
  t.is(result.rows.length, 3);
  t.true(result.rows.find((row: { language: string }) => row.language === 'cs').unchanged);
  const other = await cli(
    [...args.filter((arg) => arg !== '1'), '2'].map((arg) => arg),
    { cwd: scratch },
  );
  t.not(other.code, 0);
});
