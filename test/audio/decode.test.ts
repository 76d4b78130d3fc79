// The tones in fixtures/audio were made with sox, opusenc and libmp3lame: a sine of 440 Hz, 0.25 s, amplitude 0.5; in the stereo
// files the right channel has half of it (LAME's own 0.95 for this bit rate was undone). mono-info.mp3 has a LAME tag, stereo-plain.mp3 has none.
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import test from 'ava';
import { type DecodedAudio, DecodePool, decodeAudio, encodeWav } from '../../lib/audio/index.js';
import { type ErrorCode, isDistilWhisperError } from '../../lib/errors/index.js';

const fixtures = new URL('../fixtures/audio/', import.meta.url).pathname;
const fixture = (name: string) => new Uint8Array(readFileSync(fixtures + name));
const shared = new URL('../../../shared/', import.meta.url).pathname;
const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-test-'));
test.after.always(() => rmSync(scratch, { recursive: true, force: true }));
// What the own readers say: no ffmpeg is asked for a second opinion, but where a test says so.
const systemPath = process.env.PATH;
process.env.PATH = scratch;

async function codeOf(promise: Promise<unknown>): Promise<ErrorCode | 'no error'> {
  try {
    await promise;
    return 'no error';
  } catch (error) {
    if (!isDistilWhisperError(error)) throw error;
    return error.code;
  }
}

/** Amplitude of 440 Hz, and what is left over of the signal, both over the middle half. */
function tone({ samples, sampleRate }: DecodedAudio): { amplitude: number; residual: number } {
  const part = samples.subarray(samples.length >> 2, (3 * samples.length) >> 2);
  const w = (2 * Math.PI * 440) / sampleRate;
  let [c, s, cc, ss, cs, energy] = [0, 0, 0, 0, 0, 0];
  part.forEach((x, i) => {
    c += x * Math.cos(w * i);
    s += x * Math.sin(w * i);
    cc += Math.cos(w * i) ** 2;
    ss += Math.sin(w * i) ** 2;
    cs += Math.cos(w * i) * Math.sin(w * i);
    energy += x * x;
  });
  const det = cc * ss - cs * cs;
  const [a, b] = [(c * ss - s * cs) / det, (s * cc - c * cs) / det];
  const explained = a * c + b * s;
  return { amplitude: Math.hypot(a, b), residual: Math.sqrt(Math.max(0, energy - explained) / energy) };
}

interface WavSpec {
  tag: number;
  bits: number;
  channels?: number;
  rate?: number;
  data: Uint8Array;
  extensible?: boolean;
  before?: Uint8Array;
  dataSize?: number;
  block?: number;
}

/** A WAV file with any header. */
function wav({ tag, bits, channels = 1, rate = 16000, data, extensible = false, before, dataSize, block }: WavSpec) {
  const format = new Uint8Array(extensible ? 40 : 16);
  const view = new DataView(format.buffer);
  view.setUint16(0, extensible ? 0xfffe : tag, true);
  view.setUint16(2, channels, true);
  view.setUint32(4, rate, true);
  view.setUint16(12, block ?? (channels * bits) / 8, true);
  view.setUint16(14, bits, true);
  if (extensible) {
    view.setUint16(16, 22, true);
    view.setUint16(24, tag, true);
  }
  const chunk = (id: string, body: Uint8Array, size = body.length) =>
    Buffer.concat([Buffer.from(id), Buffer.from(Uint32Array.of(size).buffer), body, Buffer.alloc(body.length & 1)]);
  const chunks = [
    chunk('fmt ', format),
    before ? chunk('LIST', before) : Buffer.alloc(0),
    chunk('data', data, dataSize),
  ];
  const body = Buffer.concat([Buffer.from('WAVE'), ...chunks]);
  return new Uint8Array(Buffer.concat([Buffer.from('RIFF'), Buffer.from(Uint32Array.of(body.length).buffer), body]));
}
const bytesOf = (array: ArrayBufferView) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

