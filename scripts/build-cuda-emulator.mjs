// Builds build/cuda-emulator/cuda-emulator.so: the CUDA plugin for a device that is emulated on the processor
// (test/cuda-emulator), from the sources of cuda/ and with g++ alone. Prints its path, or 'skipped: ' and why there is none.
// What is newer than its sources is left as it is. --sanitize: another one, under AddressSanitizer and UBSan.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { availableParallelism } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const sanitize = process.argv.includes('--sanitize');
const root = join(dirname(fileURLToPath(import.meta.url)), '..');
const emulator = join(root, 'test', 'cuda-emulator');
const out = join(root, 'build', sanitize ? 'cuda-emulator-sanitized' : 'cuda-emulator');
const plugin = join(out, 'cuda-emulator.so');
const compiler = process.env.CXX ?? 'g++';

// The contract of the operations, and of cuda/ all but what the emulation has itself.
const own = ['cublaslt.cc', 'workspace.cc'];
const sources = [join(root, 'cuda'), join(root, 'cuda/runtime'), join(root, 'native/ops'), emulator].flatMap((folder) =>
  readdirSync(folder)
    .filter((file) => /\.(cc|cu)$/.test(file) && !(folder !== emulator && own.includes(file)))
    .map((file) => join(folder, file)),
);
sources.push(...['prepare', 'shape', 'audio'].map((file) => join(root, 'native/core', `${file}.cc`)));
const flags = [
  ...['-x', 'c++', '-std=c++17', '-O2', '-fPIC', '-fvisibility=hidden', '-ffp-contract=off', '-fno-strict-aliasing'],
  ...['-Wall', '-Wno-unknown-pragmas', '-MMD', '-DDW_EMULATOR', '-Ddistilwhisper_plugin=cuda_plugin'],
  ...['-include', join(emulator, 'execution.h'), '-I', join(emulator, 'include'), '-I', emulator],
  ...['-I', join(root, 'native'), '-I', join(root, 'cuda')],
  // Arrays of known bounds (shared memory above all) trap when an index leaves them.
  ...(sanitize
    ? ['-O1', '-g1', '-fsanitize=address,undefined', '-fno-sanitize-recover=undefined']
    : ['-fsanitize=bounds', '-fsanitize-undefined-trap-on-error']),
];

const time = (path) => (existsSync(path) ? statSync(path).mtimeMs : 0);
/** Older than a source or header of its own, or compiled in another way. */
function stale(object, dependencies) {
  const made = time(object);
  if (made < time(fileURLToPath(import.meta.url)) || !existsSync(dependencies)) return true;
  const files = readFileSync(dependencies, 'utf8').replace(/\\\n/g, ' ').split(/\s+/).slice(1);
  return files.some((file) => file && (!existsSync(file) || time(file) > made));
}

function compile(args) {
  return new Promise((resolve, reject) => {
    const child = spawn(compiler, args, { stdio: ['ignore', 'inherit', 'inherit'] });
    child.on('error', reject);
    child.on('close', (code) => (code === 0 ? resolve() : reject(new Error(`${compiler} ends with ${code}`))));
  });
}

async function build() {
  const objects = sources.map((source) => join(out, `${relative(root, source).replaceAll('/', '-')}.o`));
  const work = sources
    .map((source, i) => ({ source, object: objects[i], dependencies: `${objects[i].slice(0, -2)}.d` }))
    .filter(({ object, dependencies }) => stale(object, dependencies))
    // The largest first: no core waits at the end.
    .sort((a, b) => statSync(b.source).size - statSync(a.source).size);
  if (work.length === 0 && time(plugin) >= Math.max(...objects.map(time))) return;
  const worker = async () => {
    for (let next = work.shift(); next; next = work.shift()) {
      // The door of the emulation has the name that the plugin's own gives up.
      const door = next.source === join(emulator, 'emulated_device.cc') ? ['-Udistilwhisper_plugin'] : [];
      // Compilers that are killed, or outlive this process, leave nothing that looks whole.
      const [object, dependencies] = [next.object, next.dependencies].map((file) => `${file}.${process.pid}`);
      await compile([...flags, ...door, '-MF', dependencies, '-c', next.source, '-o', object]);
      renameSync(dependencies, next.dependencies);
      renameSync(object, next.object);
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, worker));
  const made = `${plugin}.${process.pid}`;
  await compile(['-shared', ...(sanitize ? ['-fsanitize=address,undefined'] : []), '-o', made, ...objects]);
  renameSync(made, plugin);
}

/**
 * One process builds, others wait for it. Who listens on the folder's abstract socket builds: the kernel takes that from a process
 * that ends, however it ends.
 */
async function alone(body) {
  const name = `\0distilwhisper-${createHash('sha256').update(realpathSync(out)).digest('hex')}`;
  const server = createServer();
  for (;;) {
    try {
      server.listen(name);
      await once(server, 'listening');
      break;
    } catch (error) {
      if (error.code !== 'EADDRINUSE') throw error;
    }
    await setTimeout(100);
  }
  try {
    await body();
  } finally {
    server.close();
  }
}

if (process.platform !== 'linux' || process.arch !== 'x64') {
  console.log(
    `skipped: the fibres of the emulation are for Linux on x86-64, this is ${process.platform} ${process.arch}`,
  );
} else {
  mkdirSync(out, { recursive: true });
  try {
    await alone(build);
    console.log(plugin);
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    console.log(`skipped: there is no ${compiler}`);
  }
}
