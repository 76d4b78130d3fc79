/** Formats that no permissively licensed decoder covers (m4a, WebM, AAC, …) go through the system's ffmpeg, if there is one. */
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DistilWhisperError } from '../errors/index.js';

/**
 * Converts a file to a float32 WAV with ffmpeg.
 * @param source a path, or the file's bytes (written to a temporary file first: MP4 needs to be seekable)
 * @param label what the file was found to be, for messages
 * @throws ERR_AUDIO_FORMAT if there is no ffmpeg on the PATH or if it cannot read the file
 */
export async function ffmpegToWav(source: string | Uint8Array, label: string, name: string): Promise<Uint8Array> {
  if (typeof source === 'string') return convert(source, label, name);
  const folder = await mkdtemp(join(tmpdir(), 'distilwhisper-audio-'));
  try {
    const path = join(folder, 'input');
    await writeFile(path, source);
    return await convert(path, label, name);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function convert(path: string, label: string, name: string): Promise<Uint8Array> {
  const args = [
    '-nostdin',
    '-v',
    'error',
    '-xerror',
    '-i',
    `file:${path}`,
    '-map',
    '0:a:0',
    '-c:a',
    'pcm_f32le',
    '-f',
    'wav',
    'pipe:1',
  ];
  return new Promise((resolve, reject) => {
    const fail = (why: string, cause?: Error) =>
      reject(new DistilWhisperError('ERR_AUDIO_FORMAT', `${name}: ${why}`, cause ? { cause } : undefined));
    const child = spawn('ffmpeg', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    let messages = '';
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => {
      messages = (messages + chunk).slice(-2000);
    });
    child.on('error', (error: NodeJS.ErrnoException) => {
      const why =
        error.code === 'ENOENT' ? 'no ffmpeg was found on the PATH' : `ffmpeg did not start (${error.message})`;
      fail(
        `the file is ${label}, which needs ffmpeg, and ${why}; WAV, FLAC, MP3, Ogg Vorbis and Opus need nothing else`,
        error,
      );
    });
    child.on('close', (code) => {
      if (code === 0) resolve(Buffer.concat(out));
      else
        fail(
          `ffmpeg could not decode the file (${label}): ${messages.trim().split('\n').pop() || `exit status ${code}`}`,
        );
    });
  });
}
