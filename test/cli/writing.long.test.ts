/** What the command line writes, and where: as it is done, through whatever is there, and seen by a terminal or not. */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { tokenizerFromCharacters } from '../../lib/text/index.js';
import { cli, corpusRows, main, root, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';
import { until } from '../support/load.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
const rows = corpusRows('ca', 'train', 'in', 6);
const speech = rows.map((row) => row.audio);
/** More files than are done within seconds. */
const many = Array.from({ length: 3000 }, (_, i) => speech[i % 6]!);
const model = ['--model', at('student'), '--language', 'ca', '--threads', '1'];
const transcribe = (...more: string[]): string[] => [
  'transcribe',
  ...(more.includes('--model') ? model.slice(2) : model),
  ...more,
];

test.before(async () => {
  await writeTinyModel(at('student'), 1);
  const tokenizerJson = tokenizerFromCharacters(['abc'], { languages: ['ca'], timestamps: 251 });
  await writeTinyModel(at('timed'), 3, {}, { tokenizerJson });
  writeRows(at('rows.jsonl'), rows);
});
test.after.always(remove);

const posix = process.platform === 'win32' ? test.skip : test;

/** Runs a command line through a shell, with the program as $0 and `args` behind it. */
function shell(script: string, ...args: string[]): { code: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr } = spawnSync('bash', ['-c', script, main, ...args], {
    encoding: 'utf8',
    cwd: scratch,
    timeout: 300_000,
  });
  return { code: status, stdout, stderr };
}

/** Ends a transcription of many files by a signal once some are done and `ready`. Returns its end and what it said. */
async function endedWhileTranscribing(signal: NodeJS.Signals, args: readonly string[], ready = () => true) {
  let sent = false;
  return cli(transcribe('--batch-size', '4', ...args), {
    onStderr: (text, kill) => {
      if (sent || !/^transcribing (?!0)/m.test(text)) return;
      sent = true;
      void until(ready).then(() => kill(signal));
    },
  });
}

const lines = (path: string): string[] => readFileSync(path, 'utf8').trimEnd().split('\n');

test.serial(
  'Ctrl-C leaves what is done: lines, a JSON array, and subtitles a file each; a note says how many',
  async (t) => {
    const said = (stderr: string): number => Number(/^interrupted: (\d+) of \d+ files are in /m.exec(stderr)?.[1]);
    const text = await endedWhileTranscribing('SIGINT', [...many, '--output', at('out.txt')]);
    t.is(text.code, 130, text.stderr);
    t.is(lines(at('out.txt')).length, said(text.stderr));
    t.true(said(text.stderr) > 0);
    for (const [i, line] of lines(at('out.txt')).entries()) t.true(line.startsWith(`${many[i]}\t`));

    const json = await endedWhileTranscribing('SIGTERM', [...many, '--json', '--output', at('out.json')]);
    t.is(json.code, 143, json.stderr);
    const parts = JSON.parse(readFileSync(at('out.json'), 'utf8'));
    t.is(parts.length, said(json.stderr));
    t.is(JSON.parse(json.stdout).error.code, 'ERR_INTERRUPTED');

    const standard = await endedWhileTranscribing('SIGINT', [...many, '--json']);
    t.is(standard.code, 130);
    t.is(JSON.parse(standard.stdout).length, said(standard.stderr));

    mkdirSync(at('subtitles'));
    mkdirSync(at('copies'));
    const copies = many.slice(0, 1000).map((file, i) => {
      copyFileSync(file, at('copies', `${i}.opus`));
      return at('copies', `${i}.opus`);
    });
    const subtitles = ['--format', 'srt', '--output', at('subtitles'), '--model', at('timed')];
    const srt = await endedWhileTranscribing('SIGINT', [...copies, ...subtitles]);
    t.is(srt.code, 130, srt.stderr);
    t.is(readdirSync(at('subtitles')).length, said(srt.stderr));
    t.true(readdirSync(at('subtitles')).every((name) => /^\d+\.srt$/.test(name)));
  },
);

test.serial('a kill leaves what is done too, under the name that was asked for', async (t) => {
  const some = () => /"file"/.test(readFileSync(at('killed.json'), 'utf8'));
  const { signal } = await endedWhileTranscribing(
    'SIGKILL',
    [...many, '--json', '--output', at('killed.json')],
    () => existsSync(at('killed.json')) && some(),
  );
  t.is(signal, 'SIGKILL');
  const parts = JSON.parse(readFileSync(at('killed.json'), 'utf8'));
  t.true(parts.length > 0 && parts.length < many.length);
  t.is(parts[0].file, many[0]);
  t.deepEqual(
    readdirSync(scratch).filter((name) => name.startsWith('killed')),
    ['killed.json'],
  );
});

