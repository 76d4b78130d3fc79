/** Repositories as OpenAI's are: their listing, with a small model of random weights in it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { WhisperConfig } from '../../lib/weights/index.js';
import { scratchFolder, writeTinyModel } from './cli.js';
import type { Content } from './hub-server.js';

/** Of openai/whisper-small, with a byte of what nobody here needs. */
export async function whisperFiles(
  seed: number,
  changes: Partial<WhisperConfig> = {},
  more: Parameters<typeof writeTinyModel>[3] = {},
): Promise<Record<string, Content>> {
  const { path, remove } = scratchFolder();
  try {
    const folder = join(path, 'model');
    await writeTinyModel(folder, seed, changes, more);
    const read = (name: string): Content => readFileSync(join(folder, name));
    const names = [
      'config.json',
      'generation_config.json',
      'tokenizer.json',
      'tokenizer_config.json',
      'model.safetensors',
    ];
    return {
      ...Object.fromEntries(names.map((name) => [name, read(name)])),
      'preprocessor_config.json': JSON.stringify({
        feature_size: 80,
        sampling_rate: 16000,
        hop_length: 160,
        n_fft: 400,
      }),
      '.gitattributes': '*.bin filter=lfs\n',
      'README.md': '# Whisper\n',
      'added_tokens.json': '{}',
      'special_tokens_map.json': '{}',
      'flax_model.msgpack': 'x',
      'tf_model.h5': 'x',
      'pytorch_model.bin': 'x',
      'onnx/encoder_model.onnx': 'x',
    };
  } finally {
    remove();
  }
}
