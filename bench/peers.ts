/**
 * How fast is what a user would run instead? A PyTorch script is run as a process of its own, in turns with our cases. It
 * takes `<mode> --student --teacher --batch --labels --rows --dtype --threads --repeat --warmup` and prints one JSON line
 * with ms_min, ms_median and ms_max.
 */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { DistilWhisperError } from '../lib/errors/index.js';
import type { Case, Spread } from './harness.js';

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

/** A case for what PyTorch does; `against`: the name of our case that does the same work. */
export function peerCase(against: string, dtype: 'f32' | 'bf16', args: readonly string[]): Case {
  const type = dtype === 'f32' ? 'fp32' : 'bf16';
  return { name: `PyTorch ${type}`, peer: { args: [...args, '--dtype', type], against } };
}
