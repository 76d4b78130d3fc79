// The readers of WAV and FLAC: what is whole, what is unusual and read all the same with a warning, and what is refused.
import { spawnSync } from 'node:child_process';
import test, { type ExecutionContext } from 'ava';
import { ByteReader } from '../../lib/audio/bytes.js';
import { encodeWav } from '../../lib/audio/index.js';
import {
  type Chunk,
  fixture,
  formatChunk,
  has,
  join,
  open,
  type Read,
  read,
  readerOf,
  riff,
  same,
  verbatimFlac,
} from '../support/audio.js';

const bytesOf = (array: ArrayBufferView) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
const data = (body: Uint8Array, size = body.length): Chunk => ({ id: 'data', body, size });
const codes = Int16Array.of(1, -2, 300, -400, 32767, -32768, 7, 8);
const expected = Float32Array.from(codes, (code) => code / 32768);
const samples = bytesOf(codes);

function warned(t: ExecutionContext, audio: Read, warning: RegExp | undefined, what: string) {
  if (warning) {
    t.is(audio.warnings.length, 1, `${what}: ${audio.warnings}`);
    t.regex(audio.warnings[0] ?? '', warning, what);
  } else t.deepEqual(audio.warnings, [], what);
}

/** Processor seconds of this process; tests that ask for them run alone. */
const seconds = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

// ---- memory ----

/** Bytes of a long file that is never in memory: `head`, then `body` again and again. */
const repeated = (head: Uint8Array, body: Uint8Array, times: number) =>
  new ByteReader(
    (async function* () {
      yield head;
      const some = join(...Array.from({ length: Math.ceil(65536 / body.length) }, () => body));
      for (let i = 0; i < times; i += some.length / body.length) yield some;
    })(),
  );

test.serial('half an hour of wav, flac and mp3 takes no memory to speak of', async (t) => {
  const flac = fixture('mono.flac');
  flac[21]! &= 0xf0;
  flac.fill(0, 22, 26);
  let firstFrame = 4;
  for (let last = false; !last; firstFrame += 4 + (flac[firstFrame + 2]! << 8) + flac[firstFrame + 3]!)
    last = (flac[firstFrame]! & 0x80) !== 0;
  const second = new Uint8Array(64000 * 2);
  const sources: [string, () => ByteReader, number][] = [
    [
      'wav',
      () => repeated(riff([formatChunk({ rate: 64000 }), data(new Uint8Array(0), 0xffffffff)]), second, 1800),
      115e6,
    ],
    ['flac', () => repeated(flac.subarray(0, firstFrame), flac.subarray(firstFrame), 7200), 28.8e6],
    ['mp3', () => repeated(new Uint8Array(0), fixture('stereo-plain.mp3'), 6000), 40e6],
  ];
  for (const [name, source, least] of sources) {
    let [before, most, count] = [0, 0, 0];
    for await (const [piece] of (await open(source())).pieces) {
      count += piece!.length;
      // The first tenth shows what the decoder and the garbage between two collections take.
      if (count < least / 10) before = Math.max(before, process.memoryUsage.rss());
      else most = Math.max(most, process.memoryUsage.rss());
    }
    t.true(count >= least, `${name}: ${count} samples`);
    t.true(most - before < 60e6, `${name}: ${Math.round((most - before) / 1e6)} MB more`);
  }
});

// ---- WAV ----

