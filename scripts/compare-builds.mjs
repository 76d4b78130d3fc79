/**
 * Whether two builds compute the same, byte for byte: compare-builds.mjs <old checkout> [<new checkout>], both built. Each trains
 * for 20 updates in several ways and transcribes the corpus's tests with what it trained; losses, what is written and
 * what is heard must be equal. For changes that should change nothing.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('..', import.meta.url));
const [before, after = here] = process.argv.slice(2).map((path) => resolve(path));
if (!before) {
  console.error('usage: compare-builds.mjs <old checkout> [<new checkout>]');
  process.exit(2);
}
const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-compare-'));
const LANGUAGE = 'ca';
const STEPS = 20;
const RUNS = {
  'distilled experts': ['--teacher', 'models/pocket-teacher'],
  'distilled experts, KL, bf16': [
    '--teacher',
    'models/pocket-teacher',
    '--distillation',
    'kl',
    '--compute-type',
    'bf16',
  ],
  'experts, two batches an update, checkpointed': ['--accumulation', '2', '--gradient-checkpointing'],
  'the published code': ['--teacher', 'models/pocket-teacher', '--compat', 'reference'],
  'all parameters': ['--method', 'full'],
};
const HEARD = {
  greedy: [],
  'beams of 3, fp32': ['--beam-size', '3', '--compute-type', 'fp32'],
  'int8, one at a time': ['--compute-type', 'int8', '--batch-size', '1'],
};

function run(root, args) {
  const options = { cwd: root, encoding: 'utf8', maxBuffer: 1 << 28 };
  const { status, stdout, stderr } = spawnSync(process.execPath, ['dist/cli/main.js', ...args], options);
  if (status !== 0) throw new Error(`${root}: ${args.join(' ')}: ${stderr}`);
  return stdout;
}

/** Name → bytes, of all that a build gives. */
function results(root, name) {
  const found = new Map();
  const data = ['--model', 'models/pocket-student', '--manifest', 'corpus/manifest.jsonl', '--split', 'train'];
  for (const [i, [what, options]] of Object.entries(RUNS).entries()) {
    const output = join(scratch, `${name}-${i}`);
    const method = options.includes('--method') ? [] : ['--language', LANGUAGE];
    run(root, ['train', ...data, ...method, '--steps', `${STEPS}`, '--output', output, ...options]);
    found.set(`${what}: losses`, readFileSync(join(output, 'log.jsonl')));
    for (const file of readdirSync(output, { recursive: true }))
      if (file.endsWith('.safetensors')) found.set(`${what}: ${file}`, readFileSync(join(output, file)));
  }
  const rows = readFileSync(join(root, 'corpus', 'manifest.jsonl'), 'utf8')
    .trim()
    .split('\n')
    .map(JSON.parse);
  const files = rows.filter(({ split }) => split === 'test').map(({ audio }) => join('corpus', audio));
  const expert = join(scratch, `${name}-0`, 'expert.catalan.safetensors');
  for (const [what, options] of Object.entries(HEARD))
    found.set(
      `heard: ${what}`,
      run(root, ['transcribe', '--json', '--model', 'models/pocket-student', '--expert', expert, ...options, ...files]),
    );
  return found;
}

try {
  const [old, now] = [results(before, 'old'), results(after, 'new')];
  let different = 0;
  for (const name of new Set([...old.keys(), ...now.keys()])) {
    const [a, b] = [old.get(name), now.get(name)];
    const same = a !== undefined && b !== undefined && Buffer.from(a).equals(Buffer.from(b));
    if (!same) different++;
    console.log(`${same ? 'equal    ' : 'DIFFERENT'} ${name}${same ? ` (${a.length} bytes)` : ''}`);
  }
  process.exitCode = different > 0 ? 1 : 0;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
