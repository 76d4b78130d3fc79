/** Audio files to mono samples. */
import { readFile, stat } from 'node:fs/promises';
import { DistilWhisperError, isDistilWhisperError } from '../errors/index.js';
import { ByteReader } from './bytes.js';
import { detectFormat } from './container.js';
import { ffmpegToWav } from './ffmpeg.js';
import { openFlac } from './flac.js';
import { openMp3 } from './mp3.js';
import { openOgg } from './ogg.js';
import { type AudioPieces, mean } from './reader.js';
import { openWav } from './wav.js';

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
  const reader = ByteReader.of(bytes);
  const context = { name, warn: () => {} };
  let detected = detectFormat(bytes.subarray(0, 65536));
  let tagged = false;
  while (detected.format === 'tagged') {
    tagged = true;
    await reader.skip(detected.offset);
    detected = detectFormat((await reader.peek(65536)).subarray(0, 65536));
  }
  const viaFfmpeg = async (label: string) => {
    const wav = await ffmpegToWav(source, label, name);
    return planar(await openWav(ByteReader.of(wav), context));
  };
  switch (detected.format) {
    case 'wav':
      return planar(await openWav(reader, context));
    case 'flac':
      return planar(await openFlac(reader, context));
    case 'mp3':
      return planar(await openMp3(reader, context));
    case 'ogg':
      return planar(await openOgg(reader, context));
    case 'foreign':
      return viaFfmpeg(detected.label);
    default:
      if (tagged) return planar(await openMp3(reader, context));
      throw new DistilWhisperError(
        'ERR_AUDIO_FORMAT',
        `${name}: expected WAV, FLAC, MP3, Ogg Vorbis or Opus audio, got ${detected.label}`,
      );
  }
}

async function planar(audio: AudioPieces): Promise<Planar> {
  const parts: Float32Array[][] = [];
  for await (const part of audio.pieces) parts.push(part);
  const length = parts.reduce((sum, part) => sum + part[0]!.length, 0);
  const channelData = Array.from({ length: audio.channels }, (_, channel) => {
    const samples = new Float32Array(length);
    let at = 0;
    for (const part of parts) {
      samples.set(part[channel]!, at);
      at += part[channel]!.length;
    }
    return samples;
  });
  return { channelData, sampleRate: audio.sampleRate };
}

function toMono({ channelData, sampleRate }: Planar, name: string): DecodedAudio {
  const length = channelData[0]?.length ?? 0;
  if (length === 0) throw new DistilWhisperError('ERR_AUDIO_EMPTY', `${name}: the audio holds no samples`);
  if (!(sampleRate >= 1000 && sampleRate <= 768000))
    throw new DistilWhisperError(
      'ERR_AUDIO_FORMAT',
      `${name}: expected a sample rate of 1 to 768 kHz, got ${sampleRate} Hz`,
    );
  const samples = mean(channelData);
  for (const channel of channelData)
    for (let i = 0; i < length; i++)
      if (!(Math.abs(channel[i]!) <= LARGEST_SAMPLE))
        throw new DistilWhisperError(
          'ERR_AUDIO_SAMPLES',
          `${name}: sample ${i} is ${channel[i]}; expected finite samples scaled to -1..1`,
        );
  return { samples, sampleRate, channels: channelData.length, duration: length / sampleRate };
}
