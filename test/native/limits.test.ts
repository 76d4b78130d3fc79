import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { availableMemory } from '../../lib/native/index.js';

const GIB = 2 ** 30;

/** A machine as its files tell of it. */
function machine(t: ExecutionContext, files: Record<string, string>): string {
  const root = mkdtempSync(join(tmpdir(), 'distilwhisper-limits-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, name)), { recursive: true });
    writeFileSync(join(root, name), text);
  }
  return root;
}

const FREE = { 'proc/meminfo': `MemTotal: ${32 * 2 ** 20} kB\nMemAvailable:   ${20 * 2 ** 20} kB\n` };
const UNLIMITED = 'Max address space         unlimited            unlimited            bytes\n';

test('what may be taken is what the tightest limit leaves: free memory, control groups of both versions, ulimits', (t) => {
  const of = (files: Record<string, string>) => availableMemory(machine(t, { ...FREE, ...files }));
  t.deepEqual(of({}), { bytes: 20 * GIB, limit: 'the memory that is free' });
  // Version 2: the limit of a group around it; pages of files count as free.
  const two = {
    'proc/self/cgroup': '0::/user/job\n',
    'sys/fs/cgroup/user/job/memory.max': 'max\n',
    'sys/fs/cgroup/user/memory.max': `${8 * GIB}\n`,
    'sys/fs/cgroup/user/memory.current': `${3 * GIB}\n`,
    'sys/fs/cgroup/user/memory.stat': `anon 1\ninactive_file ${GIB}\n`,
  };
  t.deepEqual(of(two), { bytes: 6 * GIB, limit: 'the control group' });
  // In a container its own group is the root.
  t.deepEqual(
    of({
      'proc/self/cgroup': '0::/docker/1234\n',
      'sys/fs/cgroup/memory.max': `${4 * GIB}`,
      'sys/fs/cgroup/memory.current': `${GIB}`,
    }),
    { bytes: 3 * GIB, limit: 'the control group' },
  );
  const one = {
    'proc/self/cgroup': '5:cpu:/\n4:memory:/job\n0::/\n',
    'sys/fs/cgroup/memory/job/memory.limit_in_bytes': `${2 * GIB}\n`,
    'sys/fs/cgroup/memory/job/memory.usage_in_bytes': `${GIB}\n`,
    'sys/fs/cgroup/memory/job/memory.stat': `total_inactive_file ${GIB / 2}\n`,
    'sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
    'sys/fs/cgroup/memory/memory.usage_in_bytes': `${30 * GIB}\n`,
  };
  t.deepEqual(of(one), { bytes: 1.5 * GIB, limit: 'the control group' });
  t.deepEqual(of({ ...two, 'sys/fs/cgroup/user/memory.current': `${9.5 * GIB}` }), {
    bytes: 0,
    limit: 'the control group',
  });
  const status = { 'proc/self/status': `VmSize:\t ${2 * 2 ** 20} kB\nVmData:\t ${2 ** 20} kB\n` };
  t.deepEqual(of({ ...status, 'proc/self/limits': UNLIMITED }).limit, 'the memory that is free');
  t.deepEqual(of({ ...status, 'proc/self/limits': `Max address space         ${5 * GIB}   unlimited   bytes\n` }), {
    bytes: 3 * GIB,
    limit: 'ulimit -v',
  });
  t.deepEqual(of({ ...status, 'proc/self/limits': `Max data size             ${5 * GIB}   unlimited   bytes\n` }), {
    bytes: 4 * GIB,
    limit: 'ulimit -d',
  });
});

test('here too', (t) => {
  const { bytes } = availableMemory();
  t.true(bytes > 0 && Number.isFinite(bytes));
});