test('wav: every sample format is code × 2^-(bits-1), in files of both endiannesses, whatever address and pieces it comes in', async (t) => {
  const ints = [0, 1, -1, 5, 1234567, -1234567, 2 ** 31 - 1, -(2 ** 31)];
  const integer = (width: number, bigEndian: boolean) => {
    const bytes = Buffer.alloc(ints.length * width);
    ints.forEach((value, i) => {
      const code = value >> (32 - 8 * width);
      if (width === 1) bytes[i] = code + 128;
      else if (bigEndian) bytes.writeIntBE(code, i * width, width);
      else bytes.writeIntLE(code, i * width, width);
    });
    return bytes;
  };
  const scaled = (bits: number) => Float32Array.from(ints, (value) => (value >> (32 - bits)) / 2 ** (bits - 1));
  const reals = [0, 0.5, -0.5, 1e-30, 3.25, -7];
  const real = (width: number, bigEndian: boolean) => {
    const bytes = Buffer.alloc(reals.length * width);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    reals.forEach((value, i) => {
      if (width === 4) view.setFloat32(4 * i, value, !bigEndian);
      else view.setFloat64(8 * i, value, !bigEndian);
    });
    return bytes;
  };
  for (const kind of ['RIFF', 'RIFX', 'RF64', 'BW64'] as const) {
    const big = kind === 'RIFX';
    const cases: [string, Parameters<typeof formatChunk>[0], Uint8Array, Float32Array][] = [
      ['8 bits', { bits: 8 }, integer(1, big), scaled(8)],
      ['12 bits in 16', { bits: 12 }, integer(2, big), scaled(16)],
      ['16 bits', { bits: 16 }, integer(2, big), scaled(16)],
      ['20 bits in 24', { bits: 20 }, integer(3, big), scaled(24)],
      ['24 bits', { bits: 24 }, integer(3, big), scaled(24)],
      ['24 bits in 32', { bits: 24, block: 4 }, integer(4, big), scaled(32)],
      ['32 bits', { bits: 32 }, integer(4, big), scaled(32)],
      ['float', { tag: 3, bits: 32 }, real(4, big), Float32Array.from(reals)],
      ['double', { tag: 3, bits: 64 }, real(8, big), Float32Array.from(reals)],
    ];
    for (const [what, spec, body, want] of cases) {
      const sizes = new Uint8Array(28);
      new DataView(sizes.buffer).setUint32(8, body.length, true);
      const chunks = [formatChunk(spec, big), data(body, kind.endsWith('64') ? 0xffffffff : body.length)];
      const file = riff(kind.endsWith('64') ? [{ id: 'ds64', body: sizes }, ...chunks] : chunks, kind);
      for (const size of [1, 3, 64, 65536]) {
        const audio = await read(readerOf(file, size, size > 1));
        t.true(same(audio.channels, [want]), `${kind}, ${what}, pieces of ${size}`);
        t.deepEqual(audio.warnings, [], `${kind}, ${what}`);
      }
    }
  }
});

test('wav: channels are told apart, also with metadata before and behind the samples', async (t) => {
  const file = riff([
    { id: 'JUNK', body: new Uint8Array(5) },
    formatChunk({ channels: 2 }),
    { id: 'LIST', body: new Uint8Array(7) },
    data(samples),
    { id: 'LIST', body: new Uint8Array(3) },
    { id: 'xyz ', body: new Uint8Array(300) },
    { id: 'id3 ', body: new Uint8Array(70000) },
  ]);
  for (const size of [7, 65536]) {
    const audio = await read(readerOf(file, size));
    t.deepEqual(audio.channels, [expected.filter((_, i) => !(i & 1)), expected.filter((_, i) => i & 1)]);
    t.deepEqual(audio.warnings, []);
    t.is(audio.length, 4);
  }
});

