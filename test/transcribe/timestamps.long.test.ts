/** Transcripts with timestamps: segments, subtitles, and the Transcriber. */
import test, { type ExecutionContext } from 'ava';
import { Stream } from '../../lib/tensor/index.js';
import { tokenizerFromCharacters, WhisperTokenizer } from '../../lib/text/index.js';
import {
  type AudioSamples,
  cutWindows,
  formatSrt,
  formatTimed,
  formatVtt,
  Transcriber,
  type Transcript,
} from '../../lib/transcribe/index.js';
import { timedTexts } from '../../lib/transcribe/segments.js';
import { createTalker, tokenizer as pocket, generation as pocketGeneration, sound } from '../support/talker.js';
import { refused } from '../support/weights.js';

/** Letters, and 3 s of timestamps. */
const letters = [...'abcdefghijklmnopqrstuvwxyz'].join('');
const tokenizer = WhisperTokenizer.fromJSON(
  tokenizerFromCharacters([letters], { languages: ['ca', 'th'], timestamps: 151 }),
);
const at = (seconds: number) => tokenizer.timestampId(seconds);
const word = (text: string) => tokenizer.encode(text);

/** Letters, the space and the end, and all timestamps. */
const generation = {
  suppress_tokens: Array.from({ length: tokenizer.timestampBegin }, (_, id) => id).filter(
    (id) => !/^[a-zĠ]$/.test(tokenizer.token(id)) && id !== tokenizer.endOfText,
  ),
  begin_suppress_tokens: [...tokenizer.encode(' '), tokenizer.endOfText],
  max_length: 40,
};
const stream = new Stream({ threads: 2 });
let transcriber: Transcriber;
test.before(async () => {
  const model = await createTalker(stream, {
    vocab_size: tokenizer.vocabSize,
    max_source_positions: 150,
    max_target_positions: 48,
    decoder_start_token_id: tokenizer.startOfTranscript,
    pad_token_id: tokenizer.endOfText,
    bos_token_id: tokenizer.endOfText,
    eos_token_id: tokenizer.endOfText,
  });
  transcriber = new Transcriber(model, tokenizer, { generation, batchSize: 4 });
});
test.after.always(async () => {
  await transcriber.close();
  stream.close();
});

test('segments are what stands between pairs of timestamps, from the begin of the window and within it', (t) => {
  const window = { begin: 10, end: 12.5 };
  const of = (...tokens: (number | number[])[]) =>
    timedTexts(tokens.flat(), tokenizer, window).map(({ start, end: to, text }) => [start, to, text]);
  t.deepEqual(of(at(0), word(' hola'), at(1)), [[10, 11, 'hola']]);
  t.deepEqual(of(at(0.5), word(' a b'), at(1), at(1), word(' c'), at(1.5)), [
    [10.5, 11, 'a b'],
    [11, 11.5, 'c'],
  ]);
  t.deepEqual(of(at(0), word('a'), at(0.5), at(1), word('b'), at(2)), [
    [10, 10.5, 'a'],
    [11, 12, 'b'],
  ]);
  // Without its second timestamp a segment goes on to the end of the window.
  t.deepEqual(of(at(0), word('a'), at(0.5), at(1), word('b')), [
    [10, 10.5, 'a'],
    [11, 12.5, 'b'],
  ]);
  // What the model hears may be longer than the window.
  t.deepEqual(of(at(1), word('a'), at(2.9)), [[11, 12.5, 'a']]);
  t.deepEqual(of(at(2.7), word('a'), at(2.9)), [[12.5, 12.5, 'a']]);
  // What has no text is none.
  t.deepEqual(of(), []);
  t.deepEqual(of(at(0)), []);
  t.deepEqual(of(at(0), word(' '), at(1), at(1), word('x'), tokenizer.endOfText), [[11, 12.5, 'x']]);
});

test('SubRip: numbers, hours, commas, blank lines between cues and none inside, no arrow in a text', (t) => {
  t.is(formatSrt([]), '');
  const segments = [
    { start: 0, end: 3.2, text: 'Bon dia.' },
    { start: 59.9996, end: 61.25, text: 'a --> b' },
    { start: 3599.9994, end: 3600.5, text: 'one\n\ntwo\r\nthree' },
    { start: 360000, end: 360000, text: '<i> & "' },
  ];
  t.is(
    formatSrt(segments),
    [
      '1\n00:00:00,000 --> 00:00:03,200\nBon dia.\n\n',
      '2\n00:01:00,000 --> 00:01:01,250\na -> b\n\n',
      '3\n00:59:59,999 --> 01:00:00,500\none two three\n\n',
      '4\n100:00:00,000 --> 100:00:00,001\n<i> & "\n\n',
    ].join(''),
  );
});

