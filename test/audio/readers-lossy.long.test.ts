// The readers of MP3 and Ogg: what is whole, what is unusual and read all the same with a warning, and what is refused.
import { spawnSync } from 'node:child_process';
import test, { type ExecutionContext } from 'ava';
import { type AudioFormat, detectFormat } from '../../lib/audio/container.js';
import { decodeAudio } from '../../lib/audio/index.js';
import {
  fixture,
  has,
  join,
  oggPage,
  oggPages,
  open,
  type Read,
  read,
  readerOf,
  same,
  sealed,
} from '../support/audio.js';

function warned(t: ExecutionContext, audio: Read, warning: RegExp | undefined, what: string) {
  if (warning) {
    t.is(audio.warnings.length, 1, `${what}: ${audio.warnings}`);
    t.regex(audio.warnings[0] ?? '', warning, what);
  } else t.deepEqual(audio.warnings, [], what);
}

const twice = (samples: Float32Array) => Float32Array.of(...samples, ...samples);
const refused = { code: 'ERR_AUDIO_FORMAT' } as const;
const id3 = (length: number) =>
  join('ID3\x03\0\0', Uint8Array.of(0, 0, length >> 7, length & 127), new Uint8Array(length).fill(0x41));

/** Processor seconds of this process; tests that ask for them run alone. */
const seconds = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e6;
};

// ---- life and cost ----

test.serial('opus: hours of frames without a coded byte are refused at once', async (t) => {
  // Packets of 2 bytes: stereo, two frames of 60 ms of 0 bytes each. A page holds 30 seconds.
  const head = join('OpusHead', Uint8Array.of(1, 2, 0, 0, 0x80, 0xbb, 0, 0, 0, 0, 0));
  const pages = [
    oggPage([head], { flags: 2, number: 0 }),
    oggPage([join('OpusTags', new Uint8Array(8))], { number: 1 }),
  ];
  const packets = Array.from({ length: 255 }, () => Uint8Array.of(0x1f, 2));
  for (let i = 0; i < 240; i++) pages.push(oggPage(packets, { number: i + 2, granule: (i + 1) * 255 * 5760 }));
  const begin = seconds();
  await t.throwsAsync(read(join(...pages)), {
    ...refused,
    message: /more than 60 seconds of frames without a coded byte/,
  });
  // Nor is ffmpeg asked, where it is installed: it would make them.
  await t.throwsAsync(decodeAudio(join(...pages)), { code: 'ERR_AUDIO_FORMAT', message: /without a coded byte$/ });
  t.true(seconds() - begin < 1);
  // A minute of them is what a muted line may send.
  const short = await read(join(...pages.slice(0, 3)));
  t.is(short.channels[0]!.length, 255 * 5760);
});

test.serial('decoders that are left after a piece, or before the first, are freed', async (t) => {
  const files = ['mono.opus', 'mono.ogg', 'mono.flac', 'mono-info.mp3', 'mono.wav'].map(fixture);
  const round = async () => {
    for (const file of files) {
      const whole = await open(readerOf(file));
      for await (const _ of whole.pieces) break;
      await (await open(readerOf(file))).pieces.return();
    }
  };
  for (let i = 0; i < 10; i++) await round();
  const before = process.memoryUsage().rss;
  for (let i = 0; i < 40; i++) await round();
  t.true(process.memoryUsage().rss - before < 60e6, `${(process.memoryUsage().rss - before) / 1e6} MB more`);
});

test('four files at once give what each gives alone', async (t) => {
  const files = ['mono.opus', 'stereo.ogg', 'mono.flac', 'stereo-plain.mp3'].map(fixture);
  const alone: Read[] = [];
  for (const file of files) alone.push(await read(file));
  const together = await Promise.all(files.map((file) => read(readerOf(file, 100))));
  for (const [i, audio] of together.entries()) t.true(same(audio.channels, alone[i]!.channels));
});

// ---- MP3 ----

