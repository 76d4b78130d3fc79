/** The Transcriber: batches, windows, files and samples, languages, bad input, aborting and closing. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { DecodePool, encodeWav, FeatureExtractor } from '../../lib/audio/index.js';
import type { ErrorCode } from '../../lib/errors/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { WhisperTokenizer } from '../../lib/text/index.js';
import {
  type AudioSamples,
  type AudioSource,
  cutWindows,
  type TranscribeProgress,
  Transcriber,
  type Transcript,
} from '../../lib/transcribe/index.js';
import { SampleReader } from '../../lib/transcribe/sample-reader.js';
import { HeardSource } from '../../lib/transcribe/sources.js';
import { PauseWindows } from '../../lib/transcribe/windows.js';
import { writeExpert } from '../../lib/weights/index.js';
import { attachRandomExpert, randomExpertTensors } from '../support/experts.js';
import { random } from '../support/random.js';
import { createTalker, generation, sound, tokenizer, writeTalker } from '../support/talker.js';
import { refused } from '../support/weights.js';

const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-transcriber-'));
const stream = new Stream({ threads: 2 });
const model = await createTalker(stream);
attachRandomExpert(model, 'catalan', 21);
attachRandomExpert(model, 'thai', 22);
const transcriber = new Transcriber(model, tokenizer, { generation, batchSize: 4 });
test.after.always(async () => {
  await transcriber.close();
  stream.close();
  rmSync(scratch, { recursive: true, force: true });
});

const file = (name: string, content: string | Uint8Array): string => {
  const path = join(scratch, name);
  writeFileSync(path, content);
  return path;
};

/** Texts and times equal; log-probabilities and gates to rounding, which depends on the size of a batch. */
function same(t: ExecutionContext, got: readonly Transcript[], expected: readonly Transcript[]): void {
  const exact = ({ segments, gateShare, ...rest }: Transcript) => ({
    ...rest,
    gated: gateShare !== null,
    segments: segments.map(({ averageLogProbability, ...segment }) => segment),
  });
  t.deepEqual(got.map(exact), expected.map(exact));
  for (const [i, { segments, gateShare }] of got.entries()) {
    for (const [s, { averageLogProbability }] of segments.entries())
      t.true(Math.abs(averageLogProbability - expected[i]!.segments[s]!.averageLogProbability) < 1e-4);
    if (gateShare !== null) t.true(Math.abs(gateShare - expected[i]!.gateShare!) < 1e-3);
  }
}

const RATES = [8000, 16000, 22050, 44100, 48000];
const clips: AudioSamples[] = Array.from({ length: 11 }, (_, i) =>
  sound(i, i === 10 ? 1 : 0.08 + 0.09 * i, RATES[i % RATES.length]!),
);

test.serial(
  'clips of mixed lengths and rates give in batches of any size what each gives alone, in order',
  async (t) => {
    const alone: Transcript[] = [];
    for (const clip of clips) alone.push(...(await transcriber.transcribe([clip], { language: 'ca' })));
    t.true(new Set(alone.map(({ text }) => text)).size > 5, 'what is said depends on the sound');
    for (const [i, { text, language, duration, segments, tokens, gateShare }] of alone.entries()) {
      const seconds = clips[i]!.samples.length / clips[i]!.sampleRate;
      t.is(language, 'ca');
      t.is(duration, seconds);
      t.is(text, text.trim());
      t.regex(text, /^[a-z ]+$/);
      t.true(tokens > 0 && tokens <= 16, 'max_length 20, of which 4 are the prompt');
      t.true(gateShare! > 0 && gateShare! < 1);
      t.deepEqual([segments.length, segments[0]!.start, segments[0]!.end, segments[0]!.text], [1, 0, seconds, text]);
    }
    for (const batchSize of [1, 3, 4, 64])
      same(t, await transcriber.transcribe(clips, { language: 'ca', batchSize }), alone);
    t.deepEqual(await transcriber.transcribe([], { language: 'ca' }), []);
  },
);

