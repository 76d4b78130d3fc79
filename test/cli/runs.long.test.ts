// More of what cli.test.ts shows: searches, bad files, other methods and types, Ctrl-C, the demo.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { cli } from '../support/cli.js';
import { at, json, manifest, scratch, speech, trainArgs } from '../support/cli-models.js';

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
    ...['--save-as', 'fp16', '--compute-type', 'bf16', '--checkpoint-every', '2'],
  ]);
  t.is(code, 0, stderr);
  t.is(stdout, `${join(output, 'model')}\n`);
  t.deepEqual(readdirSync(join(output, 'checkpoints')), ['step-00000002', 'step-00000003']);
  const text = await cli(['transcribe', speech(0), '--model', join(output, 'model'), '--json']);
  t.is(text.code, 0, text.stderr);
  t.is(json(t, text.stdout).length, 1);
});

test('f32 and f16, as types were called, are taken for fp32 and fp16, also in the folder of a run', async (t) => {
  const output = at('runs', 'renamed');
  const args = (compute: string, save: string): string[] => [
    ...trainArgs(output, '--steps', '2', '--compute-type', compute, '--save-as', save),
  ];
  const first = await cli(args('f32', 'f16'));
  t.is(first.code, 0, first.stderr);
  const path = join(output, 'run.json');
  const settings = JSON.parse(readFileSync(path, 'utf8'));
  t.is(settings.compute, 'fp32');
  const expert = readFileSync(join(output, 'expert.catalan.safetensors'));
  t.regex(expert.toString('latin1'), /"dtype":"F16"/);
  writeFileSync(path, JSON.stringify({ ...settings, compute: 'f32' }));
  const again = await cli(args('fp32', 'fp16'));
  t.is(again.code, 0, again.stderr);
  t.deepEqual(readFileSync(join(output, 'expert.catalan.safetensors')), expert);
  // A run begun before there were schedules had the one that is the default.
  const { schedule, ...before } = settings.options;
  t.is(schedule, 'linear');
  writeFileSync(path, JSON.stringify({ ...settings, options: before }));
  t.is((await cli(args('fp32', 'fp16'))).code, 0);
  const cosine = await cli([...args('fp32', 'fp16'), '--schedule', 'cosine']);
  t.regex(cosine.stderr, /ERR_RUN: .*it holds a run with options\.schedule = "linear", got "cosine"/);
  const other = await cli(args('bf16', 'fp16'));
  t.regex(other.stderr, /ERR_RUN: .*it holds a run with compute = "fp32", got "bf16"/);
  const heard = ['transcribe', speech(0), '--model', at('student'), '--language', 'ca', '--compute-type'];
  t.is((await cli([...heard, 'f32'])).stdout, (await cli([...heard, 'fp32'])).stdout);
  for (const command of ['train', 'transcribe', 'evaluate'])
    t.notRegex((await cli([command, '--help'])).stdout, /\bf(32|16)\b/);
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
