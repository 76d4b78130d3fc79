// Builds the CUDA plugin in build-cuda/ with cmake-js, on all processors that have the 0.6 GB which a file takes. JOBS= sets how
// many files compile at a time.
// --ladder: the program that times the rungs of the hot kernels (cuda/dev/ladder.cu) too.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const nvcc = [
  process.env.CUDACXX,
  ...(process.env.PATH ?? '').split(':').map((folder) => join(folder, 'nvcc')),
  join(process.env.CUDA_PATH ?? '/usr/local/cuda', 'bin', 'nvcc'),
].find((path) => path && existsSync(path));
if (!nvcc) {
  console.error(
    'build:cuda: no nvcc on PATH, in CUDACXX, CUDA_PATH or /usr/local/cuda: install a CUDA toolkit (12.8+)',
  );
  process.exit(1);
}
const cmake = createRequire(import.meta.url).resolve('cmake-js/bin/cmake-js');
const ladder = process.argv.includes('--ladder') ? 'ON' : 'OFF';
const settings = [...['--out', 'build-cuda', `--CDCMAKE_CUDA_COMPILER=${nvcc}`], `--CDDISTILWHISPER_LADDER=${ladder}`];
const run = (command, ...more) =>
  execFileSync(process.execPath, [cmake, command, ...settings, ...more], { cwd: root, stdio: 'inherit' });
const jobs = process.env.JOBS ?? `${Math.max(1, Math.min(availableParallelism(), Math.floor(totalmem() / 1e9)))}`;
try {
  run('compile', '--parallel', jobs);
} catch (error) {
  process.exit(error.status ?? 1);
}