test.serial('a beam says in batches what it says alone, and says likelier things than greedy decoding', async (t) => {
  const greedy = await transcriber.transcribe(clips, { language: 'ca' });
  same(t, await transcriber.transcribe(clips, { language: 'ca', beamSize: 1 }), greedy);
  const options = { language: 'ca', beamSize: 5, lengthPenalty: 0 };
  const got = await transcriber.transcribe(clips, options);
  for (const batchSize of [1, 3]) same(t, await transcriber.transcribe(clips, { ...options, batchSize }), got);
  const sum = ({ segments, tokens }: Transcript) => segments[0]!.averageLogProbability * (tokens + 1);
  const total = (all: readonly Transcript[]) => all.reduce((a, transcript) => a + sum(transcript), 0);
  t.true(total(got) > total(greedy), `${total(got)} ${total(greedy)}`);
  // Refused before any audio is read.
  for (const [change, pattern] of [
    [{ beamSize: 0 }, /^beamSize: expected a whole number from 1 to 31, got 0/],
    [{ patience: 0 }, /^patience: expected a finite number/],
    [{ lengthPenalty: 2 }, /^lengthPenalty: expected a number from 0 to 1, got 2/],
  ] as const)
    await refused(t, 'ERR_ARGUMENT', pattern, () => transcriber.transcribe(['nowhere.wav'], { ...options, ...change }));
});

test.serial('a file gives what its samples give', async (t) => {
  const files = clips.map(({ samples, sampleRate }, i) => file(`clip-${i}.wav`, encodeWav(samples, sampleRate)));
  const mixed = clips.map((clip, i) => (i % 2 ? clip : files[i]!));
  const expected = await transcriber.transcribe(clips, { language: 'Polish' });
  same(t, await transcriber.transcribe(files, { language: 'pl' }), expected);
  same(t, await transcriber.transcribe(mixed, { language: 'POLISH' }), expected);
});

test.serial(
  'one source gives one transcript: a path, bytes, samples; what is no option is refused by its name',
  async (t) => {
    const [clip] = clips;
    const path = file('one.wav', encodeWav(clip!.samples, clip!.sampleRate));
    const [expected] = await transcriber.transcribe([clip!], { language: 'pl' });
    const one: AudioSource[] = [path, new Uint8Array(readFileSync(path)), readFileSync(path), clip!];
    for (const source of one) same(t, [await transcriber.transcribe(source, { language: 'pl' })], [expected!]);
    same(t, await transcriber.transcribe([readFileSync(path)], { language: 'pl' }), [expected!]);
    await refused(t, 'ERR_FILE_NOT_FOUND', /nowhere/, () =>
      transcriber.transcribe(join(scratch, 'nowhere.wav'), { language: 'pl' }),
    );
    const misspelt = { beam_size: 5 } as object;
    await refused(t, 'ERR_ARGUMENT', /transcribe: unknown option "beam_size"; did you mean beamSize\?/, () =>
      transcriber.transcribe([clip!], misspelt),
    );
    await refused(t, 'ERR_ARGUMENT', /did you mean batchSize\?/, () =>
      Transcriber.load(scratch, { batchsize: 2 } as object),
    );
  },
);

test.serial('the expert runs for its language only, and not when it is switched off', async (t) => {
  const catalan = await transcriber.transcribe(clips, { language: 'ca' });
  const without = await transcriber.transcribe(clips, { language: 'ca', useExperts: false });
  t.true(catalan.every(({ gateShare }) => gateShare !== null));
  t.true(without.every(({ gateShare }) => gateShare === null));
  t.notDeepEqual(
    catalan.map(({ text }) => text),
    without.map(({ text }) => text),
  );
  const plain = new Transcriber(await createTalker(stream), tokenizer, { generation });
  for (const language of ['ca', 'cs', 'th']) {
    const expected = await plain.transcribe(clips, { language });
    same(t, await transcriber.transcribe(clips, { language, useExperts: false }), expected);
    if (language === 'cs') same(t, await transcriber.transcribe(clips, { language }), expected);
  }
  await plain.close();
  plain.model.dispose();
});

