/** Where the native addon comes from: found by the package, named for bundled code, compiled at install. */
import { execFile, spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import { nativeInfo } from '../../lib/native/index.js';
import { scratch } from '../support/weights.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { file: addon } = nativeInfo();
/** esbuild comes with tsx. */
const fromTsx = createRequire(createRequire(import.meta.url).resolve('tsx'));

const APP = `import { Stream, Transcriber } from 'distilwhisper';
const stream = new Stream({ threads: 1 });
console.log((await stream.tensor(Float32Array.of(1, 2), [2]).read()).join());
stream.close();
if (process.argv[2]) {
  const transcriber = await Transcriber.load(process.argv[2]);
  console.log((await transcriber.transcribe([process.argv[3]], { language: 'ca' }))[0].text);
  await transcriber.close();
}
`;

/** A program that is one file of JavaScript, with the whole library in it, in a folder where there is nothing else. */
async function bundle(t: ExecutionContext): Promise<string> {
  const { build } = fromTsx('esbuild') as { build(options: object): Promise<unknown> };
  const source = join(await scratch(t), 'app.mjs');
  writeFileSync(source, APP);
  const outfile = join(await scratch(t), 'app.mjs');
  await build({
    entryPoints: [source],
    alias: { distilwhisper: join(root, 'dist', 'index.js') },
    ...{ bundle: true, platform: 'node', format: 'esm', outfile, logLevel: 'error' },
  });
  return outfile;
}

/** What a program prints, or why it ended. */
async function node(args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<{ stdout: string; stderr: string }> {
  const clean = { ...process.env, DISTILWHISPER_ADDON: '', ...env };
  return promisify(execFile)(process.execPath, args, { env: clean }).catch((error) => error);
}

test('bundled code says what to do, and runs with the addon that is named', async (t) => {
  const app = await bundle(t);
  const lost = await node([app]);
  t.regex(lost.stderr, /ERR_NATIVE_LOAD/);
  t.regex(
    lost.stderr,
    /cannot find the package folder of distilwhisper around .*app\.mjs\. .*'external'.*DISTILWHISPER_ADDON/,
  );

  const beside = join(await scratch(t), 'distilwhisper.node');
  copyFileSync(addon, beside);
  const speech = join(root, 'corpus', 'ca', 'test-in-0000.opus');
  const student = join(root, 'models', 'pocket-student');
  const { stdout } = await node([app, student, speech], { DISTILWHISPER_ADDON: beside });
  const [values, text] = stdout.split('\n');
  t.is(values, '1,2');
  const program = join(root, 'dist', 'cli', 'main.js');
  const said = await node([program, 'transcribe', speech, '--model', 'pocket-student', '--language', 'ca']);
  t.is(text, said.stdout.trim().split('\t').at(-1));
});

test('bundled code finds the package that is installed beside it', async (t) => {
  const app = await bundle(t);
  const modules = join(app, '..', 'node_modules');
  mkdirSync(modules);
  symlinkSync(root, join(modules, 'distilwhisper'));
  t.is((await node([app])).stdout, '1,2\n');
});

test('a package.json or a binding.gyp of somebody else is not taken for the package', async (t) => {
  const app = await bundle(t);
  writeFileSync(join(app, '..', 'binding.gyp'), '{}');
  writeFileSync(join(app, '..', 'package.json'), '{ "name": "app", "type": "module" }');
  t.regex((await node([app])).stderr, /cannot find the package folder/);
});

test('an addon that is named and is none: ERR_NATIVE_LOAD that says which file, and nothing else is tried', async (t) => {
  const folder = await scratch(t);
  const text = join(folder, 'text.node');
  writeFileSync(text, 'no shared object');
  const script = join(folder, 'other.cjs');
  writeFileSync(script, 'module.exports = { ops: [] };');
  const program = join(root, 'dist', 'cli', 'main.js');
  for (const [path, message] of [
    [join(folder, 'none.node'), /there is no file '.*none\.node'/],
    [text, /does not load for .*text\.node/],
    [script, /other\.cjs' is not distilwhisper's addon/],
    [folder, /does not load|is not distilwhisper's addon/],
  ] as const) {
    const { stdout } = await node([program, 'doctor'], { DISTILWHISPER_ADDON: path });
    t.regex(stdout, /^! addon +DISTILWHISPER_ADDON: /m);
    t.regex(stdout, message);
  }
  const { stdout } = await node([program, 'doctor'], { DISTILWHISPER_ADDON: addon });
  t.true(stdout.includes(`+ addon      named by DISTILWHISPER_ADDON: ${addon}`));
});

test('the install script compiles where no binary loads, on all processors or as many as JOBS says', async (t) => {
  const folder = join(await scratch(t), 'package');
  mkdirSync(join(folder, 'scripts'), { recursive: true });
  copyFileSync(join(root, 'package.json'), join(folder, 'package.json'));
  copyFileSync(join(root, 'scripts', 'install.mjs'), join(folder, 'scripts', 'install.mjs'));
  mkdirSync(join(folder, 'node_modules'));
  cpSync(join(root, 'node_modules', 'node-gyp-build'), join(folder, 'node_modules', 'node-gyp-build'), {
    recursive: true,
  });
  // A node-gyp that says how it was called, and fails as told.
  const gyp = join(folder, 'node_modules', 'node-gyp');
  mkdirSync(gyp);
  writeFileSync(join(gyp, 'package.json'), '{ "name": "node-gyp", "bin": "./gyp.js" }');
  writeFileSync(
    join(gyp, 'gyp.js'),
    'console.log(process.argv[2], process.env.JOBS); process.exit(Number(process.env.GYP_CODE));',
  );
  // What npm has on its PATH.
  const tools = join(folder, 'bin');
  mkdirSync(tools);
  const tester = join(folder, 'node_modules', 'node-gyp-build', 'build-test.js');
  writeFileSync(join(tools, 'node-gyp-build-test'), `#!/bin/sh\nexec "${process.execPath}" "${tester}"\n`, {
    mode: 0o755,
  });
  const install = (env: NodeJS.ProcessEnv) => {
    const { JOBS: _, ...rest } = process.env;
    const all = { ...rest, GYP_CODE: '0', PATH: `${tools}:${process.env.PATH}`, ...env };
    return spawnSync(process.execPath, ['scripts/install.mjs'], { cwd: folder, env: all, encoding: 'utf8' });
  };
  const { status, stdout, stderr } = install({});
  t.is(stdout, 'rebuild max\n', stderr);
  t.is(status, 0);
  t.is(install({ JOBS: '3' }).stdout, 'rebuild 3\n');
  t.is(install({ GYP_CODE: '7' }).status, 7);
  // With a binary nothing is done.
  mkdirSync(join(folder, 'build', 'Release'), { recursive: true });
  copyFileSync(addon, join(folder, 'build', 'Release', 'distilwhisper.node'));
  const found = install({});
  t.deepEqual([found.status, found.stdout], [0, '']);
  const { files, scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    files: string[];
    scripts: Record<string, string>;
  };
  t.is(scripts.install, 'node scripts/install.mjs');
  t.true(files.includes('scripts/install.mjs'), 'it is in the package');
});
