/** The fuzzer finds what is planted, makes it small and finds it again. */
import { readFileSync, rmSync } from 'node:fs';
import test from 'ava';
import { readers as planted } from './planted.js';
import { describe, fuzz, replay, scratchFolder } from './supervisor.js';

const module = new URL('./planted.ts', import.meta.url).href;
const finds = scratchFolder();
test.after.always(() => rmSync(finds, { recursive: true, force: true }));

const EXPECTED = {
  untyped: { kind: 'untyped', what: /TypeError: a planted fault/ },
  rejection: { kind: 'rejection', what: /nobody waits for this/ },
  hang: { kind: 'time', what: /no answer within 1 s/ },
  waits: { kind: 'time', what: /no answer within 1 s/ },
  abort: { kind: 'death', what: /ended by SIGABRT/ },
  exit: { kind: 'death', what: /exit status 3/ },
  memory: { kind: 'memory', what: /it grew by \d{4,} MiB/ },
} as const;

for (const [name, { kind, what }] of Object.entries(EXPECTED)) {
  test.serial(`a planted fault is found, shown to come from its input alone, and made smaller: ${name}`, async (t) => {
    const reader = planted.find((each) => each.name === name)!;
    const [report] = await fuzz({
      readers: [reader],
      module,
      inputs: 60,
      seed: 1,
      jobs: 2,
      finds,
      minimiseSeconds: 3,
    });
    t.true(report!.inputs >= 60, `${report!.inputs} inputs: it goes on behind a fault`);
    t.is(report!.finds.length, 1, report!.finds.map(describe).join('\n'));
    const [find] = report!.finds;
    t.is(find!.fault.kind, kind);
    t.regex(find!.fault.what, what);
    t.true(find!.times >= 1);
    t.true(find!.alone);
    // What takes no fresh process to show is made as small as it can be.
    if (kind === 'untyped') t.is(find!.bytes, 1);

    const input = new Uint8Array(readFileSync(find!.file));
    const [fault] = await replay(module, [{ reader, input }]);
    t.is(fault?.kind, kind, 'the input that was written down shows it again');
  });
}

test.serial(
  'where nothing is wrong nothing is found, typed errors are answers, and other inputs than the faulty are read',
  async (t) => {
    const [nothing] = planted;
    const options = { readers: [nothing!], module, seed: 1, jobs: 2, finds };
    const [report] = await fuzz({ ...options, inputs: 5000 });
    t.is(report!.inputs, 5000);
    t.deepEqual(report!.finds, []);
  },
);
