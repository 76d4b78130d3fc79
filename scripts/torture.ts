/**
 * npm run torture [-- --points N --jobs N]: a training run with validation is killed, and its system calls are made to fail, at N
 * points each (default 200; 0: at all), spread over all of its calls; the same command must then end with the same bytes.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { type Fault, faultyRun } from '../test/support/faults.js';

const { values } = parseArgs({
  options: { points: { type: 'string', default: '200' }, jobs: { type: 'string', default: '2' } },
});
const scratch = mkdtempSync(join(tmpdir(), 'torture-'));
try {
  const run = await faultyRun(scratch);
  if (!run) throw new Error('this needs Linux and a C compiler');
  const { length } = run.calls;
  const points = Number(values.points) || 2 * length;
  const kills: Fault[] = ['kill', 'killafter'];
  const errors: Fault[] = ['ENOSPC', 'EIO', 'EINTR', 'EROFS', 'EDQUOT', 'EACCES'];
  const spread = (faults: Fault[]): [Fault, number][] =>
    Array.from({ length: points }, (_, i) => [
      faults[i % faults.length]!,
      1 + (Math.floor((i * length) / points) % length),
    ]);
  const tasks = [...spread(kills), ...spread(errors)];
  console.log(`${length} system calls; ${points} kills and ${points} failing calls`);
  const bad: string[] = [];
  let next = 0;
  const work = async (): Promise<void> => {
    while (next < tasks.length) {
      const [fault, at] = tasks[next++]!;
      const wrong = await run.tryFault(fault, at);
      if (wrong !== '') bad.push(`${fault} at call ${at} (${run.calls[at - 1]}): ${wrong}`);
      if (wrong !== '') console.log(bad.at(-1));
      if (next % 50 === 0) console.log(`${next} of ${tasks.length}`);
    }
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, work));
  console.log(`${tasks.length - bad.length} of ${tasks.length} resumed or began anew, with the same bytes`);
  if (bad.length > 0) process.exitCode = 1;
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