test('every format decodes to the tone that was encoded, with its rate, channels and duration', async (t) => {
  const cases = [
    { file: 'mono.wav', rate: 16000, channels: 1, duration: 0.25, slack: 0, residual: 1e-4 },
    { file: 'mono.flac', rate: 16000, channels: 1, duration: 0.25, slack: 0, residual: 1e-4 },
    { file: 'mono.ogg', rate: 16000, channels: 1, duration: 0.25, slack: 0, residual: 0.1 },
    { file: 'stereo.ogg', rate: 44100, channels: 2, duration: 0.25, slack: 0, residual: 0.1 },
    { file: 'mono.opus', rate: 48000, channels: 1, duration: 0.25, slack: 0, residual: 0.1 },
    { file: 'mono-info.mp3', rate: 16000, channels: 1, duration: 0.25, slack: 0, residual: 0.1 },
    { file: 'stereo-plain.mp3', rate: 24000, channels: 2, duration: 0.25, slack: 0.1, residual: 0.1 },
  ];
  for (const { file, rate, channels, duration, slack, residual } of cases) {
    const audio = await decodeAudio(fixtures + file);
    t.is(audio.sampleRate, rate, file);
    t.is(audio.channels, channels, file);
    t.true(Math.abs(audio.duration - duration) <= slack, `${file}: ${audio.duration} s`);
    t.is(audio.duration, audio.samples.length / rate);
    const found = tone(audio);
    t.true(
      Math.abs(found.amplitude / (channels === 2 ? 0.375 : 0.5) - 1) < 0.03,
      `${file}: amplitude ${found.amplitude}`,
    );
    t.true(found.residual < residual, `${file}: residual ${found.residual}`);
  }
  const [flac, plain] = [await decodeAudio(fixture('mono.flac')), await decodeAudio(fixture('mono.wav'))];
  t.true(
    flac.samples.every((x, i) => x === plain.samples[i]),
    'flac and wav agree to the last bit',
  );
});

test('the format is told by the content: a flac named .wav and an ogg without a name decode', async (t) => {
  const path = join(scratch, 'flac-named.wav');
  writeFileSync(path, fixture('mono.flac'));
  t.is((await decodeAudio(path)).samples.length, 4000);
  t.is((await decodeAudio(fixture('mono.ogg'))).samples.length, 4000);
});

test('all 65,536 codes of 16-bit wav become code / 32768 exactly, and encodeWav gives them back', async (t) => {
  const codes = Int16Array.from({ length: 65536 }, (_, i) => i - 32768);
  const { samples } = await decodeAudio(wav({ tag: 1, bits: 16, data: bytesOf(codes) }));
  t.deepEqual(
    samples,
    Float32Array.from(codes, (code) => code / 32768),
  );
  t.deepEqual((await decodeAudio(encodeWav(samples, 8000))).samples, samples);
});

test('8, 24 and 32-bit integers, 32 and 64-bit floats, A-law and µ-law decode, plain and extensible', async (t) => {
  const values = [0, 0.5, -0.5, 0.25, -1];
  const int24 = values.flatMap((x) => [0, 8, 16].map((shift) => (((x * 2 ** 23) | 0) >> shift) & 255));
  const cases: [WavSpec, number[], number][] = [
    [{ tag: 1, bits: 8, data: Uint8Array.from(values, (x) => 128 + x * 128) }, values, 0],
    [{ tag: 1, bits: 24, data: Uint8Array.from(int24) }, values, 0],
    [{ tag: 1, bits: 32, data: bytesOf(Int32Array.from(values, (x) => x * 2 ** 31)) }, values, 1e-9],
    [{ tag: 3, bits: 32, data: bytesOf(Float32Array.from(values)) }, values, 0],
    [{ tag: 3, bits: 64, data: bytesOf(Float64Array.from(values)) }, values, 0],
    // G.711: the codes of the largest, the smallest positive and the largest negative value
    [{ tag: 7, bits: 8, data: Uint8Array.of(0x80, 0xff, 0x00) }, [32124 / 32768, 0, -32124 / 32768], 0],
    [{ tag: 6, bits: 8, data: Uint8Array.of(0xaa, 0xd5, 0x2a) }, [32256 / 32768, 8 / 32768, -32256 / 32768], 0],
  ];
  for (const [spec, expected, slack] of cases)
    for (const extensible of [false, true]) {
      const { samples } = await decodeAudio(wav({ ...spec, extensible }));
      t.is(samples.length, expected.length);
      expected.forEach((x, i) => {
        t.true(Math.abs(samples[i]! - x) <= slack, `tag ${spec.tag}, ${spec.bits} bits: ${samples[i]} for ${x}`);
      });
    }
});