test('wav: wrong sizes, several data chunks, missing padding and wrong block sizes are read, with one warning', async (t) => {
  const many = new Int16Array(200_000).map((_, i) => (i * 7919) & 0xffff);
  const all = Float32Array.from(many, (code) => code / 32768);
  const bytes = bytesOf(many);
  const format = formatChunk();
  const odd = { id: 'LIST', body: new Uint8Array(5), pad: false };
  const tags = { id: 'LIST', body: new Uint8Array(26) };
  const cases: [string, Uint8Array, RegExp | undefined, Float32Array?][] = [
    ['size 0', riff([format, data(bytes, 0)]), /announces 0 bytes/],
    ['size of a pipe', riff([format, data(bytes, 0xffffffff)]), undefined],
    ['size of a pipe, of sox', riff([format, data(bytes, 0x7ffff024)]), undefined],
    ['1 too many', riff([format, data(bytes, bytes.length + 1)]), /announces 400001 bytes and 400000 follow/],
    ['44 too many', riff([format, data(bytes, bytes.length + 44)]), /announces 400044 bytes and 400000 follow/],
    ['half', riff([format, data(bytes, bytes.length / 2)]), /announces 200000 bytes, but the samples go on/],
    ['an odd part', riff([format, data(bytes, 1001)]), /announces 1001 bytes, but the samples go on/],
    ['8 too few', riff([format, data(bytes, bytes.length - 8)]), /the samples go on/],
    ['an empty data chunk before', riff([format, data(new Uint8Array(0)), data(bytes)]), /several data chunks/],
    [
      'two data chunks',
      riff([format, data(bytes.subarray(0, 2000)), data(bytes.subarray(2000))]),
      /several data chunks/,
    ],
    [
      'data chunks with metadata between them',
      riff([format, data(bytes.subarray(0, 2000)), tags, data(bytes.subarray(2000)), tags]),
      /several data chunks/,
    ],
    [
      'two files',
      join(riff([format, data(bytes.subarray(0, 2000))]), riff([format, tags, data(bytes.subarray(2000))])),
      /several data chunks/,
    ],
    ['no padding before', riff([format, odd, data(bytes)]), /padding byte behind the WAV chunk "LIST" is missing/],
    [
      'block of 1',
      riff([formatChunk({ block: 1 }), data(bytes)]),
      /frames of 1 bytes contradict 1 channels of 16 bits/,
    ],
    ['block of 4', riff([formatChunk({ block: 4, byteRate: 32000 }), data(bytes)]), /frames of 4 bytes contradict/],
    ['half a frame', riff([format, data(join(bytes, 'x'))]), /the last 1 bytes of the WAV samples are no whole frame/],
    ['bytes behind', join(riff([format, data(bytes)]), 'x'), /1 bytes behind the WAV samples were ignored/],
    [
      'zeros behind an odd chunk',
      riff([formatChunk({ bits: 8 }), data(Uint8Array.of(128, 0, 255))]),
      undefined,
      Float32Array.of(0, -1, 127 / 128),
    ],
    [
      'metadata cut short',
      riff([format, data(bytes), { ...tags, size: 1000 }]),
      /"LIST" behind the samples is cut short/,
    ],
  ];
  for (const [what, file, warning, want = all] of cases)
    for (const size of [999, 65536]) {
      const audio = await read(readerOf(file, size));
      t.true(same(audio.channels, [want]), what);
      warned(t, audio, warning, what);
      if (audio.length !== undefined && !/several|go on/.test(`${warning}`))
        t.true(audio.length >= want.length - 4, `${what}: ${audio.length}`);
    }
  const pipe = await read(readerOf(riff([format, data(bytes, 0xffffffff)]), 4096, false));
  t.true(same(pipe.channels, [all]));
  t.deepEqual([pipe.length, pipe.warnings], [undefined, []]);
});

test('wav: a file that is cut short within its samples is read to its end with a warning; within its headers it is refused', async (t) => {
  const whole = encodeWav(new Float32Array(1000), 16000);
  for (const cut of [46, 100, 1043, 2042]) {
    const audio = await read(whole.subarray(0, cut));
    t.is(audio.channels[0]!.length, (cut - 44) >> 1);
    t.regex(audio.warnings[0] ?? '', /announces 2000 bytes and \d+ follow/);
  }
  for (const cut of [12, 13, 20, 30, 40, 43, 44])
    await t.throwsAsync(read(whole.subarray(0, cut)), {
      code: 'ERR_AUDIO_FORMAT',
      message: /^the test: truncated WAV/,
    });
});