test('windows are cut in the middle of pauses of their last quarter, and hold every sample once', (t) => {
  const rate = 8000;
  // A pause of 0.1 s around 0.85 s, one around 1.7 s, none in the last quarter of the third window, one too early in the fourth.
  const { samples } = sound(31, 4.1, rate);
  for (const pause of [0.85, 1.7, 2.9]) samples.fill(0, (pause - 0.05) * rate, (pause + 0.05) * rate);
  const windows = cutWindows(samples, rate, 1);
  t.is(windows[0]!.begin, 0);
  t.is(windows.at(-1)!.end, samples.length);
  for (const [i, { begin, end }] of windows.entries()) {
    t.true(end > begin && end - begin <= rate);
    if (i > 0) t.is(begin, windows[i - 1]!.end);
    if (i < windows.length - 1) t.true(end - begin >= 0.75 * rate);
  }
  for (const [i, pause] of [0.85, 1.7].entries()) t.true(Math.abs(windows[i]!.end / rate - pause) <= 0.02);
  t.deepEqual(cutWindows(samples.subarray(0, rate), rate, 1), [{ begin: 0, end: rate }]);
  t.is(cutWindows(samples.subarray(0, rate + 1), rate, 1).length, 2);
  t.deepEqual(cutWindows(new Float32Array(3), 16000, 30), [{ begin: 0, end: 3 }]);
  // Where all is equally quiet, the window is as long as it can be: silence costs as few windows as possible.
  for (const { begin, end } of cutWindows(new Float32Array(5 * rate), rate, 1).slice(0, -1))
    t.true(end - begin > 0.9 * rate);
});

test('samples are read from any position on, forward and back into what was read, whatever pieces they come in', async (t) => {
  const length = 10_000;
  const samples = Float32Array.from({ length }, (_, i) => i);
  const next = random(41);
  for (let run = 0; run < 20; run++) {
    let given = 0;
    async function* pieces() {
      while (given < length) {
        const begin = given;
        given = Math.min(length, begin + 1 + Math.floor(next() ** 3 * 3000));
        yield samples.subarray(begin, given);
        if (next() < 0.2) yield new Float32Array(0);
      }
    }
    const reader = new SampleReader(pieces(), 16000);
    for (let position = 0; position < length + 500; position += Math.floor(next() ** 2 * 1500)) {
      const count = Math.floor(next() * 1200);
      t.deepEqual(await reader.read(position, count), samples.slice(position, position + count));
      t.true(given < position + count + 3001, 'no more is taken than a piece');
      await t.throwsAsync(reader.read(position - 1, 1), {
        code: 'ERR_ARGUMENT',
        message: `position: expected a sample from ${position} on (those before are not held any more), got ${position - 1}`,
      });
    }
    t.is((await reader.read(length + 2000, 7)).length, 0);
  }
});

test("a source's windows are asked for from any position: of samples and of a file, overlapping or leaving audio out", async (t) => {
  const long = sound(42, 6.3, 16000);
  for (const pause of [0.9, 2.75, 4.1]) long.samples.fill(0, (pause - 0.06) * 16000, (pause + 0.06) * 16000);
  const path = file('seek.wav', encodeWav(long.samples, long.sampleRate));
  const hearing = {
    pool: new DecodePool({ size: 1 }),
    extractor: new FeatureExtractor({ mels: 80, frames: 100 }),
    chooser: new PauseWindows(1),
  };
  const features = (begin: number, end: number) =>
    hearing.extractor.extract({ samples: long.samples.slice(begin, end), sampleRate: 16000 });
  for (const source of [long, path]) {
    const heard = await HeardSource.open(source, 3, hearing, {});
    // Where a window begins is where its text ended, or where something is heard again.
    for (const position of [0, 4000, 4001, 14_000, 40_000, 40_000, 88_000, 100_000]) {
      const [expected] = cutWindows(long.samples.subarray(position), 16000, 1);
      const { begin, end, source: number, sampleRate, whole, features: got } = await heard.window(position);
      t.deepEqual([number, sampleRate, begin, end], [3, 16000, position, position + expected!.end]);
      t.deepEqual(whole, end === long.samples.length ? { duration: 6.3, warnings: [] } : null);
      t.deepEqual(got, await features(begin, end));
    }
    await refused(t, 'ERR_ARGUMENT', /^position: expected a sample from 100000 on .* got 99999$/, () =>
      heard.window(99_999),
    );
    await refused(t, 'ERR_AUDIO_EMPTY', /: expected audio, got 0 samples$/, () => heard.window(200_000));
    await heard.close();
  }
  hearing.extractor.close();
  await hearing.pool.close();
});