test('mp3: zeros, junk and tags around and between joined files are passed over', async (t) => {
  const info = fixture('mono-info.mp3');
  const plain = fixture('stereo-plain.mp3');
  const [one] = (await read(info)).channels;
  const stereo = (await read(plain)).channels;
  t.is(one!.length, 4000);
  const junk = new Uint8Array(745).map((_, i) => (i * 7919 + ((i * i) >> 3)) & 255);
  const cover = id3(16000);
  const v1 = join('TAG', new Uint8Array(125).fill(65));
  const ape = join(
    'APETAGEX',
    Uint8Array.of(0xd0, 7, 0, 0, 64, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xa0),
    new Uint8Array(8 + 64),
  );
  const lyrics = join('LYRICSBEGIN', 'la la la', 'LYRICSEND');
  const big = id3(16383);
  const cases: [string, Uint8Array, RegExp | undefined, Float32Array[]][] = [
    ['ID3v2', join(cover, info), undefined, [one!]],
    ['two ID3v2', join(cover, id3(5), info), undefined, [one!]],
    ['pictures of 80 KB', join(big, big, big, big, big, info), undefined, [one!]],
    [
      'ID3v2 and zeros',
      join(cover, new Uint8Array(1000), info),
      /1000 bytes before the first MPEG audio frame/,
      [one!],
    ],
    ['zeros', join(new Uint8Array(60000), info), /60000 bytes before the first/, [one!]],
    ['junk', join(junk, info), /745 bytes before the first/, [one!]],
    ['text', join('HTTP/1.1 200 OK\r\n\r\n', plain), /19 bytes before the first/, stereo],
    ['ID3v1 behind', join(info, v1), undefined, [one!]],
    ['APE, lyrics and ID3v1 behind', join(info, ape.subarray(0, 32 + 64), lyrics, v1), undefined, [one!]],
    ['zeros behind', join(info, new Uint8Array(70000)), undefined, [one!]],
    ['junk behind', join(info, junk), /744 bytes between or behind/, [one!]],
    ['joined', join(info, info), /several MP3 files were joined/, [twice(one!)]],
    ['joined with a cover', join(cover, info, cover, info), /several MP3 files were joined/, [twice(one!)]],
    ['joined with tags at both ends', join(cover, info, v1, cover, info, v1), /several MP3 files/, [twice(one!)]],
    ['joined with padding', join(info, new Uint8Array(2000), id3(9), info), /several MP3 files/, [twice(one!)]],
  ];
  for (const [what, file, warning, want] of cases)
    for (const size of [777, 65536]) {
      const audio = await read(readerOf(file, size, size > 777));
      t.true(same(audio.channels, want), `${what}: ${audio.channels.map(({ length }) => length)}`);
      warned(t, audio, warning, what);
    }
});

test('mp3: frames of a joined file may have other channels, not another sample rate', async (t) => {
  const plain = fixture('stereo-plain.mp3');
  // The same frames announced as mono: what they hold is not sensible, where they stand is.
  const frames = (file: Uint8Array) => file.length / 192;
  const mono = Uint8Array.from(plain, (byte, i) => (i % 192 === 3 ? byte | 0xc0 : byte));
  for (const [file, channels] of [
    [join(plain, id3(5), mono), 2],
    [join(mono, id3(5), plain), 1],
  ] as const) {
    const audio = await read(file);
    t.is(audio.channels.length, channels);
    t.is(audio.channels[0]!.length, 2 * frames(plain) * 576);
    warned(t, audio, /several MP3 files/, `${channels} channels`);
  }
  const all = (await read(plain)).channels;
  const mixed = (await read(join(mono, id3(5), plain))).channels[0]!.subarray(frames(plain) * 576 + 2000);
  t.true(mixed.every((x, i) => Math.abs(x - (all[0]![i + 2000]! + all[1]![i + 2000]!) / 2) < 1e-6));
  await t.throwsAsync(read(join(plain, fixture('mono-info.mp3'))), {
    ...refused,
    message: /changes from 24000 to 16000 Hz at byte 2496/,
  });
});

