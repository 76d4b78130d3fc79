// Which sets of kernels this processor runs beside the portable ones, of those in native/cpu/isa.h, lowest first:
//   node scripts/kernel-sets.mjs
// All where it cannot be told.
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** What each asks for beyond the one before it, in Linux's words. */
const ASKS = {
  avx2: ['avx2', 'fma'],
  avx512: ['avx512f', 'avx512bw', 'avx512vl', 'avx512dq'],
  avx512bf16: ['avx512_bf16', 'avx512_vnni'],
  amx: ['amx_tile', 'amx_bf16'],
};
export const allKernelSets = Object.keys(ASKS);

export function kernelSets() {
  const flags = existsSync('/proc/cpuinfo')
    ? /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1].trim().split(/\s+/)
    : undefined;
  if (!flags) return allKernelSets;
  const lacking = allKernelSets.findIndex((set) => !ASKS[set].every((flag) => flags.includes(flag)));
  return lacking < 0 ? allKernelSets : allKernelSets.slice(0, lacking);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  console.log(kernelSets().join(',') || 'portable');
}
