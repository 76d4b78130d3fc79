/** Has an utterance spoken by its synthesiser and passed through the sound of its domain. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Utterance } from './plan.js';
import { Random } from './random.js';
import {
  addNoise,
  equalise,
  parseWav,
  RATE,
  resample,
  reverberate,
  type Sound,
  scaleTo,
  toPcm,
  trim,
} from './sound.js';

/** The longest an utterance may be, so that it fits a window of five seconds. */
export const MAX_SECONDS = 4.6;

/** Runs a program with `input` on its standard input and gives its standard output. */
export function runProgram(program: string, args: string[], input: Buffer | string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    const complaints: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => complaints.push(chunk));
    child.on('error', (error) => reject(new Error(`${program} did not start: ${error.message}`)));
    child.stdin.on('error', reject);
    child.on('close', (code) => {
      if (code === 0) resolve(Buffer.concat(out));
      else reject(new Error(`${program} ${args.join(' ')} ended with ${code}: ${Buffer.concat(complaints)}`));
    });
    child.stdin.end(input);
  });
}

/** Speech by a program that can only write to a file. */
async function toFile(engine: 'festival' | 'flite', voice: string, spoken: string): Promise<Sound> {
  const folder = await mkdtemp(join(tmpdir(), 'corpus-'));
  try {
    const file = join(folder, 'speech.wav');
    if (engine === 'flite') await runProgram('flite', ['-voice', voice, '-t', spoken, '-o', file], '');
    else {
      const script = `(voice_${voice})(utt.save.wave (utt.synth (Utterance Text "${spoken}")) "${file}" (quote riff))`;
      // The Catalan voice reads Latin-1.
      await runProgram('festival', ['--pipe'], Buffer.from(script, 'latin1'));
    }
    return parseWav(await readFile(file));
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Compiles the espeak-ng helper into a temporary folder and returns its path. */
export function compileSpeaker(): string {
  const program = join(mkdtempSync(join(tmpdir(), 'speaker-')), 'speaker');
  const source = fileURLToPath(new URL('./speaker.cpp', import.meta.url));
  execFileSync('g++', ['-O2', source, '-o', program, '-lespeak-ng'], { stdio: 'inherit' });
  return program;
}

/**
 * One running espeak-ng. Its sound depends slightly on what it said before, so every language has one of its own and
 * uses it in a fixed order.
 */
export class Speaker {
  private readonly child: ChildProcess;
  private received: Buffer[] = [];
  private held = 0;
  private waiting: { resolve: (sound: Sound) => void; reject: (error: Error) => void } | undefined;

  constructor(program: string) {
    this.child = spawn(program, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.child.stdout?.on('data', (chunk: Buffer) => {
      this.received.push(chunk);
      this.held += chunk.length;
      this.deliver();
    });
    this.child.on('close', (code) => this.waiting?.reject(new Error(`the espeak-ng helper ended with ${code}`)));
  }

  say(voice: string, pace: number, pitch: number, text: string): Promise<Sound> {
    return new Promise((resolve, reject) => {
      this.waiting = { resolve, reject };
      this.child.stdin?.write(`${voice}\t${pace}\t${pitch}\t${text}\n`);
    });
  }

  close(): void {
    this.waiting = undefined;
    this.child.stdin?.end();
  }

  private deliver(): void {
    if (this.held < 8) return;
    const bytes = Buffer.concat(this.received);
    this.received = [bytes];
    const count = bytes.readUInt32LE(4);
    if (bytes.length < 8 + 2 * count) return;
    const samples = new Float32Array(count);
    for (let i = 0; i < count; i++) samples[i] = bytes.readInt16LE(8 + 2 * i) / 32768;
    this.received = [];
    this.held = 0;
    this.waiting?.resolve({ samples, rate: bytes.readUInt32LE(0) });
  }
}

async function speak(utterance: Utterance, faster: number, speaker: Speaker): Promise<Float32Array> {
  const { voice, spoken } = utterance;
  if (voice.engine === 'espeak-ng') {
    const pace = Math.min(450, Math.round(voice.pace * faster));
    return resample(await speaker.say(voice.name, pace, voice.pitch, spoken), RATE);
  }
  const sound = await toFile(voice.engine, voice.name, spoken);
  return resample(sound, RATE, voice.speed * faster);
}

/** The utterance as 16 kHz samples of at most MAX_SECONDS; a slow one is said again faster. */
export async function synthesise(utterance: Utterance, seed: string, speaker: Speaker): Promise<Float32Array> {
  const random = new Random(`${seed} sound ${utterance.id}`);
  const before = Math.round(random.uniform(0.05, 0.25) * RATE);
  const after = Math.round(random.uniform(0.05, 0.25) * RATE);
  const room = MAX_SECONDS * RATE - before - after;
  let speech = trim(await speak(utterance, 1, speaker));
  for (let attempt = 0, faster = 1; speech.length > room && attempt < 4; attempt++) {
    faster *= (speech.length / room) * 1.04;
    speech = trim(await speak(utterance, faster, speaker));
  }
  if (speech.length > room) throw new Error(`${utterance.id} lasts ${speech.length / RATE} s: "${utterance.spoken}"`);
  if (speech.length < 0.15 * RATE) throw new Error(`${utterance.id} is silent: "${utterance.spoken}"`);

  let samples: Float32Array = new Float32Array(before + speech.length + after);
  samples.set(speech, before);
  if (utterance.domain === 'in') {
    if (random.chance(0.7)) addNoise(samples, random.uniform(22, 45), random.pick(['white', 'pink', 'brown']), random);
  } else {
    equalise(samples, random.uniform(-0.5, 0.5), random.pick([3400, 4500, 6000, 7500]));
    if (random.chance(0.6))
      samples = reverberate(samples, random.uniform(0.1, 0.35), random.uniform(0.15, 0.5), random);
    addNoise(samples, random.uniform(10, 20), random.pick(['white', 'pink', 'brown']), random);
  }
  scaleTo(samples, random.uniform(0.25, 0.9));
  return samples;
}

/** Opus in Ogg at about 12 kbit/s; the stream's serial number is fixed so that equal sound gives equal bytes. */
export async function encodeOpus(samples: Float32Array, file: string, serial: number): Promise<void> {
  const args = ['--quiet', '--raw', '--raw-rate', `${RATE}`, '--raw-chan', '1', '--bitrate', '12', '--speech'];
  args.push('--padding', '0', '--discard-comments', '--serial', `${serial}`, '-', file);
  await runProgram('opusenc', args, toPcm(samples));
}