test('mp3: cut within a frame it is read with a warning; cut between frames it is refused where its tag tells', async (t) => {
  const info = fixture('mono-info.mp3');
  const plain = fixture('stereo-plain.mp3');
  for (const cut of [192 * 5 + 1, 192 * 5 + 4, 192 * 5 + 191]) {
    const audio = await read(plain.subarray(0, cut));
    t.is(audio.channels[0]!.length, 5 * 576);
    warned(t, audio, /the last MP3 frame (of 192 bytes )?is cut short after \d+ bytes/, `cut at ${cut}`);
  }
  const audio = await read(info.subarray(0, 288 * 5 + 100));
  t.true(audio.channels[0]!.length > 1000);
  warned(
    t,
    audio,
    /of 288 bytes is cut short after 100 bytes and was ignored; it announces 9 frames and 4 whole ones/,
    'tag',
  );
  await t.throwsAsync(read(info.subarray(0, 288 * 5)), { ...refused, message: /truncated MP3: it announces 9 frames/ });
  for (const file of [plain.subarray(0, 100), info.subarray(0, 288 + 100), info.subarray(0, 720)])
    await t.throwsAsync(read(file), { ...refused, message: /truncated MP3: its first frames are cut short/ });
  await t.throwsAsync(read(id3(500).subarray(0, 400)), { ...refused, message: /ends within|ends behind/ });
  await t.throwsAsync(read(id3(500)), { ...refused, message: /ends behind its tags/ });
});

test('mp3: free bit rate, much junk between frames, and files without a frame are refused in plain words', async (t) => {
  const plain = fixture('stereo-plain.mp3');
  const free = Uint8Array.from(plain, (byte, i) => (i % 192 === 2 ? byte & 0x0f : byte));
  const text = new Uint8Array(5000).fill(0x41);
  await t.throwsAsync(read(free), { ...refused, message: /free bit rate is not read/ });
  await t.throwsAsync(read(join(plain, text, plain)), {
    ...refused,
    message: /damaged MP3: the 5000 bytes from byte 2496/,
  });
  await t.throwsAsync(read(join(plain, text)), { ...refused, message: /damaged MP3: the 5000 bytes from byte 2496/ });
  await t.throwsAsync(read(join(id3(5), text)), { ...refused, message: /no MPEG audio frame was found/ });
});

// ---- Ogg ----

const EOS = 4;
/** An Opus file of many pages: the packets of the fixture, three a page. */
function manyPages(file: Uint8Array): Uint8Array[] {
  const [head, tags, ...rest] = oggPages(file);
  const packets = rest.flatMap((page) => {
    let from = 27 + page[26]!;
    return Array.from(page.subarray(27, from), (size) => {
      from += size;
      return page.slice(from - size, from);
    });
  });
  const pages = [head!, tags!];
  for (let i = 0; i < packets.length; i += 3) {
    const some = packets.slice(i, i + 3);
    const last = i + 3 >= packets.length;
    const serial = new DataView(head!.buffer).getUint32(14, true);
    // 20 ms a packet; the last page ends where the fixture ends.
    const granule = last ? 12312 : (i + some.length) * 960;
    pages.push(oggPage(some, { flags: last ? EOS : 0, granule, serial, number: pages.length }));
  }
  return pages;
}

test('ogg: pages of any number and pieces of any size give the same samples', async (t) => {
  const opus = fixture('mono.opus');
  const [want] = (await read(opus)).channels;
  t.is(want!.length, 12000);
  t.true(same((await read(join(...manyPages(opus)))).channels, [want!]));
  for (const file of ['mono.opus', 'mono.ogg', 'stereo.ogg']) {
    const whole = await read(fixture(file));
    for (const size of [1, 50])
      t.true(same((await read(readerOf(fixture(file), size, false))).channels, whole.channels), file);
  }
});

