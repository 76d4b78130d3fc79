// Makes one folder with which the GPU check runs on a machine that has a driver, Python and PyTorch but no Node:
//   npm run gpu-bundle -- <folder> [--level 0..9]      then, there:      <folder>/gpu-check results --peer torch_peer.py
// In it: a script, and packed (xz, level 6) Node, the addon, the CUDA plugin, the ladder where it was built, and library, kernel
// tests and benches as JavaScript with what those import. At most 60 MiB.
import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import ava from '../ava.config.js';

const MOST = 60 << 20;
const root = join(dirname(fileURLToPath(import.meta.url)), '..');

class Refusal extends Error {}
const refuse = (sentence) => {
  throw new Refusal(sentence);
};

/** What is asked for: { out, level }. Nothing has been written yet. */
function asked() {
  let parsed;
  try {
    parsed = parseArgs({ options: { level: { type: 'string' } }, allowPositionals: true });
  } catch (error) {
    return refuse(error.message);
  }
  const { positionals, values } = parsed;
  if (positionals.length !== 1)
    refuse(`expected one folder to make, got ${positionals.length}: npm run gpu-bundle -- <folder>`);
  const [folder] = positionals;
  const out = resolve(folder);
  if (existsSync(out) && (!statSync(out).isDirectory() || readdirSync(out).length > 0))
    refuse(`${folder}: expected an empty folder or none, got one with files`);
  const level = values.level ?? '6';
  if (!/^\d$/.test(level)) refuse(`--level: expected a digit, got '${level}'`);
  return { out, level };
}

function findPlugin() {
  const plugin = process.env.DISTILWHISPER_CUDA_PLUGIN ?? join(root, 'build-cuda', 'distilwhisper-cuda.so');
  if (!existsSync(plugin)) refuse(`there is no CUDA plugin at ${plugin}: 'npm run build:cuda' makes it (needs nvcc)`);
  return plugin;
}

/** Leaves out the symbols that nothing needs at run time, where the tool for it is there. */
function strip(file) {
  try {
    execFileSync('strip', [file], { stdio: 'ignore' });
  } catch {
    // Larger, and as good.
  }
}

/** Copies packages and what they depend on, each to where it is found here. */
function copyPackages(names, from, to, seen = new Set()) {
  for (const name of names) {
    let at = from;
    while (!existsSync(join(at, 'node_modules', name, 'package.json'))) {
      if (dirname(at) === at) refuse(`the package ${name} is not installed`);
      at = dirname(at);
    }
    const source = join(at, 'node_modules', name);
    if (seen.has(source)) continue;
    seen.add(source);
    cpSync(source, join(to, source.slice(root.length)), {
      recursive: true,
      filter: (path) => !/node_modules|\.(map|md|[cm]?ts)$/.test(path.slice(source.length)),
    });
    const { dependencies = {} } = JSON.parse(readFileSync(join(source, 'package.json'), 'utf8'));
    copyPackages(Object.keys(dependencies), source, to, seen);
  }
}

/** The commit, with "+" when files differ from it. */
function commit() {
  const git = (...args) =>
    execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  try {
    const changed = git('status', '--porcelain', '--untracked-files=no') ? '+' : '';
    return git('rev-parse', '--short', 'HEAD').trim() + changed;
  } catch {
    return 'unknown';
  }
}

