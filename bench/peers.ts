/**
 * How fast is what a user would run instead? Every peer runs in processes of its own, in turns with our cases. A PyTorch script
 * is run with `<mode> --student --teacher --batch --labels --rows --dtype --threads --repeat --warmup` and prints one JSON
 * line with ms_min, ms_median and ms_max.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { DistilWhisperError } from '../lib/errors/index.js';
import { OnnxFolder, OnnxPeer } from './onnx/peer.js';
import type { Spread } from './spread.js';
import { WhisperCpp, type WhisperCppOptions } from './whisper-cpp.js';

export interface PeerOptions {
  /** A Python that has torch. */
  python?: string | undefined;
  /** The script. */
  script?: string | undefined;
  threads: number;
  /** Where it runs: 'cpu', 'cuda' or 'cuda:N'. */
  device: string;
}

export class Peer {
  private constructor(
    private readonly python: string,
    private readonly script: string,
    private readonly threads: number,
    private readonly device: string,
    /** PyTorch's version. */
    readonly version: string,
  ) {}

  /** The peer, or the reason why there is none. Throws ERR_FILE_NOT_FOUND for a path that does not exist. */
  static find(options: PeerOptions): Peer | string {
    const script = options.script ?? process.env.DISTILWHISPER_PEER;
    if (!script) return 'no script was named (--peer PATH or DISTILWHISPER_PEER)';
    if (!existsSync(script)) {
      throw new DistilWhisperError(
        'ERR_FILE_NOT_FOUND',
        `--peer: expected a Python script, got ${script}: no such file`,
      );
    }
    const python = options.python ?? process.env.DISTILWHISPER_PEER_PYTHON ?? 'python3';
    const { error, status, stdout, stderr } = spawnSync(python, ['-c', 'import torch; print(torch.__version__)'], {
      encoding: 'utf8',
    });
    if (error) return `${python} does not run: ${error.message}`;
    if (status !== 0) return `${python} has no torch: ${stderr.trim().split('\n').at(-1)}`;
    return new Peer(python, script, options.threads, options.device, stdout.trim());
  }

  /** One run of the script: several samples, after its own warm-up. */
  run(args: readonly string[]): Spread {
    const all = [this.script, ...args, '--threads', `${this.threads}`, '--device', this.device];
    const { error, status, stdout, stderr } = spawnSync(this.python, all, { encoding: 'utf8' });
    if (error || status !== 0) {
      throw new DistilWhisperError(
        'ERR_RUN',
        `the peer (${all.join(' ')}) failed: ${error?.message ?? stderr.trim().split('\n').at(-1)}`,
      );
    }
    const line = JSON.parse(stdout.trim().split('\n').at(-1)!) as Record<`ms_${keyof Spread}`, number>;
    return { min: line.ms_min, median: line.ms_median, max: line.ms_max };
  }
}

/** What runs beside ours. null: not asked for, or not there. */
export interface Peers {
  readonly torch: Peer | null;
  readonly onnx: OnnxPeer | null;
  readonly transformers: OnnxPeer | null;
  readonly whisperCpp: WhisperCpp | null;
  /** Graphs for `onnx` and `transformers`. */
  readonly folder: OnnxFolder | null;
}

export const NO_PEERS: Peers = { torch: null, onnx: null, transformers: null, whisperCpp: null, folder: null };

export interface PeersOptions extends PeerOptions, WhisperCppOptions {
  /** Where the npm packages are installed. */
  from: string;
}

/**
 * Finds the peers, and checks that those which run our weights compute what ours does. `say` gets a sentence about each, found
 * or not; on a GPU only PyTorch is looked for. Errors: ERR_FILE_NOT_FOUND for a path that was given; ERR_RUN for a peer that fails or computes something else.
 */
export async function findPeers(options: PeersOptions, say: (line: string) => void): Promise<Peers> {
  const { threads, from, device } = options;
  const there = <T>(name: string, peer: T | string): T | null => {
    if (typeof peer !== 'string') return peer;
    say(`${name} is left out: ${peer}`);
    return null;
  };
  const torch = there('PyTorch', Peer.find(options));
  if (torch) say(`PyTorch ${torch.version}`);
  if (device !== 'cpu') return { ...NO_PEERS, torch };
  const whisperCpp = there('whisper.cpp', await WhisperCpp.find(options));
  if (whisperCpp) say(`whisper.cpp, ${whisperCpp.version}`);
  const onnx = there('onnxruntime-node', OnnxPeer.find('onnxruntime-node', from, threads));
  const transformers = there('@huggingface/transformers', OnnxPeer.find('@huggingface/transformers', from, threads));
  const folder = onnx || transformers ? await OnnxFolder.make(transformers !== null) : null;
  for (const peer of [onnx, transformers]) if (peer) for (const line of peer.check(folder!)) say(line);
  return { torch, onnx, transformers, whisperCpp, folder };
}

/** Names and versions, for the head of the results. */
export function peerVersions({ torch, onnx, transformers, whisperCpp }: Peers): string[] {
  return [
    ...(torch ? [`PyTorch ${torch.version}`] : []),
    ...[onnx, transformers].flatMap((peer) => (peer ? [`${peer.library} ${peer.version}`] : [])),
    ...(whisperCpp ? [`whisper.cpp (${whisperCpp.version})`] : []),
  ];
}
