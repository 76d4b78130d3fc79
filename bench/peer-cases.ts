/** Cases of the peers that are there, beside ours. */
import type { FloatName } from '../lib/tensor/index.js';
import type { Case } from './harness.js';
import type { Job } from './onnx/peer.js';
import type { Peers } from './peers.js';
import type { Spread } from './spread.js';

/** A case for what PyTorch does, if it is there; `against`: the name of our case that does the same work. */
export function torchCase(
  { torch }: Peers,
  against: string,
  type: FloatName,
  args: readonly string[],
  what = '',
): Case[] {
  if (!torch) return [];
  const peer = (repeats: number, warmup: number): Spread =>
    torch.run([...args, '--dtype', type, '--repeat', `${repeats}`, '--warmup', `${warmup}`]);
  return [{ name: `PyTorch ${type}${what}`, peer, against: [against] }];
}

/** A case for onnxruntime or transformers.js, if it is there. */
export function onnxCase(
  peers: Peers,
  library: 'onnx' | 'transformers',
  against: readonly string[],
  job: Job,
  what = '',
): Case[] {
  const { [library]: peer, folder } = peers;
  if (!peer || !folder) return [];
  const name = `${library === 'onnx' ? 'onnxruntime' : 'transformers.js'} ${job.weights}${what}`;
  return [{ name, peer: (repeats, warmup) => peer.run(folder, job, repeats, warmup), against }];
}

/** A case for what whisper.cpp does, if it is there. */
export function whisperCppCase(
  { whisperCpp }: Peers,
  what: 'encoder' | 'decode' | 'window',
  against: readonly string[],
  tokens = 0,
): Case[] {
  if (!whisperCpp) return [];
  return [{ name: 'whisper.cpp', peer: () => whisperCpp.sample(what, tokens), against }];
}
