/** README's "Use it on a real Whisper", run as it is printed, against a hub that holds small models in the listing of the real ones. */
import { execFile } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { tokenizerFromCharacters } from '../../lib/index.js';
import { main, root, scratchFolder } from '../support/cli.js';
import { hubPlace } from '../support/hub.js';
import { whisperFiles } from '../support/hub-models.js';

const HEADING = '## Use it on a real Whisper';

/** The commands of the section, in their order, lines that go on joined. */
function commands(): string[] {
  const readme = readFileSync(join(root, 'README.md'), 'utf8');
  const section = readme.slice(readme.indexOf(HEADING) + HEADING.length).split('\n## ')[0]!;
  const lines = section.split('\n').filter((line) => line.startsWith('    '));
  return lines
    .map((line) => line.trim())
    .join('\n')
    .replaceAll(/ \\\n/g, ' ')
    .split('\n');
}

/** A corpus as Common Voice and FLEURS ship it, and talks, in `folder`. */
function writeData(folder: string): void {
  const audio = (name: string, path: string): void => {
    mkdirSync(join(path, '..'), { recursive: true });
    copyFileSync(join(root, 'test', 'fixtures', 'audio', name), path);
  };
  const cv = join(folder, 'cv-corpus-13.0-2023-03-09', 'ca');
  const header = 'client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tvariant\tlocale\tsegment';
  const rows = Array.from({ length: 16 }, (_, i) => {
    const clip = `common_voice_ca_${1000 + i}.mp3`;
    audio(CLIP, join(cv, 'clips', clip));
    return `c0ffee${i}\t${clip}\tBon dia número ${i}.\t2\t0\t\t\t\t\tca\t`;
  });
  writeFileSync(join(cv, 'train.tsv'), `${[header, ...rows].join('\n')}\n`);
  const fleurs = join(folder, 'fleurs', 'ca_es');
  const tests = [0, 1].map((i) => {
    audio(WAV, join(fleurs, 'audio', 'test', `${i}.wav`));
    return `${i}\t${i}.wav\tBon dia ${i}.\tbon dia ${i}\tb o n | d i a\t48000\tMALE`;
  });
  writeFileSync(join(fleurs, 'test.tsv'), `${tests.join('\n')}\n`);
  audio(CLIP, join(folder, 'talk.mp3'));
  for (const name of ['a', 'b']) audio(CLIP, join(folder, 'talks', `${name}.mp3`));
  mkdirSync(join(folder, 'subtitles'));
}

const CLIP = 'mono-info.mp3';
const WAV = 'mono.wav';

test("README's commands on a real Whisper run as they are printed, each with its result", async (t) => {
  const { hub, env } = await hubPlace(t, { HF_TOKEN: 'hf_writer' });
  hub.tokens.add('hf_writer');
  const languages = ['en', 'ca', 'es'];
  const tokenizerJson = tokenizerFromCharacters(['abcdefghijklmnopqrstuvwxyz .àéèíòóúü0123456789'], {
    languages,
    timestamps: 251,
  });
  const whisper = (seed: number, width: number) =>
    whisperFiles(seed, { d_model: width, init_std: 0.3 }, { tokenizerJson, generation: { max_length: 24 } });
  await hub.commit('openai/whisper-small', await whisper(1, 16));
  await hub.commit('openai/whisper-large-v2', await whisper(2, 32));
  const { path: folder, remove } = scratchFolder();
  t.teardown(remove);
  writeData(folder);
  // npx finds the package where it is installed; here it is this one.
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  writeFileSync(join(bin, 'npx'), `#!/bin/sh\nshift\nexec '${process.execPath}' '${main}' "$@"\n`);
  chmodSync(join(bin, 'npx'), 0o755);
  const shell = (command: string): Promise<{ code: number; stdout: string; stderr: string }> =>
    new Promise((resolve) => {
      const settings = {
        cwd: folder,
        env: { ...process.env, ...env, NODE_OPTIONS: '', PATH: `${bin}:${process.env.PATH}` },
      };
      const child = execFile('bash', ['-c', command], settings, (_, stdout, stderr) =>
        resolve({ code: child.exitCode ?? -1, stdout, stderr }),
      );
    });
  const list = commands();
  t.true(list.length >= 8 && list.every((command) => command.startsWith('npx distilwhisper ')), list.join('\n'));
  for (const command of list) {
    const { code, stderr } = await shell(command);
    t.is(code, 0, `${command}\n${stderr}`);
    if (command === list[0]) {
      t.regex(stderr, /no --model was given: taking small \(openai\/whisper-small\)/);
      t.regex(stderr, /fetching openai\/whisper-small .*kB/);
    }
  }
  const card = hub.read('your-name/whisper-small-ca', 'README.md').toString();
  t.regex(card, /base_model: "openai\/whisper-small"/);
  t.regex(card, /\| ca \| - \| 2 \| [\d.]+ \| [\d.]+ \|/);
  t.true(hub.isPrivate('your-name/whisper-small-ca'));
  t.deepEqual(hub.files('your-name/whisper-small-ca'), ['README.md', 'expert.catalan.safetensors']);
  // Under its name it says what the run's own file says.
  const own = await shell('npx distilwhisper transcribe talk.mp3 --model small --expert runs/ca --language ca');
  const named = await shell(
    'npx distilwhisper transcribe talk.mp3 --model small --expert your-name/whisper-small-ca --language ca',
  );
  t.is(named.code, 0, named.stderr);
  t.is(named.stdout, own.stdout);
  const offline = await shell(
    'npx distilwhisper transcribe talk.mp3 --model small --expert your-name/whisper-small-ca --language ca --offline',
  );
  t.is(offline.stdout, own.stdout);
  // Nothing but what is needed was fetched of either model.
  t.deepEqual(
    hub.asked('resolve').filter(({ path }) => /msgpack|h5|onnx|pytorch|README|gitattributes/.test(path)),
    [],
  );
});
