/** A run is killed, or its system calls fail, at calls spread over it; all of them are for `npm run torture`. */
import test from 'ava';
import { scratchFolder } from '../support/cli.js';
import { type Fault, faultyRun } from '../support/faults.js';

const { path: scratch, remove } = scratchFolder();
test.after.always(remove);

test('killed, or failing, at calls spread over a run, the same command ends with the same bytes', async (t) => {
  const faulty = await faultyRun(scratch);
  if (!faulty) {
    t.log('skipped: this needs Linux and a C compiler');
    return t.pass();
  }
  const { calls } = faulty;
  // The beginning, where a folder is not yet a run, and one of each kind of call; all of them are for `npm run torture`.
  const kinds = new Map(calls.map((call, i) => [call, i + 1]));
  // The last: where a checkpoint that is no longer needed goes, behind the last one that is written.
  const removal = calls.lastIndexOf('rename', calls.lastIndexOf('rmdir')) + 1;
  const points = [3, 7, 12, 14, ...kinds.values()];
  const faults: Fault[] = ['kill', 'ENOSPC', 'killafter', 'EIO', 'EINTR', 'EROFS'];
  await Promise.all(
    [0, 1].map(async (half) => {
      for (const [i, point] of points.entries()) {
        if (i % 2 !== half) continue;
        const fault = faults[i % faults.length]!;
        t.is(await faulty.tryFault(fault, point), '', `${fault} at call ${point}, ${calls[point - 1]}`);
      }
    }),
  );
  t.is(await faulty.tryFault('kill', removal), '', `kill at call ${removal}`);
  t.log(`${points.length + 1} of ${calls.length} calls`);
});