test('ogg: end marks that are missing or early, joined streams and bytes around them are read with a warning', async (t) => {
  const opus = fixture('mono.opus');
  const [want] = (await read(opus)).channels;
  const pages = manyPages(opus);
  const last = pages.at(-1)!;
  const open = [...pages.slice(0, -1), sealed(last, { flags: 0 })];
  const early = [...pages.slice(0, -2), sealed(pages.at(-2)!, { flags: EOS }), last];
  const other = pages.map((page) => sealed(page, { serial: 99 }));
  const cases: [string, Uint8Array[], RegExp | undefined, Float32Array][] = [
    ['no end mark', open, /without an end mark/, want!],
    ['end mark one page early', early, /goes on behind its end mark/, want!],
    ['joined', [...pages, ...pages], undefined, twice(want!)],
    ['joined, other serial', [...pages, ...other], undefined, twice(want!)],
    ['joined, no end mark between', [...open, ...other], /without end mark is followed by another/, twice(want!)],
    ['joined, same serial, no end mark', [...open, ...pages], /without end mark is followed by another/, twice(want!)],
    ['bytes behind', [...pages, join('trailing bytes!')], /15 bytes from byte \d+ on are no Ogg pages/, want!],
    ['a tag between', [...pages, id3(300), ...pages], /310 bytes from byte \d+ on are no Ogg pages/, twice(want!)],
    ['bytes before', [join('HTTP/1.1 200 OK\r\n\r\n'), ...pages], /19 bytes from byte 0 on are no Ogg pages/, want!],
    ['zeros behind', [...pages, new Uint8Array(100_000)], undefined, want!],
  ];
  for (const [what, parts, warning, samples] of cases)
    for (const size of [200, 65536]) {
      const audio = await read(readerOf(join(...parts), size));
      t.true(same(audio.channels, [samples]), `${what}: ${audio.channels[0]!.length}`);
      warned(t, audio, warning, what);
    }
  for (const file of ['mono.ogg', 'stereo.ogg']) {
    const vorbis = oggPages(fixture(file));
    const samples = (await read(fixture(file))).channels;
    const audio = await read(join(...vorbis.slice(0, -1), sealed(vorbis.at(-1)!, { flags: 0 })));
    t.true(same(audio.channels, samples), file);
    warned(t, audio, /without an end mark/, file);
  }
});

test('ogg: cut within a page, the whole pages are read with a warning; damaged, missing and foreign pages are refused', async (t) => {
  const pages = manyPages(fixture('mono.opus'));
  const cut = join(...pages).subarray(0, -20);
  const audio = await read(cut);
  t.is(audio.channels[0]!.length, (pages.length - 3) * 3 * 960 - 312);
  t.deepEqual(
    audio.warnings.map((warning) => warning.replace(/\d+/, 'N')),
    ['the last Ogg page is cut short after N bytes and was ignored', 'the Ogg file ends without an end mark'],
  );
  const bad = (change: (parts: Uint8Array[]) => Uint8Array[]) =>
    join(...change(pages.map((page) => Uint8Array.from(page))));
  const cases: [string, Uint8Array, RegExp][] = [
    ['a page missing', bad((parts) => parts.toSpliced(3, 1)), /pages are missing before byte/],
    ['a page twice', bad((parts) => parts.toSpliced(3, 0, parts[3]!)), /pages are missing before byte/],
    ['the tags missing', bad((parts) => parts.toSpliced(1, 1)), /pages are missing/],
    ['the first page missing', bad((parts) => parts.slice(1)), /first page of its stream is missing/],
    [
      'a byte changed',
      bad((parts) => [
        ...parts.slice(0, 3),
        parts[3]!.map((byte, i) => (i === 60 ? byte ^ 1 : byte)),
        ...parts.slice(4),
      ]),
      /wrong checksum of the page at byte/,
    ],
    ['bytes between', bad((parts) => parts.toSpliced(3, 0, join('what?'))), /no page starts at byte/],
    [
      'a stream in it',
      bad((parts) => parts.toSpliced(3, 0, sealed(parts[3]!, { serial: 5 }))),
      /of a stream without a first page/,
    ],
    [
      'streams at once',
      bad((parts) => [parts[0]!, sealed(parts[0]!, { serial: 5 }), ...parts.slice(1)]),
      /several streams at once/,
    ],
    ['cut in its first page', join(...pages).subarray(0, 40), /truncated Ogg file/],
    ['cut behind its first page', pages[0]!, /truncated Ogg file: it ends behind its first packet/],
    ['cut in its first page of audio', fixture('mono.opus').subarray(0, 1500), /no whole page of audio/],
    ['Speex', join(oggPage([join('Speex   ', new Uint8Array(72))], { flags: 2 })), /Ogg with Speex/],
    ['unlike rates', join(fixture('mono.ogg'), fixture('stereo.ogg')), /16000 Hz and \(Vorbis\) 44100 Hz/],
  ];
  for (const [what, file, message] of cases) await t.throwsAsync(read(file), { ...refused, message }, what);
});

