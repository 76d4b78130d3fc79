/** What the tests of lib/weights share: scratch folders, the check of a refusal, a small model with random weights. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ExecutionContext } from 'ava';
import { type ErrorCode, isDistilWhisperError } from '../../lib/errors/index.js';
import { fromFloat32, type HostTensor, type WhisperConfig, whisperPreset } from '../../lib/weights/index.js';

/** A temporary folder that goes when the test ends. */
export async function scratch(t: ExecutionContext): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'weights-'));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

/** Asserts that `run` fails with a typed error of this code whose sentence matches. */
export async function refused(
  t: ExecutionContext,
  code: ErrorCode,
  pattern: RegExp,
  run: () => unknown,
): Promise<void> {
  const error = await t.throwsAsync(async () => await run());
  t.true(isDistilWhisperError(error), `${error?.stack}`);
  t.is((error as { code?: string }).code, code, error?.message);
  t.regex(error?.message ?? '', pattern);
}

/** A small generator with a seed (xorshift32), so that a failure can be repeated. */
export function generator(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

/** A Whisper of 1 + 2 layers with unequal FFN widths and head counts, so that a mix-up shows. */
export const small: WhisperConfig = {
  ...whisperPreset('tiny'),
  vocab_size: 30,
  num_mel_bins: 4,
  d_model: 8,
  encoder_layers: 1,
  encoder_attention_heads: 2,
  encoder_ffn_dim: 12,
  decoder_layers: 2,
  decoder_attention_heads: 4,
  decoder_ffn_dim: 20,
  max_source_positions: 6,
  max_target_positions: 5,
  decoder_start_token_id: 28,
  pad_token_id: 29,
  bos_token_id: 29,
  eos_token_id: 29,
  suppress_tokens: null,
  begin_suppress_tokens: [1, 29],
};

/** A float32 tensor with random values for each shape. */
export function randomTensors(shapes: ReadonlyMap<string, readonly number[]>, seed = 1): Map<string, HostTensor> {
  const next = generator(seed);
  const tensors = new Map<string, HostTensor>();
  for (const [name, shape] of shapes) {
    const count = shape.reduce((product, size) => product * size, 1);
    const values = Float32Array.from({ length: count }, () => next(2000) / 1000 - 1);
    tensors.set(name, fromFloat32(values, shape, 'f32'));
  }
  return tensors;
}
