/** Memory: a long run holds what a short one holds, and the loss no more than its workspace. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import test from 'ava';

const file = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

async function inProcess(script: string, ...args: string[]): Promise<Record<string, number>> {
  const { stdout } = await promisify(execFile)(process.execPath, [
    '--expose-gc',
    '--import=tsx',
    file(script),
    ...args,
  ]);
  return JSON.parse(stdout.trim().split('\n').at(-1)!);
}

test.serial('resident memory at step 2,000 is within 2% of that at step 20', async (t) => {
  const resident = await inProcess('../support/memory-run.ts', '20', '2000');
  const [early, late] = [resident['20']!, resident['2000']!];
  t.log(`${(early / 2 ** 20).toFixed(1)} MiB at step 20, ${(late / 2 ** 20).toFixed(1)} MiB at step 2,000`);
  t.true(Math.abs(late - early) <= 0.02 * early);
});

for (const type of ['f32', 'bf16']) {
  const run = process.platform === 'linux' ? test.serial : test.serial.skip;
  run(
    `the distillation loss of 4,096 rows over Whisper's vocabulary stays within 64 MiB of workspace (${type})`,
    async (t) => {
      const { grew, outputs } = await inProcess('../../bench/loss-memory.ts', '4096', type, '2');
      const workspace = grew! - outputs!;
      t.log(`${workspace.toFixed(1)} MiB beyond inputs and outputs`);
      t.true(workspace <= 64);
    },
  );
}
