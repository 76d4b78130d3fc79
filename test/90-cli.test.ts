import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { type CliResult, cli, corpusRows, scratchFolder, writeRows, writeTinyModel } from './support/cli.js';

const scratch = scratchFolder();
const at = (...parts: string[]): string => join(scratch.path, ...parts);
const manifest = at('words.jsonl');
test.before(async () => {
  await writeTinyModel(at('student'), 1);
  await writeTinyModel(at('teacher'), 2, { d_model: 32, encoder_layers: 2 });
  writeRows(manifest, [
    ...corpusRows('ca', 'train', 'in', 12),
    ...corpusRows('ca', 'validation', 'in', 3),
    ...corpusRows('ca', 'test', 'in', 3),
    ...corpusRows('pl', 'test', 'in', 2),
  ]);
});
test.after.always(() => scratch.remove());

const trainArgs = (output: string, ...more: string[]): string[] => [
  ...['train', '--model', at('student'), '--teacher', at('teacher'), '--manifest', manifest, '--language', 'ca'],
  ...['--split', 'train', '--output', at(output), '--batch-size', '4', '--threads', '1', ...more],
];
const succeeds = (t: { is: (a: unknown, b: unknown, m?: string) => void }, result: CliResult): CliResult => {
  t.is(result.code, 0, result.stderr);
  return result;
};

test('every command prints its options, examples and exit codes', async (t) => {
  const whole = succeeds(t, await cli(['--help']));
  const commands = ['transcribe', 'train', 'evaluate', 'doctor', 'demo'];
  await Promise.all(
    commands.map(async (name) => {
      t.true(whole.stdout.includes(name));
      const { stdout } = succeeds(t, await cli([name, '--help']));
      for (const part of ['Usage: distilwhisper', 'Examples:', 'Exit codes:', '--json']) {
        t.true(stdout.includes(part), `${name}: ${part}`);
      }
    }),
  );
  const version = succeeds(t, await cli(['--version']));
  t.is(version.stdout.trim(), JSON.parse(readFileSync('package.json', 'utf8')).version);
});

