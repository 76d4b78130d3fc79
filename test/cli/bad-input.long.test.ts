/** What is wrong with an input is said in a sentence with a code; nothing is written. */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { encodeWav } from '../../lib/audio/index.js';
import { cli, corpusRows, type Row, root, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';

const scratch = scratchFolder();
const at = (...parts: string[]): string => join(scratch.path, ...parts);
const good: Row[] = corpusRows('ca', 'train', 'in', 4);
test.before(async () => {
  await writeTinyModel(at('student'), 1);
});
test.after.always(() => scratch.remove());

interface Refusal {
  code: string;
  says: RegExp;
}
let runs = 0;

/** Runs a training on the rows (or on a manifest) and holds its refusal against what is expected. */
const refused = test.macro({
  title: (given) => `train: ${given}`,
  exec: async (t, make: (folder: string) => Promise<string[]> | string[], { code, says }: Refusal) => {
    const folder = at(`case-${++runs}`);
    mkdirSync(folder);
    const given = await make(folder);
    const defaults = { '--model': at('student'), '--language': 'ca', '--manifest': join(folder, 'rows.jsonl') };
    if (!existsSync(defaults['--manifest'])) writeRows(defaults['--manifest'], good);
    const args = Object.entries(defaults).flatMap(([name, value]) => (given.includes(name) ? [] : [name, value]));
    const output = join(folder, 'run');
    const result = await cli(['train', ...args, ...given, '--output', output, '--epochs', '1', '--json']);
    t.is(result.code, 1, result.stderr);
    const { error } = JSON.parse(result.stdout);
    t.is(error.code, code, error.message);
    t.regex(error.message, says);
    t.true(result.stderr.includes(`error ${code}: `));
    t.notRegex(result.stderr, /\n {4}at /, 'a stack');
    t.false(existsSync(output), 'something was written');
  },
});

/** A manifest whose second row has other audio, made by `write`. */
const withAudio =
  (name: string, write: (path: string) => void) =>
  (folder: string): string[] => {
    const audio = join(folder, name);
    write(audio);
    writeRows(
      join(folder, 'rows.jsonl'),
      good.map((row, i) => (i === 1 ? { ...row, audio } : row)),
    );
    return [];
  };
const withRow =
  (change: Record<string, unknown>) =>
  (folder: string): string[] => {
    writeRows(
      join(folder, 'rows.jsonl'),
      good.map((row, i) => (i === 1 ? { ...row, ...change } : row)),
    );
    return [];
  };
const flac = readFileSync(join(root, 'test', 'fixtures', 'audio', 'mono.flac'));
const tone = (seconds: number, rate = 8000): Float32Array =>
  Float32Array.from({ length: seconds * rate }, (_, i) => 0.1 * Math.sin(i / 5));
function nanWav(): Uint8Array {
  const wav = encodeWav(tone(1), 8000, 'float32');
  wav.fill(0xff, wav.length - 8);
  return wav;
}
const editJson = (path: string, change: Record<string, unknown>): void =>
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...change }));
const modelWith =
  (edit: (model: string) => void) =>
  (folder: string): string[] => {
    const model = join(folder, 'model');
    cpSync(at('student'), model, { recursive: true });
    edit(model);
    return ['--model', model];
  };
/** Replaces the header of a model's weights. */
const header = (edit: (tensors: Record<string, { data_offsets: number[] }>) => string | Buffer) =>
  modelWith((model) => {
    const path = join(model, 'model.safetensors');
    const file = readFileSync(path);
    const length = Number(file.readBigUInt64LE(0));
    const made = edit(JSON.parse(file.subarray(8, 8 + length).toString('utf8')));
    const text = typeof made === 'string' ? Buffer.from(made) : made;
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(text.length));
    writeFileSync(path, Buffer.concat([size, text, file.subarray(8 + length)]));
  });
const first = (tensors: Record<string, { data_offsets: number[] }>) =>
  Object.values(tensors).filter((each) => each.data_offsets);

