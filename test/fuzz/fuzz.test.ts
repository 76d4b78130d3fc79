/** The fuzzer: it finds what is planted, makes it small and finds it again; the package stands what it found before, and some seconds of it. */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { minimise } from './minimise.js';
import { readers as planted } from './planted.js';
import { Random } from './random.js';
import { readers } from './readers/index.js';
import { describe, fuzz, replay, scratchFolder } from './supervisor.js';

const module = (name: string): string => new URL(`./${name}`, import.meta.url).href;
const finds = scratchFolder();
test.after.always(() => rmSync(finds, { recursive: true, force: true }));
const regressions = new URL('./regressions/', import.meta.url).pathname;

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
      module: module('planted.ts'),
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
    const [fault] = await replay(module('planted.ts'), [{ reader, input }]);
    t.is(fault?.kind, kind, 'the input that was written down shows it again');
  });
}

test.serial(
  'where nothing is wrong nothing is found, typed errors are answers, and other inputs than the faulty are read',
  async (t) => {
    const [nothing] = planted;
    const options = { readers: [nothing!], module: module('planted.ts'), seed: 1, jobs: 2, finds };
    const [report] = await fuzz({ ...options, inputs: 5000 });
    t.is(report!.inputs, 5000);
    t.deepEqual(report!.finds, []);
  },
);

test('an input follows from reader, seed and number, and every one is another', async (t) => {
  for (const reader of readers.filter(({ name }) => ['wav', 'language', 'subtitles', 'flac'].includes(name))) {
    const folder = scratchFolder();
    const [first, second] = [await reader.open(folder), await reader.open(folder)];
    const made = (session: typeof first, seed: number) =>
      Array.from({ length: 50 }, (_, i) => Buffer.from(session.make(new Random(reader.name, seed, i))).toString('hex'));
    t.deepEqual(made(first, 1), made(second, 1), reader.name);
    t.notDeepEqual(made(first, 1), made(first, 2), reader.name);
    t.true(new Set(made(first, 1)).size > 40, reader.name);
    await first.close?.();
    await second.close?.();
    rmSync(folder, { recursive: true });
  }
});

test('an input is made smaller to what shows its fault, within the tries that it gets', async (t) => {
  const input = Uint8Array.from({ length: 1000 }, (_, i) => i & 127);
  input[321] = 200;
  input[654] = 201;
  const shows = async (bytes: Uint8Array): Promise<boolean> => bytes.includes(200) && bytes.includes(201);
  t.deepEqual([...(await minimise(input, shows, { tries: 3000, until: Date.now() + 60_000 }))], [200, 201]);
  let tries = 0;
  await minimise(input, async () => ++tries < 0, { tries: 7, until: Date.now() + 60_000 });
  t.is(tries, 7);
});

test.serial('inputs that broke a reader once are answered', async (t) => {
  const inputs = readers.flatMap((reader) => {
    const folder = join(regressions, reader.name);
    if (!existsSync(folder)) return [];
    return readdirSync(folder).map((file) => ({
      file,
      reader,
      input: new Uint8Array(readFileSync(join(folder, file))),
    }));
  });
  t.true(inputs.length > 0);
  const faults = await replay(module('readers/index.ts'), inputs);
  for (const [i, fault] of faults.entries())
    t.is(fault, null, `${inputs[i]!.reader.name}/${inputs[i]!.file}: ${fault?.kind} ${fault?.what} ${fault?.where}`);
});

for (const reader of readers) {
  const missing = reader.missing?.();
  (missing ? test.serial.skip : test.serial)(`some seconds of mutated inputs: ${reader.name}`, async (t) => {
    const options = { readers: [reader], module: module('readers/index.ts'), seed: 1, jobs: 2, finds };
    const [report] = await fuzz({ ...options, seconds: 2, minimiseSeconds: 5 });
    t.true(report!.inputs > 0);
    t.deepEqual(report!.finds, [], report!.finds.map(describe).join('\n'));
  });
}
