/**
 * What an hour of audio takes: peak memory and seconds of decoding to 16 kHz alone, and of transcribing with the pocket student,
 * above what half a second of the same takes. Needs ffmpeg, which makes the files: `npx tsx bench/long-audio.ts [seconds]`.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const seconds = Number(process.argv[2] ?? 3600);
const FORMATS: Record<string, string[]> = {
  mp3: [],
  flac: [],
  opus: ['-ar', '48000'],
  m4a: ['-c:a', 'aac', '-aac_coder', 'fast'],
  wav: [],
};

/** Runs in a process of its own, which tells its peak. */
const SCRIPT = `
const { DecodePool, Transcriber } = await import(process.argv[1]);
const [, , how, file, model] = process.argv;
const start = performance.now();
let heard = 0;
if (how === 'decode') {
  const pool = new DecodePool();
  const audio = await pool.open(file, { sampleRate: 16000 });
  for await (const piece of audio.pieces) heard += piece.length / 16000;
  await pool.close();
} else {
  const transcriber = await Transcriber.load(model);
  heard = (await transcriber.transcribe(file, { language: 'en' })).duration;
  await transcriber.close();
}
console.log(JSON.stringify({ heard, seconds: (performance.now() - start) / 1000, peak: process.resourceUsage().maxRSS / 1024 }));
`;

function measure(how: string, file: string): { heard: number; seconds: number; peak: number } {
  const door = join(root, 'dist', 'index.js');
  const args = ['--input-type=module', '-e', SCRIPT, door, how, file, join(root, 'models', 'pocket-student')];
  const { stdout, stderr, status } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return JSON.parse(stdout);
}

const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-bench-'));
try {
  const ffmpeg = (...args: string[]) => execFileSync('ffmpeg', ['-nostdin', '-v', 'error', '-y', ...args]);
  const speech = join(root, 'corpus', 'en', 'test-in-0000.opus');
  if (!existsSync(speech)) throw new Error(`${speech} is not there`);
  const wave = join(scratch, 'long.wav');
  ffmpeg('-stream_loop', '-1', '-i', speech, '-t', String(seconds), '-ac', '2', '-ar', '44100', wave);
  console.log(
    `| ${seconds} s of stereo 44.1 kHz | decoding, s | peak, MB above a short file | transcribing, s | peak, MB above |`,
  );
  console.log('|---|--:|--:|--:|--:|');
  for (const [ending, options] of Object.entries(FORMATS)) {
    const [long, short] = [join(scratch, `audio.${ending}`), join(scratch, `short.${ending}`)];
    ffmpeg('-i', wave, ...options, long);
    ffmpeg('-i', wave, '-t', '0.5', ...options, short);
    const cells = ['decode', 'transcribe'].flatMap((how) => {
      const [of, base] = [measure(how, long), measure(how, short)];
      if (Math.abs(of.heard - seconds) > 1) throw new Error(`${ending}: heard ${of.heard} s of ${seconds}`);
      return [of.seconds.toFixed(1), (of.peak - base.peak).toFixed(0)];
    });
    console.log(`| ${ending} | ${cells.join(' | ')} |`);
    rmSync(long);
  }
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