test.serial('wav: sizes that contradict each other are refused at once, before memory is taken for them', async (t) => {
  const extra = (samplesPerBlock: number) => Uint8Array.of(2, 0, samplesPerBlock & 255, samplesPerBlock >> 8);
  const cases: [string, Uint8Array, RegExp][] = [
    [
      'IMA',
      riff([formatChunk({ tag: 17, bits: 4, block: 4, extra: extra(65535) }), data(new Uint8Array(48000))]),
      /room for 1 samples and announce 65535/,
    ],
    [
      'IMA without room',
      riff([formatChunk({ tag: 17, bits: 4, block: 3, extra: extra(0) }), data(new Uint8Array(48))]),
      /room for 0/,
    ],
    [
      'MS',
      riff([formatChunk({ tag: 2, bits: 4, block: 7, extra: extra(65535) }), data(new Uint8Array(48))]),
      /room for 2 samples/,
    ],
    [
      'MS, 3 channels',
      riff([formatChunk({ tag: 2, bits: 4, channels: 3, block: 70 }), data(samples)]),
      /MS ADPCM of 3 channels/,
    ],
    [
      '65,535 channels',
      riff([formatChunk({ channels: 65535, block: 3 }), data(new Uint8Array(5000))]),
      /65535 channels, expected 1 to 64/,
    ],
    ['no channels', riff([formatChunk({ channels: 0 }), data(samples)]), /0 channels/],
    ['no block', riff([formatChunk({ block: 0 }), data(samples)]), /frames of 0 bytes/],
    ['no bits', riff([formatChunk({ bits: 0, block: 2 }), data(samples)]), /0 bits/],
    ['33 bits', riff([formatChunk({ bits: 33 }), data(samples)]), /33 bits/],
    [
      'float of 16 bits',
      riff([formatChunk({ tag: 3 }), data(samples)]),
      /16 bits a sample in float WAV, expected 32, 64/,
    ],
    ['GSM', riff([formatChunk({ tag: 0x31 }), data(samples)]), /format tag 0x31, which is not read here/],
    [
      'a short extensible chunk',
      riff([formatChunk({ tag: 0xfffe }), data(samples)]),
      /needs 40 bytes, this one has 16/,
    ],
    [
      'a huge format chunk',
      riff([{ ...formatChunk(), size: 0x7fffffff }, data(samples)]),
      /format chunk announces 2147483647 bytes/,
    ],
    ['a short format chunk', riff([{ id: 'fmt ', body: new Uint8Array(14) }, data(samples)]), /has 14 bytes/],
    ['data first', riff([data(samples), formatChunk()]), /before any format chunk/],
    [
      'two formats',
      join(riff([formatChunk(), data(samples)]), riff([formatChunk({ channels: 2 }), data(samples)])),
      /unlike formats/,
    ],
    [
      'big-endian ADPCM',
      riff([formatChunk({ tag: 17, bits: 4, block: 256 }, true), data(samples)], 'RIFX'),
      /big-endian/,
    ],
  ];
  for (const [what, file, message] of cases) {
    const begin = seconds();
    await t.throwsAsync(read(file), { code: 'ERR_AUDIO_FORMAT', message }, what);
    t.true(seconds() - begin < 1, what);
  }
  for (const body of [new Uint8Array(0), new Uint8Array(1)])
    await t.throwsAsync(read(riff([formatChunk(), data(body)])), { code: 'ERR_AUDIO_EMPTY' });
});

test('wav: IMA and MS ADPCM by hand, also where the last block is cut short', async (t) => {
  // IMA: first sample 1000, step 7; code 7 adds 15 · 7 / 8 and goes to step 16, code 15 takes 15 · 16 / 8 away.
  const ima = Uint8Array.of(0xe8, 3, 0, 0, 0xf7, 0, 0, 0);
  const imaFile = (...blocks: Uint8Array[]) =>
    riff([formatChunk({ tag: 17, bits: 4, block: 8 }), data(join(...blocks))]);
  const one = (await read(imaFile(ima))).channels[0]!;
  t.is(one.length, 9);
  t.deepEqual(
    Array.from(one.subarray(0, 3), (x) => x * 32768),
    [1000, 1013, 983],
  );
  const cut = await read(imaFile(ima, ima, ima.subarray(0, 5)));
  t.deepEqual(cut.channels[0], Float32Array.of(...one, ...one, one[0]!));
  t.regex(cut.warnings[0]!, /the last 5 bytes of the WAV samples are no whole block/);
  // MS: predictor 0 repeats the sample before; step 16, codes 1 and 15: + 16, − 16.
  const ms = Uint8Array.of(0, 16, 0, 0xe8, 3, 0xd0, 7, 0x1f);
  const msAudio = await read(riff([formatChunk({ tag: 2, bits: 4, block: 8 }), data(ms)]));
  t.deepEqual(
    Array.from(msAudio.channels[0]!, (x) => x * 32768),
    [2000, 1000, 1016, 1000],
  );
});