posix('transcripts go through links, keep modes, and pass pipes and devices by; - is standard output', async (t) => {
  const plain = await cli(transcribe(speech[0]!));
  t.is(plain.code, 0, plain.stderr);
  writeFileSync(at('real'), 'old');
  chmodSync(at('real'), 0o600);
  symlinkSync('real', at('link'));
  t.is((await cli(transcribe(speech[0]!, '--output', at('link')))).code, 0);
  t.is(readFileSync(at('real'), 'utf8'), plain.stdout);
  t.is(statSync(at('real')).mode & 0o777, 0o600);
  execFileSync('mkfifo', [at('fifo')]);
  const piped = shell('cat fifo & node "$0" "$@" --output fifo; wait', ...transcribe(speech[0]!));
  t.is(piped.stdout, plain.stdout, piped.stderr);
  for (const name of ['-', '/dev/stdout', '/dev/fd/1']) {
    const { stdout, stderr } = await cli(transcribe(speech[0]!, '--output', name), { cwd: scratch });
    t.is(stdout, plain.stdout, stderr);
  }
  const file = shell('node "$0" "$@" --output /dev/stdout >into', ...transcribe(speech[0]!));
  t.is(file.code, 0, file.stderr);
  t.is(readFileSync(at('into'), 'utf8'), plain.stdout);
  const substituted = shell('node "$0" "$@" --json --output >(cat >through); sleep 0.3', ...transcribe(speech[0]!));
  t.is(JSON.parse(readFileSync(at('through'), 'utf8')).length, 1, substituted.stderr);
  const heard = shell(
    'cat fifo & node "$0" "$@" --hypotheses fifo >/dev/null; wait',
    'evaluate',
    ...model.slice(0, 2),
    '--manifest',
    at('rows.jsonl'),
  );
  t.is(heard.stdout.trimEnd().split('\n').length, rows.length, heard.stderr);
  t.false(existsSync(at('-')));
});

posix('an output that cannot be written is refused before the work begins', (t) => {
  mkdirSync(at('closed'));
  chmodSync(at('closed'), 0o555);
  const asNobody = process.getuid!() === 0 ? { uid: 65534, gid: 65534 } : {};
  const refused = (...args: string[]): void => {
    const { status, stderr } = spawnSync(process.execPath, [main, ...args], {
      encoding: 'utf8',
      cwd: root,
      ...asNobody,
    });
    t.is(status, 1, stderr);
    t.regex(stderr, /^error ERR_FILE_WRITE: .*(no permission|expected)/m);
    t.notRegex(stderr, /transcribing|evaluating|checking/);
  };
  chmodSync(scratch, 0o755);
  refused(...transcribe(speech[0]!, '--output', at('closed', 'x.txt')));
  refused(...transcribe(speech[0]!, '--format', 'srt', '--output', at('closed')));
  refused(...transcribe(speech[0]!, '--output', at('closed')));
  refused('evaluate', ...model.slice(0, 2), '--manifest', at('rows.jsonl'), '--hypotheses', at('closed', 'x'));
  refused('train', ...model, '--manifest', at('rows.jsonl'), '--output', at('closed', 'run'));
  refused('train', ...model, '--manifest', at('rows.jsonl'), '--output', at('rows.jsonl', 'run'));
  t.deepEqual(readdirSync(at('closed')), []);
});

/** Of a command whose output is lost: one line that says so. */
function saysOneLine(t: ExecutionContext, stderr: string): void {
  t.is(stderr.split('\n').filter((line) => line.startsWith('error ')).length, 1, stderr);
  t.regex(stderr, /^error ERR_DISK_FULL: The disk is full: standard output /m);
  t.notRegex(stderr, /^\s+at /m);
}

(existsSync('/dev/full') ? test : test.skip)(
  'a full disk on standard output is one line, whatever the command',
  (t) => {
    const evaluate = ['evaluate', ...model.slice(0, 2), '--manifest', at('rows.jsonl')];
    for (const args of [
      transcribe(speech[0]!),
      transcribe(speech[0]!, speech[1]!, '--json'),
      evaluate,
      [...evaluate, '--json'],
      ['doctor', '--json'],
      ['--help'],
      ['train', '--help'],
    ]) {
      const { code, stderr } = shell('node "$0" "$@" >/dev/full', ...args);
      t.is(code, 1, args.join(' '));
      saysOneLine(t, stderr);
    }
  },
);

