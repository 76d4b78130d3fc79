/** The compiled command line with random words: it ends by itself, with one of its exit codes and no stack trace. */
import { execFile } from 'node:child_process';
import { cpSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { encodeWav } from '../../../lib/index.js';
import { main, writeRows, writeTinyModel } from '../../support/cli.js';
import { ascii } from '../mutators/bytes.js';
import { someText } from '../mutators/text.js';
import type { Random } from '../random.js';
import { promised, type Reader } from '../reader.js';

const DECODING = [
  '--model',
  '--expert',
  '--beam-size',
  '--patience',
  '--length-penalty',
  '--compute-type',
  '--cache-type',
  '--batch-size',
  '--device',
  '--threads',
  '--offline',
  '--language',
  '--json',
  '--help',
];
const COMMANDS: Record<string, readonly string[]> = {
  transcribe: [...DECODING, '--task', '--timestamps', '--format', '--output', '--profile'],
  evaluate: [...DECODING, '--manifest', '--split', '--domain', '--skip-empty-text', '--normalizer', '--hypotheses'],
  train: [
    '--model',
    '--output',
    '--teacher',
    '--teacher-cache',
    '--max-memory',
    '--dry-run',
    '--method',
    '--language',
    '--manifest',
    '--split',
    '--validation-split',
    '--batch-size',
    '--epochs',
    '--steps',
    '--seed',
    '--betas',
    '--warmup',
    '--save-as',
    '--threads',
    '--device',
    '--json',
  ],
  push: ['--to', '--dry-run', '--evaluation', '--base-model', '--private', '--json'],
  export: ['--onnx', '--output', '--expert', '--language', '--dtype', '--hidden', '--json'],
  'cache-teacher': [
    '--teacher',
    '--manifest',
    '--output',
    '--language',
    '--split',
    '--max-memory',
    '--threads',
    '--json',
  ],
  profile: ['--shapes', '--top', '--json'],
  doctor: ['--json'],
  '': ['--version', '--help'],
  demo: ['--help'],
};
const VALUES = [
  'tiny',
  'rows.jsonl',
  'a.wav',
  'b.wav',
  'gone',
  '.',
  '-',
  '',
  '0',
  '1',
  '2',
  '-1',
  '1e9',
  '1.5',
  'NaN',
  'ca',
  'AUTO',
  'xx',
  'fp32',
  'int8',
  'auto',
  'cpu',
  'cuda:9',
  'text',
  'srt',
  'train',
  'test',
  'f16',
  '0.9,0.98',
  '\x1b[31m',
  'é',
  'a\nb',
  '--',
  '--json',
];
/** What every run of a command needs, so that its body is reached. */
const NEEDED: Record<string, readonly string[]> = {
  transcribe: ['a.wav', '--model', 'tiny', '--language', 'ca', '--threads', '1'],
  evaluate: ['--model', 'tiny', '--manifest', 'rows.jsonl', '--threads', '1'],
  'cache-teacher': ['--teacher', 'tiny', '--manifest', 'rows.jsonl', '--output', 'rows', '--threads', '1'],
  train: [
    '--model',
    'tiny',
    '--manifest',
    'rows.jsonl',
    '--language',
    'ca',
    '--output',
    'run',
    '--steps',
    '1',
    '--threads',
    '1',
  ],
};

function words(random: Random): string[] {
  const command = random.pick(Object.keys(COMMANDS));
  const list = command === '' ? [] : [command];
  // The demonstration is minutes of work: only its help is asked for.
  if (command === 'demo') return ['demo', '--help'];
  if (random.chance(0.7)) list.push(...(NEEDED[command] ?? []));
  for (let count = random.count(5); count > 0; count--) {
    list.push(random.chance(0.9) ? random.pick(COMMANDS[command]!) : `--${someText(random, 12)}`);
    if (random.chance(0.8)) list.push(random.chance(0.9) ? random.pick(VALUES) : someText(random, 60));
  }
  return list.map((word) => word.replaceAll(/[\0/]/g, ''));
}

export const commandLineReaders: readonly Reader[] = [
  {
    name: 'cli',
    about: 'the command line with random options and values, on a tiny model',
    share: 0.7,
    seconds: 60,
    async open(scratch) {
      const [kept, used] = ['kept', 'used'].map((name) => join(scratch, name)) as [string, string];
      await writeTinyModel(join(kept, 'tiny'), 1);
      const tone = Float32Array.from({ length: 3200 }, (_, i) => 0.3 * Math.sin(i / 6));
      writeFileSync(join(kept, 'a.wav'), encodeWav(tone, 16000));
      writeFileSync(join(kept, 'b.wav'), ascii('no sound'));
      writeRows(join(kept, 'rows.jsonl'), [
        { id: '1', audio: 'a.wav', text: 'hola', language: 'ca', split: 'train' },
        { id: '2', audio: 'a.wav', text: 'tu', language: 'ca', split: 'test' },
      ]);
      return {
        make: (random) => new TextEncoder().encode(words(random).join('\0')),
        async read(input) {
          // An output may be any file of the folder.
          rmSync(used, { recursive: true, force: true });
          cpSync(kept, used, { recursive: true });
          const args = new TextDecoder().decode(input).split('\0');
          const { code, signal, stderr } = await new Promise<{ code: unknown; signal: unknown; stderr: string }>(
            (resolve) => {
              // Names are found in no cache, and nobody is asked.
              const env = { ...process.env, HF_HUB_OFFLINE: '1', HF_HOME: join(used, 'hub') };
              const options = { cwd: used, env, timeout: 50_000, killSignal: 'SIGKILL', maxBuffer: 1 << 26 } as const;
              const child = execFile(process.execPath, [main, ...args], options, (error, _, stderr) =>
                resolve({ code: error ? error.code : 0, signal: error?.signal, stderr }),
              );
              child.stdin?.end();
            },
          );
          promised(!signal, `it was ended by ${signal}`);
          promised(code === 0 || code === 1 || code === 2, `exit code ${code}`);
          promised(
            !/\n {4}at .*[/:]\d+:\d+/.test(stderr),
            `a stack trace: ${stderr.split('\n').find((line) => /Error/.test(line))}`,
          );
        },
      };
    },
  },
];
