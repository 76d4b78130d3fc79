// Where audio comes from, and what goes through the system's ffmpeg: the real one, where it is installed.
import { spawn, spawnSync } from 'node:child_process';
import { createWriteStream, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import test from 'ava';
import { Resampler } from '../../lib/audio/resample.js';
import {
  DecodePool,
  decodeAudio,
  encodeWav,
  isDistilWhisperError,
  kernels,
  openAudio,
  Stream,
} from '../../lib/index.js';
import { ffmpeg, haveFfmpeg } from '../support/ffmpeg.js';
import { unlessBusy, until } from '../support/load.js';
import { random } from '../support/random.js';

const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-test-'));
test.after.always(() => rmSync(scratch, { recursive: true, force: true }));
const withFfmpeg = haveFfmpeg ? test : test.skip;
const withFfmpegAlone = haveFfmpeg ? test.serial : test.serial.skip;
const onUnix = process.platform === 'win32' ? test.skip : test;
const fixtures = new URL('../fixtures/audio/', import.meta.url).pathname;

/** Two seconds of 440 Hz at half amplitude in 16-bit WAV, at 16 kHz. */
const tone = join(scratch, 'tone.wav');
writeFileSync(
  tone,
  encodeWav(
    Float32Array.from({ length: 32000 }, (_, i) => 0.5 * Math.sin((2 * Math.PI * 440 * i) / 16000)),
    16000,
  ),
);

const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise;
    return 'no error';
  } catch (error) {
    return isDistilWhisperError(error) ? error.code : String(error);
  }
};

/** Whether it is the tone: its length within a tenth of a second, and its energy. */
function isTone({ samples, sampleRate }: { samples: Float32Array; sampleRate: number }): boolean {
  const energy = samples.reduce((sum, x) => sum + x * x, 0) / samples.length;
  return Math.abs(samples.length / sampleRate - 2) < 0.15 && Math.abs(energy / 0.125 - 1) < 0.15;
}

test('resampling in pieces of any size is resampling the whole, to the last bit', async (t) => {
  const stream = new Stream({ threads: 1 });
  const length = 700001;
  const samples = Float32Array.from({ length }, (_, i) => Math.sin(i * i * 1e-6) * 0.7);
  for (const rate of [1000, 8000, 11025, 22050, 24000, 44100, 44101, 48000, 96000, 767999, 768000]) {
    const input = stream.tensor(samples, [length]);
    const expected = await kernels.resample(stream, { samples: input, from: rate, to: 16000 }).resampled.read();
    const resampler = new Resampler(stream, rate, 16000);
    const got = new Float32Array(expected.length);
    let at = 0;
    const draw = random(rate);
    const take = (ready: Float32Array): void => {
      got.set(ready, at);
      at += ready.length;
    };
    for (let from = 0; from < length; ) {
      const size = 1 + Math.floor(draw() ** 4 * 300000);
      take(await resampler.push(samples.slice(from, from + size)));
      from += size;
    }
    take(await resampler.end());
    t.is(at, expected.length, `${rate} Hz`);
    t.true(
      Buffer.from(got.buffer).equals(Buffer.from(expected.buffer, expected.byteOffset, expected.byteLength)),
      `${rate} Hz`,
    );
    stream.endStep();
  }
  stream.close();
});

test('decodeAudio resamples where it is asked to, and says what an open stream says', async (t) => {
  const path = `${fixtures}stereo.ogg`;
  const stored = await decodeAudio(path);
  const { samples, sampleRate, channels, duration } = await decodeAudio(path, { sampleRate: 16000 });
  t.deepEqual([sampleRate, channels, duration], [16000, 2, stored.duration]);
  t.is(samples.length, Math.ceil((stored.samples.length * 16000) / stored.sampleRate));
  const audio = await openAudio(path, { sampleRate: 16000 });
  let at = 0;
  for await (const piece of audio.pieces) {
    t.deepEqual(piece, samples.slice(at, at + piece.length));
    at += piece.length;
  }
  t.is(at, samples.length);
  t.is(audio.duration, duration);
  await audio.close();
  await t.throwsAsync(decodeAudio(path, { sampleRate: 999 }), { code: 'ERR_ARGUMENT', message: /1 to 768 kHz/ });
  await t.throwsAsync(decodeAudio(7 as never), { code: 'ERR_ARGUMENT', message: /expected a path/ });
});

