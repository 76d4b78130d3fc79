/** decodeAudio, from bytes, by format. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeAudio } from '../../../lib/index.js';
import { mutateBytes } from '../mutators/bytes.js';
import { flacPackets, mutateFlac, readFlac } from '../mutators/flac.js';
import { ffmpegSeeds, foreignBytes } from '../mutators/foreign.js';
import { mp3Frames, mutateMp3 } from '../mutators/mp3.js';
import { mutateOgg, oggOf } from '../mutators/ogg.js';
import { mutateWav, wavSeeds } from '../mutators/riff.js';
import type { Random } from '../random.js';
import { onPath, promised, type Reader, root } from '../reader.js';

const fixture = (name: string): Uint8Array =>
  new Uint8Array(readFileSync(join(root, 'test', 'fixtures', 'audio', name)));

async function decode(input: Uint8Array): Promise<void> {
  const { samples, sampleRate, channels, duration } = await decodeAudio(input);
  promised(samples.length > 0 && channels >= 1, `${samples.length} samples of ${channels} channels`);
  promised(duration === samples.length / sampleRate, `${duration} s of ${samples.length} samples at ${sampleRate} Hz`);
  promised(
    samples.every((sample) => Math.abs(sample) <= 16),
    'a sample that is not finite or beyond 16',
  );
}

/** `make` is given by a function that gathers its seeds first. */
function audio(
  name: string,
  about: string,
  gather: () => (random: Random) => Uint8Array,
  more: Partial<Reader> = {},
): Reader {
  return {
    name,
    about,
    open(scratch) {
      const path = process.env.PATH;
      // Without ffmpeg, whatever the machine has.
      if (name !== 'ffmpeg') process.env.PATH = scratch;
      const close = (): void => {
        process.env.PATH = path;
      };
      return { make: gather(), read: decode, close };
    },
    ...more,
  };
}

const ogg = (seeds: readonly Uint8Array[]) => (random: Random) => mutateOgg(random.pick(seeds), random, seeds);

export const audioReaders: readonly Reader[] = [
  audio('wav', 'decodeAudio: WAV of every sample format, RIFX, RF64', () => {
    const seeds = wavSeeds();
    return (random) => mutateWav(random.pick(seeds), random);
  }),
  audio('flac', 'decodeAudio: FLAC by blocks and frames', () => {
    const seed = readFlac(fixture('mono.flac'));
    return (random) => mutateFlac(seed, random);
  }),
  audio('mp3', 'decodeAudio: MPEG audio by frames and tags', () => {
    const seeds = ['mono-info.mp3', 'stereo-plain.mp3'].map((name) => mp3Frames(fixture(name)));
    return (random) => mutateMp3(random.pick(seeds), random, seeds);
  }),
  audio('vorbis', 'decodeAudio: Ogg Vorbis by pages', () => ogg([fixture('mono.ogg'), fixture('stereo.ogg')])),
  audio('opus', 'decodeAudio: Opus by pages', () => ogg([fixture('mono.opus')])),
  audio('ogg-flac', 'decodeAudio: FLAC in Ogg, and chains of all codecs', () => {
    const packets = flacPackets(readFlac(fixture('mono.flac')));
    const granules = packets.map((_, i) => Math.min(4000, Math.max(0, i - 1) * 4096));
    return ogg([oggOf(packets, granules), fixture('mono.ogg'), fixture('mono.opus')]);
  }),
  audio('foreign', 'decodeAudio: the beginnings of other formats, and no format, without ffmpeg', () => foreignBytes),
  audio(
    'ffmpeg',
    'decodeAudio: AU, AIFF, CAF and unknown files through the ffmpeg of this machine',
    () => {
      const seeds = ffmpegSeeds();
      return (random) => (random.chance(0.8) ? mutateBytes(random.pick(seeds), random, seeds) : foreignBytes(random));
    },
    { share: 0.3, seconds: 15, missing: () => (onPath('ffmpeg') ? undefined : 'there is no ffmpeg on the PATH') },
  ),
];
