/** A run that is killed goes on as if it had not been. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test from 'ava';
import { parseSafetensors, toFloat32 } from '../../lib/weights/index.js';

const worker = fileURLToPath(new URL('../support/train-run.ts', import.meta.url));

/** Runs to the end, or is killed some milliseconds after so many updates. */
function runProcess(path: string, kill?: { updates: number; later: number }): Promise<number | null> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, ['--import=tsx', worker, path, '200'], {
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    let updates = 0;
    child.stdout.on('data', (dots: Buffer) => {
      updates += dots.length;
      if (kill && updates >= kill.updates) setTimeout(() => child.kill('SIGKILL'), kill.later);
    });
    child.on('exit', resolve);
  });
}

function finalState(path: string): Map<string, Float32Array> {
  const [last] = readdirSync(join(path, 'checkpoints')).sort().reverse();
  const { tensors } = parseSafetensors(readFileSync(join(path, 'checkpoints', last!, 'state.safetensors')));
  return new Map([...tensors].map(([name, t]) => [name, toFloat32(t)]));
}

test('a run killed at five moments and resumed ends with bit-identical parameters, moments and log', async (t) => {
  const parent = mkdtempSync(join(tmpdir(), 'resumed-'));
  t.teardown(() => rmSync(parent, { recursive: true, force: true }));
  const [whole, broken] = [join(parent, 'whole'), join(parent, 'broken')];
  t.is(await runProcess(whole), 0);
  for (const [i, updates] of [1, 4, 5, 8, 11].entries()) {
    t.is(await runProcess(broken, { updates, later: 7 * i }), null, `the run ended before its ${i + 1}. kill`);
  }
  t.true(readdirSync(join(broken, 'checkpoints')).length > 0, 'the last kill came after a checkpoint');
  t.is(await runProcess(broken), 0);
  const expected = finalState(whole);
  const got = finalState(broken);
  t.deepEqual([...got.keys()], [...expected.keys()]);
  for (const [name, values] of expected) t.deepEqual(got.get(name), values, name);
  const lines = (path: string): string => readFileSync(join(path, 'log.jsonl'), 'utf8');
  t.is(lines(broken), lines(whole));
});
