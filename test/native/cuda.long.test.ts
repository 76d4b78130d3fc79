/**
 * The CUDA backend where there is no GPU: what is missing is said, with a code and what to do. The plugins of another
 * version, and the files that are no plugin, are compiled here.
 */
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, readFileSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { type ErrorCode, isDistilWhisperError } from '../../lib/errors/index.js';
import { cudaReport, packageRoot } from '../../lib/native/index.js';
import { Profile, readProfile } from '../../lib/profile/index.js';
import { rawCall } from '../../lib/tensor/call.js';
import { kernels, Stream } from '../../lib/tensor/index.js';
import { cli } from '../support/cli.js';
import { usePlugin, withPlugin } from '../support/plugin.js';
import { traceEvents } from '../support/trace.js';
import { scratch } from '../support/weights.js';

const root = packageRoot();
const built = process.env.DISTILWHISPER_CUDA_PLUGIN ?? join(root, 'build-cuda', 'distilwhisper-cuda.so');

/** Opens a CUDA stream with another plugin in the environment, and checks how it is refused. */
function refused(t: ExecutionContext, plugin: string, code: ErrorCode, pattern: RegExp): void {
  withPlugin(plugin, () => {
    const error = t.throws(() => new Stream({ device: 'cuda' }));
    t.true(isDistilWhisperError(error), String(error));
    t.is((error as { code?: string }).code, code);
    t.regex(error!.message, pattern);
    const report = cudaReport();
    t.regex(report.problem ?? '', pattern, 'cudaReport says the same');
    t.is(report.plugin === null, code === 'ERR_CUDA_PLUGIN');
  });
}