test('wrong usage ends with code 2 and says what is wrong', async (t) => {
  const cases: [args: string[], said: RegExp][] = [
    [['sing'], /unknown command 'sing'/],
    [['transcribe'], /missing required argument 'files'/],
    [['transcribe', 'a.wav', '--loud'], /unknown option '--loud'/],
    [['train', '--model', 'm'], /required option '--(manifest|output) /],
    [['evaluate', '--batch-size', '0'], /whole number of at least 1/],
    [['transcribe', 'a.wav', '--compute', 'f8'], /Allowed choices are f32, bf16/],
  ];
  await Promise.all(
    cases.map(async ([args, said]) => {
      const { code, stdout, stderr } = await cli(args);
      t.is(code, 2, args.join(' '));
      t.is(stdout, '');
      t.regex(stderr, said);
    }),
  );
});

test('doctor says what runs, as text and as JSON', async (t) => {
  const [text, json] = await Promise.all([cli(['doctor']), cli(['doctor', '--json'])]);
  succeeds(t, text);
  t.regex(text.stdout, /addon .*distilwhisper\.node/);
  const findings = JSON.parse(succeeds(t, json).stdout);
  t.true(findings.ok);
  t.true(findings.cpu.value.machineHas.includes(findings.cpu.value.inUse));
  const portable = JSON.parse(
    succeeds(t, await cli(['doctor', '--json'], { env: { DISTILWHISPER_CPU: 'portable' } })).stdout,
  );
  t.is(portable.cpu.value.inUse, 'portable');
});

test('doctor still runs where the addon does not load, with code 1 and the reason', async (t) => {
  const { code, stdout } = await cli(['doctor', '--json'], { env: { DISTILWHISPER_CPU: 'abacus' } });
  t.is(code, 1);
  t.regex(JSON.parse(stdout).cpu.problem, /DISTILWHISPER_CPU.*abacus/);
});

test('train, evaluate and transcribe: an expert from a manifest, and what it says', async (t) => {
  const args = trainArgs('run', '--epochs', '2', '--validation-split', 'validation', '--json');
  const trained = succeeds(t, await cli(args));
  const report = JSON.parse(trained.stdout);
  t.is(report.steps, 6);
  t.is(report.language, 'ca');
  t.true(existsSync(report.result));
  // Standard error is no terminal here: plain lines.
  t.regex(trained.stderr, /plan: 6 updates on 12 utterances/);
  t.regex(trained.stderr, /training 6\/6 loss/);
  t.regex(trained.stderr, /validation after update 3: WER/);
  t.notRegex(trained.stderr, new RegExp(String.fromCharCode(27)));

  const model = ['--model', at('student'), '--threads', '1'];
  const evaluation = ['evaluate', ...model, '--manifest', manifest, '--split', 'test'];
  const heard = at('heard.jsonl');
  const [before, after, table] = await Promise.all([
    cli([...evaluation, '--json']),
    cli([...evaluation, '--json', '--expert', report.result, '--hypotheses', heard]),
    cli(evaluation),
  ]);
  const group = (result: CliResult, language: string) =>
    JSON.parse(succeeds(t, result).stdout).groups.find((each: { language: string }) => each.language === language);
  t.is(group(before, 'ca').utterances, 3);
  t.is(group(before, 'ca').gateShare, null);
  t.is(typeof group(after, 'ca').gateShare, 'number');
  t.deepEqual(group(after, 'pl'), group(before, 'pl'));
  t.regex(succeeds(t, table).stdout, /language +domain +utterances/);
  const lines = readFileSync(heard, 'utf8').trimEnd().split('\n');
  t.deepEqual(Object.keys(JSON.parse(lines[0]!)).sort(), ['hypothesis', 'id', 'reference', 'wer']);
  t.is(lines.length, 5);

  const [clip] = corpusRows('ca', 'test', 'in', 1);
  const spoken = await cli([
    ...['transcribe', clip!.audio, ...model, '--language', 'catalan', '--expert', report.result, '--json'],
  ]);
  const [transcript] = JSON.parse(succeeds(t, spoken).stdout);
  t.is(transcript.language, 'ca');
  t.is(transcript.segments.length, 1);
  t.is(JSON.parse(lines[0]!).hypothesis, transcript.text);
});

test('Ctrl-C in mid-training ends with 130; the same command resumes and ends with the same expert', async (t) => {
  const length = ['--steps', '60', '--checkpoint-every', '20'];
  const whole = succeeds(t, await cli(trainArgs('whole', ...length)));
  let sent = false;
  const stopped = await cli(trainArgs('stopped', ...length), {
    onStderr: (text, kill) => {
      if (sent || !/training 1\/60/.test(text)) return;
      sent = true;
      kill('SIGINT');
    },
  });
  t.true(sent, stopped.stderr);
  t.is(stopped.code, 130, stopped.stderr);
  t.is(stopped.stdout, '');
  t.false(existsSync(at('stopped', 'expert.catalan.safetensors')));
  const resumed = succeeds(t, await cli(trainArgs('stopped', ...length)));
  t.is(resumed.stdout.trim(), at('stopped', 'expert.catalan.safetensors'));
  t.deepEqual(readFileSync(resumed.stdout.trim()), readFileSync(whole.stdout.trim()));
});

test('the demo on models of its own: the table, the expert, and a command that works', async (t) => {
  const settings = ['--student', at('student'), '--teacher', at('teacher'), '--manifest', manifest];
  const args = ['demo', ...settings, '--epochs', '1', '--output', at('demo'), '--threads', '1'];
  const shown = succeeds(t, await cli(args, { cwd: scratch.path }));
  t.regex(shown.stdout, /ca \*? +in/);
  t.regex(shown.stdout, /expert +.*expert\.catalan\.safetensors/);
  const command = shown.stdout.trimEnd().split('\n').at(-1)!.trim();
  const words = command.split(' ').slice(command.startsWith('node ') ? 2 : 1);
  const again = succeeds(t, await cli(words, { cwd: scratch.path }));
  t.is(again.stdout.trim(), /^after +(.*)$/m.exec(shown.stdout)![1]!.trim());

  const repeated = JSON.parse(succeeds(t, await cli([...args, '--json'], { cwd: scratch.path })).stdout);
  t.is(repeated.training.updates, 0);
  t.true(repeated.rows.find((row: { language: string }) => row.language === 'pl').unchanged);
});