test('a view at any offset of a larger buffer decodes as the file does', async (t) => {
  for (const file of ['mono.wav', 'mono.flac', 'mono.ogg', 'mono.opus', 'mono-info.mp3']) {
    const bytes = readFileSync(fixtures + file);
    const expected = (await decodeAudio(fixtures + file)).samples;
    for (const offset of [1, 2, 3]) {
      const larger = Buffer.alloc(bytes.length + 8);
      larger.set(bytes, offset);
      const got = await decodeAudio(larger.subarray(offset, offset + bytes.length));
      t.deepEqual(got.samples, expected, `${file} at ${offset}`);
    }
  }
});

test('sample rates from 1 to 768 kHz are one range, with one message', async (t) => {
  const samples = new Float32Array(3000).fill(0.25);
  for (const rate of [1000, 2000, 3999, 384001, 768000])
    t.is((await decodeAudio(encodeWav(samples, rate), { sampleRate: 16000 })).sampleRate, 16000);
  for (const rate of [999, 768001])
    await t.throwsAsync(decodeAudio(encodeWav(samples, rate)), {
      code: 'ERR_AUDIO_FORMAT',
      message: new RegExp(`1 to 768 kHz.* got ${rate} Hz`),
    });
});

test('audio longer than maxDuration is refused', async (t) => {
  await t.throwsAsync(decodeAudio(tone, { maxDuration: 1.9 }), { code: 'ERR_AUDIO_TOO_LONG', message: /1\.9 s/ });
  t.true(isTone(await decodeAudio(tone, { maxDuration: 2 })));
  for (const maxDuration of [0, -1, Number.NaN]) t.is(await codeOf(decodeAudio(tone, { maxDuration })), 'ERR_ARGUMENT');
});

onUnix(
  'a named pipe is read as its writer writes; one without a writer is waited for, and ends with the signal',
  async (t) => {
    const pipe = join(scratch, 'pipe');
    spawnSync('mkfifo', [pipe]);
    for (const file of ['mono.wav', 'mono.opus']) {
      const decoded = decodeAudio(pipe);
      setTimeout(() => createWriteStream(pipe).end(readFileSync(fixtures + file)), 50);
      t.deepEqual((await decoded).samples, (await decodeAudio(fixtures + file)).samples);
    }
    const pool = new DecodePool({ size: 1 });
    for (const decode of [decodeAudio, pool.decode.bind(pool)]) {
      const measure = async (): Promise<number> => {
        const abort = new AbortController();
        setTimeout(() => abort.abort(), 300);
        const begin = performance.now();
        t.is(await codeOf(decode(pipe, { signal: abort.signal })), 'ERR_INTERRUPTED');
        return performance.now() - begin;
      };
      await unlessBusy(
        t,
        measure,
        (ms) => ms < 5000,
        (ms) => `ended in ${ms.toFixed(0)} ms`,
      );
      t.is(await codeOf(decode(tone, { signal: AbortSignal.abort() })), 'ERR_INTERRUPTED');
    }
    // The thread that waited is free again; one that waits does not hold up the end.
    t.true(isTone(await pool.decode(tone)));
    const waiting = codeOf(pool.decode(pipe));
    await new Promise((resolve) => setTimeout(resolve, 200));
    await pool.close();
    t.is(await waiting, 'ERR_DISPOSED');
  },
);

onUnix('a pool decodes a minute ahead of who takes it, and no more of a longer source', async (t) => {
  const [pipe, seconds, rate] = [join(scratch, 'long-pipe'), 300, 16000];
  spawnSync('mkfifo', [pipe]);
  const pool = new DecodePool({ size: 1 });
  const opened = pool.open(pipe);
  const sink = createWriteStream(pipe);
  const file = encodeWav(new Float32Array(seconds * rate), rate);
  const chunks = Array.from({ length: Math.ceil(file.length / rate) }, (_, i) =>
    file.subarray(i * rate, (i + 1) * rate),
  );
  Readable.from(chunks).pipe(sink);
  const { pieces } = await opened;
  let taken = (await pieces.next()).value!.length;
  // What the thread has read when it reads no more.
  let read = -1;
  for (let before = -2; read <= 60 || read > before; ) {
    before = read;
    await new Promise((resolve) => setTimeout(resolve, 1000));
    read = sink.bytesWritten / (2 * rate);
  }
  // A pipe, and what is read at once, hold a few seconds more.
  t.true(read > 60 && read < 75, `${read} s`);
  for await (const { length } of pieces) taken += length;
  t.is(taken, seconds * rate);
  await pool.close();
});

