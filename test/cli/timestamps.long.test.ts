/** `transcribe` with timestamps and as subtitles, as a user runs it, on a model with random weights. */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { tokenizerFromCharacters, WhisperTokenizer } from '../../lib/text/index.js';
import { cli, corpusRows, scratchFolder, writeTinyModel } from '../support/cli.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
const [a, b] = corpusRows('ca', 'test', 'in', 2).map(({ audio }) => audio) as [string, string];
const model = ['--model', at('timed'), '--language', 'ca'];

test.before(async () => {
  const tokenizerJson = tokenizerFromCharacters(['abc'], { languages: ['ca', 'cs'], timestamps: 251 });
  const tokenizer = WhisperTokenizer.fromJSON(tokenizerJson);
  const suppress_tokens = Array.from({ length: tokenizer.timestampBegin }, (_, id) => id).filter(
    (id) => !/^[a-z]$/.test(tokenizer.token(id)) && id !== tokenizer.endOfText,
  );
  await writeTinyModel(
    at('timed'),
    3,
    { init_std: 0.3 },
    { tokenizerJson, generation: { suppress_tokens, max_length: 24 } },
  );
  await writeTinyModel(at('untimed'), 1);
});
test.after.always(remove);

interface Segment {
  start: number;
  end: number;
  text: string;
}
async function said(t: ExecutionContext, ...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await cli(['transcribe', ...args, ...model]);
  t.is(code, 0, stderr);
  return stdout;
}
/** A time of less than a minute. */
const time = (seconds: number, point: string) =>
  `${String(Math.floor(Math.round(seconds * 1000) / 1000)).padStart(2, '0')}${point}${String(Math.round(seconds * 1000) % 1000).padStart(3, '0')}`;
const until = (segment: Segment) => Math.max(segment.end, segment.start + 0.001);

test('text, JSON, srt and vtt say the same segments', async (t) => {
  const [{ segments, text, seconds }] = JSON.parse(await said(t, a, '--timestamps', '--json')) as [
    { segments: Segment[]; text: string; seconds: number },
  ];
  t.true(segments.length > 1);
  for (const [i, { start, end }] of segments.entries())
    t.true(start >= (segments[i - 1]?.end ?? 0) && end >= start && end <= seconds);
  t.is(text, segments.map((segment) => segment.text).join(''));
  const cue = (s: Segment, lead: string, point: string) =>
    `${lead}00:${time(s.start, point)} --> ${lead}00:${time(until(s), point)}`;
  const lines = segments.map((s) => `[${cue(s, '', '.')}]  ${s.text}\n`).join('');
  t.is(await said(t, a, '--timestamps'), lines);
  const srt = segments.map((s, i) => `${i + 1}\n${cue(s, '00:', ',')}\n${s.text}\n\n`).join('');
  t.is(await said(t, a, '--format', 'srt'), srt);
  const vtt = `WEBVTT\n\n${segments.map((s) => `${cue(s, '', '.')}\n${s.text}\n\n`).join('')}`;
  t.is(await said(t, a, '--format', 'vtt', '--timestamps'), vtt);
  t.is(await said(t, a, '--format', 'srt', '--output', at('one.srt')), '');
  t.is(readFileSync(at('one.srt'), 'utf8'), srt);
  t.is(await said(t, a, '--format', 'text'), await said(t, a));
  t.not(await said(t, a, '--timestamps', '--beam-size', '3'), lines);
});

test('several files: lines name theirs, subtitles are a file each in a folder', async (t) => {
  const lines = (await said(t, a, b, '--timestamps')).trimEnd().split('\n');
  const of = async (file: string) => (await said(t, file, '--timestamps')).trimEnd().split('\n');
  const alone = await Promise.all([a, b].map(of));
  t.deepEqual(
    lines,
    [a, b].flatMap((file, i) => alone[i]!.map((line) => `${file}\t${line}`)),
  );

  const folder = at('subtitles');
  mkdirSync(folder);
  const { code, stdout, stderr } = await cli([
    'transcribe',
    a,
    at('none.wav'),
    b,
    ...model,
    '--format',
    'vtt',
    '--output',
    folder,
  ]);
  t.deepEqual([code, stdout], [1, '']);
  t.regex(stderr, /ERR_FILE_NOT_FOUND[\s\S]*1 of 3 files were refused/);
  const named = (file: string) => `${basename(file).replace(/\.[^.]*$/, '')}.vtt`;
  t.deepEqual(readdirSync(folder).sort(), [a, b].map(named).sort());
  for (const file of [a, b])
    t.is(readFileSync(join(folder, named(file)), 'utf8'), await said(t, file, '--format', 'vtt'));
  // One file too.
  await said(t, a, '--format', 'srt', '--output', folder);
  t.true(readdirSync(folder).some((name) => name.endsWith('.srt')));
});

test('what cannot be done is refused before it begins, with its reason', async (t) => {
  mkdirSync(at('taken', `${basename(a).replace(/\.[^.]*$/, '')}.srt`), { recursive: true });
  for (const [args, expected, reason] of [
    [[a, ...model, '--format', 'ass'], 2, /Allowed choices are text, srt, vtt/],
    [[a, ...model, '--format', 'srt', '--json'], 2, /'--format <format>' cannot be used with option '--json'/],
    [
      [a, b, ...model, '--format', 'srt'],
      1,
      /ERR_ARGUMENT: --format srt: expected one file, or .* got 2 files and no --output/,
    ],
    [[a, b, ...model, '--format', 'vtt', '--output', at('x.vtt')], 1, /got 2 files and --output .*x\.vtt/],
    [
      [a, a, ...model, '--format', 'srt', '--output', scratch],
      1,
      /ERR_ARGUMENT: --output: expected files of different names/,
    ],
    [
      [a, ...model, '--format', 'srt', '--output', at('taken')],
      1,
      /ERR_FILE_WRITE: .*\.srt: expected the name of a file/,
    ],
    [[a, ...model, '--timestamps', '--output', at('taken')], 1, /ERR_FILE_WRITE: .*taken: expected the name of a file/],
    [
      ['none.wav', '--model', at('untimed'), '--language', 'ca', '--timestamps'],
      1,
      /ERR_VOCABULARY: timestamps: expected a model with/,
    ],
    [['none.wav', '--model', at('untimed'), '--format', 'vtt'], 1, /ERR_VOCABULARY: timestamps: expected a model with/],
  ] as const) {
    const { code, stdout, stderr } = await cli(['transcribe', ...args]);
    t.is(code, expected, stderr);
    if (!(args as readonly string[]).includes('--json')) t.is(stdout, '');
    t.regex(stderr, reason);
  }
  t.deepEqual(
    readdirSync(scratch).filter((name) => /\.(srt|vtt)$/.test(name) && name !== 'one.srt'),
    [],
  );
});
