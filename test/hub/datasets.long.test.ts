/** Data sets by names of the hub: which of their files are fetched, and what is read of them. */
import { join } from 'node:path';
import test from 'ava';
import { openDataset, train } from '../../lib/index.js';
import { cli, root, scratchFolder } from '../support/cli.js';
import { parquetOf, tone } from '../support/corpora.js';
import { hubPlace } from '../support/hub.js';
import { refused } from '../support/weights.js';

/** A shard of some rows that say their place. */
const shard = (place: string, language: string, count = 2): Buffer =>
  parquetOf(
    Array.from({ length: count }, (_, i) => ({ bytes: tone(0.3 + 0.1 * i, i), text: `${place} ${i}`, language })),
  );

const SPEECH = {
  'README.md': 'x',
  'ca_es/train-00000-of-00001.parquet': shard('ca train', 'ca'),
  'ca_es/test-00000-of-00001.parquet': shard('ca test', 'ca'),
  'cs_cz/train-00000-of-00001.parquet': shard('cs train', 'cs'),
};

test.serial(
  'a name of the hub is a data set: of its files those of the wanted splits and languages are fetched',
  async (t) => {
    const { hub } = await hubPlace(t);
    await hub.commit('org/speech', SPEECH, { kind: 'datasets' });
    const fetched = (): string[] => [
      ...new Set(hub.asked('resolve').flatMap(({ path }) => /[a-z_]+\/[a-z]+-0.*\.parquet/.exec(path)?.[0] ?? [])),
    ];
    const texts = async (name: string, options: Parameters<typeof openDataset>[1]): Promise<string[]> => {
      await using data = await openDataset(name, options);
      for (const i of data.numbers()) t.true((await data.audio(i)) instanceof Uint8Array);
      return [...data.entries()].map(({ text }) => text);
    };
    t.deepEqual(await texts('org/speech', { languages: 'ca', defaultSplit: 'train' }), ['ca train 0', 'ca train 1']);
    t.deepEqual(fetched(), ['ca_es/train-00000-of-00001.parquet']);
    t.deepEqual(await texts('parquet:org/speech@main#test', {}), ['ca test 0', 'ca test 1']);
    t.deepEqual(await texts('org/speech#test', { hub: { offline: true } }), ['ca test 0', 'ca test 1']);
    t.is(fetched().length, 2);
    await refused(t, 'ERR_HUB_OFFLINE', /org\/speech/, () => openDataset('org/speech', { hub: { offline: true } }));
    await refused(t, 'ERR_ARGUMENT', /org\/speech has the splits test, train, got "dev"/, () =>
      openDataset('org/speech#dev'),
    );
    // Of what is in the cache too nothing but the wanted language is read.
    t.deepEqual(await texts('org/speech', { split: 'all', languages: 'cs' }), ['cs train 0', 'cs train 1']);
    await refused(t, 'ERR_HUB_ACCESS', /org\/none/, () => openDataset('org/none'));
    await refused(t, 'ERR_FILE_NOT_FOUND', /nowhere, and it is no name of the hub/, () => openDataset('nowhere'));
  },
);

test.serial('train, evaluate and cache-teacher take names for their data', async (t) => {
  const { hub, env } = await hubPlace(t);
  await hub.commit('org/speech', SPEECH, { kind: 'datasets' });
  const { path, remove } = scratchFolder();
  t.teardown(remove);
  const model = join(root, 'models', 'pocket-student');
  const cache = join(path, 'cache');
  const run = (args: string[]) => cli([...args, '--language', 'ca', '--data', 'org/speech', '--threads', '1'], { env });
  const cached = await run(['cache-teacher', '--teacher', 'pocket-teacher', '--output', cache, '--json']);
  t.is(cached.code, 0, cached.stderr);
  t.like(JSON.parse(cached.stdout), { utterances: 2, missing: 2 });
  const { utterances, sources, teacher, hours } = await train({
    model,
    teacher: 'pocket-teacher',
    teacherCache: cache,
    data: 'org/speech',
    language: 'ca',
    output: join(path, 'run'),
    steps: 1,
    batchSize: 2,
  });
  t.is(utterances, 2);
  t.is(teacher.kind, 'cached');
  t.deepEqual(sources.data, ['org/speech']);
  t.true(Math.abs(hours! * 3600 - 0.7) < 1e-3);
  const scored = await run(['evaluate', '--model', model, '--json']);
  t.is(scored.code, 0, scored.stderr);
  t.is(JSON.parse(scored.stdout).total.utterances, 2);
});
