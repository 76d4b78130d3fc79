import { createHash } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { resolveDataset, resolveExperts, resolveModel, Transcriber } from '../../lib/index.js';
import { hubPlace, pull } from '../support/hub.js';
import { whisperFiles } from '../support/hub-models.js';
import { refused } from '../support/weights.js';

const files = await whisperFiles(1);
const weights = files['model.safetensors'] as Buffer;
const NEEDED = [
  'added_tokens.json',
  'config.json',
  'generation_config.json',
  'model.safetensors',
  'preprocessor_config.json',
  'special_tokens_map.json',
  'tokenizer.json',
  'tokenizer_config.json',
];

test.serial('a size is pulled: the files that are needed, in the layout of the cache, and loads', async (t) => {
  const { hub, cache } = await hubPlace(t);
  const commit = await hub.commit('openai/whisper-small', files);
  const seen: number[] = [];
  const folder = await resolveModel('small', {
    onProgress: ({ repository, done, total }) => {
      t.is(repository, 'openai/whisper-small');
      t.true(done <= total);
      seen.push(done);
    },
  });
  const root = cache('openai/whisper-small');
  t.is(folder, join(root, 'snapshots', commit));
  t.deepEqual(readdirSync(folder).sort(), NEEDED);
  t.is(readFileSync(join(root, 'refs', 'main'), 'utf8'), commit);
  const sha256 = createHash('sha256').update(weights).digest('hex');
  t.is(readlinkSync(join(folder, 'model.safetensors')), join('..', '..', 'blobs', sha256));
  const config = readFileSync(join(folder, 'config.json'));
  const sha1 = createHash('sha1').update(`blob ${config.length}\0`).update(config).digest('hex');
  t.is(readlinkSync(join(folder, 'config.json')), join('..', '..', 'blobs', sha1));
  t.deepEqual(
    readdirSync(join(root, 'blobs')).filter((name) => name.endsWith('.incomplete')),
    [],
  );
  const total = NEEDED.reduce((sum, name) => sum + Buffer.from(files[name] as Buffer).length, 0);
  t.is(seen[0], 0);
  t.is(seen.at(-1), total);
  const transcriber = await Transcriber.load('small', { hub: { offline: true } });
  await transcriber.close();
});

test.serial('what is there is not fetched again, and a commit needs no request', async (t) => {
  const { hub } = await hubPlace(t);
  const first = await hub.commit('org/name', files);
  await resolveModel('org/name');
  const [resolves, all] = [hub.asked('resolve').length, hub.requests.length];
  t.is(await resolveModel('org/name@main'), await resolveModel('org/name'));
  t.is(hub.asked('resolve').length, resolves);
  // One question each, for the commit.
  t.is(hub.requests.length, all + 2);
  await resolveModel(`org/name@${first}`);
  t.is(hub.requests.length, all + 2);
  // Only what has changed comes with a new commit.
  const second = await hub.commit('org/name', { 'generation_config.json': '{"max_length": 3}' });
  const folder = await resolveModel('org/name');
  t.regex(folder, new RegExp(second));
  t.is(hub.asked('resolve').length, resolves + 1);
  t.is(readFileSync(join(folder, 'generation_config.json'), 'utf8'), '{"max_length": 3}');
  t.regex(await resolveModel('org/name', { revision: first }), new RegExp(first));
});

test.serial('a branch with a slash is a revision', async (t) => {
  const { hub, cache } = await hubPlace(t);
  const commit = await hub.commit('org/name', files, { revision: 'refs/pr/7' });
  t.regex(await resolveModel('org/name@refs/pr/7'), new RegExp(commit));
  t.is(readFileSync(join(cache('org/name'), 'refs', 'refs', 'pr', '7'), 'utf8'), commit);
});

