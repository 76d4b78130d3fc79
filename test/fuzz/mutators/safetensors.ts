/** safetensors files by their header's tree; length and data mostly fit it again. */
import type { Random } from '../random.js';
import { concat, mutateBytes, randomBytes, view } from './bytes.js';
import { mutateNode, type Node, toNode, writeNode } from './json.js';

export interface Safetensors {
  header: Node;
  data: Uint8Array;
}

export function readSafetensors(bytes: Uint8Array): Safetensors {
  const length = Number(view(bytes).getBigUint64(0, true));
  const header = toNode(JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + length))));
  return { header, data: bytes.slice(8 + length) };
}

export function mutateSafetensors({ header, data }: Safetensors, random: Random): Uint8Array {
  const what = random.below(10);
  const text = writeNode(what < 7 ? mutateNode(header, random) : header) + ' '.repeat(random.below(8));
  let bytes: Uint8Array = new TextEncoder().encode(text);
  if (what === 7) bytes = mutateBytes(bytes, random, [], 1);
  let body = data;
  const ending = random.below(10);
  if (ending === 0) body = data.subarray(0, random.below(data.length + 1));
  else if (ending === 1) body = concat(data, randomBytes(random, random.count(64)));
  const length = new Uint8Array(8);
  view(length).setBigUint64(0, random.chance(0.06) ? random.boundary(64) : BigInt(bytes.length), true);
  const file = concat(length, bytes, body);
  return what === 8 ? mutateBytes(file, random) : file;
}
