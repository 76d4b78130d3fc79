// Builds build-emulator/cuda-emulator.so: the kernels of cuda/ for a device emulated on the processor (test/support/
// cuda-emulator). With DISTILWHISPER_CUDA_PLUGIN= set to it and DISTILWHISPER_TEST_CUDA=1 the tables of test/1N run it.
// Needs g++ on x86-64 and the headers of a CUDA toolkit, no GPU.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const emulator = join(root, 'test/support/cuda-emulator');
const headers = [process.env.CUDA_PATH, '/usr/local/cuda']
  .map((folder) => folder && join(folder, 'include'))
  .find((folder) => folder && existsSync(join(folder, 'cuda_runtime_api.h')));
if (!headers) {
  console.error('build-cuda-emulator: no cuda_runtime_api.h in CUDA_PATH or /usr/local/cuda: skipped');
  process.exit(0);
}
const out = join(root, 'build-emulator');
mkdirSync(out, { recursive: true });
const host = ['kernels.cc', 'trap.cc'];
const skipped = ['gemm.cu']; // plain loops in the emulator
const sources = readdirSync(join(root, 'cuda'))
  .filter((file) => (file.endsWith('.cu') && !skipped.includes(file)) || host.includes(file))
  .map((file) => join(root, 'cuda', file));
sources.push(join(emulator, 'device.cc'));
const newest = (folder) =>
  Math.max(...readdirSync(folder).map((file) => (/\.(h|cuh)$/.test(file) ? statSync(join(folder, file)).mtimeMs : 0)));
const changed = Math.max(...['cuda', 'native/core', 'native/ops'].map((f) => newest(join(root, f))), newest(emulator));
const flags = [
  ...['-x', 'c++', '-std=c++17', '-O2', '-g', '-fPIC', '-fvisibility=hidden', '-ffp-contract=off'],
  ...['-fno-strict-aliasing', '-Wall', '-Wno-unknown-pragmas', '-Wno-unused-function', '-DDW_EMULATOR'],
  ...['-include', join(emulator, 'emulator.h'), '-I', emulator, '-I', join(root, 'native'), '-I', join(root, 'cuda')],
  ...['-isystem', headers],
];
const objects = sources.map((source) => {
  const object = join(out, `${basename(source)}.o`);
  const made = existsSync(object) ? statSync(object).mtimeMs : 0;
  if (made < Math.max(changed, statSync(source).mtimeMs))
    execFileSync('g++', [...flags, '-c', source, '-o', object], { stdio: 'inherit' });
  return object;
});
execFileSync('g++', ['-shared', '-o', join(out, 'cuda-emulator.so'), ...objects], { stdio: 'inherit' });
