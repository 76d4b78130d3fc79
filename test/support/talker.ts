/** A small random Whisper that says letters: large weights, so that it says something else for other sounds. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { JsonObject } from '../../lib/files/index.js';
import { Whisper } from '../../lib/model/index.js';
import { Stream } from '../../lib/tensor/index.js';
import { WhisperTokenizer } from '../../lib/text/index.js';
import { fromFloat32, type WhisperConfig, writeModelFolder } from '../../lib/weights/index.js';
import { normals, random } from './random.js';
import { tinyConfig } from './tiny.js';

const files = fileURLToPath(new URL('../../models/pocket-student', import.meta.url));
export const tokenizer = await WhisperTokenizer.fromFolder(files);

/** All but a to z, the space and the end; not the space first. */
export const generation: JsonObject = {
  suppress_tokens: Array.from({ length: tokenizer.vocabSize }, (_, id) => id).filter(
    (id) => !/^[a-zĠ]$/.test(tokenizer.token(id)) && id !== tokenizer.endOfText,
  ),
  begin_suppress_tokens: [...tokenizer.encode(' '), tokenizer.endOfText],
  max_length: 20,
};

/** The talker's configuration; its window is one second. */
export function talkerConfig(changes: Partial<WhisperConfig> = {}): WhisperConfig {
  return tinyConfig({
    vocab_size: tokenizer.vocabSize,
    init_std: 0.4,
    decoder_layers: 2,
    max_source_positions: 50,
    decoder_start_token_id: tokenizer.startOfTranscript,
    pad_token_id: tokenizer.endOfText,
    bos_token_id: tokenizer.endOfText,
    eos_token_id: tokenizer.endOfText,
    ...changes,
  });
}

export function createTalker(stream: Stream, changes: Partial<WhisperConfig> = {}): Promise<Whisper> {
  return Whisper.create(stream, talkerConfig(changes), { seed: 6 });
}

/** The same as a model folder. */
export async function writeTalker(path: string): Promise<WhisperConfig> {
  const stream = new Stream({ threads: 1 });
  const model = await createTalker(stream);
  const tensors = await Promise.all(
    Array.from(model.parameters, async ([name, p]) => {
      const { dtype, shape, data } = fromFloat32(await p.value.floats(), p.shape, 'f32');
      return { name, dtype, shape, data };
    }),
  );
  stream.close();
  const copy = (name: string) => [name, readFileSync(join(files, name))] as const;
  await writeModelFolder(path, {
    config: model.config,
    generationConfig: generation,
    files: Object.fromEntries([copy('tokenizer.json'), copy('tokenizer_config.json')]),
    tensors,
  });
  return model.config;
}

/** Noise whose loudness, colour and length depend on the seed, on the 16-bit grid, so that a wav file holds it exactly. */
export function sound(
  seed: number,
  seconds: number,
  sampleRate: number,
): { samples: Float32Array; sampleRate: number } {
  const next = random(seed);
  const [loudness, smoothness] = [0.02 + 0.2 * next(), 0.98 * next()];
  let last = 0;
  const samples = normals(Math.round(seconds * sampleRate), next).map((x) => {
    last = smoothness * last + (1 - smoothness) * x;
    return Math.round(Math.max(-1, Math.min(0.99, loudness * last)) * 32768) / 32768;
  });
  return { samples, sampleRate };
}