/** Compiles a shared object from C, or returns null where there is no C compiler. */
async function compile(t: ExecutionContext, source: string): Promise<string | null> {
  const folder = await scratch(t);
  const [c, so] = [join(folder, 'plugin.c'), join(folder, 'plugin.so')];
  writeFileSync(c, source);
  try {
    execFileSync('cc', ['-shared', '-fPIC', '-I', join(root, 'native'), '-o', so, c], { stdio: 'pipe' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    t.log('skipped: no C compiler');
    t.pass();
    return null;
  }
  return so;
}

test.serial('a plugin that is not there', async (t) => {
  const missing = join(await scratch(t), 'none.so');
  refused(t, missing, 'ERR_CUDA_PLUGIN', /DISTILWHISPER_CUDA_PLUGIN: there is no file '.*none\.so'/);
});

test.serial('no plugin at all: the error says where it was looked for and what to do', async (t) => {
  // A copy of the package that was never built with CUDA.
  const folder = await scratch(t);
  cpSync(join(root, 'lib'), join(folder, 'lib'), { recursive: true });
  for (const file of ['binding.gyp', 'package.json', 'tsconfig.json']) cpSync(join(root, file), join(folder, file));
  for (const link of ['node_modules', 'build', 'prebuilds'])
    if (existsSync(join(root, link))) symlinkSync(join(root, link), join(folder, link));
  writeFileSync(
    join(folder, 'try.ts'),
    `import { cudaReport } from './lib/native/index.js';
     import { Stream } from './lib/tensor/index.js';
     try { new Stream({ device: 'cuda:1' }); } catch (e) {
       console.log(JSON.stringify({ code: e.code, message: e.message, report: cudaReport() }));
     }`,
  );
  const env = { ...process.env };
  delete env.DISTILWHISPER_CUDA_PLUGIN;
  const out = execFileSync(process.execPath, ['--import=tsx', 'try.ts'], { cwd: folder, env, encoding: 'utf8' });
  const { code, message, report } = JSON.parse(out);
  t.is(code, 'ERR_CUDA_PLUGIN');
  t.regex(message, /no CUDA plugin was found: install the package @distilwhisper\/cuda-linux-x64, build it/);
  t.regex(message, /build-cuda/);
  t.like(report, { plugin: null, problem: message, devices: [] });
});

test.serial('a file that is no shared object', async (t) => {
  const file = join(await scratch(t), 'text.so');
  writeFileSync(file, 'not a shared object\n');
  refused(t, file, 'ERR_CUDA_PLUGIN', /text\.so' does not load as a shared object: /);
});

test.serial('a shared object that is no plugin', async (t) => {
  const so = await compile(t, 'int something_else(void) { return 1; }');
  if (so) refused(t, so, 'ERR_CUDA_PLUGIN', /is a shared object, but no plugin of distilwhisper/);
});

test.serial('a plugin of another interface, and one of another list of operations', async (t) => {
  const table = (fields: string) => `
    #include "core/plugin.h"
    static const char* const names[] = {"linear", "something"};
    static const unsigned char present[] = {1, 1};
    static const dw_plugin plugin = {${fields}, names, present, "none"};
    const dw_plugin* distilwhisper_plugin(void) { return &plugin; }`;
  const newer = await compile(t, table('DW_PLUGIN_ABI + 1, 2'));
  if (newer) refused(t, newer, 'ERR_CUDA_PLUGIN', /another version: expected interface \d+, got \d+; install/);
  const other = await compile(t, table('DW_PLUGIN_ABI, 2'));
  if (other) refused(t, other, 'ERR_CUDA_PLUGIN', /another version: its list of operations is not this package's/);
});

test.serial('a profile of a stream on a plugin: what the plugin tells of its device, and launches', async (t) => {
  const so = await compile(t, readFileSync(join(root, 'test', 'support', 'host-plugin.c'), 'utf8'));
  if (!so) return;
  t.teardown(usePlugin(so));
  const trace = join(await scratch(t), 'trace.json');
  const profile = await Profile.start(trace, { threads: 1 });
  const stream = new Stream({ device: 'cuda' });
  t.deepEqual([stream.graphs, stream.graphSpan], [false, 0], 'it makes no graphs');
  await stream.persistent(null, [3]).read();
  stream.close();
  profile.stop();
  const events = traceEvents(trace);
  const [fill, launch] = ['kernel', 'launching'].map((cat) => events.find((e) => e.name === 'fill' && e.cat === cat)!);
  t.is(fill!.dur, 2);
  t.deepEqual(fill!.args, { shape: '3', type: 'f32', flop: 0, bytes: 12, 'GFLOP/s': 0, 'GB/s': 0.01 });
  t.deepEqual(launch!.args, { shape: '3', type: 'f32' });
  const [lane] = (await readProfile(trace)).streams;
  t.is(lane!.name, 'stream 1: cuda:0');
  t.deepEqual(
    lane!.kernels.map(({ name, calls, gbs, ofCeiling }) => [name, calls, gbs, ofCeiling]).sort(),
    [
      ['fill', 1, 0.006, null],
      ['read', 1, 0.006, null],
    ],
    'the ceilings are those of the processor',
  );
});

test.serial('streams on a plugin: calls, copies, faults, shared tensors, memory, a lost device', async (t) => {
  const so = await compile(t, readFileSync(join(root, 'test', 'support', 'host-plugin.c'), 'utf8'));
  if (!so) return;
  t.teardown(usePlugin(so));
  const code = (expected: string) => ({ code: expected as ErrorCode });

  const stream = new Stream({ device: 'cuda' });
  t.is(stream.device, 'cuda:0');
  const x = stream.tensor(Float32Array.of(1, 2, 3), [3]);
  t.deepEqual(await x.read(), Float32Array.of(1, 2, 3));
  kernels.fill(stream, { x: x.slice(1, 3), value: 5 });
  t.deepEqual(await x.read(), Float32Array.of(1, 5, 5));
  x.write(Float32Array.of(9, 8, 7));
  t.deepEqual(await x.read({ behind: true }), Float32Array.of(9, 8, 7), 'where no read can be behind it is waited for');
  const zeros = stream.persistent(null, [2, 2]);
  t.deepEqual(await zeros.read(), new Float32Array(4));

  t.throws(() => kernels.cast(stream, { x, out: 'f32' }), {
    ...code('ERR_CUDA'),
    message: /^cast: this plugin has no such kernel/,
  });
  t.throws(() => rawCall(stream, 'fill', [x], []), code('ERR_ARGUMENT'));
  const wide = stream.tensor(Float64Array.of(1), [1], 'f64');
  t.throws(() => kernels.fill(stream, { x: wide, value: 1 }), code('ERR_DTYPE'));

  kernels.fill(stream, { x, value: 7 });
  await t.throwsAsync(x.read(), { ...code('ERR_ARGUMENT'), message: /got 7/ });
  t.deepEqual(await x.read(), Float32Array.of(7, 7, 7), 'a fault is told once and poisons nothing');
  kernels.fill(stream, { x, value: 7 });
  await t.throwsAsync(stream.sync(), code('ERR_ARGUMENT'));
  await stream.sync();

  // Frozen tensors are shared by the streams of a device, and by no others.
  const frozen = stream.persistent(Float32Array.of(4), [1]).freeze();
  const [second, cpu] = [new Stream({ device: 'cuda:0' }), new Stream({ threads: 1 })];
  t.throws(() => kernels.fill(second, { x: frozen, value: 1 }), { ...code('ERR_ARGUMENT'), message: /frozen/ });
  t.throws(() => kernels.cast(cpu, { x: frozen, out: 'f32' }), {
    ...code('ERR_STREAM'),
    message: /another device than cpu/,
  });

  t.throws(() => stream.persistent(null, [1 << 29]), code('ERR_OUT_OF_MEMORY'));
  const { deviceHeld, deviceTotal, devicePeak } = stream.memory();
  t.is(deviceTotal, 2 ** 30);
  t.true(deviceHeld! > 0 && devicePeak! >= deviceHeld!);
  stream.close();
  t.true(second.memory().deviceHeld! < deviceHeld!, "a closed stream's steps give their memory back");

  const y = second.tensor(Float32Array.of(1), [1]);
  kernels.fill(second, { x: y, value: 13 });
  await t.throwsAsync(y.read(), { ...code('ERR_CUDA'), message: 'an illegal address' });
  const lost = { ...code('ERR_CUDA'), message: /^cuda:0 was lost by an earlier error.*fill with 13/ };
  t.throws(() => kernels.fill(second, { x: y, value: 1 }), lost);
  t.throws(() => second.tensor(Float32Array.of(1), [1]), lost);
  await t.throwsAsync(y.read(), lost);
  await t.throwsAsync(second.sync(), lost);
  second.close();

  t.throws(() => new Stream({ device: 'cuda:2' }), { ...code('ERR_CUDA'), message: 'no such device' });
  const report = cudaReport();
  t.like(report, { plugin: so, driver: '13.1', runtime: '13.0', problem: 'no products here' });
  t.is(report.devices[0]!.computeCapability, '9.0');
  t.is(report.devices[1]!.problem, 'the second one is broken');
  cpu.close();
});

test('device: what is no device is refused', (t) => {
  for (const device of ['cuda:x', 'cuda:', 'cuda:-1', 'gpu', 'CUDA', '', 'cuda:0:1']) {
    const error = t.throws(() => new Stream({ device }));
    t.is((error as { code?: string }).code, 'ERR_ARGUMENT', device);
    t.regex(error!.message, /device: expected 'cpu', 'cuda' or 'cuda:N', got/);
  }
  const error = t.throws(() => new Stream({ device: 'cuda', backend: 'reference' }));
  t.is((error as { code?: string }).code, 'ERR_ARGUMENT');
  const cpu = new Stream({ device: 'cpu', threads: 1 });
  t.is(cpu.device, 'cpu');
  cpu.close();
});

test.serial('the plugin that was built here loads, and says what this machine lacks', (t) => {
  if (!existsSync(built)) {
    t.log("skipped: no plugin was built; 'npm run build:cuda' makes it where nvcc is");
    t.pass();
    return;
  }
  const report = cudaReport();
  t.is(report.plugin, built);
  t.regex(report.architectures!, /sm_80/);
  t.regex(report.runtime!, /^\d+\.\d+$/);
  t.is(report.cublasLt.path === null, report.cublasLt.problem !== null);
  if (report.devices.length > 0) {
    t.log(`${report.devices.length} GPU here: the refusals are not tried`);
    return;
  }
  t.regex(report.problem!, /NVIDIA driver/);
  refused(t, built, 'ERR_CUDA', /NVIDIA driver/);
});

test.serial(
  'cuBLASLt is taken from the folders that are named, in their order; what is wrong with them is said',
  async (t) => {
    if (!existsSync(built)) {
      t.log("skipped: no plugin was built; 'npm run build:cuda' makes it where nvcc is");
      t.pass();
      return;
    }
    const names = ['GetVersion', 'GetStatusString', 'Create', 'Destroy', 'MatmulDescCreate', 'MatmulDescDestroy'];
    names.push('MatmulDescSetAttribute', 'MatrixLayoutCreate', 'MatrixLayoutDestroy', 'MatrixLayoutSetAttribute');
    names.push('MatmulPreferenceCreate', 'MatmulPreferenceDestroy', 'MatmulPreferenceSetAttribute');
    names.push('MatmulAlgoGetHeuristic', 'Matmul');
    const library = async (functions: string[], name: string): Promise<string | null> => {
      const so = await compile(
        t,
        functions.map((f) => `unsigned long cublasLt${f}(void) { return 130203; }`).join('\n'),
      );
      if (so) renameSync(so, join(dirname(so), name));
      return so && dirname(so);
    };
    const [whole, older] = [await library(names, 'libcublasLt.so.13'), await library(names, 'libcublasLt.so.12')];
    const partial = await library(names.slice(0, -1), 'libcublasLt.so.13');
    if (!whole || !older || !partial) return;
    const empty = await scratch(t);
    const found = async (...folders: string[]) => {
      const env = { DISTILWHISPER_CUDA_PLUGIN: built, DISTILWHISPER_CUDA_LIBS: folders.join(':') };
      const { stdout } = await cli(['doctor', '--json'], { env });
      return JSON.parse(stdout).cuda.value.cublasLt as ReturnType<typeof cudaReport>['cublasLt'];
    };
    t.like(await found(empty, whole, older), { path: join(whole, 'libcublasLt.so.13'), problem: null });
    t.regex((await found(whole)).version!, /^13\.2\.3$/);
    t.like(await found(older, whole), { path: join(older, 'libcublasLt.so.12') });
    t.like(await found(partial, older), { path: join(older, 'libcublasLt.so.12') });
    const missing = await found(empty);
    t.is(missing.path, null);
    t.is(missing.problem, `no libcublasLt.so.13 or .12 in DISTILWHISPER_CUDA_LIBS=${empty}`);
    t.regex((await found(partial)).problem!, /\(.*libcublasLt\.so\.13 has no function cublasLtMatmul\)$/);
  },
);