test.serial(
  'long audio is what its windows say, joined, with their times; other sources are as without it',
  async (t) => {
    const long = sound(32, 3.4, 16000);
    for (const pause of [0.9, 1.75, 2.6]) long.samples.fill(0, (pause - 0.06) * 16000, (pause + 0.06) * 16000);
    const windows = cutWindows(long.samples, 16000, 1);
    t.is(windows.length, 4);
    const parts = windows.map(({ begin, end }) => ({ samples: long.samples.slice(begin, end), sampleRate: 16000 }));
    const said = await transcriber.transcribe(parts, { language: 'th' });
    const sources = [clips[3]!, long, clips[4]!, long];
    const got = await transcriber.transcribe(sources, { language: 'th', batchSize: 3 });
    same(t, [got[0]!, got[2]!], await transcriber.transcribe([clips[3]!, clips[4]!], { language: 'th' }));
    same(t, [got[3]!], [got[1]!]);
    const whole = got[1]!;
    t.is(whole.duration, 3.4);
    t.is(whole.text, said.map(({ text }) => text).join(' '));
    t.is(
      whole.tokens,
      said.reduce((sum, { tokens }) => sum + tokens, 0),
    );
    for (const [i, { start, end, text }] of whole.segments.entries()) {
      t.deepEqual([start, end, text], [windows[i]!.begin / 16000, windows[i]!.end / 16000, said[i]!.text]);
    }
    const mean = said.reduce((sum, { gateShare }) => sum + gateShare!, 0) / said.length;
    t.true(Math.abs(whole.gateShare! - mean) < 1e-3);
  },
);

test.serial('progress and whole transcripts are told as they come', async (t) => {
  const sources = [clips[1]!, sound(33, 2.2, 16000), clips[2]!, clips[3]!];
  const steps: TranscribeProgress[] = [];
  const told: [number, Transcript][] = [];
  const got = await transcriber.transcribe(sources, {
    language: 'hu',
    batchSize: 2,
    onProgress: (progress) => steps.push(progress),
    onTranscript: (source, transcript) => told.push([source, transcript]),
  });
  t.deepEqual(told, [...got.entries()]);
  t.true(steps.length >= 3);
  for (const [i, { done, total, seconds }] of steps.entries()) {
    t.is(total, 4);
    t.true(done >= (steps[i - 1]?.done ?? 0) && seconds > (steps[i - 1]?.seconds ?? 0));
  }
  t.is(steps.at(-1)!.done, 4);
  const seconds = got.reduce((sum, { duration }) => sum + duration, 0);
  t.true(Math.abs(steps.at(-1)!.seconds - seconds) < 1e-9);
});

test.serial("'auto' takes the language that is detected in the first window of each source", async (t) => {
  const sources = [...clips, sound(34, 2.5, 16000)];
  const detected = await transcriber.detectLanguage(sources);
  t.is(detected.length, sources.length);
  for (const { language, probabilities } of detected) {
    const all = Object.values(probabilities);
    t.is(probabilities[language], Math.max(...all));
    t.true(Math.abs(all.reduce((a, b) => a + b, 0) - 1) < 1e-6);
  }
  t.true(new Set(detected.map(({ language }) => language)).size > 1);
  const got = await transcriber.transcribe(sources, { language: 'auto' });
  for (const [i, transcript] of got.entries()) {
    const { language } = detected[i]!;
    t.is(transcript.language, language);
    same(t, [transcript], await transcriber.transcribe([sources[i]!], { language }));
  }
});