test('opus: comments over several pages, and headers and packets that cannot be', async (t) => {
  const opus = fixture('mono.opus');
  const [want] = (await read(opus)).channels;
  const [head, , ...rest] = oggPages(opus);
  const serial = new DataView(head!.buffer).getUint32(14, true);
  const comments = join('OpusTags', new Uint8Array(150_000));
  const first = oggPage([comments.subarray(0, 255 * 255)], { serial, number: 1, goesOn: true });
  const second = oggPage([comments.subarray(255 * 255, 2 * 255 * 255)], { serial, number: 2, flags: 1, goesOn: true });
  const third = oggPage([comments.subarray(2 * 255 * 255)], { serial, number: 3, flags: 1 });
  const file = join(head!, first, second, third, ...rest.map((page, i) => sealed(page, { number: 4 + i })));
  const audio = await read(file);
  t.true(same(audio.channels, [want!]), 'a picture in the comments');
  warned(t, audio, undefined, 'a picture in the comments');

  const tags = oggPage([join('OpusTags', new Uint8Array(8))], { number: 1 });
  const opusHead = (channels: number, family: number, ...mapping: number[]) =>
    join('OpusHead', Uint8Array.of(1, channels, 0, 0, 0x80, 0xbb, 0, 0, 0, 0, family, ...mapping));
  const of = (header: Uint8Array, packet: Uint8Array) =>
    join(oggPage([header], { flags: 2 }), tags, oggPage([packet], { flags: EOS, number: 2, granule: 960 }));
  const cases: [string, Uint8Array, RegExp][] = [
    ['no channels', of(opusHead(0, 0), Uint8Array.of(8)), /0 channels, expected 1 to 64/],
    [
      '255 channels',
      of(opusHead(255, 255, 255, 0, ...Array.from({ length: 255 }, (_, i) => i)), Uint8Array.of(8)),
      /255 channels/,
    ],
    ['3 channels without mapping', of(opusHead(3, 0), Uint8Array.of(8)), /3 channels in mapping family 0/],
    ['a mapping cut short', of(opusHead(3, 1, 2, 1, 0), Uint8Array.of(8)), /mapping is cut short/],
    ['streams that do not fit', of(opusHead(2, 1, 0, 0, 0, 1), Uint8Array.of(8)), /damaged Opus/],
    ['an empty packet', of(opusHead(1, 0), new Uint8Array(0)), /a packet has no frames/],
    ['a packet of 200 ms', of(opusHead(1, 0), Uint8Array.of(0x1b, 10, 0)), /more than 120 ms/],
    ['a packet that is none', of(opusHead(1, 0), Uint8Array.of(0x02, 255)), /the audio is damaged/],
  ];
  for (const [what, bytes, message] of cases) await t.throwsAsync(read(bytes), { ...refused, message }, what);
});

test('vorbis: headers that are missing, torn or impossible are refused, whatever their checksums', async (t) => {
  const pages = oggPages(fixture('mono.ogg'));
  const changed = (page: number, at: number, byte: number) =>
    join(...pages.map((each, i) => (i === page ? sealed(each.map((old, j) => (j === at ? byte : old))) : each)));
  const body = 27 + 1;
  const cases: [string, Uint8Array, RegExp][] = [
    ['no channels', changed(0, body + 11, 0), /0 channels/],
    ['200 channels', changed(0, body + 11, 200), /200 channels, expected 1 to 64/],
    ['blocks of 2^15', changed(0, body + 28, 0xf8), /blocks of 2\^8 and 2\^15 samples/],
    ['a later version', changed(0, body + 7, 1), /damaged Vorbis/],
    ['comments of another type', changed(1, 27 + pages[1]![26]!, 5), /header packet 3 is missing/],
  ];
  for (const [what, bytes, message] of cases) await t.throwsAsync(read(bytes), { ...refused, message }, what);
});

// ---- what is told by the first bytes ----

