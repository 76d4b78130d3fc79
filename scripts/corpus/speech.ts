/** Has an utterance spoken by its synthesiser and passed through its channel. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Channel } from './conditions.js';
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
  telephone,
  toPcm,
  trim,
} from './sound.js';

/** Runs a program with `input` on its standard input and gives its standard output. */
export function runProgram(program: string, args: string[], input: Buffer | string): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    const out: Buffer[] = [];
    const complaints: Buffer[] = [];
    child.stdout.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr.on('data', (chunk: Buffer) => complaints.push(chunk));
    child.on('error', (error) => reject(new Error(`${program} did not start: ${error.message}`)));
    // One that ends without reading all of it says by its code how that went.
    child.stdin.on('error', () => {});
    child.on('close', (code) => {
      if (code === 0) resolve(Buffer.concat(out));
      else reject(new Error(`${program} ${args.join(' ')} ended with ${code}: ${Buffer.concat(complaints)}`));
    });
    child.stdin.end(input);
  });
}

/** What flite says. It can only write to a file. */
async function fliteSays(voice: string, spoken: string): Promise<Sound> {
  return inFolder(async (folder) => {
    const file = join(folder, 'speech.wav');
    await runProgram('flite', ['-voice', voice, '-t', spoken, '-o', file], '');
    return parseWav(await readFile(file));
  });
}

/** What festival says of several texts: starting it takes longer than a sentence. */
async function festivalSays(voice: string, texts: readonly string[]): Promise<Sound[]> {
  return inFolder(async (folder) => {
    const file = (i: number): string => join(folder, `${i}.wav`);
    const lines = texts.map(
      (text, i) => `(utt.save.wave (utt.synth (Utterance Text "${text}")) "${file(i)}" (quote riff))`,
    );
    // The Catalan voice reads Latin-1.
    await runProgram('festival', ['--pipe'], Buffer.from(`(voice_${voice})\n${lines.join('\n')}\n`, 'latin1'));
    return Promise.all(texts.map(async (_, i) => parseWav(await readFile(file(i)))));
  });
}