test.serial('translation starts from its own token', async (t) => {
  const transcribed = await transcriber.transcribe(clips, { language: 'uk' });
  const translated = await transcriber.transcribe(clips, { language: 'uk', task: 'translate' });
  t.notDeepEqual(
    translated.map(({ text }) => text),
    transcribed.map(({ text }) => text),
  );
});

test.serial('the shortest audio is transcribed: one sample, at any rate', async (t) => {
  for (const sampleRate of [1000, 4000, 8000, 16000, 44100, 384000, 768000]) {
    const [one] = await transcriber.transcribe([{ samples: Float32Array.of(0.1), sampleRate }], { language: 'ca' });
    t.is(one!.duration, 1 / sampleRate);
  }
});

test.serial('bad audio is a typed error that names its source, and the next call goes on', async (t) => {
  const good = clips[0]!;
  const nan = { samples: good.samples.map((x, i) => (i === 77 ? Number.NaN : x)), sampleRate: good.sampleRate };
  mkdirSync(join(scratch, 'folder.wav'));
  const bad: [AudioSource, ErrorCode, RegExp][] = [
    [
      { samples: new Float32Array(0), sampleRate: 16000 },
      'ERR_AUDIO_EMPTY',
      /^source 1: expected audio, got 0 samples/,
    ],
    [nan, 'ERR_AUDIO_SAMPLES', /^source 1: sample 77 is NaN/],
    [
      { samples: Float32Array.of(0, 20000), sampleRate: 16000 },
      'ERR_AUDIO_SAMPLES',
      /^source 1: sample 1 is 20000; expected .* scaled/,
    ],
    [{ samples: Float32Array.of(1, -Infinity), sampleRate: 8000 }, 'ERR_AUDIO_SAMPLES', /^source 1: .*-Infinity/],
    [{ samples: good.samples, sampleRate: 0 }, 'ERR_ARGUMENT', /^source 1: .*1 to 768 kHz.* got 0 Hz/],
    [{ samples: good.samples, sampleRate: 100 }, 'ERR_ARGUMENT', /^source 1: .*1 to 768 kHz.* got 100 Hz/],
    [{ samples: good.samples, sampleRate: 44100.5 }, 'ERR_ARGUMENT', /^source 1: .*whole Hz, got 44100.5/],
    [
      { samples: [0, 1], sampleRate: 8000 } as unknown as AudioSource,
      'ERR_ARGUMENT',
      /^source 1: expected a path, a file's bytes, or/,
    ],
    [7 as unknown as AudioSource, 'ERR_ARGUMENT', /^source 1: expected a path, a file's bytes, or samples/],
    [null as unknown as AudioSource, 'ERR_ARGUMENT', /^source 1: expected a path, a file's bytes, or samples/],
    [join(scratch, 'nowhere.flac'), 'ERR_FILE_NOT_FOUND', /nowhere\.flac/],
    [join(scratch, 'folder.wav'), 'ERR_FILE_READ', /folder\.wav/],
    [file('empty.mp3', ''), 'ERR_AUDIO_EMPTY', /empty\.mp3/],
    [file('text.wav', 'not a sound'), 'ERR_AUDIO_FORMAT', /text\.wav/],
    [file('silent.wav', encodeWav(new Float32Array(0), 8000)), 'ERR_AUDIO_EMPTY', /silent\.wav/],
  ];
  for (const [source, code, pattern] of bad) {
    await refused(t, code, pattern, () => transcriber.transcribe([good, source, good], { language: 'ca' }));
    await refused(t, code, pattern, () => transcriber.transcribe([good, source], { language: 'auto', batchSize: 1 }));
    await refused(t, code, pattern, () => transcriber.detectLanguage([good, source]));
  }
  const told: [number, string][] = [];
  const sources = [good, ...bad.map(([source]) => source), clips[1]!];
  const got = await transcriber.transcribe(sources, {
    language: 'ca',
    onError: (source, { code }) => told.push([source, code]),
  });
  t.deepEqual(
    told,
    bad.map(([, code], i) => [i + 1, code]),
  );
  t.true(got.slice(1, -1).every((transcript) => transcript === null));
  same(t, [got[0]!, got.at(-1)!], await transcriber.transcribe([good, clips[1]!], { language: 'ca' }));
});

test.serial('a source whose later window is refused has no transcript', async (t) => {
  const long = sound(36, 2.6, 16000);
  long.samples[40000] = Number.NaN;
  const failed: number[] = [];
  const got = await transcriber.transcribe([clips[0]!, long, clips[1]!], {
    language: 'ca',
    batchSize: 1,
    onError: (source) => failed.push(source),
  });
  t.deepEqual(failed, [1]);
  t.is(got[1], null);
  t.true(got[0] !== null && got[2] !== null);
});

test.serial('unknown languages, tasks and wrong numbers are refused before any audio is read', async (t) => {
  const missing = [join(scratch, 'nowhere.wav')];
  const run = (options: object) => () => transcriber.transcribe(missing, options);
  await refused(t, 'ERR_LANGUAGE', /^language: expected one of .* ca cs en hu pl ta th uk/, run({}));
  await refused(t, 'ERR_LANGUAGE', /klingon/i, run({ language: 'klingon' }));
  await refused(t, 'ERR_LANGUAGE', /no token for french .*it has: ca cs/, run({ language: 'fr' }));
  await refused(t, 'ERR_ARGUMENT', /'transcribe' or 'translate', got 'sing'/, run({ language: 'ca', task: 'sing' }));
  await refused(t, 'ERR_ARGUMENT', /^batchSize: .*got 0/, run({ language: 'ca', batchSize: 0 }));
  await refused(t, 'ERR_ARGUMENT', /^maxTokens: .*got 1.5/, run({ language: 'ca', maxTokens: 1.5 }));
  await refused(t, 'ERR_ARGUMENT', /^prompts: expected at most 2 tokens/, () =>
    transcriber.transcribe([clips[0]!], { language: 'ca', maxTokens: 2 }),
  );
});

test.serial(
  'aborted before or while it runs, a call rejects with ERR_INTERRUPTED, and the next one goes on',
  async (t) => {
    const options = { language: 'ca', batchSize: 1 };
    await refused(t, 'ERR_INTERRUPTED', /interrupted/, () =>
      transcriber.transcribe(clips, { ...options, signal: AbortSignal.abort() }),
    );
    const controller = new AbortController();
    let batches = 0;
    await refused(t, 'ERR_INTERRUPTED', /interrupted/, () =>
      transcriber.transcribe(clips, {
        ...options,
        signal: controller.signal,
        onProgress: () => ++batches === 3 && controller.abort(),
      }),
    );
    t.is(batches, 3);
    await refused(t, 'ERR_INTERRUPTED', /interrupted/, () =>
      transcriber.detectLanguage(clips, { signal: controller.signal }),
    );
    t.is((await transcriber.transcribe(clips.slice(0, 2), options)).length, 2);
  },
);

test.serial('what a progress callback throws reaches the caller', async (t) => {
  const onProgress = (): void => {
    throw new RangeError('mine');
  };
  await t.throwsAsync(transcriber.transcribe(clips, { language: 'ca', onProgress }), {
    instanceOf: RangeError,
    message: 'mine',
  });
  t.is((await transcriber.transcribe(clips.slice(0, 1), { language: 'ca' })).length, 1);
});

test.serial(
  'load: a model folder with experts says what its parts in memory say; closing ends its stream',
  async (t) => {
    const path = join(scratch, 'talker');
    const config = await writeTalker(path);
    const expert = join(scratch, 'expert.catalan.safetensors');
    await writeExpert(expert, config, 'catalan', randomExpertTensors(config, 'catalan', 21));
    const expected = await transcriber.transcribe(clips, { language: 'ca' });
    const loaded = await Transcriber.load(path, { experts: [expert], compute: 'fp32', batchSize: 3 });
    t.deepEqual([...loaded.languages], ['ca', 'cs', 'en', 'hu', 'pl', 'ta', 'th', 'uk']);
    same(t, await loaded.transcribe(clips, { language: 'ca' }), expected);
    await loaded.close();
    await loaded.close();
    t.throws(() => loaded.model.stream.tensor(new Float32Array(1), [1]), { code: 'ERR_STREAM' });
    await refused(t, 'ERR_STREAM', /closed/, () => loaded.transcribe(clips, { language: 'ca' }));
    await refused(t, 'ERR_DISPOSED', /closed/, () =>
      loaded.transcribe([join(scratch, 'clip-0.wav')], { language: 'ca' }),
    );

    const before = stream.memory().persistent;
    const beside = await Transcriber.load(path, { stream, compute: 'bf16' });
    t.is((await beside.transcribe(clips, { language: 'ca' })).length, clips.length);
    await beside.close();
    t.is(stream.memory().persistent, before, 'the model is gone, the stream is still ours');
    same(t, await transcriber.transcribe(clips, { language: 'ca' }), expected);
  },
);

test.serial('load and the constructor refuse what does not belong together', async (t) => {
  const path = join(scratch, 'talker-2');
  const config = await writeTalker(path);
  const other = { ...config, d_model: 32, encoder_ffn_dim: 128, decoder_ffn_dim: 128 };
  const wide = join(scratch, 'expert.thai.safetensors');
  await writeExpert(wide, other, 'thai', randomExpertTensors(other, 'thai', 1));
  await refused(
    t,
    'ERR_EXPERT',
    /expert\.thai\.safetensors is no thai expert for a model of width 16 with 1 \+ 2/,
    () => Transcriber.load(path, { experts: [wide] }),
  );
  await refused(t, 'ERR_FILE_NOT_FOUND', /nobody/, () =>
    Transcriber.load(path, { experts: [join(scratch, 'nobody')] }),
  );
  await refused(t, 'ERR_FILE_NOT_FOUND', /nowhere/, () => Transcriber.load(join(scratch, 'nowhere')));
  const half = 'f16' as unknown as 'fp32';
  await refused(t, 'ERR_ARGUMENT', /^compute: .*'f16'/, () => Transcriber.load(path, { compute: half }));
  await refused(t, 'ERR_ARGUMENT', /^batchSize: .*got -1/, () => Transcriber.load(path, { batchSize: -1 }));
  await refused(
    t,
    'ERR_CONFIG',
    /suppress_tokens .*below 452, got \[452\]/,
    () => new Transcriber(model, tokenizer, { generation: { suppress_tokens: [452] } }),
  );
  const larger = await createTalker(stream, { vocab_size: tokenizer.vocabSize - 1 });
  await refused(t, 'ERR_VOCABULARY', /has 452 tokens, the model only 451/, () => new Transcriber(larger, tokenizer));
  larger.dispose();
  rmSync(join(path, 'tokenizer.json'));
  await refused(t, 'ERR_FILE_NOT_FOUND', /tokenizer\.json/, () => Transcriber.load(path));
});

test.serial('a vocabulary with one language needs no choice; one without any is refused', async (t) => {
  const json = tokenizer.toJSON();
  const only = (codes: readonly string[]): WhisperTokenizer =>
    WhisperTokenizer.fromJSON({
      ...json,
      added_tokens: json.added_tokens.filter(({ content }) => !/^<\|..\|>$/.test(content) || codes.includes(content)),
    });
  const catalan = new Transcriber(model, only(['<|ca|>']), { generation });
  const got = await catalan.transcribe(clips);
  same(t, got, await transcriber.transcribe(clips, { language: 'ca' }));
  await catalan.close();
  const none = new Transcriber(model, only([]), { generation });
  await refused(t, 'ERR_LANGUAGE', /no languages/, () => none.transcribe(clips));
  await refused(t, 'ERR_LANGUAGE', /no language tokens/, () => none.transcribe(clips, { language: 'auto' }));
  await none.close();
});
