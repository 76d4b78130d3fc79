// Makes one folder with which the GPU check runs on a machine that has a driver, Python and PyTorch but no Node:
//   npm run gpu-bundle -- <folder>      then, there:      <folder>/gpu-check results --peer torch_peer.py
// In it: Node, the addon, the CUDA plugin, library, kernel tests and benches as JavaScript, and what those import. At most 60 MiB.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

const MOST = 60 << 20;
const root = join(dirname(fileURLToPath(import.meta.url)), '..');

function stop(sentence) {
  console.error(`gpu-bundle: ${sentence}`);
  process.exit(1);
}

const [folder, ...more] = process.argv.slice(2);
if (!folder || folder.startsWith('-') || more.length > 0)
  stop('expected one folder to make: npm run gpu-bundle -- <folder>');
const out = resolve(folder);
if (existsSync(out) && readdirSync(out).length > 0)
  stop(`${folder}: expected an empty folder or none, got one with files`);
const plugin = process.env.DISTILWHISPER_CUDA_PLUGIN ?? join(root, 'build-cuda', 'distilwhisper-cuda.so');
if (!existsSync(plugin)) stop(`there is no CUDA plugin at ${plugin}: 'npm run build:cuda' makes it (needs nvcc)`);
execFileSync(process.execPath, [join(root, 'scripts', 'setup.mjs')], { stdio: 'inherit' });

const to = (...names) => join(out, ...names);
mkdirSync(out, { recursive: true });
try {
  // Library, tests and benches side by side as in the clone: they import each other.
  const compiler = join(root, 'node_modules', 'typescript', 'bin', 'tsc');
  const settings = ['--noEmit', 'false', '--declaration', 'false', '--outDir', out];
  execFileSync(process.execPath, [compiler, '-p', join(root, 'tsconfig.check.json'), ...settings], {
    stdio: 'inherit',
  });
  rmSync(to('scripts'), { recursive: true, force: true });
  for (const name of readdirSync(to('test')))
    if (/^\d/.test(name) && !/^(1[1-9]|64)-/.test(name)) rmSync(to('test', name));
  for (const name of ['binding.gyp', 'test/golden']) cpSync(join(root, name), to(name), { recursive: true });

  const { createRequire } = await import('node:module');
  const addon = createRequire(join(root, 'package.json'))('node-gyp-build').path(root);
  cpSync(addon, to('build', 'Release', 'distilwhisper.node'));
  cpSync(plugin, to('build-cuda', 'distilwhisper-cuda.so'));
  const ladder = join(root, 'build-cuda', 'ladder');
  if (existsSync(ladder)) cpSync(ladder, to('build-cuda', 'ladder'));

  const own = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  modules([...Object.keys(own.dependencies), 'ava'], root);
  const { name, version, type, binary, ava } = own;
  const { nodeArguments: _, extensions: __, ...runner } = ava;
  const head = execFileSync('git', ['rev-parse', 'HEAD'], { cwd: root, encoding: 'utf8' }).trim();
  const described = {
    name,
    version,
    type,
    private: true,
    gitHead: head,
    binary,
    ava: { ...runner, files: ['test/*.test.js'] },
  };
  writeFileSync(to('package.json'), `${JSON.stringify(described, null, 2)}\n`);

  cpSync(process.execPath, to('node'));
  for (const file of [to('node'), to('build', 'Release', 'distilwhisper.node')]) strip(file);
  writeFileSync(to('node.gz'), gzipSync(readFileSync(to('node')), { level: 9 }));
  rmSync(to('node'));
  writeFileSync(
    to('gpu-check'),
    `#!/bin/sh
# Runs the GPU check with the Node of this folder, which is unpacked the first time. --help lists the options.
here=$(cd "$(dirname "$0")" && pwd) || exit 1
if [ ! -x "$here/node" ]; then
  gunzip -c "$here/node.gz" >"$here/node.part" && chmod +x "$here/node.part" && mv "$here/node.part" "$here/node" || exit 1
fi
exec "$here/node" "$here/bench/gpu/main.js" "$@"
`,
    { mode: 0o755 },
  );
  const size = sizeOf(out);
  if (size > MOST) stop(`${folder}: expected at most ${MOST >> 20} MiB, got ${(size / 2 ** 20).toFixed(1)}`);
  console.log(`${folder}: ${(size / 2 ** 20).toFixed(1)} MiB; run ${join(folder, 'gpu-check')} --help there`);
} catch (error) {
  rmSync(out, { recursive: true, force: true });
  stop(error.message);
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
function modules(names, from, seen = new Set()) {
  for (const name of names) {
    let at = from;
    while (!existsSync(join(at, 'node_modules', name, 'package.json'))) {
      if (dirname(at) === at) stop(`the package ${name} is not installed`);
      at = dirname(at);
    }
    const source = join(at, 'node_modules', name);
    if (seen.has(source)) continue;
    seen.add(source);
    const target = join(out, source.slice(root.length));
    cpSync(source, target, {
      recursive: true,
      filter: (path) => !/node_modules|\.(map|md|[cm]?ts)$/.test(path.slice(source.length)),
    });
    const { dependencies = {} } = JSON.parse(readFileSync(join(source, 'package.json'), 'utf8'));
    modules(Object.keys(dependencies), source, seen);
  }
}

function sizeOf(path) {
  const kind = statSync(path);
  if (!kind.isDirectory()) return kind.size;
  return readdirSync(path).reduce((sum, name) => sum + sizeOf(join(path, name)), 0);
}