test('WebVTT: its header, hours where there are any, dots, and what is markup there as entities', (t) => {
  t.is(formatVtt([]), 'WEBVTT\n\n');
  const segments = [
    { start: 0, end: 3.2, text: 'Bon dia.' },
    { start: 59.9996, end: 61.25, text: 'a --> b & <c>' },
    { start: 3599.9994, end: 3600.5, text: ' one\n\ntwo ' },
  ];
  t.is(
    formatVtt(segments),
    [
      'WEBVTT\n\n',
      '00:00.000 --> 00:03.200\nBon dia.\n\n',
      '01:00.000 --> 01:01.250\na --&gt; b &amp; &lt;c&gt;\n\n',
      '59:59.999 --> 01:00:00.500\none two\n\n',
    ].join(''),
  );
  t.is(formatTimed(segments[0]!), '[00:00.000 --> 00:03.200]  Bon dia.');
  t.is(formatTimed({ start: 3723.004, end: 3725, text: 'a\nb' }), '[01:02:03.004 --> 01:02:05.000]  a b');
});

const clips: AudioSamples[] = Array.from({ length: 7 }, (_, i) => sound(i, 0.4 + 0.4 * i, 16000));

/** Segments in order, within their audio, with text. */
function inOrder(t: ExecutionContext, { segments, duration }: Transcript): void {
  for (const [i, { start, end: to, text }] of segments.entries()) {
    t.true(start >= (segments[i - 1]?.end ?? 0) && to >= start && to <= duration, `${start} ${to} of ${duration}`);
    t.is(text, text.trim());
    t.not(text, '');
  }
}

test.serial(
  'transcripts with timestamps have segments in order and within the audio, in batches of any size',
  async (t) => {
    for (const search of [{}, { beamSize: 3 }]) {
      const options = { language: 'ca', timestamps: true, ...search };
      const got = await transcriber.transcribe(clips, options);
      for (const transcript of got) {
        inOrder(t, transcript);
        // No space is said where a segment begins: the text is that of all of them.
        const said = transcript.segments.map(({ text }) => text).join('');
        t.is(transcript.text.replaceAll(' ', ''), said.replaceAll(' ', ''));
        t.true(transcript.tokens >= said.length && transcript.tokens <= 37);
        t.is(new Set(transcript.segments.map(({ averageLogProbability }) => averageLogProbability)).size, 1);
      }
      t.true(got.some(({ segments }) => segments.length > 1));
      t.true(got.some(({ segments }) => segments.some(({ start }) => start > 0)));
      for (const batchSize of [1, 3]) {
        const times = (all: readonly Transcript[]) =>
          all.map(({ text, segments, tokens }) => ({
            text,
            tokens,
            segments: segments.map(({ averageLogProbability, ...segment }) => segment),
          }));
        t.deepEqual(times(await transcriber.transcribe(clips, { ...options, batchSize })), times(got));
      }
    }
    const plain = await transcriber.transcribe(clips, { language: 'ca' });
    t.deepEqual(await transcriber.transcribe(clips, { language: 'ca', timestamps: false }), plain);
    for (const { segments, duration } of plain)
      t.deepEqual(
        segments.map(({ start, end: to }) => [start, to]),
        [[0, duration]],
      );
  },
);

test.serial('long audio has the segments of its windows, from where each begins', async (t) => {
  const long = sound(52, 8, 16000);
  for (const pause of [2.7, 5.4]) long.samples.fill(0, (pause - 0.06) * 16000, (pause + 0.06) * 16000);
  const windows = cutWindows(long.samples, 16000, 3);
  t.is(windows.length, 3);
  const parts = windows.map((window) => ({ samples: long.samples.slice(window.begin, window.end), sampleRate: 16000 }));
  const options = { language: 'th', timestamps: true };
  const said = await transcriber.transcribe(parts, options);
  const [whole] = await transcriber.transcribe([long], options);
  inOrder(t, whole!);
  t.is(whole!.text, said.map(({ text }) => text).join(' '));
  const shifted = said.flatMap(({ segments }, w) =>
    segments.map(({ start, end: to, text }) => ({
      text,
      times: [start, to].map((x) => x + windows[w]!.begin / 16000),
    })),
  );
  t.true(shifted.length >= 3);
  t.is(whole!.segments.length, shifted.length);
  for (const [i, { text, times }] of shifted.entries()) {
    const { start, end: to, text: got } = whole!.segments[i]!;
    t.is(got, text);
    t.true(Math.abs(start - times[0]!) < 1e-9 && Math.abs(to - times[1]!) < 1e-9);
  }
});

test.serial('a vocabulary without timestamps is refused before any audio is read', async (t) => {
  const talker = await createTalker(stream);
  const json = pocket.toJSON();
  const without = WhisperTokenizer.fromJSON({
    ...json,
    added_tokens: json.added_tokens.filter(({ content }) => content !== '<|notimestamps|>'),
  });
  for (const [given, pattern] of [
    [
      pocket,
      /^timestamps: expected a model with timestamp tokens, got a vocabulary of \d+ tokens, which ends before them$/,
    ],
    [without, /^timestamps: expected a model with timestamp tokens, got a vocabulary without any$/],
  ] as const) {
    const other = new Transcriber(talker, given, { generation: pocketGeneration });
    await refused(t, 'ERR_VOCABULARY', pattern, () =>
      other.transcribe(['nowhere.wav'], { language: 'ca', timestamps: true }),
    );
    await other.close();
  }
  talker.dispose();
});