/** What a script that decodes `-` prints when it is fed through a pipe, a file and a socket. */
onUnix("'-' and /dev/stdin are standard input, whatever stands there", async (t) => {
  const door = new URL('../../lib/index.ts', import.meta.url).href;
  const script = join(scratch, 'stdin.mts');
  writeFileSync(
    script,
    `import { decodeAudio, DecodePool } from ${JSON.stringify(door)};
     const pool = new DecodePool();
     const decode = process.argv[3] === 'pool' ? pool.decode.bind(pool) : decodeAudio;
     console.log((await decode(process.argv[2])).samples.length);
     await pool.close();`,
  );
  const run = (stdin: string, name: string, how: string) =>
    spawnSync(
      'sh',
      ['-c', stdin, 'sh', process.execPath, import.meta.resolve('tsx'), script, name, how, `${fixtures}mono.opus`],
      {
        encoding: 'utf8',
        timeout: 60000,
      },
    );
  const command = '"$1" --import "$2" "$3" "$4" "$5"';
  for (const how of ['main', 'pool'])
    for (const name of ['-', '/dev/stdin'])
      for (const stdin of [`cat "$6" | ${command}`, `${command} < "$6"`]) {
        const { stdout, stderr } = run(stdin, name, how);
        t.is(stdout.trim(), '12000', `${stdin} ${name} ${how}: ${stderr}`);
      }
});

const FORMATS: [file: string, ...encode: string[]][] = [
  ['a.m4a', '-c:a', 'aac'],
  ['a.mp4', '-c:a', 'aac', '-movflags', '+faststart'],
  ['a.mov', '-c:a', 'pcm_s16le'],
  ['a.aac', '-c:a', 'aac'],
  ['a.webm', '-c:a', 'libopus'],
  ['a.mka', '-c:a', 'flac'],
  ['a.wma', '-c:a', 'wmav2'],
  ['a.aiff', '-c:a', 'pcm_s16be'],
  ['a.au', '-c:a', 'pcm_mulaw'],
  ['a.caf', '-c:a', 'pcm_s16le'],
  ['a.w64', '-c:a', 'pcm_s16le'],
  ['a.ts', '-c:a', 'aac'],
  ['a.flv', '-ar', '44100', '-c:a', 'aac'],
  ['a.avi', '-c:a', 'pcm_s16le'],
  ['a.ac3', '-c:a', 'ac3', '-ar', '44100'],
  ['a.voc', '-c:a', 'pcm_u8'],
  ['a.tta', '-c:a', 'tta'],
  ['a.wv', '-c:a', 'wavpack'],
  ['a.spx', '-c:a', 'libspeex'],
  ['a.mp2', '-c:a', 'mp2'],
  ['float.wav', '-c:a', 'pcm_f32le'],
  ['double.wav', '-c:a', 'pcm_f64le'],
  ['wide.wav', '-c:a', 'pcm_s32le', '-af', `aeval=${Array(6).fill('val(0)').join('|')}:c=5.1`],
  ['rf64.wav', '-rf64', 'always'],
  ['g726.wav', '-ar', '8000', '-c:a', 'g726', '-code_size', '4'],
];