test.serial('offline: the cache or nothing', async (t) => {
  const { hub } = await hubPlace(t);
  const commit = await hub.commit('org/name', files);
  await refused(t, 'ERR_HUB_OFFLINE', /org\/name is not, or not wholly, in .*--offline/, () =>
    resolveModel('org/name', { offline: true }),
  );
  t.is(hub.requests.length, 0);
  const folder = await resolveModel('org/name');
  const asked = hub.requests.length;
  t.is(await resolveModel('org/name', { offline: true }), folder);
  t.is(await resolveModel(`org/name@${commit}`, { offline: true }), folder);
  process.env.HF_HUB_OFFLINE = '1';
  t.is(await resolveModel('org/name'), folder);
  await refused(t, 'ERR_HUB_OFFLINE', /org\/other/, () => resolveModel('org/other'));
  await refused(t, 'ERR_HUB_OFFLINE', /org\/name@v2/, () => resolveModel('org/name@v2'));
  delete process.env.HF_HUB_OFFLINE;
  t.is(hub.requests.length, asked);
});

test.serial(
  'a hub that is down: what the cache has, with a note; without a cache an error that names both',
  async (t) => {
    const { hub } = await hubPlace(t);
    await hub.commit('org/name', files);
    const folder = await resolveModel('org/name');
    process.env.HF_ENDPOINT = 'http://127.0.0.1:59999';
    const notes: string[] = [];
    t.is(await resolveModel('org/name', { onNote: (note) => notes.push(note) }), folder);
    t.regex(notes.join(), /could not be reached \(ECONNREFUSED\).*going on with what the cache has/);
    hub.fault = ({ part }) => (part === 'api' ? { status: 502 } : undefined);
    process.env.HF_ENDPOINT = hub.url;
    t.is(await resolveModel('org/name', { onNote: (note) => notes.push(note) }), folder);
    t.regex(notes.at(-1)!, /answered 502/);
  },
);