test('no such audio file', refused, withRow({ audio: 'gone.wav' }), {
  code: 'ERR_FILE_NOT_FOUND',
  says: /line 2.*gone\.wav/,
});
test(
  'a directory as audio',
  refused,
  withAudio('folder.wav', (path) => mkdirSync(path)),
  {
    code: 'ERR_FILE_NOT_FOUND',
    says: /line 2.*no audio file.*folder\.wav/,
  },
);
test(
  'an empty audio file',
  refused,
  withAudio('empty.wav', (path) => writeFileSync(path, '')),
  {
    code: 'ERR_AUDIO_EMPTY',
    says: /line 2.*empty\.wav/,
  },
);
test(
  'a truncated flac',
  refused,
  withAudio('cut.flac', (path) => writeFileSync(path, flac.subarray(0, flac.length / 2))),
  { code: 'ERR_AUDIO_FORMAT', says: /cut\.flac/ },
);
test(
  'text named .wav',
  refused,
  withAudio('poem.wav', (path) => writeFileSync(path, 'Roses are red. '.repeat(20))),
  {
    code: 'ERR_AUDIO_FORMAT',
    says: /poem\.wav/,
  },
);
test(
  'NaN samples',
  refused,
  withAudio('nan.wav', (path) => writeFileSync(path, nanWav())),
  { code: 'ERR_AUDIO_SAMPLES', says: /nan\.wav/ },
);
test(
  'audio without samples',
  refused,
  withAudio('none.wav', (path) => writeFileSync(path, encodeWav(new Float32Array(0), 16000))),
  { code: 'ERR_AUDIO_EMPTY', says: /none\.wav/ },
);
test(
  "audio longer than the model's window",
  refused,
  withAudio('long.wav', (path) => writeFileSync(path, encodeWav(tone(31), 8000))),
  { code: 'ERR_AUDIO_TOO_LONG', says: /at most 5 s.*31\.00 s/ },
);
test('an unknown language', refused, () => ['--language', 'klingon'], { code: 'ERR_LANGUAGE', says: /klingon/ });
test("a label longer than the decoder's positions", refused, withRow({ text: 'paraula '.repeat(20) }), {
  code: 'ERR_LABEL_TOO_LONG',
  says: /at most 64 tokens.*positions.*got 163/,
});
test('a row without a column', refused, withRow({ text: undefined }), { code: 'ERR_MANIFEST', says: /line 2.*text/ });
test('no such manifest', refused, (folder) => ['--manifest', join(folder, 'gone.tsv')], {
  code: 'ERR_FILE_NOT_FOUND',
  says: /gone\.tsv/,
});
test('no such model folder', refused, (folder) => ['--model', join(folder, 'gone')], {
  code: 'ERR_FILE_NOT_FOUND',
  says: /gone/,
});
test(
  'a model folder without config.json',
  refused,
  (folder) => {
    mkdirSync(join(folder, 'bare'));
    return ['--model', join(folder, 'bare')];
  },
  { code: 'ERR_MODEL', says: /config\.json/ },
);
test(
  'a config whose sizes disagree with the weights',
  refused,
  modelWith((model) => editJson(join(model, 'config.json'), { encoder_ffn_dim: 96 })),
  { code: 'ERR_MODEL', says: /fc1/ },
);
test(
  'a teacher with another vocabulary',
  refused,
  async (folder) => {
    const teacher = join(folder, 'teacher');
    await writeTinyModel(teacher, 3, { vocab_size: 500 });
    return ['--teacher', teacher];
  },
  { code: 'ERR_VOCABULARY', says: /452.*500|500.*452/ },
);
test(
  'safetensors: overlapping tensors',
  refused,
  header((tensors) => {
    const [a, b] = first(tensors);
    const size = b!.data_offsets[1]! - b!.data_offsets[0]!;
    b!.data_offsets = [a!.data_offsets[0]!, a!.data_offsets[0]! + size];
    return JSON.stringify(tensors);
  }),
  { code: 'ERR_SAFETENSORS', says: /model\.safetensors/ },
);
test(
  'safetensors: a tensor behind the end of the file',
  refused,
  header((tensors) => {
    const last = first(tensors)
      .sort((a, b) => a.data_offsets[0]! - b.data_offsets[0]!)
      .at(-1)!;
    last.data_offsets = last.data_offsets.map((x) => x + 4096);
    return JSON.stringify(tensors);
  }),
  { code: 'ERR_SAFETENSORS', says: /model\.safetensors/ },
);
test(
  'safetensors: a size that overflows',
  refused,
  header((tensors) => {
    (first(tensors)[0] as unknown as { shape: number[] }).shape = [2 ** 40, 2 ** 40];
    return JSON.stringify(tensors);
  }),
  { code: 'ERR_SAFETENSORS', says: /model\.safetensors/ },
);
test(
  'safetensors: the same name twice',
  refused,
  header((tensors) => {
    const [name, entry] = Object.entries(tensors).find(([, each]) => each.data_offsets)!;
    return JSON.stringify(tensors).replace('{', `{${JSON.stringify(name)}:${JSON.stringify(entry)},`);
  }),
  { code: 'ERR_SAFETENSORS', says: /twice|duplicate|again/ },
);
test(
  'safetensors: a header that is too large',
  refused,
  modelWith((model) => {
    const path = join(model, 'model.safetensors');
    const file = readFileSync(path);
    file.writeBigUInt64LE(2n ** 40n, 0);
    writeFileSync(path, file);
  }),
  { code: 'ERR_SAFETENSORS', says: /header/ },
);
test(
  'a bad file among the validation rows',
  refused,
  (folder) => {
    const audio = join(folder, 'cut.flac');
    writeFileSync(audio, flac.subarray(0, flac.length / 2));
    const rows = writeRows(join(folder, 'validation.jsonl'), [good[0]!, { ...good[1], audio }]);
    return ['--validation-manifest', rows];
  },
  { code: 'ERR_AUDIO_FORMAT', says: /validation\.jsonl line 2.*cut\.flac/ },
);
test('validation on what is trained on', refused, () => ['--validate-every', '5'], {
  code: 'ERR_ARGUMENT',
  says: /validation: expected a split or a manifest/,
});
test(
  'a language that the vocabulary lacks',
  refused,
  (folder) => {
    writeRows(
      join(folder, 'rows.jsonl'),
      good.map((row) => ({ ...row, language: 'de' })),
    );
    return ['--language', 'German'];
  },
  { code: 'ERR_LANGUAGE', says: /vocabulary.*'?de|de.*vocabulary/ },
);

test('train leaves a folder with other files, or with another run, as it was', async (t) => {
  const manifest = writeRows(at('rows.jsonl'), good);
  const args = ['train', '--model', at('student'), '--language', 'ca', '--manifest', manifest, '--batch-size', '4'];
  const output = at('mine');
  mkdirSync(output);
  writeFileSync(join(output, 'notes.txt'), 'mine');
  const other = await cli([...args, '--output', output, '--json']);
  t.is(other.code, 1);
  t.like(JSON.parse(other.stdout).error, { code: 'ERR_RUN' });
  t.deepEqual(readdirSync(output), ['notes.txt']);
  const run = at('run');
  t.is((await cli([...args, '--output', run, '--steps', '1'])).code, 0);
  const log = readFileSync(join(run, 'log.jsonl'), 'utf8');
  const changed = await cli([...args, '--output', run, '--steps', '1', '--learning-rate', '0.1']);
  t.is(changed.code, 1);
  t.regex(changed.stderr, /^error ERR_RUN: .* options\.learningRate = 0\.0001, got 0\.1; use another folder$/m);
  t.is(readFileSync(join(run, 'log.jsonl'), 'utf8'), log);
});

test('transcribe: every kind of bad audio has its code, in the place of its file', async (t) => {
  const files = Object.entries({
    'gone.wav': ['ERR_FILE_NOT_FOUND', () => {}],
    'folder.wav': ['ERR_FILE_READ', (path: string) => mkdirSync(path)],
    'empty.flac': ['ERR_AUDIO_EMPTY', (path: string) => writeFileSync(path, '')],
    'short.flac': ['ERR_AUDIO_FORMAT', (path: string) => writeFileSync(path, flac.subarray(0, flac.length / 2))],
    'silent.wav': ['ERR_AUDIO_EMPTY', (path: string) => writeFileSync(path, encodeWav(new Float32Array(0), 16000))],
    'nan.wav': ['ERR_AUDIO_SAMPLES', (path: string) => writeFileSync(path, nanWav())],
  } as const).map(([name, [code, write]]) => {
    write(at(name));
    return { file: at(name), code };
  });
  const output = at('texts.json');
  const args = ['transcribe', ...files.map(({ file }) => file), '--model', at('student'), '--language', 'ca', '--json'];
  const { code, stdout } = await cli(args);
  t.is(code, 1);
  t.deepEqual(
    JSON.parse(stdout).map((one: { file: string; error: { code: string } }) => ({
      file: one.file,
      code: one.error.code,
    })),
    files,
  );
  // Nothing succeeded: nothing is written.
  t.is((await cli([...args, '--output', output])).code, 1);
  t.false(existsSync(output));
});

test('transcribe: a bad file among good ones is reported, the others go on, and the code is 1', async (t) => {
  const bad = at('poem.wav');
  writeFileSync(bad, 'Roses are red');
  const [a, b] = [good[0]!.audio, good[1]!.audio];
  const args = ['transcribe', a, bad, b, '--model', at('student'), '--language', 'ca', '--json'];
  const { code, stdout, stderr } = await cli(args);
  t.is(code, 1);
  const outcomes = JSON.parse(stdout);
  t.deepEqual(
    outcomes.map(({ file }: { file: string }) => file),
    [a, bad, b],
  );
  t.is(outcomes[1].error.code, 'ERR_AUDIO_FORMAT');
  t.is(typeof outcomes[2].text, 'string');
  t.regex(stderr, /1 of 3 files were refused/);
});

test('transcribe and evaluate refuse an output that could not be written before they begin', async (t) => {
  const args = ['transcribe', good[0]!.audio, '--model', at('student'), '--output', at('no', 'where.txt'), '--json'];
  const { code, stdout } = await cli(args);
  t.is(code, 1);
  t.is(JSON.parse(stdout).error.code, 'ERR_FILE_WRITE');
});
