import { copyFileSync, cpSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { cli, root, scratchFolder } from '../support/cli.js';

test("who works from folders does not load the hub's client", async (t) => {
  const { path: folder, remove } = scratchFolder();
  t.teardown(remove);
  // The package without it.
  cpSync(join(root, 'dist'), join(folder, 'dist'), { recursive: true });
  for (const name of ['build', 'models']) symlinkSync(join(root, name), join(folder, name));
  copyFileSync(join(root, 'package.json'), join(folder, 'package.json'));
  mkdirSync(join(folder, 'node_modules', '@huggingface'), { recursive: true });
  const modules = readdirSync(join(root, 'node_modules')).filter((name) => name !== '@huggingface');
  for (const name of [...modules, join('@huggingface', 'tokenizers')])
    symlinkSync(join(root, 'node_modules', name), join(folder, 'node_modules', name));
  const program = join(folder, 'dist', 'cli', 'main.js');
  const speech = join(root, 'corpus', 'ca', 'test-in-0000.opus');
  const { code, stderr } = await cli(['transcribe', speech, '--model', 'pocket-student', '--language', 'ca'], {
    program,
  });
  t.is(code, 0, stderr);
});
