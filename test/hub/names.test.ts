import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { meaningOf, repositoryOf, SIZES } from '../../lib/hub/names.js';
import { resolveExperts, resolveModel } from '../../lib/index.js';
import { refused } from '../support/weights.js';

const scratch = mkdtempSync(join(tmpdir(), 'distilwhisper-names-'));
const earlier = process.cwd();
test.before(() => process.chdir(scratch));
test.after.always(() => {
  process.chdir(earlier);
  rmSync(scratch, { recursive: true });
});

const repository = (name: string, kind: 'model' | 'expert' | 'dataset' = 'model', revision?: string): string => {
  const meaning = meaningOf(name, kind, revision);
  return 'path' in meaning ? `path ${meaning.path}` : `${meaning.repository.name} ${meaning.repository.revision}`;
};

test('sizes are the repositories that OpenAI published them in', (t) => {
  t.deepEqual(Object.keys(SIZES).sort(), [
    'base',
    'base.en',
    'large',
    'large-v1',
    'large-v2',
    'large-v3',
    'large-v3-turbo',
    'medium',
    'medium.en',
    'small',
    'small.en',
    'tiny',
    'tiny.en',
    'turbo',
  ]);
  t.is(repository('small'), 'openai/whisper-small main');
  t.is(repository('small.en'), 'openai/whisper-small.en main');
  t.is(repository('large'), 'openai/whisper-large-v3 main');
  t.is(repository('large-v1'), 'openai/whisper-large main');
  t.is(repository('turbo'), 'openai/whisper-large-v3-turbo main');
  t.is(repository('large-v2@v1.0'), 'openai/whisper-large-v2 v1.0');
  t.is(repositoryOf('small'), 'openai/whisper-small');
  t.is(repositoryOf('./small'), null);
  t.is(repositoryOf('nothing'), null);
});

test('a name with a revision, given either way', (t) => {
  t.is(repository('org/name'), 'org/name main');
  t.is(repository('org/name@refs/pr/1'), 'org/name refs/pr/1');
  t.is(repository('org/name', 'expert', 'v2'), 'org/name v2');
  t.is(repository('org/name@v2', 'dataset', 'v2'), 'org/name v2');
  t.throws(() => repository('org/name@v1', 'model', 'v2'), { code: 'ERR_ARGUMENT', message: /expected one, got/ });
  for (const revision of ['', '..', '../../x', 'a//b', '/a', '-f', 'a/..', 'x'.repeat(201), 'a b', '.git', 'a.lock']) {
    t.throws(() => repository(`org/name@${revision}`), { code: 'ERR_ARGUMENT' }, revision);
  }
});

test('what looks like a path is one', (t) => {
  for (const path of ['./org/name', '../x', '/a/b', '~/x', 'a/b/c', 'a\\b', 'C:/x', '.', 'x/', 'models/'])
    t.is(repository(path), `path ${path}`);
  for (const path of ['runs/expert.catalan.safetensors', 'runs/expert.bin'])
    t.is(repository(path, 'expert'), `path ${path}`);
  for (const path of ['cv/train.tsv', 'a/b.jsonl', 'a/b.json']) t.is(repository(path, 'dataset'), `path ${path}`);
});

test('a folder or file that is there comes before any name', (t) => {
  mkdirSync(join(scratch, 'org', 'name'), { recursive: true });
  mkdirSync(join(scratch, 'medium'));
  writeFileSync(join(scratch, 'tiny'), '');
  t.is(repository('org/name'), 'path org/name');
  t.is(repository('medium'), 'path medium');
  t.is(repository('tiny'), 'path tiny');
  t.is(repository('medium', 'expert'), 'path medium');
});

test('what is neither is refused with both', async (t) => {
  for (const name of ['whisper-small', 'a--b/c', 'a/b..c', '-a/b', 'org/name.git', 'a b', 'mêdium']) {
    await refused(
      t,
      'ERR_FILE_NOT_FOUND',
      /There is no model folder .* no name of the hub: expected a path, org\/name/,
      () => resolveModel(name),
    );
  }
  await refused(t, 'ERR_FILE_NOT_FOUND', /pocket-student or pocket-teacher/, () => resolveModel('pocket'));
  await refused(t, 'ERR_FILE_NOT_FOUND', /There is no expert file or folder small,/, () => resolveExperts('small'));
  await refused(t, 'ERR_ARGUMENT', /expected the path of a model folder, or a name, got an empty text/, () =>
    resolveModel(''),
  );
  await refused(t, 'ERR_ARGUMENT', /got object/, () => resolveModel(null as never));
  await refused(t, 'ERR_ARGUMENT', /unknown option "ofline"; did you mean offline/, () =>
    resolveModel('small', { ofline: true } as never),
  );
  t.is(await resolveModel('nothing\0here'), 'nothing\0here');
});

test('the pocket models have names', async (t) => {
  t.regex(await resolveModel('pocket-student'), /models.pocket-student$/);
  t.regex(await resolveModel('pocket-teacher'), /models.pocket-teacher$/);
});

test('experts of a folder are its expert files', async (t) => {
  const run = join(scratch, 'run');
  mkdirSync(run);
  await refused(t, 'ERR_EXPERT', /expected expert.<language>.safetensors in this folder/, () => resolveExperts(run));
  for (const name of ['expert.thai.safetensors', 'expert.catalan.safetensors', 'expert.tamil.bin', 'other.safetensors'])
    writeFileSync(join(run, name), '');
  t.deepEqual(await resolveExperts(run), [
    join(run, 'expert.catalan.safetensors'),
    join(run, 'expert.thai.safetensors'),
  ]);
  t.deepEqual(await resolveExperts(join(run, 'other.safetensors')), [join(run, 'other.safetensors')]);
});
