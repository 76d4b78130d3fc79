/** `npm run gpu-check`: what it refuses, and what it makes of figures. Its runs on the emulated device are in gpu-check.long. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { rungs } from '../../bench/gpu/checks.js';
import { run } from '../../bench/gpu/processes.js';
import { peerRuns } from '../../bench/gpu/pytorch.js';
import { bars, besidePyTorch, csv, type GpuRow, report } from '../../bench/gpu/results.js';
import { beyondInputs, fits } from '../../bench/gpu/speed.js';
import { check, program } from '../support/gpu-check.js';
import { scratch } from '../support/weights.js';

test('a command that is not there', async (t) => {
  const { status, output } = await run('/no/such/command', [], { write: () => {} });
  t.not(status, 0);
  t.regex(output, /ENOENT/);
});

test('without a GPU: code 3 and why, and nothing is written; wrong usage: code 2', async (t) => {
  const folder = join(await scratch(t), 'results');
  const none = check([folder], join(folder, 'none.so'));
  t.is(none.status, 3);
  t.regex(none.stderr, /^no GPU can be checked: .*none\.so/);
  for (const [args, message] of [
    [[], /expected one folder/],
    [[program], /expected a folder for results, got the file .*main\.ts/],
    [[folder, '--only', 'speed'], /--only: expected some of tests, .*got 'speed'/],
    [[folder, '--minutes', '0'], /--minutes: expected a number above 0/],
    [[folder, '--shapes', 'huge'], /--shapes: expected full or tiny/],
    [[folder, '--peer', join(folder, 'none.py')], /--peer: expected a Python script, got .*none\.py/],
    [[folder, '--fast'], /--fast/],
  ] as const) {
    const run = check(args, join(folder, 'none.so'));
    t.is(run.status, 2, run.stderr);
    t.regex(run.stderr, message);
  }
  t.false(existsSync(folder));
});

test('the largest batch: on the line through the last two, within nine tenths of the memory, in eights', (t) => {
  const gib = 2 ** 30;
  const held = [8, 16, 32].map((batch, i) => [batch, [10, 14, 22][i]! * gib] as const);
  t.is(fits(held, 80 * gib), 128);
  t.is(fits(held.slice(0, 1), 80 * gib), 0);
});

test('bars: met, not met, or open where a figure is missing; PyTorch counts by the better of its two', (t) => {
  const peer = ['train', '--batch', '8'];
  const bar = { ratio: 1.5, mfu: 0.4 };
  const row: GpuRow = { stage: 'training', name: 'step', ms: 10, peer, compile: true, mfu: 0.39, bars: bar };
  const other = { ...row, peer: ['train', '--batch', '16'], compile: false };
  t.deepEqual(peerRuns([row, other]), [
    { args: peer, compiled: false },
    { args: other.peer, compiled: false },
    { args: peer, compiled: true },
  ]);
  const peers = [
    { stage: 'pytorch', name: 'train --batch 8', ms: 18, peakMiB: 7 },
    { stage: 'pytorch', name: 'train --batch 8 --compile', ms: 15 },
  ];
  const [merged] = besidePyTorch([row], peers);
  t.like(merged, { peerMs: 18, compiledMs: 15, ratio: 1.5, peerPeakMiB: 7 });
  const verdicts = (rows: readonly GpuRow[]) => bars(rows).map(({ verdict }) => verdict);
  t.deepEqual(verdicts([merged!]), ['met', 'NOT MET']);
  t.deepEqual(verdicts([row]), ['open', 'NOT MET']);
  const loss = (extraMiB: number): GpuRow => ({ stage: 'loss', name: 'loss', extraMiB, bars: { extraMiB: 286 } });
  t.deepEqual(verdicts([loss(286), loss(287)]), ['met', 'NOT MET']);
  t.regex(report([merged!]), /\| step, share of the bf16 ceiling \| at least 40\.0% \| +39\.0% \| NOT MET \|/);
  t.is(csv([{ stage: 'a', name: 'b, "c"', note: 'd' }], { gpu: 'e' }).split('\n')[1], 'a,"b, ""c""",,,,,,,,,,,,,d,,e');
});

test('memory of calls: scratch memory and what was used of the arena, not the chunks that the arena took', (t) => {
  const gib = 2 ** 30;
  const chunk = 2.2 * gib;
  const memory = { stepUsed: 0, persistent: 3 * gib, deviceHeld: 3.5 * gib + chunk, mapped: 0, packed: 0, scratch: 0 };
  t.is(beyondInputs(3.25 * gib, { ...memory, stepReserved: chunk, stepPeak: 1000 }), 0.25 * gib + 1000);
});

test("the ladder's table", (t) => {
  const text =
    '# a GPU\nkernel\trung\tms\tTFLOP/s\tgained\tdifference\nattention\ttiles\t1.5000\t40.0\t3.00\t1.0e-03\n';
  t.deepEqual(rungs(text), [{ name: 'attention: tiles', ms: 1.5, tflops: 40, gained: 3, difference: 1e-3 }]);
});
