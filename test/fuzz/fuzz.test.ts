/** The package stands what the fuzzer found before; the fuzzer's own parts. Mutated inputs for all readers: `npm run fuzz`, and .ci/run for a minute. */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { minimise } from './minimise.js';
import { Random } from './random.js';
import { readers } from './readers/index.js';
import { replay, scratchFolder } from './supervisor.js';

const module = new URL('./readers/index.ts', import.meta.url).href;
const regressions = new URL('./regressions/', import.meta.url).pathname;

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
  const faults = await replay(module, inputs);
  for (const [i, fault] of faults.entries())
    t.is(fault, null, `${inputs[i]!.reader.name}/${inputs[i]!.file}: ${fault?.kind} ${fault?.what} ${fault?.where}`);
});
