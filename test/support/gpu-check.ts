/** `npm run gpu-check` as the tests run it: on tiny shapes, with stand-ins for the programs that only a GPU has. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ExecutionContext } from 'ava';
import { emulatedPlugin } from './kernels.js';

export const program = fileURLToPath(new URL('../../bench/gpu/main.ts', import.meta.url));
export const tiny = ['--shapes', 'tiny', '--repeats', '1'];

export const check = (args: readonly string[], plugin: string, env: NodeJS.ProcessEnv = {}) =>
  spawnSync(process.execPath, ['--import=tsx', program, ...args], {
    encoding: 'utf8',
    env: { ...process.env, DISTILWHISPER_CUDA_PLUGIN: plugin, ...env },
  });

const python = ['python3', 'python'].find((name) => spawnSync(name, ['--version']).status === 0);

export function ready(t: ExecutionContext): boolean {
  const missing = emulatedPlugin() ? (python ? null : 'no Python') : 'no emulated device';
  if (missing === null) return true;
  t.log(`skipped: ${missing}`);
  t.pass();
  return false;
}

/** A torch that computes nothing and a script that takes 1,000 ms, compiled 500, and never has the memory for a loss. */
export function standInForPyTorch(folder: string): { args: string[]; env: NodeJS.ProcessEnv } {
  mkdirSync(join(folder, 'torch'));
  writeFileSync(
    join(folder, 'torch', '__init__.py'),
    `class device:
    def __init__(self, name):
        assert name == "cuda"
    def __enter__(self):
        print("weights are made on the device")
    def __exit__(self, *rest):
        pass
class cuda:
    empty_cache = staticmethod(lambda: None)
`,
  );
  const script = join(folder, 'peer.py');
  writeFileSync(
    script,
    `import json, sys
class Whisper:
    def __init__(self, size):
        self.size = size
def main():
    at = lambda name: sys.argv[sys.argv.index(name) + 1]
    assert (at("--dtype"), at("--device"), at("--repeat")) == ("bf16", "cuda", "1")
    if sys.argv[1] == "kdloss":
        raise MemoryError("CUDA out of memory.\\nTried to allocate")
    if sys.argv[1] == "encoder":
        sys.exit("no encoder today")
    Whisper(at("--student"))
    print(json.dumps(dict(ms_median=500 if "--compile" in sys.argv else 1000, peak_mib=42)))
`,
  );
  return { args: ['--peer', script, '--python', python!], env: { PYTHONPATH: folder } };
}

/** A compute-sanitizer that only runs what it is given. */
export function standInForSanitizer(folder: string): NodeJS.ProcessEnv {
  writeFileSync(
    join(folder, 'compute-sanitizer'),
    '#!/bin/sh\necho "========= COMPUTE-SANITIZER"\nshift 8\n"$@"\ncode=$?\necho "========= ERROR SUMMARY: 0 errors"\nexit $code\n',
    { mode: 0o755 },
  );
  return { PATH: `${folder}:${process.env.PATH}` };
}

export function standInForLadder(folder: string): NodeJS.ProcessEnv {
  const program = join(folder, 'ladder');
  const lines = [
    '# a GPU',
    'kernel\\trung\\tms\\tTFLOP/s\\tgained\\tdifference',
    'a\\tnear\\t2\\t40\\t1\\t0.001',
    'a\\tfar\\t1\\t80\\t2\\t0.1',
  ];
  writeFileSync(program, `#!/bin/sh\nprintf '${lines.join('\\n')}\\n'\n`, { mode: 0o755 });
  return { DISTILWHISPER_LADDER: program };
}
