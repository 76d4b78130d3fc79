/** whisper.cpp beside ours: its command line, and the times that it prints of itself. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { decodeAudio, encodeWav } from '../lib/audio/index.js';
import { DistilWhisperError } from '../lib/errors/index.js';
import { convert } from '../lib/export/index.js';
import { packageRoot } from '../lib/native/index.js';
import { Stream } from '../lib/tensor/index.js';
import { tokenizerFromTiktoken } from '../lib/text/index.js';
import { fromFloat32, writeModelFolder } from '../lib/weights/index.js';
import { MULTILINGUAL, ranks } from '../test/support/exports.js';
import { randomModel } from './data.js';
import type { Spread } from './spread.js';

const SECONDS = 30;

export interface WhisperCppOptions {
  /** whisper-cli. */
  whisperCpp: string | undefined;
  /** A ggml model. Default: Whisper-small with the weights of the bench, in f16. */
  whisperCppModel: string | undefined;
  threads: number;
}

export class WhisperCpp {
  private constructor(
    private readonly program: string,
    private readonly model: string,
    private readonly audio: string,
    private readonly threads: number,
    /** The program's, and the model's name. */
    readonly version: string,
  ) {}

  /** The peer, or the reason why there is none. Throws ERR_FILE_NOT_FOUND for a path that does not exist. */
  static async find({ whisperCpp, whisperCppModel, threads }: WhisperCppOptions): Promise<WhisperCpp | string> {
    if (whisperCpp === undefined) return 'no program was named (--whisper-cpp PATH of whisper-cli)';
    for (const [option, path] of [
      ['--whisper-cpp', whisperCpp],
      ['--whisper-cpp-model', whisperCppModel],
    ] as const) {
      if (path !== undefined && !existsSync(path))
        throw new DistilWhisperError('ERR_FILE_NOT_FOUND', `${option}: expected a file, got ${path}: no such file`);
    }
    const folder = mkdtempSync(join(tmpdir(), 'distilwhisper-ggml-'));
    process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
    const audio = join(folder, 'speech.wav');
    writeFileSync(audio, await speech());
    const model = whisperCppModel ?? join(folder, 'random-small-f16.bin');
    if (whisperCppModel === undefined) await writeRandom(model);
    const { stdout } = spawnSync(whisperCpp, ['--version'], { encoding: 'utf8' });
    const version = /version: (\S+)/.exec(stdout ?? '')?.[1] ?? 'unknown version';
    return new WhisperCpp(whisperCpp, model, audio, threads, `${version}, ${basename(model)}`);
  }

  /**
   * Transcribes 30 s greedily, once: milliseconds of its encoder and of a decoding step, by its own clock. Throws ERR_RUN where
   * it fails, prints no times, or decodes nothing.
   */
  run(): { encoder: number; token: number } {
    const settings = '--beam-size 1 --best-of 1 --no-fallback --no-timestamps --no-gpu --max-context 0 --language en';
    const files = ['--model', this.model, '--file', this.audio, '--threads', `${this.threads}`];
    const { error, status, stderr } = spawnSync(this.program, [...settings.split(' '), ...files], { encoding: 'utf8' });
    const refuse = (why: string): never => {
      throw new DistilWhisperError('ERR_RUN', `whisper.cpp (${this.program}, ${this.model}): ${why}`);
    };
    if (error || status !== 0) return refuse(error?.message ?? stderr.trim().split('\n').at(-1)!);
    // 'decode': steps of one token; 'batchd': short texts, among them the prompt.
    const time = (what: string): number => {
      const line = new RegExp(`${what} time = +([\\d.]+) ms / +(\\d+) runs`).exec(stderr);
      if (!line || Number(line[2]) === 0) return refuse(`it prints no times of '${what}'; was there any speech?`);
      return Number(line[1]) / Number(line[2]);
    };
    return { encoder: time('encode'), token: time('decode') };
  }

  /** A window's encoder, its tokens, or both, from one run a round. */
  sample(what: 'encoder' | 'decode' | 'window', tokens: number): Spread {
    const { encoder, token } = this.run();
    const ms = (what === 'decode' ? 0 : encoder) + (what === 'encoder' ? 0 : tokens * token);
    return { min: ms, median: ms, max: ms };
  }
}

/** 30 s of the corpus as a WAV file. */
async function speech(): Promise<Uint8Array> {
  const { samples, sampleRate } = await decodeAudio(join(packageRoot(), 'corpus', 'en', 'test-in-0000.opus'));
  return encodeWav(
    Float32Array.from({ length: SECONDS * sampleRate }, (_, i) => samples[i % samples.length]!),
    sampleRate,
  );
}

/** The random weights of the bench as a file of whisper.cpp's; its vocabulary has no words of a language. */
async function writeRandom(path: string): Promise<void> {
  const stream = new Stream();
  const model = await randomModel(stream, 'small', 'fp32');
  const tensors = await Promise.all(
    Array.from(model.parameters, async ([name, p]) => ({
      name,
      ...fromFloat32(await p.value.floats(), p.shape, 'f32'),
    })),
  );
  stream.close();
  const tokenizer = JSON.stringify(tokenizerFromTiktoken(ranks(MULTILINGUAL)));
  const folder = `${path}.folder`;
  await writeModelFolder(folder, { config: model.config, files: { 'tokenizer.json': tokenizer }, tensors });
  await convert(folder, { to: path, format: 'ggml' });
  rmSync(folder, { recursive: true });
}
