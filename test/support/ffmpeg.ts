import { spawnSync } from 'node:child_process';

/** Whether the system's ffmpeg is there; without it the tests that run it say that they are skipped. */
export const haveFfmpeg = spawnSync('ffmpeg', ['-version']).status === 0;
if (!haveFfmpeg) console.log('no ffmpeg is installed: what goes through it is skipped');

/** Runs ffmpeg; throws what it complains of. */
export function ffmpeg(...args: string[]): void {
  const { status, stderr } = spawnSync('ffmpeg', ['-nostdin', '-y', '-v', 'error', ...args], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`ffmpeg ${args.join(' ')}: ${stderr}`);
}
