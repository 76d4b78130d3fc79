import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { openDataset, prepare } from '../../lib/data/index.js';
import { cacheTeacher, embedded, type TrainRecipe, train } from '../../lib/recipes/index.js';
import { Stream } from '../../lib/tensor/index.js';

const { teacher, student, manifest } = embedded();
/** Catalan utterances of the embedded corpus. */
const UTTERANCES = 10;

function folder(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'distilwhisper-teacher-'));
  t.teardown(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A manifest of some training rows of the embedded corpus, each changed by `change`. */
function someRows(path: string, change: (row: Record<string, unknown>, i: number) => object = (row) => row): string {
  const rows = readFileSync(manifest, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
    .filter(({ split, language }) => split === 'train' && language === 'ca')
    .slice(0, UTTERANCES);
  const file = join(path, 'rows.jsonl');
  writeFileSync(file, rows.map((row, i) => `${JSON.stringify(change(row, i))}\n`).join(''));
  return file;
}

const recipe = (path: string, output: string, more: Partial<TrainRecipe> = {}): TrainRecipe => ({
  model: student,
  teacher,
  manifest: join(path, 'rows.jsonl'),
  audioRoot: join(manifest, '..'),
  output: join(path, output),
  language: 'ca',
  split: 'train',
  batchSize: 2,
  steps: 20,
  options: { learningRate: 1e-3 },
  ...more,
});

const cacheRecipe = (path: string, output = 'cache') => ({
  teacher,
  manifest: join(path, 'rows.jsonl'),
  audioRoot: join(manifest, '..'),
  output: join(path, output),
  language: 'ca',
  split: 'train',
});

const logOf = (run: string): Record<string, number>[] =>
  readFileSync(join(run, 'log.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));

test('with a cache, and while it is filled: the losses of the live teacher within 1e-3 over 20 updates; its layers are not loaded', async (t) => {
  const path = folder(t);
  someRows(path);
  const { missing, bytes } = await cacheTeacher(cacheRecipe(path));
  t.is(missing, UTTERANCES);
  t.is((await cacheTeacher(cacheRecipe(path))).missing, 0);
  const stream = new Stream({ threads: 2 });
  const weights: Record<string, number> = {};
  const run = async (name: string, more: Partial<TrainRecipe>) => {
    await train(
      recipe(path, name, {
        ...more,
        stream,
        onStart: () => {
          const { persistent, mapped } = stream.memory();
          weights[name] = persistent + mapped;
        },
      }),
    );
    return logOf(join(path, name));
  };
  const live = await run('live', {});
  const cached = await run('cached', { teacherCache: join(path, 'cache') });
  const filling = await run('filling', { teacherCache: 'auto' });
  stream.close();
  t.is(live.length, 20);
  for (const log of [cached, filling]) {
    for (const [i, { loss, distillation }] of log.entries()) {
      t.true(Math.abs(loss! / live[i]!.loss! - 1) < 1e-3, `update ${i + 1}: ${loss} and ${live[i]!.loss}`);
      t.true(distillation! > 0);
    }
  }
  // The pocket teacher's table is a small part of it.
  t.true(weights.cached! < weights.live! - 1e6, JSON.stringify(weights));
  t.true(weights.filling! >= weights.live!);
  const files = readdirSync(join(path, 'filling', 'teacher-cache'));
  t.true(files.length > 0 && files.every((name) => /^rows-\d{8}\.packed$/.test(name)), String(files));
  // What a run has filled serves the next one.
  t.deepEqual(
    (await train(recipe(path, 'next', { steps: 1, teacherCache: join(path, 'filling', 'teacher-cache') }))).teacher
      .kind,
    'cached',
  );
  t.true(bytes > 0);
});

test('a run that fills its cache goes on behind any update with the numbers that it would have had', async (t) => {
  const path = folder(t);
  someRows(path);
  const more: Partial<TrainRecipe> = { teacherCache: 'auto', steps: 7, checkpointEvery: 2 };
  await train(recipe(path, 'whole', more));
  for (const at of [1, 3]) {
    const name = `stopped-${at}`;
    const abort = new AbortController();
    const stopped = train(
      recipe(path, name, {
        ...more,
        signal: abort.signal,
        onUpdate: ({ step }) => {
          if (step === at) abort.abort();
        },
      }),
    );
    await t.throwsAsync(stopped, { code: 'ERR_INTERRUPTED' });
    await train(recipe(path, name, more));
    t.deepEqual(logOf(join(path, name)), logOf(join(path, 'whole')), name);
  }
});

test('a cache that was interrupted goes on, and what a killed process left half-written is no part of it', async (t) => {
  const path = folder(t);
  someRows(path);
  const abort = new AbortController();
  const stopped = cacheTeacher({ ...cacheRecipe(path), signal: abort.signal, onProgress: () => abort.abort() });
  await t.throwsAsync(stopped, { code: 'ERR_INTERRUPTED', message: /after 8 utterances; the same command goes on/ });
  const cache = join(path, 'cache');
  const [first] = readdirSync(cache);
  writeFileSync(join(cache, `${first}.0123456789ab.tmp`), 'half of it');
  const { missing } = await cacheTeacher(cacheRecipe(path));
  t.is(missing, UTTERANCES - 8);
  t.deepEqual(readdirSync(cache).sort(), ['rows-00000000.packed', 'rows-00000001.packed']);
  t.is((await train(recipe(path, 'run', { teacherCache: cache, steps: 1 }))).teacher.kind, 'cached');
});

test('a cache of another teacher, of other utterances, cut short, damaged or not there is refused by name, and nothing is written', async (t) => {
  const path = folder(t);
  someRows(path);
  await cacheTeacher(cacheRecipe(path));
  const cache = join(path, 'cache');
  const refused = async (name: string, more: Partial<TrainRecipe>, expected: { code: string; message: RegExp }) => {
    await t.throwsAsync(train(recipe(path, name, { teacherCache: cache, ...more })), expected, name);
    t.false(readdirSync(path).includes(name), name);
  };
  const other = join(path, 'other');
  cpSync(teacher, other, { recursive: true });
  const bytes = readFileSync(join(other, 'model.safetensors'));
  bytes[bytes.length - 2]! ^= 1;
  writeFileSync(join(other, 'model.safetensors'), bytes);
  await refused(
    'foreign',
    { teacher: other },
    {
      code: 'ERR_TEACHER_CACHE',
      message: /rows-00000000\.packed: it has rows of another teacher: expected teacher sha256:/,
    },
  );
  await refused(
    'nowhere',
    { teacherCache: join(path, 'none') },
    {
      code: 'ERR_FILE_NOT_FOUND',
      message: /teacher cache .*none: there is no such folder; 'distilwhisper cache-teacher' makes one/,
    },
  );
  await refused(
    'folder',
    { teacherCache: teacher },
    {
      code: 'ERR_TEACHER_CACHE',
      message: /expected the files of a teacher cache or nothing, got other files/,
    },
  );
  someRows(path, (row, i) => (i === 3 ? { ...row, text: `${row.text} i` } : row));
  await refused(
    'stale',
    {},
    {
      code: 'ERR_TEACHER_CACHE',
      message: /cache: it lacks 1 of 10 utterances .* such as "ca-train-\S+ \(.*rows\.jsonl line 4\)/,
    },
  );
  // The same name and length, other audio.
  const audio = join(path, 'clips');
  mkdirSync(join(audio, 'ca'), { recursive: true });
  someRows(path, (row) => {
    const file = readFileSync(join(manifest, '..', String(row.audio)));
    writeFileSync(join(audio, String(row.audio)), file);
    return row;
  });
  const [one, two] = readdirSync(join(audio, 'ca'));
  writeFileSync(join(audio, 'ca', one!), readFileSync(join(audio, 'ca', two!)));
  await refused('audio', { audioRoot: audio }, { code: 'ERR_TEACHER_CACHE', message: /it lacks 1 of 10 utterances/ });
  const file = join(cache, 'rows-00000000.packed');
  const whole = readFileSync(file);
  truncateSync(file, whole.length >> 1);
  await refused(
    'cut',
    {},
    { code: 'ERR_PACKED', message: /rows-00000000\.packed is cut short: it ends in record \d+/ },
  );
  const flipped = Buffer.from(whole);
  flipped[whole.length >> 1]! ^= 4;
  writeFileSync(file, flipped);
  await t.throwsAsync(train(recipe(path, 'flipped', { teacherCache: cache })), {
    code: 'ERR_PACKED',
    message: /rows-00000000\.packed is damaged: record \d+ of 10/,
  });
});

test('a cache is asked for where it can serve', async (t) => {
  const path = folder(t);
  someRows(path);
  const cache = { teacherCache: 'auto' };
  for (const [more, message] of [
    [{ teacher: undefined as unknown as string }, /teacherCache: expected with a teacher/],
    [{ options: { distillation: 'none' } }, /teacherCache: expected with a distillation/],
    [{ options: { compat: 'reference' } }, /teacherCache: expected with compat 'paper', got 'reference'/],
  ] as const) {
    const { teacher: _, ...rest } = recipe(path, 'run', { ...cache, ...more });
    const whole = 'teacher' in more ? rest : { ...rest, teacher };
    await t.throwsAsync(train(whole as TrainRecipe), { code: 'ERR_ARGUMENT', message });
  }
});

test('packed shards have a cache too, by their samples; how long they are is known when a run goes on', async (t) => {
  const path = folder(t);
  await using rows = await openDataset(someRows(path), { audioRoot: join(manifest, '..') });
  const { seconds } = await prepare(rows, { output: join(path, 'shards') });
  const data = { data: join(path, 'shards'), language: 'ca' };
  const cache = { teacher, ...data, output: join(path, 'cache') };
  const { missing, hours } = await cacheTeacher(cache);
  t.is(missing, UTTERANCES);
  t.true(Math.abs(hours! * 3600 - seconds) < 1e-6);
  t.is((await cacheTeacher({ ...cache, limit: 3 })).utterances, 3);
  const run = { model: student, teacher, teacherCache: cache.output, ...data, output: join(path, 'run'), steps: 2 };
  const first = await train({ ...run, batchSize: 2 });
  t.is(first.teacher.kind, 'cached');
  t.is(first.utterances, UTTERANCES);
  t.true(Math.abs(first.hours! * 3600 - seconds) < 1e-6);
  const again = await train({ ...run, batchSize: 2 });
  t.is(again.updates, 0);
  t.is(again.hours, first.hours);
  // What says something else is not in it.
  const { audioRoot } = recipe(path, 'other');
  await t.throwsAsync(
    train({ ...run, data: someRows(path, (row) => ({ ...row, text: 'bon dia' })), audioRoot, output: join(path, 'b') }),
    { code: 'ERR_TEACHER_CACHE', message: /it lacks \d+ of \d+ utterances/ },
  );
});
