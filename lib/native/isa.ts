/** Which kernels run, and on how many threads. */
import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { DistilWhisperError } from '../errors/index.js';
import { load } from './addon.js';

/** The instruction sets of the CPU kernels, weakest first. */
export const isaNames = ['portable', 'avx2', 'avx512', 'avx512bf16', 'amx'] as const;
export type Isa = (typeof isaNames)[number];

/** The instruction set in use: the best of this machine, or what DISTILWHISPER_CPU asks for. */
export function chooseIsa(wanted: string | undefined = process.env.DISTILWHISPER_CPU): Isa {
  const { isas } = load();
  if (wanted === undefined || wanted === '' || wanted === 'auto')
    return isas.findLast((isa) => isa.supported)!.name as Isa;
  const found = isas.find((isa) => isa.name === wanted);
  if (!found) {
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `DISTILWHISPER_CPU: expected one of ${isaNames.join(', ')}, got '${wanted}'`,
    );
  }
  if (!found.supported) {
    const can = isas.filter((isa) => isa.supported).map((isa) => isa.name);
    throw new DistilWhisperError(
      'ERR_ARGUMENT',
      `DISTILWHISPER_CPU: this machine runs ${can.join(', ')}, not '${wanted}'`,
    );
  }
  return found.name as Isa;
}

/** The control group's quota in processors (Linux, version 2), or null where there is none. */
export function cgroupProcessors(): number | null {
  try {
    const [quota, period] = readFileSync('/sys/fs/cgroup/cpu.max', 'utf8').trim().split(' ');
    return quota === 'max' ? null : Number(quota) / Number(period);
  } catch {
    return null;
  }
}

/** Processors this process may use: affinity and the control group's quota. */
export function defaultThreads(): number {
  const quota = cgroupProcessors();
  return Math.min(availableParallelism(), quota === null ? Number.POSITIVE_INFINITY : Math.max(1, Math.ceil(quota)));
}
