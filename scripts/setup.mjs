// All of the set-up that a fresh clone needs, in plain Node: packages, the native addon, the compiled TypeScript.
// What is newer than its inputs is left as it is. --all-kernels: those too that this processor cannot run, as a release has them.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { allKernelSets, kernelSets } from './kernel-sets.mjs';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const at = (...parts) => join(root, ...parts);
const run = (command, args, env = {}) => {
  console.error(`> ${command} ${args.join(' ')}`);
  // Standard output is kept for what the user asked for.
  execFileSync(command, args, {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: ['ignore', process.stderr, 'inherit'],
    shell: process.platform === 'win32',
  });
};
const time = (path) => (existsSync(path) ? statSync(path).mtimeMs : 0);
const newest = (folder, match) =>
  readdirSync(folder, { withFileTypes: true }).reduce((latest, entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return Math.max(latest, newest(path, match));
    return match.test(entry.name) ? Math.max(latest, time(path)) : latest;
  }, 0);

if (time(at('node_modules', '.package-lock.json')) < time(at('package-lock.json'))) {
  run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund']);
}

const prebuilt = () => {
  try {
    const find = createRequire(join(root, 'package.json'))('node-gyp-build');
    return find.path(root).includes('prebuilds');
  } catch {
    return false;
  }
};
// Kernels that this processor cannot run take most of the time: they are left out unless they are asked for.
const addon = at('build', 'Release', 'distilwhisper.node');
const stamp = at('build', 'kernel-sets');
const allKernels = process.argv.includes('--all-kernels');
const wanted = allKernels ? allKernelSets : kernelSets();
const stale = () => {
  if (time(addon) < Math.max(newest(at('native'), /\.(cc|h)$/), time(at('binding.gyp')))) return true;
  // Built elsewhere than here, or by node-gyp itself, which builds all.
  const there = existsSync(stamp) ? readFileSync(stamp, 'utf8').split(',') : allKernelSets;
  return wanted.some((set) => !there.includes(set));
};
if ((allKernels || !prebuilt()) && stale()) {
  // Headers of this Node, where its installation has them: then nothing is downloaded.
  const prefix = dirname(dirname(process.execPath));
  const headers = existsSync(join(prefix, 'include', 'node', 'node_api.h')) ? [`--nodedir=${prefix}`] : [];
  const sets = wanted.join(',') || 'portable';
  run('npx', ['node-gyp', 'configure', 'build', '-j', 'max', '--loglevel=warn', ...headers], {
    DISTILWHISPER_KERNELS: sets,
  });
  writeFileSync(stamp, sets);
}

if (time(at('dist', 'index.js')) < Math.max(newest(at('lib'), /\.ts$/), time(at('tsconfig.json')))) {
  run('npx', ['tsc', '-p', '.']);
}
