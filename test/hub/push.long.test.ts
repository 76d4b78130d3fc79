import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import {
  openAdapter,
  openExpert,
  openModelFolder,
  push,
  resolveAdapter,
  resolveExperts,
  resolveModel,
} from '../../lib/index.js';
import { cli, corpusRows, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';
import { hubPlace } from '../support/hub.js';
import { refused } from '../support/weights.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
test.after.always(remove);

test.before(async (t) => {
  await writeTinyModel(at('student'), 1);
  const manifest = writeRows(at('rows.jsonl'), [
    ...corpusRows('ca', 'train', 'in', 4),
    ...corpusRows('ca', 'validation', 'in', 2),
    ...corpusRows('cs', 'validation', 'in', 2, 'train'),
  ]);
  const train = (...args: string[]) =>
    cli(['train', '--model', at('student'), '--manifest', manifest, '--batch-size', '2', '--steps', '2', ...args]);
  for (const args of [
    ['--language', 'ca', '--split', 'train', '--validation-split', 'validation', '--output', at('run')],
    ['--method', 'full', '--split', 'train', '--output', at('full')],
    [
      '--method',
      'lora',
      '--lora-rank',
      '2',
      '--lora-targets',
      'q_proj,fc1',
      '--split',
      'train',
      '--output',
      at('lora'),
    ],
    ['--languages', 'ca', '--languages', 'cs', '--split', 'train', '--output', at('both')],
  ]) {
    const { code, stderr } = await train(...args);
    t.is(code, 0, stderr);
  }
});

test.serial('a dry run says what would be uploaded, and asks nobody', async (t) => {
  const { hub } = await hubPlace(t);
  const result = await push({ run: at('run'), to: 'org/expert-ca', dryRun: true });
  t.is(result.url, null);
  t.deepEqual(
    result.files.map(({ path }) => path),
    ['README.md', 'expert.catalan.safetensors'],
  );
  t.is(result.files[1]!.bytes, readFileSync(at('run', 'expert.catalan.safetensors')).length);
  t.is(result.files[0]!.bytes, Buffer.byteLength(result.card));
  const { code, stdout } = await cli(['push', at('run'), '--to', 'org/expert-ca', '--dry-run']);
  t.is(code, 0);
  t.true(stdout.startsWith('org/expert-ca would get:\n  README.md'));
  t.true(stdout.includes(result.card));
  t.is(hub.requests.length, 0);
});

test.serial('an expert goes up in one commit with its card, and is found under its name', async (t) => {
  const { hub } = await hubPlace(t, { HF_TOKEN: 'hf_writer' });
  hub.tokens.add('hf_writer');
  writeFileSync(
    at('heard.json'),
    JSON.stringify({
      groups: [
        { language: 'ca', domain: 'in', utterances: 40, wer: 0.3125, cer: 0.1 },
        { language: 'ca', domain: 'a|b', utterances: 1200, wer: 1.057, cer: 0.5 },
      ],
      total: { utterances: 1240, wer: 1, cer: 0.49 },
    }),
  );
  const seen: number[] = [];
  const settings = { run: at('run'), to: 'org/expert-ca', private: true, baseModel: 'openai/whisper-small' };
  const { url, card } = await push({
    ...settings,
    evaluation: at('heard.json'),
    onProgress: ({ done, total }) => seen.push(done / total),
  });
  t.is(url, `${hub.url}/org/expert-ca`);
  t.is(seen.at(-1), 1);
  t.true(hub.isPrivate('org/expert-ca'));
  t.deepEqual(hub.files('org/expert-ca'), ['README.md', 'expert.catalan.safetensors']);
  t.is(hub.asked('api', '/commit/').length, 1);
  t.is(hub.read('org/expert-ca', 'README.md').toString(), card);
  for (const line of [
    'library_name: distilwhisper',
    'language: "ca"',
    'base_model: "openai/whisper-small"',
    'base_model_relation: adapter',
    '# expert-ca',
    'A language expert for Catalan of openai/whisper-small',
    'Data: rows.jsonl, 4 utterances.',
    '| updates | 2 |',
    '| learningRate | 0.0001 |',
    '| ca | in | 40 | 31.3 | 10.0 |',
    '| ca | a b | 1,200 | 105.7 | 50.0 |',
    '| all | all | 1,240 | 100.0 | 49.0 |',
    'npx distilwhisper transcribe talk.mp3 --model small --expert org/expert-ca --language ca',
    "await Transcriber.load('small', { experts: ['org/expert-ca'] })",
  ])
    t.true(card.includes(line), `${line}\n${card}`);
  t.false(card.includes(scratch), 'no path of this machine');
  const [file] = await resolveExperts('org/expert-ca');
  t.deepEqual(readFileSync(file!), readFileSync(at('run', 'expert.catalan.safetensors')));
  const config = JSON.parse(readFileSync(at('student', 'config.json'), 'utf8'));
  const expert = await openExpert(file!, config);
  t.is(expert.language, 'catalan');
  await expert.close();
  // Again: the same repository, what is there in LFS is not sent twice.
  const puts = hub.asked('upload').length;
  t.is((await push(settings)).url, url);
  t.is(hub.asked('upload').length, puts);
  t.regex(
    hub.read('org/expert-ca', 'README.md').toString(),
    /Word error rate of the best validation: [\d.]+% after update/,
  );
});

test.serial('a run of all parameters goes up as a model', async (t) => {
  const { hub } = await hubPlace(t, { HF_TOKEN: 'hf_writer' });
  hub.tokens.add('hf_writer');
  const { card } = await push({ run: at('full'), to: 'org/whisper-tiny-ca' });
  t.regex(card, /Transcriber.load\('org\/whisper-tiny-ca'\)/);
  t.false(hub.isPrivate('org/whisper-tiny-ca'));
  t.regex(await resolveModel('org/whisper-tiny-ca'), /models--org--whisper-tiny-ca/);
  await refused(t, 'ERR_ARGUMENT', /org\/whisper-tiny-ca, which is public/, () =>
    push({ run: at('full'), to: 'org/whisper-tiny-ca', private: true }),
  );
});

test.serial('an adapter goes up as PEFT wrote it, and is found under its name; of several experts each', async (t) => {
  const { hub } = await hubPlace(t, { HF_TOKEN: 'hf_writer' });
  hub.tokens.add('hf_writer');
  const names = ({ files }: { files: { path: string }[] }) => files.map(({ path }) => path);
  const adapter = await push({ run: at('lora'), to: 'org/adapter-ca', baseModel: 'openai/whisper-tiny' });
  t.deepEqual(names(adapter), ['README.md', 'adapter_config.json', 'adapter_model.safetensors']);
  t.regex(adapter.card, /base_model_relation: adapter/);
  t.regex(adapter.card, /transcribe talk.mp3 --model tiny --adapter org\/adapter-ca/);
  const folder = await openModelFolder(at('student'));
  const { modules, close } = await openAdapter(await resolveAdapter('org/adapter-ca'), folder.config);
  t.true(modules.every(({ module, rank }) => rank === 2 && /(q_proj|fc1)$/.test(module)));
  await close();
  await folder.close();
  const both = await push({ run: at('both'), to: 'org/experts', dryRun: true });
  t.deepEqual(names(both), ['README.md', 'expert.catalan.safetensors', 'expert.czech.safetensors']);
  t.regex(both.card, /Language experts for Catalan, Czech/);
});

test.serial('what cannot be pushed is refused before anything is asked, or by the hub with what to do', async (t) => {
  const { hub } = await hubPlace(t);
  for (const to of ['expert', 'a/b/c', '', '../x', 'a b/c'])
    await refused(t, 'ERR_ARGUMENT', /to: expected a repository as org\/name/, () => push({ run: at('run'), to }));
  await refused(t, 'ERR_ARGUMENT', /unknown option "dry"/, () =>
    push({ run: at('run'), to: 'a/b', dry: true } as never),
  );
  await refused(t, 'ERR_RUN', /expected the folder of a run, with run.json/, () =>
    push({ run: at('student'), to: 'a/b' }),
  );
  mkdirSync(at('begun'), { recursive: true });
  writeFileSync(at('begun', 'run.json'), '{}');
  await refused(t, 'ERR_RUN', /expected a finished run/, () => push({ run: at('begun'), to: 'a/b' }));
  writeFileSync(at('none.json'), '{"groups": []}');
  await refused(t, 'ERR_RUN', /none.json: expected what 'evaluate --json' prints/, () =>
    push({ run: at('run'), to: 'a/b', evaluation: at('none.json') }),
  );
  await refused(t, 'ERR_HUB_ACCESS', /a\/b: expected a token that may write there, in HF_TOKEN, got none/, () =>
    push({ run: at('run'), to: 'a/b' }),
  );
  t.is(hub.requests.length, 0);
  process.env.HF_TOKEN = 'hf_reader';
  await refused(t, 'ERR_HUB_ACCESS', /answered 403: "You do not have the required permissions"/, () =>
    push({ run: at('run'), to: 'a/b' }),
  );
  process.env.HF_HUB_OFFLINE = '1';
  await refused(t, 'ERR_HUB_OFFLINE', /nothing is uploaded/, () => push({ run: at('run'), to: 'a/b' }));
  delete process.env.HF_HUB_OFFLINE;
  delete process.env.HF_TOKEN;
});