withFfmpeg(
  'what ffmpeg writes decodes, by path, from bytes and through a pipe, and leaves nothing behind',
  async (t) => {
    const temporary = join(scratch, 'temporary');
    mkdirSync(temporary);
    const before = process.env.TMPDIR;
    process.env.TMPDIR = temporary;
    try {
      let tried = 0;
      for (const [file, ...encode] of FORMATS) {
        const path = join(scratch, file);
        try {
          ffmpeg('-i', tone, ...encode, path);
        } catch (error) {
          t.log(`${file}: this ffmpeg cannot write it (${(error as Error).message.split('\n')[0]})`);
          continue;
        }
        tried++;
        const audio = await decodeAudio(path);
        t.true(isTone(audio), `${file}: ${audio.duration} s`);
        t.deepEqual(audio.warnings, [], file);
        t.deepEqual((await decodeAudio(new Uint8Array(readFileSync(path)))).samples, audio.samples, `bytes of ${file}`);
        if (process.platform === 'win32') continue;
        const pipe = join(scratch, `${file}.pipe`);
        spawnSync('mkfifo', [pipe]);
        const writer = spawn('sh', ['-c', 'cat "$1" > "$2"', 'sh', path, pipe]);
        t.deepEqual((await decodeAudio(pipe)).samples, audio.samples, `${file} through a pipe`);
        writer.kill();
      }
      t.true(tried > 12, `${tried} formats`);
      t.deepEqual(
        readdirSync(temporary).filter((name) => name.startsWith('distilwhisper')),
        [],
      );
    } finally {
      if (before === undefined) delete process.env.TMPDIR;
      else process.env.TMPDIR = before;
    }
  },
);

withFfmpeg(
  'what an own reader refuses is decoded by ffmpeg where it can, with a warning, and refused when strict',
  async (t) => {
    // A FLAC that announces more than there is.
    const longer = readFileSync(`${fixtures}mono.flac`);
    longer.writeUInt32BE(5000, 22);
    const { warnings, samples } = await decodeAudio(longer);
    t.is(samples.length, 4000);
    t.is(warnings.length, 1);
    t.regex(warnings[0]!, /FLAC.*decoded by ffmpeg/);
    const pool = new DecodePool({ size: 1 });
    t.deepEqual((await pool.decode(longer)).warnings, warnings);
    await pool.close();
    await t.throwsAsync(decodeAudio(longer, { strict: true }), { code: 'ERR_AUDIO_FORMAT', message: /FLAC/ });
    // Damage is not covered up.
    const flac = readFileSync(`${fixtures}mono.flac`);
    flac[Math.floor(flac.length * 0.8)]! ^= 0x10;
    await t.throwsAsync(decodeAudio(flac), {
      code: 'ERR_AUDIO_FORMAT',
      message: /FLAC.*ffmpeg could not decode/,
    });
  },
);

withFfmpeg('text and noise are refused with what was expected, whatever ffmpeg says of them', async (t) => {
  for (const [content, pattern] of [
    ['This is not audio, whatever it is called.\n', /expected WAV, FLAC, MP3.* got text that begins .*ffmpeg/],
    ['#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n', /got text/],
    ['ffconcat version 1.0\nfile /etc/hostname\n', /got text/],
  ] as const)
    await t.throwsAsync(decodeAudio(Buffer.from(content), { name: 'talk' }), {
      code: 'ERR_AUDIO_FORMAT',
      message: new RegExp(`^talk: .*${pattern.source}`, 's'),
    });
});

withFfmpegAlone('ffmpeg ends with what it decodes for: a stream that is closed, a pool that is closed', async (t) => {
  const path = join(scratch, 'long.m4a');
  ffmpeg('-stream_loop', '200', '-i', tone, '-c:a', 'aac', path);
  const children = (): number =>
    spawnSync('ps', ['-eo', 'ppid=,comm='], { encoding: 'utf8' })
      .stdout.split('\n')
      .filter((line) => line.trim() === `${process.pid} ffmpeg`).length;
  const gone = (): Promise<boolean> => until(() => children() === 0);
  const audio = await openAudio(path);
  await audio.pieces.next();
  t.is(children(), 1);
  await audio.close();
  t.true(await gone());
  const pool = new DecodePool({ size: 1 });
  const pooled = await pool.open(path, { sampleRate: 16000 });
  await pooled.pieces.next();
  t.is(children(), 1);
  await pool.close();
  t.true(await gone());
  await t.throwsAsync(
    pooled.pieces.next().then(() => pooled.pieces.next()),
    { code: 'ERR_DISPOSED' },
  );
});