posix('a reader that goes away: standard output ends the command quietly, standard error ends nothing', async (t) => {
  const gone = shell('set -o pipefail; node "$0" "$@" 2>err | :; echo "$?"', ...transcribe(...speech));
  t.is(gone.stdout, '0\n');
  t.notRegex(readFileSync(at('err'), 'utf8'), /error|^\s+at /m);
  const training = ['train', ...model, '--manifest', at('rows.jsonl'), '--batch-size', '2', '--steps', '4', '--output'];
  const closed = shell('node "$0" "$@" 2> >(head -1 >/dev/null); echo "exit $?"', ...training, at('unseen'));
  t.is(closed.stdout, `${at('unseen', 'expert.catalan.safetensors')}\nexit 0\n`);
  if (!existsSync('/dev/full')) return;
  t.is(shell('node "$0" "$@" 2>/dev/full', ...training, at('unheard')).code, 0);
});

posix('a name that would break a line of file<TAB>text is quoted there', async (t) => {
  const names = ['new\nline.opus', 'tab\tbed.opus', '"quoted".opus', 'plain.opus'].map((name) => at(name));
  for (const name of names) copyFileSync(speech[0]!, name);
  const { code, stdout, stderr } = await cli(transcribe(...names));
  t.is(code, 0, stderr);
  const found = stdout.trimEnd().split('\n');
  t.is(found.length, names.length);
  t.deepEqual(
    found.map((line) => line.split('\t')[0]!),
    [JSON.stringify(names[0]), JSON.stringify(names[1]), names[2]!, names[3]!],
  );
});

const hasScript = spawnSync('script', ['--version']).status === 0;

(hasScript ? test : test.skip)(
  'a terminal gets controls as text and no line beyond its width; pipes get them raw',
  (t) => {
    const evil = at('evil\u001b[2J\u0007\u202e.opus');
    copyFileSync(speech[0]!, evil);
    const manifest = writeRows(at('evil.jsonl'), [{ ...rows[0], domain: '\u001b]0;pwned\u0007\u009b31m' }]);
    const terminal = (columns: number, ...args: string[]): string => {
      const words = [process.execPath, main, ...args].map((word) => `'${word}'`).join(' ');
      return spawnSync('script', ['-qec', `stty cols ${columns}; ${words}`, '/dev/null'], { encoding: 'utf8' }).stdout;
    };
    const evaluate = ['evaluate', ...model.slice(0, 2), '--manifest', manifest];
    const shown = [
      terminal(100, ...evaluate),
      terminal(100, ...transcribe(evil, speech[1]!)),
      terminal(100, ...transcribe(`${evil}.none`)),
      terminal(100, ...transcribe(evil, '--json')),
    ];
    for (const text of shown) {
      // The display's own: cursor, line, wrapping.
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
      const rest = text.replaceAll(/\x1b(7|8|\[(\?7[lh]|\?25[lh]|\d*[GKA]))/g, '');
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
      t.notRegex(rest, /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/);
      t.true(rest.includes('\\u001b'));
    }
    const raw = shell('node "$0" "$@"', ...evaluate);
    t.true(raw.stdout.includes('\u001b]0;pwned\u0007\u009b31m'));
    const narrow = terminal(40, ...transcribe(...speech));
    t.notRegex(narrow, /LLs|NFs|NaN|Infinity/);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    const drawn = narrow.split(/[\r\n]|\u001b\[1G/).filter((part) => part.includes('█') || part.includes('░'));
    t.true(drawn.length > 0);
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    for (const line of drawn) t.true([...line.replaceAll(/\x1b(\[[?\d]*[A-Za-z]|[78])/g, '')].length <= 40, line);
  },
);

test.serial(
  'off a terminal, lines of progress say the time that has passed, the rate, and the time that is left',
  async (t) => {
    const { stderr } = await endedWhileTranscribing('SIGINT', [...many.slice(0, 600), '--output', at('progress.txt')]);
    t.regex(stderr, /^transcribing \d+\/600 files, [\d.]+ s of audio \(\d+:\d\d\)$/m);
    const child = spawn(process.execPath, [main, ...transcribe(...speech, '--batch-size', '2')]);
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      said += text;
    });
    await new Promise((resolve) => child.on('close', resolve));
    t.regex(said, /^transcribing 6\/6 files, [\d.]+ s of audio \(\d+:\d\d, [\d.]+\/s\)$/m);
  },
);
