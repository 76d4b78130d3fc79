/** Weights that are read into memory while a model loads: the same numbers, and nothing that becomes of the file reaches it. */
import { readFileSync } from 'node:fs';
import { copyFile, cp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import test, { type ExecutionContext } from 'ava';
import { Stream, Transcriber, train, Whisper } from '../../lib/index.js';
import {
  type FloatDtype,
  fromFloat32,
  openModelFolder,
  toFloat32,
  weightEntries,
  writeExpert,
  writeModelFolder,
} from '../../lib/weights/index.js';
import { cli } from '../support/cli.js';
import { randomExpertTensors } from '../support/experts.js';
import { logitsOf } from '../support/logits.js';
import { refused, scratch } from '../support/weights.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const pocket = join(root, 'models', 'pocket-student');
const speech = join(root, 'corpus', 'ca', 'test-in-0000.opus');
const linux = process.platform === 'linux';
const stream = new Stream({ threads: 2 });
test.after.always(() => stream.close());

const mapped = (path: string): boolean => linux && readFileSync('/proc/self/maps', 'utf8').includes(path);

/** The pocket student in another type, with an expert beside it; `maxShardBytes`: in several files. */
async function modelOf(t: ExecutionContext, dtype: FloatDtype, maxShardBytes = 5e9): Promise<string> {
  const folder = await openModelFolder(pocket);
  const tensors = new Map();
  for (const name of folder.weights.names()) {
    const tensor = await folder.weights.read(name);
    tensors.set(name, fromFloat32(toFloat32(tensor), tensor.shape, dtype));
  }
  const path = join(await scratch(t), 'model');
  const { config, tokenizerPath } = folder;
  const all = { config, files: { 'tokenizer.json': { copyFrom: tokenizerPath! } }, tensors: weightEntries(tensors) };
  await writeModelFolder(path, all, { maxShardBytes });
  await writeExpert(
    join(path, '..', 'expert.catalan.safetensors'),
    config,
    'catalan',
    randomExpertTensors(config, 'catalan', 3),
  );
  await folder.close();
  return path;
}

for (const dtype of ['f32', 'bf16', 'f16'] as const) {
  test(`copied from a ${dtype} file: the numbers of a mapped model, with an expert, in every type, and no mapping`, async (t) => {
    const path = await modelOf(t, dtype, 400_000);
    const expert = join(path, '..', 'expert.catalan.safetensors');
    for (const compute of ['fp32', 'bf16', 'int8'] as const) {
      const lent = await Whisper.load(stream, path, { compute });
      await lent.loadExpert(expert);
      const expected = await logitsOf(lent, 'catalan');
      lent.dispose();
      await stream.sync();
      const own = await Whisper.load(stream, path, { compute, copyWeights: true });
      await own.loadExpert(expert, { copyWeights: true });
      t.false(mapped(join(path, '..')), compute);
      t.deepEqual(await logitsOf(own, 'catalan'), expected, compute);
      own.dispose();
    }
  });
}

test('a file that is overwritten, cut short or deleted while a copied model is in use changes nothing', async (t) => {
  const path = await modelOf(t, 'f32');
  const file = join(path, 'model.safetensors');
  const whole = await readFile(file);
  await using transcriber = await open(path);
  const [before] = await transcriber.transcribe([speech], { language: 'ca' });
  t.true(before!.text.length > 0);
  const ruin: [string, () => Promise<unknown>][] = [
    ['overwritten', () => writeFile(file, Buffer.from(whole).fill(0, 20_000))],
    ['cut short', () => truncate(file, 1000)],
    ['deleted', () => rm(path, { recursive: true })],
  ];
  for (const [how, act] of ruin) {
    await act();
    t.is((await transcriber.transcribe([speech], { language: 'ca' }))[0]!.text, before!.text, how);
  }
});

async function open(path: string): Promise<Transcriber & AsyncDisposable> {
  const transcriber = await Transcriber.load(path, { compute: 'fp32', copyWeights: true });
  return Object.assign(transcriber, { [Symbol.asyncDispose]: () => transcriber.close() });
}

test('a file that is cut short before it is read: ERR_FILE_READ, not a signal', async (t) => {
  const path = await modelOf(t, 'f32');
  const file = join(path, 'model.safetensors');
  const folder = await openModelFolder(path);
  const [name] = folder.weights.names();
  const values = (await folder.weights.stored(name!, true)) as {
    mapping: number;
    byte: number;
    byteLength: number;
    dtype: string;
    shape: number[];
  };
  await truncate(file, 100);
  stream.stored(values, values.shape, 'f32', true);
  await refused(t, 'ERR_FILE_READ', /model\.safetensors.*it ends after \d+ of \d+ bytes/, () => stream.sync());
  await folder.close();
  t.deepEqual(await stream.tensor(Float32Array.of(3), [1]).read(), Float32Array.of(3));
});

test('the same tensors may be both mapped and copied, and closing lets go of the file', async (t) => {
  const path = await modelOf(t, 'f32');
  const folder = await openModelFolder(path);
  const name = 'model.encoder.layer_norm.weight';
  const read = async (copied: boolean) => {
    const values = (await folder.weights.stored(name, copied)) as {
      mapping: number;
      byte: number;
      byteLength: number;
      dtype: string;
      shape: number[];
    };
    return stream.stored(values, values.shape, 'f32', true);
  };
  const [lent, own] = [await read(false), await read(true)];
  await folder.close();
  const held = readFileSync('/proc/self/maps', 'utf8').includes(path);
  t.is(held, linux);
  t.deepEqual(await own.read(), await lent.read());
  lent.dispose();
  own.dispose();
  await stream.sync();
  t.false(mapped(path));
});

test('train and the command line take the option; a run with it gives the same expert', async (t) => {
  const folder = await scratch(t);
  const manifest = join(root, 'corpus', 'manifest.jsonl');
  const common = { model: pocket, manifest, language: 'ca', split: 'test', steps: 2, batchSize: 2 };
  const results: Buffer[] = [];
  for (const copyWeights of [false, true]) {
    const { result } = await train({
      ...common,
      output: join(folder, `${copyWeights}`),
      teacher: pocket,
      copyWeights,
      options: { seed: 3 },
    });
    results.push(await readFile(result));
  }
  t.true(results[0]!.equals(results[1]!));
  const model = join(folder, 'model');
  await cp(pocket, model, { recursive: true });
  await copyFile(speech, join(folder, 'a.opus'));
  const [plain, copied] = await Promise.all(
    [[], ['--copy-weights']].map((more) =>
      cli(['transcribe', join(folder, 'a.opus'), '--model', model, '--language', 'ca', ...more]),
    ),
  );
  t.is(copied!.code, 0, copied!.stderr);
  t.is(copied!.stdout, plain!.stdout);
  for (const command of ['transcribe', 'evaluate', 'train'])
    t.regex((await cli([command, '--help'])).stdout, /--copy-weights/);
  t.regex((await cli(['doctor'])).stdout, /^\+ weights +mapped .*renaming another over it.*--copy-weights/m);
});