async function inFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'corpus-'));
  try {
    return await work(folder);
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
 * One running espeak-ng. Its sound depends slightly on what it said before, so every group has one of its own and
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

/** Utterances that are worked on together: festival starts once for them, and each Opus bit rate. */
const TOGETHER = 64;

/** The utterances of one group, in their order, as 16 kHz samples; null for one of which nothing is to be heard. */
export async function* synthesise(
  group: readonly Utterance[],
  seed: string,
  program: string,
): AsyncGenerator<Float32Array | null> {
  const speaker = new Speaker(program);
  try {
    for (let from = 0; from < group.length; from += TOGETHER) {
      const some = group.slice(from, from + TOGETHER);
      const recorded = await recordings(some);
      const heard: (Float32Array | null)[] = [];
      for (const [i, utterance] of some.entries()) {
        const random = new Random(`${seed} sound ${utterance.id}`);
        const samples = await fitted(utterance, recorded.get(i), speaker, random);
        heard.push(samples && throughAir(samples, utterance.channel, random));
      }
      await throughCodecs(some, heard);
      for (const [i, samples] of heard.entries()) {
        if (samples) scaleTo(samples, new Random(`${seed} loudness ${some[i]!.id}`).uniform(0.25, 0.9));
        yield samples;
      }
    }
  } finally {
    speaker.close();
  }
}

/** What other programs than espeak-ng say of some utterances, by their places. */
async function recordings(some: readonly Utterance[]): Promise<Map<number, Sound>> {
  const recorded = new Map<number, Sound>();
  const festival: number[] = [];
  for (const [i, { voice, spoken }] of some.entries()) {
    if (voice.engine === 'flite') recorded.set(i, await fliteSays(voice.name, spoken));
    if (voice.engine === 'festival') festival.push(i);
  }
  if (festival.length === 0) return recorded;
  const said = festival.map((i) => some[i]!.spoken);
  const sounds = await festivalSays(some[festival[0]!]!.voice.name, said);
  for (const [k, i] of festival.entries()) recorded.set(i, sounds[k]!);
  return recorded;
}

/**
 * An utterance between two short silences; one that is too long for the window is said again faster. null: there is nothing to be
 * heard (a synthesiser may not know a word), and of pre-training it may be left out.
 */
async function fitted(
  { id, domain, voice, spoken, seconds }: Utterance,
  recorded: Sound | undefined,
  speaker: Speaker,
  random: Random,
): Promise<Float32Array | null> {
  const silence = (): number => Math.round(random.uniform(0.01, 0.05) * seconds * RATE);
  const before = silence();
  const after = silence();
  const room = seconds * RATE - before - after;
  const speak = async (faster: number): Promise<Float32Array> => {
    if (voice.engine !== 'espeak-ng') return trim(resample(recorded!, RATE, voice.speed * faster));
    const pace = Math.min(450, Math.round(voice.pace * faster));
    return trim(resample(await speaker.say(voice.name, pace, voice.pitch, spoken), RATE));
  };
  let speech = await speak(1);
  for (let attempt = 0, faster = 1; speech.length > room && attempt < 4; attempt++) {
    faster *= (speech.length / room) * 1.04;
    speech = await speak(faster);
  }
  if (speech.length > room) throw new Error(`${id} lasts ${speech.length / RATE} s: "${spoken}"`);
  if (speech.length < 0.1 * RATE) {
    if (domain === 'broad') return null;
    throw new Error(`${id} is silent: "${spoken}"`);
  }
  const samples = new Float32Array(before + speech.length + after);
  samples.set(speech, before);
  return samples;
}

/** Tone, room and noise. */
function throughAir(samples: Float32Array, { tone, room, noise }: Channel, random: Random): Float32Array {
  if (tone) equalise(samples, tone.tilt, tone.cutoff);
  const heard = room ? reverberate(samples, room.seconds, room.wet, random) : samples;
  if (noise) addNoise(heard, noise.ratio, noise.colour, random);
  return heard;
}

/** Puts what codecs leave of them in the place of those that pass one. */
async function throughCodecs(some: readonly Utterance[], heard: (Float32Array | null)[]): Promise<void> {
  const byRate = new Map<number, number[]>();
  for (const [i, { channel }] of some.entries()) {
    const samples = heard[i];
    if (channel.codec === undefined || !samples) continue;
    scaleTo(samples, 0.7);
    if (channel.codec === 'telephone') heard[i] = telephone(samples);
    else byRate.set(channel.codec, [...(byRate.get(channel.codec) ?? []), i]);
  }
  for (const [rate, places] of byRate) {
    const decoded = await throughOpus(
      places.map((i) => heard[i]!),
      rate,
    );
    for (const [k, i] of places.entries()) heard[i] = decoded[k]!;
  }
}

/** Seconds of silence between those that are coded as one recording. */
const GAP = 0.25;

async function throughOpus(sounds: readonly Float32Array[], bitRate: number): Promise<Float32Array[]> {
  const gap = GAP * RATE;
  const starts: number[] = [];
  let end = gap;
  for (const { length } of sounds) {
    starts.push(end);
    end += length + gap;
  }
  const all = new Float32Array(end);
  for (const [i, samples] of sounds.entries()) all.set(samples, starts[i]!);
  const coded = await runProgram('opusenc', [...opusArguments(bitRate, 1), '--comp', '0', '-', '-'], toPcm(all));
  const wav = await runProgram('opusdec', ['--quiet', '--rate', `${RATE}`, '--force-wav', '-', '-'], coded);
  const { samples } = parseWav(wav);
  return sounds.map(({ length }, i) => samples.slice(starts[i]!, starts[i]! + length));
}

function opusArguments(bitRate: number, serial: number): string[] {
  return [
    ...['--quiet', '--raw', '--raw-rate', `${RATE}`, '--raw-chan', '1', '--bitrate', `${bitRate}`, '--speech'],
    ...['--padding', '0', '--discard-comments', '--serial', `${serial}`],
  ];
}

/** Opus in Ogg at about 12 kbit/s; the stream's serial number is fixed so that equal sound gives equal bytes. */
export async function encodeOpus(samples: Float32Array, file: string, serial: number): Promise<void> {
  await runProgram('opusenc', [...opusArguments(12, serial), '-', file], toPcm(samples));
}