test.serial('sharded weights: the index, then the shards that it names', async (t) => {
  const { hub } = await hubPlace(t);
  const { 'model.safetensors': _, ...rest } = files;
  const index = JSON.stringify({
    weight_map: { a: 'model-00001-of-00002.safetensors', b: 'model-00002-of-00002.safetensors' },
  });
  const shards = { 'model-00001-of-00002.safetensors': 'one', 'model-00002-of-00002.safetensors': 'two' };
  const more = { 'model.fp32-00001-of-00001.safetensors': 'x', 'model.safetensors.index.fp32.json': '{}' };
  await hub.commit('org/sharded', { ...rest, ...shards, ...more, 'model.safetensors.index.json': index });
  const folder = await resolveModel('org/sharded');
  const weightFiles = readdirSync(folder).filter((name) => /safetensors|bin/.test(name));
  t.deepEqual(weightFiles.sort(), [...Object.keys(shards), 'model.safetensors.index.json']);
  t.is(await resolveModel('org/sharded', { offline: true }), folder);
  await hub.commit('org/lacking', { ...rest, 'model.safetensors.index.json': index });
  await refused(
    t,
    'ERR_HUB_NOT_FOUND',
    /model-00001-of-00002.safetensors, which model.safetensors.index.json names/,
    () => resolveModel('org/lacking'),
  );
  const away = JSON.stringify({ weight_map: { a: '../../../config.json' } });
  await hub.commit('org/away', { ...rest, 'model.safetensors.index.json': away });
  await refused(t, 'ERR_MODEL', /which is no file's name/, () => resolveModel('org/away'));
});

test.serial(
  '.bin where there is nothing else; without weights or config a refusal that says what there is',
  async (t) => {
    const { hub } = await hubPlace(t);
    const { 'model.safetensors': _, ...rest } = files;
    await hub.commit('org/bin', rest);
    t.deepEqual(
      readdirSync(await resolveModel('org/bin')).filter((name) => /bin|msgpack|h5|onnx/.test(name)),
      ['pytorch_model.bin'],
    );
    await hub.commit('org/flax', { 'config.json': '{}', 'flax_model.msgpack': 'x' });
    await refused(
      t,
      'ERR_HUB_NOT_FOUND',
      /org\/flax: expected weights \(model.safetensors.*got config.json, flax_model.msgpack/,
      () => resolveModel('org/flax'),
    );
    await hub.commit('org/empty', {});
    await refused(t, 'ERR_HUB_NOT_FOUND', /expected config.json, got no files/, () => resolveModel('org/empty'));
  },
);

test.serial("experts: safetensors before the reference's .bin, and nothing else", async (t) => {
  const { hub } = await hubPlace(t);
  await hub.commit('naver/multilingual', {
    'config.json': '{}',
    'expert.catalan.bin': 'a',
    'expert.thai.bin': 'b',
    'pytorch_model.bin': 'c',
  });
  const found = await resolveExperts('naver/multilingual');
  t.deepEqual(
    found.map((path) => path.split('/').at(-1)),
    ['expert.catalan.bin', 'expert.thai.bin'],
  );
  t.deepEqual(
    found.map((path) => readFileSync(path, 'utf8')),
    ['a', 'b'],
  );
  await hub.commit('naver/multilingual', { 'expert.thai.safetensors': 'd' });
  t.deepEqual(
    (await resolveExperts('naver/multilingual')).map((path) => path.split('/').at(-1)),
    ['expert.thai.safetensors'],
  );
  await hub.commit('org/none', { 'config.json': '{}' });
  await refused(t, 'ERR_HUB_NOT_FOUND', /expected expert.<language>.safetensors, got config.json/, () =>
    resolveExperts('org/none'),
  );
});

test.serial(
  'data: parquet files in their folders, those that are wanted, or those that the hub has made',
  async (t) => {
    const { hub, cache } = await hubPlace(t);
    const parquet = {
      'ca/train-0.parquet': '1',
      'ca/test-0.parquet': '2',
      'cs/train-0.parquet': '3',
      'README.md': 'x',
    };
    await hub.commit('org/speech', parquet, { kind: 'datasets' });
    const folder = await resolveDataset('org/speech', {
      keep: (paths) => paths.filter((path) => path.startsWith('ca/')),
    });
    t.true(folder.startsWith(cache('org/speech', 'datasets')));
    t.deepEqual(readdirSync(folder), ['ca']);
    t.deepEqual(readdirSync(join(folder, 'ca')).sort(), ['test-0.parquet', 'train-0.parquet']);
    await refused(t, 'ERR_HUB_OFFLINE', /org\/speech/, () => resolveDataset('org/speech', { offline: true }));
    t.deepEqual(readdirSync(await resolveDataset('org/speech')).sort(), ['ca', 'cs']);
    t.is(await resolveDataset('org/speech', { offline: true }), folder);
    await hub.commit('org/script', { 'script.py': 'x' }, { kind: 'datasets' });
    await hub.commit(
      'org/script',
      { 'ca/train/0000.parquet': '1' },
      { kind: 'datasets', revision: 'refs/convert/parquet' },
    );
    const notes: string[] = [];
    const converted = await resolveDataset('org/script', { onNote: (note) => notes.push(note) });
    t.is(readFileSync(join(converted, 'ca', 'train', '0000.parquet'), 'utf8'), '1');
    t.regex(notes.join(), /has no parquet files of its own/);
    t.is(await resolveDataset('org/script', { offline: true }), converted);
  },
);

test.serial('a body that is cut short goes on where it ended, within a call and in the next one', async (t) => {
  const { hub, cache } = await hubPlace(t);
  await hub.commit('org/name', files);
  let cuts = 2;
  hub.fault = ({ part }) => (part === 'cdn' && cuts-- > 0 ? { cut: 10_000 } : undefined);
  const folder = await resolveModel('org/name');
  t.deepEqual(readFileSync(join(folder, 'model.safetensors')), weights);
  t.deepEqual(
    hub.asked('cdn').map(({ headers }) => headers.range),
    [undefined, 'bytes=10000-', 'bytes=20000-'],
  );
  // Killed in the middle: the next process goes on.
  await hub.commit('org/killed', files);
  hub.fault = ({ part }) => (part === 'cdn' ? { delay: 60_000, after: 30_000 } : undefined);
  const before = hub.asked('cdn').length;
  const killed = await pull(['model', 'org/killed'], {}, (text, kill) => {
    if (Number(text.trim().split('\n').at(-1)!.split('/')[0]) >= 30_000) kill();
  });
  t.is(killed.code, null);
  const blobs = join(cache('org/killed'), 'blobs');
  t.is(readdirSync(blobs).filter((name) => name.endsWith('.incomplete')).length, 1);
  hub.fault = () => undefined;
  const resumed = await resolveModel('org/killed');
  t.deepEqual(readFileSync(join(resumed, 'model.safetensors')), weights);
  t.is(hub.asked('cdn')[before + 1]!.headers.range, 'bytes=30000-');
  t.is(readdirSync(blobs).filter((name) => name.endsWith('.incomplete')).length, 0);
});

test.serial('a server without ranges, and an incomplete file that is another one, begin again', async (t) => {
  const { hub, cache } = await hubPlace(t);
  await hub.commit('org/name', files);
  const blobs = join(cache('org/name'), 'blobs');
  const sha256 = createHash('sha256').update(weights).digest('hex');
  const left = join(blobs, `${sha256}.incomplete`);
  mkdirSync(blobs, { recursive: true });
  for (const content of [
    weights.subarray(0, 500),
    Buffer.alloc(5000),
    Buffer.alloc(weights.length),
    Buffer.alloc(weights.length + 9),
  ]) {
    writeFileSync(left, content);
    hub.fault = ({ part }) => (part === 'cdn' && content.length === 500 ? { ignoreRange: true } : undefined);
    let last = 0;
    const folder = await resolveModel('org/name', {
      onProgress: ({ done, total }) => {
        t.true(done >= 0 && done <= total, `${done} of ${total}`);
        last = done / total;
      },
    });
    t.is(last, 1);
    t.deepEqual(readFileSync(join(folder, 'model.safetensors')), weights);
    t.false(existsSync(left));
    // For the next turn it is gone from the cache.
    const { rmSync } = await import('node:fs');
    rmSync(realpathSync(join(folder, 'model.safetensors')));
  }
});

test.serial('two processes at once fetch each file once', async (t) => {
  const { hub } = await hubPlace(t);
  await hub.commit('org/name', files);
  hub.fault = ({ part }) => (part === 'cdn' ? { delay: 1500, after: 20_000 } : undefined);
  const both = await Promise.all([pull(['model', 'org/name'], {}), pull(['model', 'org/name'], {})]);
  for (const { code, stderr } of both) t.is(code, 0, stderr);
  t.is(both[0]!.stdout, both[1]!.stdout);
  t.is(hub.asked('cdn').length, 1);
  t.deepEqual(readFileSync(join(JSON.parse(both[0]!.stdout), 'model.safetensors')), weights);
});

test.serial('a private repository is read with a token, which the CDN never sees', async (t) => {
  const { hub } = await hubPlace(t);
  await hub.commit('org/hidden', files, { private: true });
  await refused(
    t,
    'ERR_HUB_ACCESS',
    /org\/hidden: .* answered 401.*no such repository, or it is private.*HF_TOKEN/,
    () => resolveModel('org/hidden'),
  );
  process.env.HF_TOKEN = 'hf_reader';
  const folder = await resolveModel('org/hidden');
  t.true(lstatSync(join(folder, 'model.safetensors')).isSymbolicLink());
  for (const { headers } of hub.asked('cdn')) t.is(headers.authorization, undefined);
  for (const { headers } of hub.asked('resolve').slice(-3)) t.is(headers.authorization, 'Bearer hf_reader');
  delete process.env.HF_TOKEN;
});
