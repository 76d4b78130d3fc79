/** Recorded numbers of the reference: from ../shared/golden when it is there, else from the compact part in test/golden. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  type HostTensor,
  parseSafetensors,
  parseWhisperConfig,
  toFloat32,
  type WhisperConfig,
} from '../../lib/weights/index.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
export const shared = join(root, '..', 'shared');
if (!existsSync(join(shared, 'golden'))) {
  console.log('../shared/golden is absent: of the recorded cases only the part in test/golden is run');
}

export type Tensors = Map<string, HostTensor>;

/** The path of a recorded file, or null when neither place has it. */
export function goldenPath(name: string): string | null {
  for (const folder of [join(shared, 'golden'), join(root, 'test', 'golden')]) {
    if (existsSync(join(folder, name))) return join(folder, name);
  }
  return null;
}

export function golden(name: string): Tensors {
  const path = goldenPath(`${name}.safetensors`);
  if (!path) throw new Error(`${name} is not recorded here`);
  return parseSafetensors(readFileSync(path), path).tensors;
}

// biome-ignore lint/suspicious/noExplicitAny: recorded JSON of many shapes
export function goldenJson(name: string): any {
  return JSON.parse(readFileSync(goldenPath(`${name}.json`)!, 'utf8'));
}

export function floats(tensors: Tensors, name: string): Float32Array {
  const t = tensors.get(name);
  if (!t) throw new Error(`no tensor ${name}`);
  return t.dtype === 'u8' ? Float32Array.from(t.data) : toFloat32(t);
}

/** 64-bit integers as i32. */
export function ints(tensors: Tensors, name: string): Int32Array {
  const { data } = tensors.get(name)!;
  return Int32Array.from(new BigInt64Array(new Uint8Array(data).buffer), Number);
}

export function configOf(json: unknown): WhisperConfig {
  return parseWhisperConfig(json, 'the recorded configuration');
}