// ---- FLAC ----

/** Without the length that the header announces. */
function ofUnknownLength(file: Uint8Array): Uint8Array {
  const bytes = Uint8Array.from(file);
  bytes[21]! &= 0xf0;
  bytes.fill(0, 22, 26);
  return bytes;
}

test('flac: any pieces give the same samples; tags behind it, joined files and a wrong length are read', async (t) => {
  const whole = fixture('mono.flac');
  const want = (await read(whole)).channels[0]!;
  t.is(want.length, 4000);
  t.true(same([want], (await read(fixture('mono.wav'))).channels));
  for (const size of [1, 17, 1000]) t.true(same((await read(readerOf(whole, size, false))).channels, [want]));
  const twice = Float32Array.of(...want, ...want);
  const fewer = Uint8Array.from(whole);
  fewer[25]! -= 10;
  const cases: [string, Uint8Array, RegExp | undefined, Float32Array][] = [
    ['of unknown length', ofUnknownLength(whole), undefined, want],
    ['ID3v1', join(whole, 'TAG', new Uint8Array(125).fill(65)), undefined, want],
    ['zeros', join(whole, new Uint8Array(5000)), undefined, want],
    ['a byte', join(whole, '\x01'), /what follows byte 2244 of the FLAC file/, want],
    ['a byte, unknown length', join(ofUnknownLength(whole), '\x01'), /what follows byte 2244/, want],
    ['joined', join(whole, ofUnknownLength(whole)), /several FLAC files were joined/, twice],
    ['more than announced', fewer, /announces 3990 samples and has 4000/, want],
    ['ID3v2', join('ID3\x03\0\0\0\0\x01\0', new Uint8Array(128), whole), undefined, want],
  ];
  for (const [what, file, warning, samples] of cases) {
    const audio = await read(file);
    t.true(same(audio.channels, [samples]), what);
    warned(t, audio, warning, what);
  }
});

test('flac: cut short and damaged files are refused; of unknown length, a last frame that is cut short is left out with a warning', async (t) => {
  const whole = fixture('mono.flac');
  const refused = async (file: Uint8Array, what: string) =>
    t.throwsAsync(read(file), { code: 'ERR_AUDIO_FORMAT', message: /^the test: .*(truncated|damaged)/ }, what);
  for (const cut of [5, 41, 43, 100, 1000, 2000, whole.length - 1])
    await refused(whole.subarray(0, cut), `cut at ${cut}`);
  const more = Uint8Array.from(whole);
  more[25]! += 1;
  await refused(more, 'one sample fewer than announced');
  for (const at of [300, 1200, 2240]) {
    const bytes = Uint8Array.from(whole);
    bytes[at]! ^= 0x10;
    await refused(bytes, `byte ${at} changed`);
  }
  const frames = verbatimFlac(6, new Uint8Array(8192).fill(3));
  for (const cut of [1, 3, 500, 8000]) {
    const audio = await read(frames.subarray(0, frames.length - cut));
    t.is(audio.channels[0]!.length, 5 * 4096, `${cut} bytes missing`);
    warned(t, audio, /is no whole frame and was ignored/, `${cut} bytes missing`);
  }
  const middle = Uint8Array.from(frames);
  middle[10000]! ^= 1;
  await refused(middle, 'a damaged frame in the middle');
  await t.throwsAsync(
    read(
      join(
        whole,
        verbatimFlac(1, new Uint8Array(8192)).map((byte, i) => (i === 20 ? byte ^ 2 : byte)),
      ),
    ),
    { code: 'ERR_AUDIO_FORMAT', message: /joins FLAC of 1 channels at 16000 Hz/ },
  );
});