test('wav: mean of the channels, a chunk of odd size, streaming sizes, rubbish behind the data', async (t) => {
  const stereo = Int16Array.of(1000, 3000, -2000, 2000);
  const spec = { tag: 1, bits: 16, channels: 2, data: bytesOf(stereo) };
  const expected = Float32Array.of(2000 / 32768, 0);
  t.deepEqual((await decodeAudio(wav(spec))).samples, expected);
  t.deepEqual((await decodeAudio(wav({ ...spec, before: new Uint8Array(5) }))).samples, expected);
  t.deepEqual((await decodeAudio(wav({ ...spec, dataSize: 0xffffffff }))).samples, expected);
  t.deepEqual((await decodeAudio(Buffer.concat([wav(spec), Buffer.from('LIST rubbish')]))).samples, expected);
});

test('encodeWav: clips in 16 bits, keeps float32 as it is, refuses NaN and bad rates', async (t) => {
  const samples = Float32Array.of(0, 1.5, -1.5, 0.1);
  t.deepEqual((await decodeAudio(encodeWav(samples, 44100, 'float32'))).samples, samples);
  const clipped = (await decodeAudio(encodeWav(samples, 44100))).samples;
  t.deepEqual([clipped[1], clipped[2]], [32767 / 32768, -1]);
  t.throws(() => encodeWav(Float32Array.of(Number.NaN), 16000), { code: 'ERR_AUDIO_SAMPLES' });
  t.throws(() => encodeWav(samples, 0), { code: 'ERR_ARGUMENT' });
});

test('no such file, a directory, an empty file, text named .wav and random bytes are typed errors that name the file', async (t) => {
  const file = (name: string, content: string | Uint8Array) => {
    writeFileSync(join(scratch, name), content);
    return join(scratch, name);
  };
  const noise = Uint8Array.from({ length: 5000 }, (_, i) => (i * 7919 + (i * i) / 3) & 255);
  const cases: [string, ErrorCode, RegExp][] = [
    [join(scratch, 'missing.wav'), 'ERR_FILE_NOT_FOUND', /no such file/],
    [join(fixtures, 'mono.wav', 'below-a-file.wav'), 'ERR_FILE_NOT_FOUND', /no such file/],
    [scratch, 'ERR_FILE_READ', /directory/],
    ['/dev/null', 'ERR_FILE_READ', /device/],
    [file('empty.wav', ''), 'ERR_AUDIO_EMPTY', /empty/],
    [
      file('text.wav', 'This is not audio.\n'),
      'ERR_AUDIO_FORMAT',
      /expected WAV, FLAC.* got text that begins "This is not/,
    ],
    [file('utf16.wav', Buffer.from('\ufeffThis is not audio.\n', 'utf16le')), 'ERR_AUDIO_FORMAT', /begins ff fe/],
    [file('noise.mp3', noise), 'ERR_AUDIO_FORMAT', /got a file that begins/],
    [file('one.flac', 'f'), 'ERR_AUDIO_FORMAT', /got text/],
    [
      file('id3.mp3', Buffer.concat([Buffer.from('ID3\x03\x00\x00\x00\x00\x00\x05'), noise])),
      'ERR_AUDIO_FORMAT',
      /MP3|MPEG/,
    ],
  ];
  for (const [path, code, message] of cases) {
    const error = await t.throwsAsync(decodeAudio(path), { code, message });
    t.true(error!.message.startsWith(path), error!.message);
  }
  const error = await t.throwsAsync(decodeAudio(new Uint8Array(0), { name: 'upload 7' }), { code: 'ERR_AUDIO_EMPTY' });
  t.regex(error!.message, /^upload 7/);
});

test('audio without samples is ERR_AUDIO_EMPTY', async (t) => {
  t.is(await codeOf(decodeAudio(wav({ tag: 1, bits: 16, data: new Uint8Array(0) }))), 'ERR_AUDIO_EMPTY');
  t.is(await codeOf(decodeAudio(wav({ tag: 1, bits: 16, channels: 2, data: new Uint8Array(3) }))), 'ERR_AUDIO_EMPTY');
  t.is(await codeOf(decodeAudio(encodeWav(new Float32Array(0), 16000))), 'ERR_AUDIO_EMPTY');
});

test('NaN, infinite and unscaled float samples are ERR_AUDIO_SAMPLES, also in one channel only', async (t) => {
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 20000]) {
    const data = bytesOf(Float32Array.of(0, 0, 0, bad));
    for (const channels of [1, 2])
      t.is(await codeOf(decodeAudio(wav({ tag: 3, bits: 32, channels, data }))), 'ERR_AUDIO_SAMPLES', `${bad}`);
  }
});

