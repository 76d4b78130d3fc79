/** Audio files to mono samples. */
import { readFile, stat } from 'node:fs/promises';
import decodeFlac from '@audio/decode-flac';
import decodeMp3 from '@audio/decode-mp3';
import decodeOpus from '@audio/decode-opus';
import decodeVorbis from '@audio/decode-vorbis';
import { DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { detectFormat, flacEndsWhole, flacInfo, inspectMp3, inspectOgg, type OggStream } from './container.js';
import { ffmpegToWav } from './ffmpeg.js';
import { decodeWav, rescale, type WavLayout, wavLayout } from './wav.js';

export interface DecodedAudio {
  /** Mono: the mean of the channels. Nominally -1..1; lossy codecs and float files may go slightly beyond. */
  samples: Float32Array;
  /** In Hz, as stored (Opus: 48000). */
  sampleRate: number;
  /** Channels of the file before the mean was taken. */
  channels: number;
  /** In seconds. */
  duration: number;
}

export interface DecodeOptions {
  /** How messages name the audio when it is given as bytes. */
  name?: string;
}

interface Planar {
  channelData: Float32Array[];
  sampleRate: number;
  /** Channels of the file, where the decoder returns more (mpg123 doubles mono). */
  channels?: number;
}

/** Beyond this the samples are surely integers that were stored as floats without scaling. */
const LARGEST_SAMPLE = 16;

/**
 * Decodes an audio file: WAV (8, 16, 24, 32-bit PCM, float, A-law, µ-law, ADPCM), FLAC, MP3, Ogg Vorbis, Ogg FLAC and Opus; other
 * formats through the system's ffmpeg. The format is told by the content, never by the file's name. A file that is damaged or
 * cut short is an error, not a shorter result.
 * @param source a path or the file's bytes
 * @throws ERR_FILE_NOT_FOUND, ERR_FILE_READ (a directory, no permission), ERR_AUDIO_EMPTY (no bytes, no samples),
 * ERR_AUDIO_FORMAT (not audio, damaged, truncated), ERR_AUDIO_SAMPLES (NaN, infinite or unscaled samples)
 */
export async function decodeAudio(source: string | Uint8Array, options: DecodeOptions = {}): Promise<DecodedAudio> {
  const name = options.name ?? (typeof source === 'string' ? source : 'the audio');
  const bytes = typeof source === 'string' ? await readAudioFile(source, name) : source;
  if (bytes.length === 0) throw new DistilWhisperError('ERR_AUDIO_EMPTY', `${name}: the file is empty (0 bytes)`);
  let planar: Planar;
  try {
    planar = await decodePlanar(source, bytes, name);
  } catch (error) {
    if (isDistilWhisperError(error)) throw error;
    const reason = error instanceof Error ? error.message : String(error);
    throw new DistilWhisperError('ERR_AUDIO_FORMAT', `${name}: the audio could not be decoded (${reason})`, {
      cause: error,
    });
  }
  return toMono(planar, name);
}

async function readAudioFile(path: string, name: string): Promise<Uint8Array> {
  try {
    const info = await stat(path);
    if (info.isDirectory())
      throw new DistilWhisperError('ERR_FILE_READ', `${name}: expected an audio file, got a directory`);
    if (!info.isFile() && !info.isFIFO())
      throw new DistilWhisperError('ERR_FILE_READ', `${name}: expected an audio file, got a device or socket`);
    return await readFile(path);
  } catch (error) {
    if (isDistilWhisperError(error)) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR')
      throw new DistilWhisperError('ERR_FILE_NOT_FOUND', `${name}: there is no such file`, { cause: error });
    throw new DistilWhisperError('ERR_FILE_READ', `${name}: the file cannot be read (${message})`, { cause: error });
  }
}

async function decodePlanar(source: string | Uint8Array, bytes: Uint8Array, name: string): Promise<Planar> {
  const detected = detectFormat(bytes);
  const body = detected.offset > 0 ? bytes.subarray(detected.offset) : bytes;
  const viaFfmpeg = async (label: string) => planarWav(wavLayout(await ffmpegToWav(source, label, name), name));
  switch (detected.format) {
    case 'wav': {
      const wav = wavLayout(body, name);
      return wav.codec ? planarWav(wav) : viaFfmpeg(`WAV with format tag 0x${wav.tag.toString(16)}`);
    }
    case 'flac':
      return planarFlac(body, name);
    case 'mp3': {
      const mp3 = inspectMp3(bytes, detected.offset, name);
      return { ...checked(await decodeMp3(mp3.frames), name), channels: mp3.channels };
    }
    case 'ogg': {
      const links = inspectOgg(body, name);
      const other = links.find((link) => link.codec === 'other');
      return other ? viaFfmpeg(other.label) : planarOgg(links, name);
    }
    case 'foreign':
      return viaFfmpeg(detected.label);
    default:
      throw new DistilWhisperError(
        'ERR_AUDIO_FORMAT',
        `${name}: expected WAV, FLAC, MP3, Ogg Vorbis or Opus audio, got ${detected.label}`,
      );
  }
}

const planarWav = (wav: WavLayout): Planar => ({ channelData: decodeWav(wav), sampleRate: wav.sampleRate });

/** Decodes the links of a chained Ogg file one by one; they may differ in codec and channels, not in their sample rate. */
async function planarOgg(links: OggStream[], name: string): Promise<Planar> {
  const decoders = { vorbis: decodeVorbis, opus: decodeOpus, flac: decodeFlac };
  const parts: Planar[] = [];
  for (const { codec, bits, bytes, label } of links) {
    const part = checked(await decoders[codec as keyof typeof decoders](bytes), name);
    if (bits > 0) rescale(part.channelData, bits, 'both');
    if (part.channelData[0]?.length) parts.push(part);
    const [first] = parts;
    if (first && part.channelData[0]?.length && part.sampleRate !== first.sampleRate)
      throw new DistilWhisperError(
        'ERR_AUDIO_FORMAT',
        `${name}: the Ogg file chains streams of ${first.sampleRate} Hz and (${label}) ${part.sampleRate} Hz`,
      );
  }
  const [only] = parts;
  if (!only) return { channelData: [], sampleRate: 0 };
  if (parts.length === 1) return only;
  const mono = parts.map((part) => mean(part.channelData));
  const joined = new Float32Array(mono.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of mono) {
    joined.set(part, at);
    at += part.length;
  }
  return { ...only, channelData: [joined], channels: only.channelData.length };
}

async function planarFlac(bytes: Uint8Array, name: string): Promise<Planar> {
  const { total, bits } = flacInfo(bytes, name);
  const planar = checked(await decodeFlac(bytes), name);
  const got = planar.channelData[0]?.length ?? 0;
  if (total > 0 && got !== total)
    throw new DistilWhisperError(
      'ERR_AUDIO_FORMAT',
      `${name}: truncated or damaged FLAC: it announces ${total} samples and ${got} could be decoded`,
    );
  if (total === 0 && !flacEndsWhole(bytes))
    throw new DistilWhisperError('ERR_AUDIO_FORMAT', `${name}: truncated or damaged FLAC: its last frame is not whole`);
  rescale(planar.channelData, bits, 'both');
  return planar;
}

/** The WASM decoders collect what they could not decode in an untyped `errors` array instead of throwing. */
function checked(planar: Planar & { errors?: { message: string }[] }, name: string): Planar {
  const error = planar.errors?.[0];
  if (error) throw new DistilWhisperError('ERR_AUDIO_FORMAT', `${name}: the audio is damaged (${error.message})`);
  return planar;
}

function toMono({ channelData, sampleRate, channels = channelData.length }: Planar, name: string): DecodedAudio {
  const length = channelData[0]?.length ?? 0;
  if (length === 0) throw new DistilWhisperError('ERR_AUDIO_EMPTY', `${name}: the audio holds no samples`);
  if (!(sampleRate >= 1000 && sampleRate <= 768000))
    throw new DistilWhisperError(
      'ERR_AUDIO_FORMAT',
      `${name}: expected a sample rate of 1 to 768 kHz, got ${sampleRate} Hz`,
    );
  const used = channelData.slice(0, channels);
  const samples = mean(used);
  for (const channel of used)
    for (let i = 0; i < length; i++)
      if (!(Math.abs(channel[i]!) <= LARGEST_SAMPLE))
        throw new DistilWhisperError(
          'ERR_AUDIO_SAMPLES',
          `${name}: sample ${i} is ${channel[i]}; expected finite samples scaled to -1..1`,
        );
  return { samples, sampleRate, channels, duration: length / sampleRate };
}

function mean(channels: Float32Array[]): Float32Array {
  // Copied even when mono: a view would pin, and transfer to other threads, the whole buffer behind it.
  if (channels.length === 1) return Float32Array.from(channels[0]!);
  const mono = new Float32Array(channels[0]!.length);
  const scale = 1 / channels.length;
  for (let i = 0; i < mono.length; i++) {
    let sum = 0;
    for (const channel of channels) sum += channel[i]!;
    mono[i] = sum * scale;
  }
  return mono;
}
