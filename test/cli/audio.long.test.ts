// Audio on the command line: through pipes, with warnings, within limits, and a command that waits for a pipe.
import { execFileSync, spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { encodeWav } from '../../lib/index.js';
import { type CliResult, cli, corpusRows, main, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';
import { unlessBusy } from '../support/load.js';

const { path: scratch, remove } = scratchFolder();
const at = (name: string): string => join(scratch, name);
const file = (name: string, content: Uint8Array): string => {
  writeFileSync(at(name), content);
  return at(name);
};
const onUnix = process.platform === 'win32' ? test.skip : test;
const [row] = corpusRows('ca', 'test', 'in', 1);
const speech = row!.audio;

const wave = Buffer.from(
  encodeWav(
    new Float32Array(16000).map((_, i) => 0.3 * Math.sin(i / 7)),
    16000,
  ),
);
/** A WAV whose header announces no samples: a recorder that was switched off. */
const unfinished = (): Buffer => {
  const bytes = Buffer.from(wave);
  bytes.writeUInt32LE(0, 40);
  return bytes;
};
const model = at('model');
const decode = ['--model', model, '--language', 'ca', '--compute-type', 'fp32', '--threads', '1'];

test.before(() => writeTinyModel(model, 1));
test.after.always(remove);

/** The command with bytes on its standard input. */
function fed(bytes: Uint8Array, args: readonly string[]): Promise<CliResult> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [main, ...args], { cwd: scratch });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk) => {
      stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      stderr += chunk;
    });
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({ code, signal, stdout, stderr }));
    child.stdin.end(bytes);
  });
}

onUnix('transcribe - and /dev/stdin hear what a pipe brings, as they hear the file', async (t) => {
  const expected = await cli(['transcribe', speech, ...decode]);
  t.is(expected.code, 0, expected.stderr);
  for (const name of ['-', '/dev/stdin']) {
    const { code, stdout, stderr } = await fed(readFileSync(speech), ['transcribe', name, ...decode]);
    t.is(code, 0, stderr);
    t.is(stdout, expected.stdout);
  }
  const { code, stderr } = await fed(new Uint8Array(0), ['transcribe', '-', ...decode]);
  t.is(code, 1);
  t.regex(stderr, /error ERR_AUDIO_EMPTY: standard input: the file is empty/);
});

test('unusual audio is transcribed with one warning that names it, in JSON too; --strict refuses it', async (t) => {
  const path = file('unfinished.wav', unfinished());
  const { code, stdout, stderr } = await cli(['transcribe', path, ...decode, '--json']);
  t.is(code, 0, stderr);
  const [{ file: name, seconds, warnings }] = JSON.parse(stdout);
  t.deepEqual([name, seconds, warnings.length], [path, 1, 1]);
  t.is(stderr.split('\n').filter((line) => line.startsWith(`warning: ${path}: ${warnings[0]}`)).length, 1, stderr);
  const strict = await cli(['transcribe', path, speech, ...decode, '--strict']);
  t.is(strict.code, 1);
  t.regex(strict.stderr, /error ERR_AUDIO_FORMAT: .*unfinished\.wav: /);
  t.is(strict.stdout.trim().split('\n').length, 1, 'the other file goes on');
});

test('train and evaluate warn of unusual audio once, and refuse its row with --strict', async (t) => {
  const path = file('row.wav', unfinished());
  const rows = [
    { ...row!, split: 'train' },
    { ...row!, audio: path, id: 'unusual', split: 'train' },
  ];
  const manifest = writeRows(at('rows.jsonl'), rows);
  const train = (...more: string[]) =>
    cli([
      'train',
      '--model',
      model,
      '--manifest',
      manifest,
      '--split',
      'train',
      '--language',
      'ca',
      '--steps',
      '3',
      ...more,
    ]);
  const warned = (text: string): number =>
    text.split('\n').filter((line) => line.startsWith(`warning: ${path}: `)).length;
  const trained = await train('--batch-size', '1', '--output', at('run'));
  t.is(trained.code, 0, trained.stderr);
  t.is(warned(trained.stderr), 1, trained.stderr);
  const refused = await train('--output', at('strict'), '--strict');
  t.is(refused.code, 1);
  t.regex(refused.stderr, /rows\.jsonl line 2: .*row\.wav/);
  const evaluated = await cli(['evaluate', '--manifest', manifest, '--model', model]);
  t.is(evaluated.code, 0, evaluated.stderr);
  t.is(warned(evaluated.stderr), 1, evaluated.stderr);
  t.is((await cli(['evaluate', '--manifest', manifest, '--model', model, '--strict'])).code, 1);
});

test('--max-duration refuses longer audio, and nonsense', async (t) => {
  const path = file('second.wav', wave);
  const { code, stderr } = await cli(['transcribe', path, ...decode, '--max-duration', '0.5']);
  t.is(code, 1);
  t.regex(stderr, /ERR_AUDIO_TOO_LONG: .*second\.wav: expected at most 0\.5 s/);
  t.is((await cli(['transcribe', path, ...decode, '--max-duration', '1'])).code, 0);
  for (const value of ['0', '-1', 'long']) t.is((await cli(['transcribe', path, '--max-duration', value])).code, 2);
});

onUnix('a pipe that nobody writes to is waited for, and the first SIGTERM or SIGINT ends the command', async (t) => {
  const pipe = at('pipe');
  execFileSync('mkfifo', [pipe]);
  for (const [signal, expected] of [
    ['SIGTERM', 143],
    ['SIGINT', 130],
  ] as const) {
    const measure = async (): Promise<number> => {
      let killed = Number.NaN;
      let waits = false;
      // Once a file before it is done the pipe is what the command waits for.
      const { code, stderr } = await cli(['transcribe', speech, pipe, '--batch-size', '1', ...decode], {
        onStderr: (text, kill) => {
          if (waits || !text.includes('transcribing 1/2')) return;
          waits = true;
          setTimeout(() => {
            killed = performance.now();
            kill(signal);
          }, 1000);
        },
      });
      t.is(code, expected, stderr);
      return performance.now() - killed;
    };
    await unlessBusy(
      t,
      measure,
      (ms) => ms < 5000,
      (ms) => `${signal}: ended in ${ms.toFixed(0)} ms`,
    );
  }
});