test('wav headers that contradict themselves are ERR_AUDIO_FORMAT', async (t) => {
  const data = new Uint8Array(64);
  const bad: Partial<WavSpec>[] = [
    { channels: 0 },
    { bits: 0, block: 2 },
    { block: 0 },
    { rate: 0 },
    { rate: 2 ** 31 },
    { tag: 3 },
  ];
  for (const change of bad)
    t.is(
      await codeOf(decodeAudio(wav({ tag: 1, bits: 16, data, ...change }))),
      'ERR_AUDIO_FORMAT',
      JSON.stringify(change),
    );
});

test('a file that is cut short gives the beginning of its samples, or ERR_AUDIO_FORMAT: flac always, all within their headers', async (t) => {
  // Where a cut leaves something whole: samples in it.
  const whole: Record<string, (cut: number) => number | undefined> = {
    'mono.wav': (cut) => (cut < 46 ? undefined : (cut - 44) >> 1),
    'mono.flac': () => undefined,
    'stereo-plain.mp3': (cut) => (cut < 192 ? undefined : Math.floor(cut / 192) * 576),
  };
  const files = [...Object.keys(whole), 'mono.ogg', 'stereo.ogg', 'mono.opus', 'mono-info.mp3'];
  for (const file of files) {
    const bytes = fixture(file);
    const all = (await decodeAudio(bytes)).samples;
    const cuts = new Set([5, 13, 40, 43, bytes.length - 1, bytes.length - 2, bytes.length - 5, bytes.length - 40]);
    for (let i = 1; i < 12; i++) cuts.add(Math.floor((bytes.length * i) / 12));
    for (const cut of cuts) {
      const what = `${file} cut at ${cut} of ${bytes.length}`;
      const part = bytes.subarray(0, cut);
      const code = await codeOf(decodeAudio(part));
      const expected = whole[file]?.(cut);
      if (file in whole) t.is(code, expected === undefined ? 'ERR_AUDIO_FORMAT' : 'no error', what);
      if (cut <= 44 || code !== 'no error') {
        t.is(code, 'ERR_AUDIO_FORMAT', what);
        continue;
      }
      const { samples } = await decodeAudio(part);
      t.is(samples.length, expected ?? samples.length, what);
      t.true(samples.length < all.length && samples.every((x, i) => x === all[i]), what);
    }
  }
});

test('an mp3 with a LAME tag that is cut between frames is found out by the frames that it announces', async (t) => {
  const whole = fixture('mono-info.mp3');
  const frame = 288; // 64 kbit/s at 16 kHz: 72 · 64000 / 16000
  t.is(await codeOf(decodeAudio(whole.subarray(0, frame * 5))), 'ERR_AUDIO_FORMAT');
});

test('a flac that does not announce its length decodes, and its truncation is still found', async (t) => {
  const open = fixture('mono.flac');
  open[21]! &= 0xf0;
  open.fill(0, 22, 26);
  t.is((await decodeAudio(open)).samples.length, 4000);
  for (const cut of [1, 3, 40, 500])
    t.is(await codeOf(decodeAudio(open.subarray(0, open.length - cut))), 'ERR_AUDIO_FORMAT');
});

test('a changed byte or a missing page in flac, vorbis and opus is ERR_AUDIO_FORMAT, not other samples', async (t) => {
  for (const file of ['mono.flac', 'mono.ogg', 'mono.opus'])
    for (const part of [0.7, 0.8, 0.95]) {
      const bytes = fixture(file);
      bytes[Math.floor(bytes.length * part)]! ^= 0x10;
      t.is(await codeOf(decodeAudio(bytes)), 'ERR_AUDIO_FORMAT', `${file} at ${part}`);
    }
  const ogg = Buffer.from(fixture('mono.ogg'));
  const second = ogg.indexOf('OggS', 10);
  const third = ogg.indexOf('OggS', second + 10);
  t.is(await codeOf(decodeAudio(Buffer.concat([ogg.subarray(0, second), ogg.subarray(third)]))), 'ERR_AUDIO_FORMAT');
});

test('chained ogg streams are joined, also mono with stereo; unlike rates are an error', async (t) => {
  const mono = fixture('mono.ogg');
  t.is((await decodeAudio(Buffer.concat([mono, mono]))).samples.length, 8000);
  t.is(await codeOf(decodeAudio(Buffer.concat([mono, fixture('stereo.ogg')]))), 'ERR_AUDIO_FORMAT');
});