test.serial('flac: samples that look like headers cost linear time', async (t) => {
  const looks = new Uint8Array(8192).map((_, i) => (i & 1 ? 0xf8 : 0xff));
  const file = join(verbatimFlac(250, looks), '\x01');
  const begin = seconds();
  const audio = await read(file);
  t.true(seconds() - begin < 3, 'quadratic: minutes');
  t.is(audio.channels[0]!.length, 250 * 4096);
  t.true(audio.channels[0]!.every((x) => x === -8 / 32768));
});

// ---- beside the programs that people use ----

for (const program of ['ffmpeg', 'sox']) if (!has(program)) console.log(`${program} is absent: its files are not read`);

/** Samples as ffmpeg decodes them, interleaved. */
function byFfmpeg(file: Uint8Array): Float32Array {
  const { stdout } = spawnSync('ffmpeg', ['-v', 'error', '-i', 'pipe:0', '-f', 'f32le', 'pipe:1'], {
    input: file,
    maxBuffer: 1 << 28,
  });
  return new Float32Array(Uint8Array.from(stdout).buffer);
}

(has('ffmpeg') ? test : test.skip)('wav and flac of the real ffmpeg decode as ffmpeg decodes them', async (t) => {
  const source = ['-v', 'error', '-f', 'lavfi', '-i', 'anoisesrc=d=0.7:c=pink:r=22050:a=0.5:seed=1'];
  const make = (...args: string[]) =>
    new Uint8Array(spawnSync('ffmpeg', [...source, ...args, 'pipe:1'], { maxBuffer: 1 << 28 }).stdout);
  const wavs = ['u8', 's16le', 's24le', 's32le', 'f32le', 'f64le', 'alaw', 'mulaw'].map((name) => `pcm_${name}`);
  for (const codec of [...wavs, 'adpcm_ima_wav', 'adpcm_ms', 'flac'])
    for (const channels of ['1', '2']) {
      const file = make('-ac', channels, '-c:a', codec, '-f', codec === 'flac' ? 'flac' : 'wav');
      const audio = await read(file);
      t.is(audio.sampleRate, 22050);
      const want = byFfmpeg(file);
      const got = audio.channels[0]!.map((x) => x);
      t.true(got.length >= 15435, `${codec}: ${got.length} samples`);
      const off = got.reduce((most, x, i) => Math.max(most, Math.abs(x - (want[i * Number(channels)] ?? x))), 0);
      t.true(off <= (codec === 'pcm_s32le' ? 2 ** -25 : 0), `${codec}, ${channels} channels: off by ${off}`);
      t.deepEqual(audio.warnings, [], codec);
    }
});

(has('sox') ? test : test.skip)(
  'wav and flac of the real sox: float behind a long header, big endian, 24 bits, a pipe',
  async (t) => {
    const make = (...args: string[]) =>
      new Uint8Array(
        spawnSync('sox', ['-n', '-r', '16000', '-D', ...args, 'synth', '0.5', 'sine', '440', 'gain', '-6'], {
          maxBuffer: 1 << 26,
        }).stdout,
      );
    const [plain] = (await read(make('-b', '32', '-e', 'signed', '-t', 'wav', '-'))).channels;
    t.is(plain!.length, 8000);
    for (const args of [
      ['-b', '32', '-e', 'floating-point', '-t', 'wav', '-'],
      ['-b', '24', '-t', 'wav', '-'],
      ['-b', '24', '-B', '-t', 'wav', '-'],
      ['-b', '16', '-B', '-t', 'wav', '-'],
      ['-b', '24', '-t', 'flac', '-'],
    ]) {
      const audio = await read(make(...args));
      t.deepEqual(audio.warnings, [], `${args}`);
      t.is(audio.channels[0]!.length, 8000, `${args}`);
      t.true(
        audio.channels[0]!.every((x, i) => Math.abs(x - plain![i]!) <= 2 ** -15),
        `${args}`,
      );
    }
  },
);
