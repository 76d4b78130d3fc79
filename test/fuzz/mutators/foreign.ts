/** Files of formats that are somebody else's: their first bytes, their boxes and chunks, and sound ones that ffmpeg reads. */
import type { Random } from '../random.js';
import { ascii, concat, mutateBytes, randomBytes, view } from './bytes.js';

const HEADS: readonly Uint8Array[] = [
  '\0\0\0\x18ftypM4A \0\0\0\0',
  '\0\0\0\x14ftypqt  ',
  '\0\0\0\x08moov',
  '\x1a\x45\xdf\xa3',
  'FORM\0\0\0\x40AIFF',
  'FORM\0\0\0\x40AIFC',
  'RF64\xff\xff\xff\xffWAVE',
  'riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\0\0',
  'caff\0\x01\0\0',
  '.snd\0\0\0\x18',
  '#!AMR\n',
  'ADIF',
  '\x30\x26\xb2\x75\x8e\x66\xcf\x11',
  'wvpk',
  '\xff\xf1\x50\x80',
  'ID3\x04\0\0\0\0\0\x0a',
  '\x47\x40\0\x10',
  'FLV\x01',
  '\x0b\x77',
  'NIST_1A\n   1024\n',
  'Creative Voice File\x1a',
  'TTA1',
  'RIFF\0\0\0\x40AVI ',
  'MThd',
  'version https://git-lfs.github.com/spec/v1\n',
  '{"text": "hola"}',
  '\0\0\0\0',
  'OggS',
  'fLaC',
  'RIFF',
].map(ascii);

/** Bytes that begin like a known or an unknown kind of file. */
export function foreignBytes(random: Random): Uint8Array {
  const head = random.pick(HEADS);
  const bytes = concat(head, randomBytes(random, random.count(600)));
  return random.chance(0.5) ? mutateBytes(bytes.subarray(0, head.length + random.count(600)), random) : bytes;
}

/** Sound files of formats that only ffmpeg reads: AU, AIFF, CAF and QuickTime's oldest relative, Wave64 left out. */
export function ffmpegSeeds(): Uint8Array[] {
  const samples = new Uint8Array(400);
  for (let i = 0; i < 200; i++) view(samples).setInt16(2 * i, 8000 * Math.sin(i / 4));
  const numbers = (...values: number[]): Uint8Array => {
    const bytes = new Uint8Array(4 * values.length);
    for (const [i, value] of values.entries()) view(bytes).setUint32(4 * i, value);
    return bytes;
  };
  const au = concat(ascii('.snd'), numbers(24, samples.length, 3, 8000, 1), samples);
  // 8000 Hz as a float of 80 bits.
  const common = concat([0, 1], numbers(200), [0, 16], [0x40, 0x0b, 0xfa, 0, 0, 0, 0, 0, 0, 0]);
  const sound = concat(numbers(0, 0), samples);
  const chunks = concat(ascii('COMM'), numbers(common.length), common, ascii('SSND'), numbers(sound.length), sound);
  const aiff = concat(ascii('FORM'), numbers(chunks.length + 4), ascii('AIFF'), chunks);
  const rate = new Uint8Array(8);
  view(rate).setFloat64(0, 8000);
  const description = concat(rate, ascii('lpcm'), numbers(0, 2, 1, 1, 16));
  const data = concat(numbers(0), samples);
  const caf = concat(
    ascii('caff\0\x01\0\0'),
    concat(ascii('desc'), numbers(0, 32), description),
    concat(ascii('data'), numbers(0, data.length), data),
  );
  return [au, aiff, caf];
}