/** Everything that the check needs, in `to`. */
function fill(to, plugin) {
  const at = (...names) => join(to, ...names);
  // Library, tests and benches side by side as in the clone: they import each other.
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const settings = ['--noEmit', 'false', '--declaration', 'false', '--outDir', to];
  execFileSync(process.execPath, [compiler, '-p', join(root, 'tsconfig.check.json'), ...settings], {
    stdio: 'inherit',
  });
  rmSync(at('scripts'), { recursive: true, force: true });
  // The tests of settings.ts, but for native/cuda, which compiles plugins.
  for (const name of readdirSync(at('test'), { recursive: true }))
    if (/\.test\.js$/.test(name) && !/^(native\/(?!addon|cuda)|train\/cuda\.|decode\/graph\.)/.test(name))
      rmSync(at('test', name));
  for (const name of ['binding.gyp', 'bench/gpu/torch_runs.py', 'test/golden/mel', 'test/golden/case3_losses'])
    cpSync(join(root, name), at(name), { recursive: true });

  const addon = createRequire(join(root, 'package.json'))('node-gyp-build').path(root);
  cpSync(addon, at('build', 'Release', 'distilwhisper.node'));
  cpSync(plugin, at('build-cuda', 'distilwhisper-cuda.so'));
  const ladder = join(root, 'build-cuda', 'ladder');
  if (existsSync(ladder)) cpSync(ladder, at('build-cuda', 'ladder'));
  cpSync(process.execPath, at('node'));
  for (const file of [at('node'), at('build', 'Release', 'distilwhisper.node')]) strip(file);

  const own = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  copyPackages([...Object.keys(own.dependencies), 'ava'], root, to);
  const { name, version, type, binary } = own;
  const { nodeArguments: _, extensions: __, ...runner } = ava;
  const described = { name, version, type, private: true, gitHead: commit(), binary };
  writeFileSync(
    at('package.json'),
    `${JSON.stringify({ ...described, ava: { ...runner, files: ['test/**/*.test.js'] } }, null, 2)}\n`,
  );
}

const SCRIPT = `#!/bin/sh
# Runs the GPU check with the Node of this folder, which is unpacked the first time. --help lists the options.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
home=$here/unpacked
if [ ! -e "$home/whole" ]; then
  rm -rf "$home" && mkdir "$home" || exit 1
  if [ -e "$here/packed.tar.gz" ]; then
    gunzip -c "$here/packed.tar.gz" | tar -xf - -C "$home" || exit 1
  elif command -v xz >/dev/null; then
    xz -dc "$here/packed.tar.xz" | tar -xf - -C "$home" || exit 1
  else
    python3 -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$here/packed.tar.xz" "$home" || exit 1
  fi
  : >"$home/whole"
fi
exec "$home/node" "$home/bench/gpu/main.js" "$@"
`;

/** Packs what lies in `from`; gzip where there is no xz. */
function pack(from, out, level) {
  const tar = (program, ending) =>
    execFileSync('tar', ['-C', from, '-I', program, '-cf', join(out, `packed.tar.${ending}`), '.'], { stdio: 'pipe' });
  try {
    execFileSync('xz', ['--version'], { stdio: 'ignore' });
  } catch {
    return tar('gzip -9', 'gz');
  }
  return tar(`xz -T0 -${level}`, 'xz');
}

function make() {
  const { out, level } = asked();
  const plugin = findPlugin();
  execFileSync(process.execPath, [join(root, 'scripts', 'setup.mjs')], { stdio: 'inherit' });
  const whole = mkdtempSync(join(tmpdir(), 'gpu-bundle-'));
  try {
    fill(whole, plugin);
    mkdirSync(out, { recursive: true });
    pack(whole, out, level);
    writeFileSync(join(out, 'gpu-check'), SCRIPT, { mode: 0o755 });
    const size = readdirSync(out).reduce((sum, name) => sum + statSync(join(out, name)).size, 0);
    if (size > MOST) {
      for (const name of readdirSync(out)) rmSync(join(out, name));
      refuse(`${out}: expected at most ${MOST >> 20} MiB, got ${(size / 2 ** 20).toFixed(1)}`);
    }
    console.log(`${out}: ${(size / 2 ** 20).toFixed(1)} MiB; ${join(out, 'gpu-check')} --help`);
  } finally {
    rmSync(whole, { recursive: true, force: true });
  }
}

try {
  make();
} catch (error) {
  if (!(error instanceof Refusal)) throw error;
  console.error(`gpu-bundle: ${error.message}`);
  process.exitCode = 1;
}