test('mp3 with ID3v2, ID3v1 and zero padding around it gives the same samples', async (t) => {
  const plain = fixture('mono-info.mp3');
  const v2 = Buffer.concat([Buffer.from('ID3\x03\x00\x00\x00\x00\x01\x00'), Buffer.alloc(128)]);
  const v1 = Buffer.concat([Buffer.from('TAG'), Buffer.alloc(125, 0xff)]);
  const { samples } = await decodeAudio(plain);
  for (const bytes of [Buffer.concat([v2, plain, v1]), Buffer.concat([plain, Buffer.alloc(1000)])])
    t.deepEqual((await decodeAudio(bytes)).samples, samples);
  t.is(await codeOf(decodeAudio(v2)), 'ERR_AUDIO_FORMAT');
});

test.serial(
  'm4a and webm: a typed error asks for ffmpeg if there is none; else its output or its complaint is used',
  async (t) => {
    const m4a = join(scratch, 'voice.m4a');
    writeFileSync(m4a, Buffer.concat([Buffer.alloc(4), Buffer.from('ftypM4A rest')]));
    const webm = Buffer.concat([Buffer.from([0x1a, 0x45, 0xdf, 0xa3]), Buffer.alloc(20)]);
    const path = systemPath;
    const bin = mkdtempSync(join(scratch, 'bin-'));
    const ffmpeg = (script: string) => {
      writeFileSync(join(bin, 'ffmpeg'), `#!/bin/sh\n${script}\n`);
      chmodSync(join(bin, 'ffmpeg'), 0o755);
    };
    try {
      process.env.PATH = bin;
      await t.throwsAsync(decodeAudio(m4a), {
        code: 'ERR_AUDIO_FORMAT',
        message: /voice\.m4a: .*MP4.*needs ffmpeg.*PATH/,
      });
      await t.throwsAsync(decodeAudio(webm), { code: 'ERR_AUDIO_FORMAT', message: /WebM.*needs ffmpeg/ });
      process.env.PATH = `${bin}${delimiter}${path}`;
      // A stand-in for ffmpeg: the test is about how it is called and how its answers are taken.
      ffmpeg(`for last; do :; done; [ "$last" = pipe:1 ] && cat "${fixtures}mono.wav"`);
      t.is((await decodeAudio(m4a)).samples.length, 4000);
      t.is((await decodeAudio(webm)).samples.length, 4000);
      ffmpeg('echo "moov atom not found" >&2; exit 1');
      await t.throwsAsync(decodeAudio(m4a), { code: 'ERR_AUDIO_FORMAT', message: /voice\.m4a: .*moov atom not found/ });
    } finally {
      process.env.PATH = scratch;
    }
  },
);

test.serial('DecodePool decodes in worker threads, with the results and errors of decodeAudio', async (t) => {
  const pool = new DecodePool({ size: 2 });
  const warnings: Error[] = [];
  const listen = (warning: Error) => warnings.push(warning);
  process.on('warning', listen);
  try {
    const files = ['mono.wav', 'mono.flac', 'mono.ogg', 'stereo.ogg', 'mono.opus', 'mono-info.mp3'];
    const audios = await Promise.all(files.map((file) => pool.decode(fixtures + file)));
    for (const [i, file] of files.entries()) t.deepEqual(audios[i], await decodeAudio(fixtures + file));
    t.is(pool.threads, 2);
    t.is((await pool.decode(fixture('mono.flac'))).samples.length, 4000);
    await t.throwsAsync(pool.decode(join(scratch, 'nowhere.ogg')), {
      code: 'ERR_FILE_NOT_FOUND',
      message: /nowhere\.ogg/,
    });
    await t.throwsAsync(pool.decode(new Uint8Array(3), { name: 'upload 9' }), {
      code: 'ERR_AUDIO_FORMAT',
      message: /^upload 9/,
    });
    t.is((await pool.decode(`${fixtures}mono.wav`)).samples.length, 4000);
    t.deepEqual(warnings, [], 'no fall-back to the main thread');
  } finally {
    process.off('warning', listen);
    await pool.close();
  }
  t.is(pool.threads, 0);
});

