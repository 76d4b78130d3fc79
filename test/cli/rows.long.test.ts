/** Rows that cannot be used, splits that must be asked for, options given twice: train and evaluate, from the command line and a script. */
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import {
  AudioBatches,
  type BadRow,
  BadRowsError,
  encodeWav,
  evaluate,
  readManifest,
  Stream,
  type TrainRecipe,
  Transcriber,
  train,
  trainingOptions,
  Whisper,
  WhisperTokenizer,
  writeExpert,
} from '../../lib/index.js';
import { cli, corpusRows, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';
import { randomExpertTensors } from '../support/experts.js';
import { refused } from '../support/weights.js';

const { path: scratch, remove } = scratchFolder();
const at = (...names: string[]): string => join(scratch, ...names);
const student = at('student');
const good = corpusRows('ca', 'train', 'in', 12);
const validation = corpusRows('ca', 'validation', 'in', 4, 'dev');
test.before(async () => {
  await writeTinyModel(student, 1);
});
test.after.always(remove);

// biome-ignore lint/suspicious/noExplicitAny: output of many shapes
const json = (stdout: string): any => JSON.parse(stdout);

/** A wav of so many seconds, which the model's window of 5 s may be too short for. */
function wav(name: string, seconds: number): string {
  const samples = Float32Array.from({ length: seconds * 8000 }, (_, i) => 0.1 * Math.sin(i / 5));
  writeFileSync(at(name), encodeWav(samples, 8000));
  return at(name);
}
const empty = (name: string): string => {
  writeFileSync(at(name), '');
  return at(name);
};

/** Good rows with every kind of bad one among them, and the lines and codes of those. */
function mixedRows(): { rows: object[]; bad: [line: number, code: string][] } {
  const bad: [object, string][] = [
    [{ audio: at('gone.wav') }, 'ERR_FILE_NOT_FOUND'],
    [{ audio: empty('empty.mp3') }, 'ERR_AUDIO_EMPTY'],
    [{ audio: wav('long.wav', 6) }, 'ERR_AUDIO_TOO_LONG'],
    [{ text: 'paraula '.repeat(20) }, 'ERR_LABEL_TOO_LONG'],
    [{ language: 'klingon' }, 'ERR_MANIFEST'],
    [{ text: undefined }, 'ERR_MANIFEST'],
  ];
  const rows = good.flatMap((row, i) => [row, ...(bad[i] ? [{ ...row, id: `bad ${i}`, ...bad[i]![0] }] : [])]);
  return { rows, bad: bad.map(([, code], i) => [2 * i + 2, code]) };
}
const placed = (rows: readonly BadRow[]) => rows.map(({ line, code }) => [line, code]);
const trainArgs = (manifest: string, output: string, ...more: string[]): string[] => [
  ...['train', '--model', student, '--language', 'ca', '--manifest', manifest, '--output', output],
  ...['--batch-size', '4', '--threads', '2', ...more],
];

test('train: every bad row of manifest, labels and audio is named at once; --skip-bad goes on without them', async (t) => {
  const { rows, bad } = mixedRows();
  const manifest = writeRows(at('mixed.jsonl'), rows);
  const output = at('mixed');
  const all = await cli(trainArgs(manifest, output, '--steps', '4', '--json'));
  t.is(all.code, 1);
  const { error } = json(all.stdout);
  t.is(error.code, 'ERR_MANIFEST');
  t.deepEqual(placed(error.rows), bad);
  t.regex(all.stderr, /^error ERR_MANIFEST: 6 bad rows; --skip-bad goes on without them:$/m);
  for (const [line, says] of [
    [2, 'there is no audio file .*gone\\.wav'],
    [4, '.*empty\\.mp3: the file is empty'],
    [6, '.*long\\.wav: expected at most 5 s of audio .*got 6\\.00 s'],
    [8, '.*at most 64 tokens .*got 16\\d'],
    [10, "Unknown language 'klingon'"],
    [12, 'missing column text'],
  ] as const)
    t.regex(all.stderr, new RegExp(`^ {2}\\S*mixed\\.jsonl line ${line}: ${says}`, 'm'));
  t.false(existsSync(output), 'nothing was written');

  const some = await cli(trainArgs(manifest, output, '--steps', '4', '--skip-bad', '--json'));
  t.is(some.code, 0, some.stderr);
  t.regex(some.stderr, /^6 bad rows left out:\n {2}\S*mixed\.jsonl line 2: /m);
  t.regex(some.stderr, /^plan: 4 updates on 12 utterances/m);
  t.like(json(some.stdout), { utterances: 12, updates: 4 });
  t.deepEqual(placed(json(some.stdout).badRows), bad);
  t.deepEqual(placed(json(readFileSync(join(output, 'report.json'), 'utf8')).badRows), bad);

  // As if they had not been there.
  const alone = writeRows(at('alone.jsonl'), good);
  t.is((await cli(trainArgs(alone, at('alone'), '--steps', '4'))).code, 0);
  const expert = (run: string): Buffer => readFileSync(at(run, 'expert.catalan.safetensors'));
  t.deepEqual(expert('mixed'), expert('alone'));
});

test('a run that goes on leaves out the rows that it began without, also where they are well by now', async (t) => {
  const copy = at('copy.wav');
  writeFileSync(copy, '');
  const manifest = writeRows(at('healed.jsonl'), [{ ...good[0]!, id: 'x', audio: copy }, ...good]);
  const output = at('healed');
  const args = trainArgs(manifest, output, '--steps', '60', '--checkpoint-every', '10', '--skip-bad');
  let sent = false;
  const broken = await cli(args, {
    onStderr: (text, kill) => {
      if (sent || !/^training 1\//m.test(text)) return;
      sent = true;
      kill('SIGINT');
    },
  });
  t.is(broken.code, 130, broken.stderr);
  t.deepEqual(json(readFileSync(join(output, 'run.json'), 'utf8')).leftOut, [
    { manifest: 'training', line: 1, code: 'ERR_AUDIO_EMPTY' },
  ]);
  wav('copy.wav', 1);
  const without = await cli(args.filter((arg) => arg !== '--skip-bad'));
  t.is(without.code, 1);
  t.regex(without.stderr, /ERR_RUN: .*it holds a run with leftOut = |ERR_RUN: .*utterances/);
  const rest = await cli([...args, '--json']);
  t.is(rest.code, 0, rest.stderr);
  t.notRegex(rest.stderr, /checking audio/);
  t.like(json(rest.stdout), { utterances: 12, steps: 60 });
  t.deepEqual(placed(json(rest.stdout).badRows), [[1, 'ERR_AUDIO_EMPTY']]);
  const alone = writeRows(at('healthy.jsonl'), good);
  t.is((await cli(trainArgs(alone, at('healthy'), '--steps', '60', '--checkpoint-every', '10'))).code, 0);
  t.deepEqual(
    readFileSync(join(output, 'expert.catalan.safetensors')),
    readFileSync(at('healthy', 'expert.catalan.safetensors')),
  );
  const path = join(output, 'run.json');
  writeFileSync(path, JSON.stringify({ ...json(readFileSync(path, 'utf8')), leftOut: [{ line: 'all' }] }));
  const damaged = await cli(args);
  t.is(damaged.code, 1);
  t.regex(damaged.stderr, /ERR_RUN: .*run\.json: expected leftOut to list rows by manifest, line and code/);
});

test('bad validation rows are named with those of training; where nothing is left, --skip-bad does not help', async (t) => {
  const rows = [...good.slice(0, 4), { ...good[4]!, audio: empty('e1.wav') }, ...validation];
  rows.push({ ...validation[0]!, id: 'v', audio: empty('e2.wav') });
  const manifest = writeRows(at('both.jsonl'), rows);
  const both = trainArgs(manifest, at('both'), '--split', 'train', '--validation-split', 'dev', '--steps', '2');
  const refusal = await cli([...both, '--json']);
  t.is(refusal.code, 1);
  t.deepEqual(placed(json(refusal.stdout).error.rows), [
    [5, 'ERR_AUDIO_EMPTY'],
    [10, 'ERR_AUDIO_EMPTY'],
  ]);
  const skipped = await cli([...both, '--skip-bad', '--json']);
  t.is(skipped.code, 0, skipped.stderr);
  t.like(json(skipped.stdout), { utterances: 4, badRows: { length: 2 } });
  for (const [name, left] of [
    ['training', [{ ...good[0]!, audio: at('e1.wav') }, ...validation]],
    ['validation', [...good, { ...validation[0]!, audio: at('e2.wav') }]],
  ] as const) {
    const none = writeRows(at(`no-${name}.jsonl`), left);
    const args = trainArgs(none, at(`no-${name}`), '--split', 'train', '--validation-split', 'dev', '--skip-bad');
    const { code, stderr } = await cli(args);
    t.is(code, 1, name);
    t.regex(stderr, /^error ERR_AUDIO_EMPTY: \S*no-\w+\.jsonl line \d+: .*the file is empty \(0 bytes\)$/m);
    t.false(existsSync(at(`no-${name}`)));
  }
});

test('evaluate: all bad rows before anything is transcribed; --skip-bad counts the others and tells of them', async (t) => {
  const { rows, bad } = mixedRows();
  const manifest = writeRows(at('heard.jsonl'), rows);
  const args = ['evaluate', '--model', student, '--manifest', manifest, '--json'];
  // What is long for training is cut in windows here.
  const expected = bad.filter(([, code]) => !/TOO_LONG/.test(code));
  const all = await cli([...args, '--hypotheses', at('none.jsonl')]);
  t.is(all.code, 1);
  t.deepEqual(placed(json(all.stdout).error.rows), expected);
  t.notRegex(all.stderr, /^evaluating/m);
  t.false(existsSync(at('none.jsonl')));
  const some = await cli([...args, '--skip-bad', '--hypotheses', at('some.jsonl')]);
  t.is(some.code, 0, some.stderr);
  t.regex(some.stderr, /^evaluating 15\/15 /m);
  t.regex(some.stderr, /^4 bad rows left out:\n {2}\S*heard\.jsonl line 2: /m);
  t.is(json(some.stdout).total.utterances, 14);
  t.deepEqual(placed(json(some.stdout).badRows), expected);
  t.is(readFileSync(at('some.jsonl'), 'utf8').trimEnd().split('\n').length, 14);
});

test('evaluate: audio that is lost after it was tried does not take the others with it', async (t) => {
  const entries = good
    .slice(0, 6)
    .map((row, i) => ({ ...row, audio: wav(`lost-${i}.wav`, 1), manifest: 'rows', line: i + 1 }));
  const stream = new Stream({ threads: 2 });
  const transcriber = await Transcriber.load(student, { stream });
  const report = await evaluate(transcriber, entries, {
    batchSize: 1,
    onCheck: (done, total) => done === total && rmSync(at('lost-5.wav')),
  });
  t.deepEqual(placed(report.badRows), [[6, 'ERR_FILE_NOT_FOUND']]);
  t.is(report.total.utterances, 5);
  await refused(t, 'ERR_FILE_NOT_FOUND', /^rows line 6: .*lost-5\.wav/, () => evaluate(transcriber, entries));
  await refused(t, 'ERR_FILE_NOT_FOUND', /lost-5\.wav: there is no such file$/, () =>
    evaluate(transcriber, entries.slice(5), { skipBad: true }),
  );
  await transcriber.close();
  stream.close();
});

test('Ctrl-C while audio is checked: code 130, nothing written', async (t) => {
  const many = Array.from({ length: 400 }, (_, i) => ({ ...good[i % good.length]!, id: `u${i}` }));
  const manifest = writeRows(at('many.jsonl'), many);
  const output = at('many');
  for (const args of [trainArgs(manifest, output), ['evaluate', '--model', student, '--manifest', manifest]]) {
    let sent = false;
    const { code, stderr } = await cli(args, {
      onStderr: (text, kill) => {
        if (sent || !/^checking audio \d+\/400 /m.test(text)) return;
        sent = true;
        kill('SIGINT');
      },
    });
    t.is(code, 130, stderr);
    t.regex(stderr, /^interrupted: interrupted while the audio was checked; nothing was written$/m);
  }
  t.false(existsSync(output));
});

test('training on rows that are marked as tests or validation must be asked for', async (t) => {
  const marked = (...splits: (string | undefined)[]): string =>
    writeRows(
      at(`splits-${splits.join('-')}.jsonl`),
      splits.flatMap((split, i) => good.slice(2 * i, 2 * i + 2).map((row) => ({ ...row, split }))),
    );
  const refuses = async (manifest: string, says: RegExp, ...more: string[]): Promise<void> => {
    const { code, stderr } = await cli(trainArgs(manifest, at('never'), '--steps', '1', ...more));
    t.is(code, 1, manifest);
    t.regex(stderr, says);
    t.false(existsSync(at('never')));
  };
  const three = marked('train', 'Test-clean', 'dev');
  await refuses(
    three,
    /ERR_ARGUMENT: split: \S+ has rows of the splits "train", "Test-clean", "dev", and training on "Test-clean", "dev" must be asked for: give --split train, or --split all for every row/,
  );
  await refuses(marked(undefined, 'eval'), /has rows of the splits none, "eval".*give --split all/);
  await refuses(
    marked('one', 'two'),
    /training on "two" must be asked for: give --split one/,
    '--validation-split',
    'two',
  );
  const trains = async (manifest: string, utterances: number, ...more: string[]): Promise<string> => {
    const output = at(`asked-${more.join('')}-${utterances}`);
    const { code, stdout, stderr } = await cli(trainArgs(manifest, output, '--steps', '1', '--json', ...more));
    t.is(code, 0, stderr);
    t.is(json(stdout).utterances, utterances);
    return stderr;
  };
  t.notRegex(await trains(three, 2, '--split', 'train'), /marked for tests/);
  t.regex(
    await trains(three, 4, '--split', 'train', '--split', 'dev'),
    /marked for tests or validation, as asked: "dev"$/m,
  );
  t.regex(await trains(three, 6, '--split', 'all'), /as asked: "Test-clean", "dev"$/m);
  t.notRegex(await trains(marked('validated', 'other'), 4), /marked for tests/);
});

test('an option of one value that is given twice is refused; lists mean all of their values, switches the same', async (t) => {
  const manifest = writeRows(at('twice.jsonl'), [...good, ...validation]);
  for (const [args, option] of [
    [['transcribe', 'a.wav', '--language', 'ca', '--language', 'es'], '--language <language>'],
    [['transcribe', 'a.wav', '--model', 'a', '--model=a'], '--model <name>'],
    [trainArgs(manifest, at('x'), '--language', 'es'), '--language <language>'],
    [trainArgs(manifest, at('x'), '--steps', '1', '--steps', '2'), '--steps <n>'],
    [['evaluate', '--beam-size', '2', '--beam-size', '3'], '--beam-size <n>'],
    [['demo', '--epochs', '1', '--epochs', '1'], '--epochs <n>'],
  ] as const) {
    const { code, stdout, stderr } = await cli(args);
    t.is(code, 2, args.join(' '));
    t.is(stdout, '');
    t.true(stderr.includes(`option '${option}' was given more than once, and it takes one value`), stderr);
  }
  const both = [
    'evaluate',
    '--model',
    student,
    '--manifest',
    manifest,
    '--split',
    'train',
    '--split',
    'dev',
    '--json',
    '--json',
  ];
  const { code, stdout, stderr } = await cli(both);
  t.is(code, 0, stderr);
  t.is(json(stdout).total.utterances, 16);
});

test('two experts for one language are refused, with both of their files', async (t) => {
  const config = await writeTinyModel(at('model'), 2);
  const files = ['first.safetensors', 'second.safetensors', 'thai.safetensors'].map((name) => at(name));
  for (const [i, language] of ['catalan', 'catalan', 'thai'].entries())
    await writeExpert(files[i]!, config, language, randomExpertTensors(config, language, i));
  const [first, second, thai] = files as [string, string, string];
  const says =
    /^\S*second\.safetensors: expected one expert for catalan, got another one beside that of \S*first\.safetensors$/;
  await refused(t, 'ERR_EXPERT', says, () => Transcriber.load(at('model'), { experts: [first, thai, second] }));
  await refused(t, 'ERR_EXPERT', /first\.safetensors: .*beside that of \S*first\.safetensors/, () =>
    Transcriber.load(at('model'), { experts: [first, first] }),
  );
  const experts = ['--expert', first, '--expert', thai, '--expert', second];
  const { code, stderr } = await cli(['transcribe', good[0]!.audio, '--model', at('model'), ...experts]);
  t.is(code, 1);
  t.regex(stderr, /^error ERR_EXPERT: \S*second\.safetensors: .*first\.safetensors$/m);
  const loaded = await Transcriber.load(at('model'), { experts: [first, thai] });
  t.deepEqual([...loaded.model.experts.keys()], ['catalan', 'thai']);
  await loaded.close();
});

test('--audio-root on train and evaluate; file names of a table without languages, in the language that is asked for', async (t) => {
  mkdirSync(at('sound'));
  mkdirSync(at('table'));
  for (let i = 0; i < 4; i++) wav(join('sound', `${i}.wav`), 1);
  const table = at('table', 'metadata.csv');
  writeFileSync(
    table,
    `file_name,transcription\n${[0, 1, 2, 3].map((i) => `${i}.wav,"bon dia, ${i === 0 ? 'tu' : 'vós'}"`).join('\n')}\n`,
  );
  const root = ['--audio-root', at('sound')];
  const trained = await cli(trainArgs(table, at('rooted'), '--steps', '1', '--json', ...root));
  t.is(trained.code, 0, trained.stderr);
  t.is(json(trained.stdout).utterances, 4);
  const heard = await cli(['evaluate', '--model', student, '--manifest', table, '--language', 'ca', '--json', ...root]);
  t.is(heard.code, 0, heard.stderr);
  t.like(json(heard.stdout).total, { utterances: 4 });
  t.regex((await cli(['evaluate', '--model', student, '--manifest', table, '--language', 'ca'])).stderr, /4 bad rows/);
});

const recipe = (change: object): TrainRecipe => ({
  model: student,
  manifest: at('alone.jsonl'),
  output: at('never'),
  language: 'ca',
  ...change,
});

test("train's early checks: every option has its kind, a misspelt one its nearest name; nothing is read or written", async (t) => {
  const cases: [change: object, message: RegExp][] = [
    [{ batch_size: 4 }, /^train: unknown option "batch_size"; did you mean batchSize\?$/],
    [
      { language: undefined },
      /^language: expected the language of the expert, or languages for an expert each, got nothing/,
    ],
    [{ fromScratch: true }, /^fromScratch: /],
    [{ steps: 3, epochs: 1 }, /^steps: expected either/],
    [{ model: '' }, /^model: expected the path of a model folder, or a name, got ""/],
    [{ manifest: 7 }, /^manifest: expected the path of a manifest, got 7/],
    [{ output: undefined }, /^output: .*got undefined/],
    [{ method: 'all' }, /^method: expected 'experts' or 'distil' or 'lora' or 'full', got "all"/],
    [{ batchSize: 0 }, /^batchSize: expected 'auto' or a whole number from 1, got 0/],
    [{ epochs: -1 }, /^epochs: expected a number above 0/],
    [{ steps: 1.5 }, /^steps: /],
    [{ checkpointEvery: Number.NaN }, /^checkpointEvery: /],
    [{ compute: 'int8' }, /^compute: expected 'fp32' or 'bf16'/],
    [{ saveAs: 'f64' }, /^saveAs: /],
    [{ split: [] }, /^split: expected a name or a list of names/],
    [{ skipBad: 'yes' }, /^skipBad: expected true or false, got "yes"/],
    [{ onUpdate: {} }, /^onUpdate: expected a function/],
    [{ validation: { splits: 'dev' } }, /^train, validation: unknown option "splits"; did you mean split\?/],
    [{ validation: { every: 2 } }, /^validation: expected a split or a manifest of its own/],
    [{ validation: { manifest: join(scratch, '.', 'alone.jsonl') } }, /it would validate on what it trains on/],
    [{ validation: { split: 'dev', every: -1 } }, /^validation\.every: /],
    [
      { options: { learning_rate: 1 } },
      /^training options: unknown option "learning_rate"; did you mean learningRate\?/,
    ],
    [{ options: { learningRate: '0.1' } }, /^learningRate: expected a number from 0 to 10, got 0\.1/],
    [{ options: { betas: 0.9 } }, /^betas: expected two numbers/],
    [{ options: { sigma: [1] } }, /^sigma: expected two numbers above 0/],
    [{ options: { compat: 'both' } }, /^compat: expected paper or reference, got both/],
    [{ options: { distillation: 'mse' } }, /^distillation: expected js or kl or none/],
    [{ options: { steps: 2 } }, /^options: expected no steps there/],
  ];
  for (const [change, message] of cases) await refused(t, 'ERR_ARGUMENT', message, () => train(recipe(change)));
  for (const none of [null, undefined, 'run', []] as unknown as TrainRecipe[])
    await refused(t, 'ERR_ARGUMENT', /^train: expected an object of options/, () => train(none));
  t.false(existsSync(at('never')));
});

test('misspelt options of other calls are refused with the nearest name', async (t) => {
  const stream = new Stream({ threads: 1 });
  const transcriber = await Transcriber.load(student, { stream });
  const { model, tokenizer } = transcriber;
  const entries = readManifest(writeRows(at('few.jsonl'), good.slice(0, 2)));
  // biome-ignore lint/suspicious/noExplicitAny: options that the types refuse
  const wrong = (options: object): any => options;
  const refuses = (t: ExecutionContext, message: RegExp, body: () => unknown) =>
    refused(t, 'ERR_ARGUMENT', message, async () => body());
  await refuses(t, /^evaluate: unknown option "beam_size"; did you mean beamSize\?/, () =>
    evaluate(transcriber, entries, wrong({ beam_size: 5 })),
  );
  await refuses(t, /^entries: expected a list/, () => evaluate(transcriber, wrong({})));
  await refuses(
    t,
    /^AudioBatches: unknown option "batchsize"; did you mean batchSize\?/,
    () => new AudioBatches(entries, model.config, tokenizer, wrong({ batchsize: 2 })),
  );
  await refuses(t, /^Whisper: unknown option "computeType"; did you mean compute\?|it has compute/, () =>
    Whisper.load(stream, student, wrong({ computeType: 'bf16' })),
  );
  await refuses(t, /^Whisper\.create: unknown option "sede"; did you mean seed\?/, () =>
    Whisper.create(stream, model.config, wrong({ sede: 1 })),
  );
  await refuses(t, /^training options: unknown option "warm_up"; did you mean warmup\?/, () =>
    trainingOptions(wrong({ steps: 1, warm_up: 0.1 })),
  );
  await transcriber.close();
  stream.close();
});

test('AudioBatches: rows are refused together, or handed over and left out', async (t) => {
  const tokenizer = await WhisperTokenizer.fromFolder(student);
  const stream = new Stream({ threads: 1 });
  const { config } = await Whisper.load(stream, student);
  const rows = good.slice(0, 6).map((row, i) => ({
    ...row,
    ...(i === 1 && { text: 'paraula '.repeat(20) }),
    ...(i === 3 && { audio: empty('batch.wav') }),
    ...(i === 4 && { audio: wav('batch-long.wav', 6) }),
  }));
  const entries = readManifest(writeRows(at('batches.jsonl'), rows));
  t.throws(() => new AudioBatches(entries, config, tokenizer, { batchSize: 2 }), {
    instanceOf: BadRowsError,
    code: 'ERR_LABEL_TOO_LONG',
  });
  const bad: BadRow[] = [];
  const batches = new AudioBatches(entries, config, tokenizer, { batchSize: 2, onBadRow: (row) => bad.push(row) });
  t.is(batches.length, 5);
  await batches.check();
  t.deepEqual(placed(bad), [
    [2, 'ERR_LABEL_TOO_LONG'],
    [4, 'ERR_AUDIO_EMPTY'],
    [5, 'ERR_AUDIO_TOO_LONG'],
  ]);
  t.is(batches.length, 3);
  t.is(batches.sampler.batchesPerEpoch, 2);
  const without = new AudioBatches([entries[0]!, ...entries.slice(2)], config, tokenizer, { batchSize: 2 });
  const error = await t.throwsAsync(without.check(), { instanceOf: BadRowsError, code: 'ERR_MANIFEST' });
  t.deepEqual(placed(error.rows), placed(bad.slice(1)));
  stream.close();
});