test('detectFormat: formats, tags before them, and what is no audio', (t) => {
  const noise = Uint8Array.from({ length: 65536 }, (_, i) => (i * 7919 + (i * i) / 3) & 255);
  const cases: [Uint8Array, AudioFormat, RegExp, number?][] = [
    [fixture('mono.wav'), 'wav', /WAV/],
    [join('RIFX\0\0\0\0WAVE'), 'wav', /WAV/],
    [join('RF64\xff\xff\xff\xffWAVE'), 'wav', /WAV/],
    [fixture('mono.flac'), 'flac', /FLAC/],
    [fixture('mono.opus'), 'ogg', /Ogg/],
    [join('junk', fixture('mono.ogg')), 'ogg', /Ogg/],
    [fixture('stereo-plain.mp3'), 'mp3', /MP3/],
    [join(new Uint8Array(5000), fixture('stereo-plain.mp3')), 'mp3', /MP3/],
    [join(id3(300), id3(20), fixture('mono.flac')), 'tagged', /ID3/, 340],
    [join('ID3\x04\0\0\x7f\x7f\x7f\x7f', noise), 'tagged', /ID3/, 10 + 2 ** 28 - 1],
    [join('\0\0\0\x20ftypM4A '), 'foreign', /MP4/],
    [join('\x1a\x45\xdf\xa3'), 'foreign', /WebM/],
    [join('\xff\xf1\x50\x80'), 'foreign', /AAC/],
    [join('FORM\0\0\0\0AIFF'), 'foreign', /AIFF/],
    [noise, 'unknown', /a file that begins/],
    [join('This is not audio.\n'), 'unknown', /text that begins "This is not audio/],
    [join('f'), 'unknown', /text/],
    [new Uint8Array(0), 'unknown', /./],
  ];
  for (const [bytes, format, label, offset = 0] of cases) {
    const found = detectFormat(bytes.subarray(0, 65536));
    t.is(found.format, format);
    t.regex(found.label, label);
    t.is(found.offset, offset);
  }
});

// ---- beside ffmpeg ----

if (!has('ffmpeg')) console.log('ffmpeg is absent: its files are not read');

(has('ffmpeg') ? test : test.skip)(
  'mp3, vorbis, opus and ogg flac of the real ffmpeg: as long and as loud as ffmpeg decodes them',
  async (t) => {
    const run = (args: string[], input?: Uint8Array) =>
      new Uint8Array(spawnSync('ffmpeg', ['-v', 'error', ...args, 'pipe:1'], { input, maxBuffer: 1 << 28 }).stdout);
    const source = ['-f', 'lavfi', '-i', 'sine=f=330:d=1.3:r=48000,volume=4'];
    const cases: [string, string[], number][] = [
      ['mp3', ['-c:a', 'libmp3lame', '-f', 'mp3'], 0],
      ['mp2', ['-c:a', 'mp2', '-f', 'mp2'], 1152],
      ['vorbis', ['-c:a', 'libvorbis', '-f', 'ogg'], 0],
      ['opus', ['-c:a', 'libopus', '-f', 'opus'], 0],
      ['opus, 60 ms', ['-c:a', 'libopus', '-frame_duration', '60', '-f', 'opus'], 0],
      ['ogg flac', ['-c:a', 'flac', '-f', 'ogg'], 0],
    ];
    for (const [what, args, slack] of cases) {
      const file = run([...source, '-ac', '2', ...args]);
      const audio = await read(file);
      const decoded = run(['-i', 'pipe:0', '-f', 'f32le'], file);
      const want = new Float32Array(decoded.buffer, 0, decoded.length >> 2);
      t.deepEqual(audio.warnings, [], what);
      t.is(audio.channels.length, 2);
      t.true(
        Math.abs(audio.channels[0]!.length - want.length / 2) <= slack + 24,
        `${what}: ${audio.channels[0]!.length} for ${want.length / 2}`,
      );
      const energy = (samples: Float32Array) => Math.sqrt(samples.reduce((sum, x) => sum + x * x, 0) / samples.length);
      t.true(Math.abs(energy(audio.channels[1]!) / energy(want) - 1) < 0.01, what);
    }
  },
);