test('DecodePool: close() rejects what is not decoded yet, and so is everything after it', async (t) => {
  const pool = new DecodePool();
  const pending = [1, 2, 3].map(() => codeOf(pool.decode(`${fixtures}mono.flac`)));
  await pool.close();
  t.deepEqual(await Promise.all(pending), ['ERR_DISPOSED', 'ERR_DISPOSED', 'ERR_DISPOSED']);
  t.is(await codeOf(pool.decode(`${fixtures}mono.flac`)), 'ERR_DISPOSED');
  await pool.close();
  t.throws(() => new DecodePool({ size: 0 }), { code: 'ERR_ARGUMENT' });
});

test.serial('DecodePool: a worker that cannot start is warned about, and the main thread decodes', async (t) => {
  const broken = join(scratch, 'broken-worker.mjs');
  writeFileSync(broken, 'throw new Error("no threads today");\n');
  const pool = new DecodePool({ workerUrl: new URL(`file://${broken}`) });
  const warned = new Promise<Error & { code?: string }>((resolve) => {
    process.on('warning', (warning) => /decoded in the main thread/.test(warning.message) && resolve(warning));
  });
  const audio = await Promise.all([pool.decode(`${fixtures}mono.wav`), pool.decode(`${fixtures}mono.flac`)]);
  t.true(Buffer.from(audio[0]!.samples.buffer).equals(Buffer.from(audio[1]!.samples.buffer)));
  const warning = await warned;
  t.is(warning.code, 'DISTILWHISPER_DECODE_POOL');
  t.regex(warning.message, /no threads today/);
  await pool.close();
});

test('DecodePool: a worker that dies on a file rejects that file, and the next one gets a new worker', async (t) => {
  const dying = join(scratch, 'dying-worker.mjs');
  const source = `import { parentPort } from 'node:worker_threads';
    parentPort.on('message', ({ id, options }) => {
      if (options.name === 'poison') process.exit(9);
      parentPort.postMessage({ type: 'opened', id, sampleRate: 1, channels: 1 });
      parentPort.postMessage({ type: 'end', id, duration: 1, warnings: [], times: { begin: 0, end: 1 } });
    });
    parentPort.postMessage({ type: 'ready' });`;
  writeFileSync(dying, source);
  const pool = new DecodePool({ workerUrl: new URL(`file://${dying}`) });
  const results = await Promise.allSettled(
    ['a', 'poison', 'b'].map((name) => pool.decode(new Uint8Array(1), { name })),
  );
  t.deepEqual(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  );
  t.regex((results[1] as PromiseRejectedResult).reason.message, /poison: the decoding thread died/);
  await pool.close();
});

test('DecodePool: idle threads do not keep a process alive that forgot to close the pool', (t) => {
  const script = join(scratch, 'forgets.mts');
  const door = new URL('../../lib/audio/index.ts', import.meta.url).href;
  writeFileSync(
    script,
    `import { DecodePool } from ${JSON.stringify(door)};
     const { samples } = await new DecodePool().decode(${JSON.stringify(`${fixtures}mono.flac`)});
     console.log(samples.length);`,
  );
  const tsx = import.meta.resolve('tsx');
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--import', tsx, script], {
    encoding: 'utf8',
    timeout: 60000,
  });
  t.is(status, 0, stderr);
  t.is(stdout.trim(), '4000');
  t.notRegex(stderr, /main thread/);
});

if (!existsSync(shared)) console.log('../shared is absent: the decoding of real recordings is skipped');
(existsSync(shared) ? test : test.skip)('real recordings of every folder and format in ../shared decode', async (t) => {
  const groups = new Map<string, string[]>();
  for (const folder of ['speech', 'audio'])
    for (const file of readdirSync(join(shared, folder), { recursive: true }).map(String)) {
      const ending = /\.(ogg|flac|wav|mp3)$/.exec(file)?.[1];
      if (!ending) continue;
      const group = `${folder}/${file.split('/').slice(0, -1).join('/')}.${ending}`;
      groups.set(group, [...(groups.get(group) ?? []), join(shared, folder, file)]);
    }
  t.true(groups.size > 5);
  const pool = new DecodePool({ size: 2 });
  try {
    const sample = [...groups.values()].flatMap((files) => {
      const step = Math.ceil(files.length / 6);
      return files.filter((_, i) => i % step === 0);
    });
    const audios = await Promise.all(sample.map((file) => pool.decode(file)));
    for (const [i, audio] of audios.entries()) t.true(audio.duration > 0.05, sample[i]!);
    t.log(`${sample.length} files of ${groups.size} folders and formats`);
  } finally {
    await pool.close();
  }
});
