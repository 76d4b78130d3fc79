/** Models whose frozen weights are the pages of a file: the numbers of copied ones, nothing that writes, no memory twice. */
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import test, { type ExecutionContext } from 'ava';
import { type ComputeType, LanguageExpert, Whisper } from '../../lib/model/index.js';
import { kernels, Stream, type Tensor, typeName } from '../../lib/tensor/index.js';
import { TrainingEngine, trainingOptions } from '../../lib/train/index.js';
import {
  type FloatDtype,
  fromFloat32,
  type HostTensor,
  openExpert,
  openModelFolder,
  openSafetensors,
  readExpert,
  toFloat32,
  type WhisperConfig,
  weightEntries,
  whisperTensorShapes,
  writeExpert,
  writeModelFolder,
  writeSafetensors,
} from '../../lib/weights/index.js';
import { randomExpertTensors } from '../support/experts.js';
import { logitsOf } from '../support/logits.js';
import { normalItems, normals, random } from '../support/random.js';
import { tinyConfig } from '../support/tiny.js';
import { generator, refused, scratch } from '../support/weights.js';

const config = tinyConfig({ decoder_layers: 2 });
const stream = new Stream({ threads: 2 });
test.after.always(() => stream.close());

const tensorsOf = (of: WhisperConfig, dtype: FloatDtype = 'f32'): Map<string, HostTensor> => {
  const next = random(5);
  const tensors = new Map<string, HostTensor>();
  for (const [name, shape] of whisperTensorShapes(of)) {
    const size = shape.reduce((a, b) => a * b, 1);
    tensors.set(name, fromFloat32(normals(size, next, 0.3), shape, dtype));
  }
  return tensors;
};

/** A model folder of random weights of a type. */
async function folderOf(t: ExecutionContext, dtype: FloatDtype = 'f32', maxShardBytes = 5e9): Promise<string> {
  const path = join(await scratch(t), 'model');
  await writeModelFolder(path, { config, tensors: weightEntries(tensorsOf(config, dtype)) }, { maxShardBytes });
  return path;
}

/** How many mappings of files below a folder this process has. */
const linux = process.platform === 'linux';
const mappings = (path: string): number =>
  readFileSync('/proc/self/maps', 'utf8')
    .split('\n')
    .filter((line) => line.includes(path)).length;

const bits = (values: Float32Array): Buffer => Buffer.from(values.buffer, values.byteOffset, values.byteLength);
/** Whether two models' weights, and what they say, are the same to the bit. */
async function same(t: ExecutionContext, a: Whisper, b: Whisper, language: string | null = null): Promise<void> {
  for (const [name, { value }] of a.parameters) {
    const other = b.parameters.get(name)!.value;
    t.is(value.dtype, other.dtype, name);
    t.deepEqual(await value.read(), await other.read(), name);
  }
  t.deepEqual(bits(await logitsOf(a, language)), bits(await logitsOf(b, language)));
}

for (const dtype of ['f32', 'bf16', 'f16', 'f64'] as const) {
  test(`a ${dtype} file gives, to the bit, the model that its tensors give in memory, in every type`, async (t) => {
    const path = await folderOf(t, dtype);
    for (const compute of ['fp32', 'bf16', 'int8'] as const) {
      const copied = Whisper.fromTensors(stream, config, tensorsOf(config, dtype), { compute });
      const mapped = await Whisper.load(stream, path, { compute });
      await same(t, mapped, copied);
      if (linux) t.is(mappings(path) > 0, dtype === 'f32' || (dtype === 'bf16' && mapped.compute === 'bf16'), compute);
      mapped.dispose();
      copied.dispose();
      await stream.sync();
      if (linux) t.is(mappings(path), 0, 'the mapping goes with the last tensor');
    }
  });
}

test('shards are mapped each, and an expert beside them', async (t) => {
  const path = await folderOf(t, 'f32', 20_000);
  const file = join(path, 'expert.catalan.safetensors');
  await writeExpert(file, config, 'catalan', randomExpertTensors(config, 'catalan', 3));
  const copied = Whisper.fromTensors(stream, config, tensorsOf(config));
  const { tensors } = await readExpert(file, config);
  copied.attach(LanguageExpert.load(stream, config, 'catalan', tensors, { compute: 'fp32' }));
  const mapped = await Whisper.load(stream, path);
  if (linux) t.true(mappings(path) > 3);
  const expert = await mapped.loadExpert(file);
  await same(t, mapped, copied, 'catalan');
  if (linux) {
    t.is(mappings(file), 1);
    expert.dispose();
    t.is(mappings(file), 0);
  }
  for (const model of [mapped, copied]) model.dispose();
});

test('every f16 and every bf16 becomes what fromFloat32 makes of it; f32 and f64 are rounded as it rounds', async (t) => {
  const folder = await scratch(t);
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const next = generator(11);
  const patterns = Uint32Array.from({ length: 70_001 }, () => next(2 ** 32));
  const floats = new Float32Array(patterns.buffer);
  const doubles = Float64Array.from({ length: 70_001 }, (_, i) => (floats[i]! % 1e30) * (1 + next(1000) * 2 ** -40));
  const entries = (
    [
      ['f16', all],
      ['bf16', all],
      ['f32', patterns],
      ['f64', doubles],
    ] as const
  ).map(([dtype, { buffer, length }]) => ({ name: dtype, dtype, shape: [length], data: new Uint8Array(buffer) }));
  const path = join(folder, 'all.safetensors');
  await writeSafetensors(path, entries);
  const file = await openSafetensors(path);
  for (const { name, shape, dtype, data } of entries) {
    for (const to of ['f32', 'bf16'] as const) {
      // A signalling NaN that is only copied stays one.
      const expected = Buffer.from(
        dtype === to ? data : fromFloat32(toFloat32({ dtype, shape, data }), shape, to).data,
      );
      const tensor = stream.stored(await file.stored(name), shape, to, true);
      const got = await tensor.read();
      const differs = expected.compare(Buffer.from(got.buffer, got.byteOffset, got.byteLength));
      t.is(differs, 0, `${name} to ${to}`);
      tensor.dispose();
    }
  }
  await file.close();
});

/** The folder's file once more, its data beginning `shift` bytes behind a multiple of 64. */
async function shifted(path: string, shift: number): Promise<void> {
  const file = join(path, 'model.safetensors');
  const bytes = await readFile(file);
  const length = Number(bytes.readBigUInt64LE(0));
  const header = Buffer.concat([bytes.subarray(8, 8 + length), Buffer.alloc(shift, ' ')]);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(header.length));
  await rm(file);
  await writeFile(file, Buffer.concat([prefix, header, bytes.subarray(8 + length)]));
}

test('data at any address gives the same model; a header of ours ends at a multiple of 64', async (t) => {
  for (const dtype of ['f32', 'bf16'] as const) {
    const copied = Whisper.fromTensors(stream, config, tensorsOf(config, dtype), { compute: typeName(dtype) });
    for (const shift of [0, 1, 2, 4, 8]) {
      const path = await folderOf(t, dtype);
      await shifted(path, shift);
      const length = (await readFile(join(path, 'model.safetensors'))).readBigUInt64LE(0);
      t.is((Number(length) + 8) % 64, shift);
      const mapped = await Whisper.load(stream, path, { compute: typeName(dtype) });
      await same(t, mapped, copied);
      // Small files are mapped where their tensors are aligned to lines of the cache.
      if (linux) t.is(mappings(path) > 0, shift === 0);
      mapped.dispose();
    }
    copied.dispose();
  }
});

test('the file may be deleted or replaced once the model is loaded', async (t) => {
  const path = await folderOf(t);
  const file = join(path, 'model.safetensors');
  const model = await Whisper.load(stream, path);
  const before = await logitsOf(model);
  const other = tensorsOf(config);
  for (const tensor of other.values()) tensor.data.fill(0);
  await writeSafetensors(file, weightEntries(other));
  t.deepEqual(await logitsOf(model), before);
  await rename(file, `${file}.old`);
  await rm(`${file}.old`);
  t.false(existsSync(file));
  t.deepEqual(await logitsOf(model), before);
  model.dispose();
});

test('whatever would write into a mapped weight is refused with ERR_ARGUMENT, and the file keeps its bytes', async (t) => {
  const path = await folderOf(t);
  const before = await readFile(join(path, 'model.safetensors'));
  const model = await Whisper.load(stream, path);
  const matrix = model.parameters.get('model.decoder.layers.0.fc1.weight')!.value;
  const bias = model.parameters.get('model.decoder.layers.0.fc1.bias')!.value;
  const [n, k] = matrix.shape as [number, number];
  const zeros = (shape: readonly number[]): Tensor => stream.persistent(null, shape);
  const [dy, x, m, v] = [zeros([2, n]), zeros([2, k]), zeros([n, k]), zeros([n, k])];
  const writes: Record<string, () => unknown> = {
    write: () => matrix.write(new Float32Array(n * k)),
    'write to a view': () => matrix.slice(1, 2).write(new Float32Array(k)),
    fill: () => kernels.fill(stream, { x: matrix, value: 0 }),
    'fill of a view': () => kernels.fill(stream, { x: matrix.reshape([n * k]), value: 0 }),
    cache_write: () => kernels.cacheWrite(stream, { x: zeros([1, 1, k]), cache: matrix.reshape([1, n, k]), offset: 0 }),
    linear_backward_weight: () => kernels.linearBackwardWeight(stream, { dy, x, dweight: matrix, compute: 'f32' }),
    'its bias': () => kernels.linearBackwardWeight(stream, { dy, x, dbias: bias, compute: 'f32' }),
    adamw: () =>
      kernels.adamw(stream, {
        scale: zeros([1]),
        groups: [{ step: 1, value: matrix, gradient: m, m, v }],
        learningRate: 1e-3,
        betas: [0.9, 0.999],
        epsilon: 1e-8,
        weightDecay: 0,
        compat: 'reference',
      }),
    add_backward_rows: () => kernels.addBackwardRows(stream, { dy: zeros([1, n, k]), dpositions: matrix }),
  };
  for (const [what, write] of Object.entries(writes)) {
    const error = t.throws(write as () => void, { code: 'ERR_ARGUMENT' }, what);
    t.regex(error?.message ?? '', /frozen/, what);
  }
  await stream.sync();
  t.deepEqual(await readFile(join(path, 'model.safetensors')), before);
  for (const tensor of [dy, x, m, v]) tensor.dispose();
  model.dispose();
});

test('a file that was cut short after it was opened, or closed, is refused; so is what does not fit', async (t) => {
  const path = await folderOf(t);
  const file = join(path, 'model.safetensors');
  const name = 'model.decoder.layers.0.fc1.bias';
  const closed = await openSafetensors(file);
  const late = await closed.stored(name);
  t.throws(() => stream.stored({ ...late, dtype: 'i32' }, [64], 'f32', true), { code: 'ERR_DTYPE', message: /i32/ });
  t.throws(() => stream.stored(late, [63], 'f32', true), { code: 'ERR_SHAPE', message: /252 bytes.*256/ });
  t.throws(() => stream.stored({ ...late, byte: 2 ** 40 }, [64], 'f32', true), { code: 'ERR_SHAPE' });
  t.throws(() => stream.stored({ ...late, byte: -4 }, [64], 'f32', true), { code: 'ERR_SHAPE' });
  await refused(t, 'ERR_SAFETENSORS', /no tensor "none"/, () => closed.stored('none'));
  const empty = stream.stored({ ...late, byteLength: 0 }, [0], 'f32', true);
  t.deepEqual(await empty.read(), new Float32Array(0));
  await closed.close();
  t.throws(() => stream.stored(late, [64], 'f32', true), { code: 'ERR_DISPOSED' });
  await refused(t, 'ERR_DISPOSED', /model\.safetensors was closed/, () => closed.stored(name));
  empty.dispose();

  const folder = await openModelFolder(path);
  await truncate(file, 20_000);
  await refused(t, 'ERR_SAFETENSORS', /model\.safetensors .* 20000 bytes, it had \d+/, () =>
    Whisper.fromFolder(stream, folder),
  );
  await folder.close();
  await refused(t, 'ERR_SAFETENSORS', /model\.safetensors/, () => Whisper.load(stream, path));
});

test('training: what trains is copied, what is frozen is mapped, and the losses are those of copied weights', async (t) => {
  const path = await folderOf(t);
  const before = await readFile(join(path, 'model.safetensors'));
  const batch = {
    features: normalItems(2, 80 * 40, random(1)),
    labels: [
      [1, 2, 3],
      [4, 5],
    ],
    languages: ['catalan', 'catalan'],
  };
  const trainable = (name: string): boolean => name.includes('decoder.layers.1.fc');
  const losses = async (model: Whisper): Promise<number[]> => {
    await model.addExpert('catalan', { seed: 3 });
    const engine = new TrainingEngine(model, null, trainingOptions({ steps: 3, learningRate: 1e-3 }));
    const values: number[] = [];
    for (let step = 0; step < 3; step++) values.push((await engine.update(step, [batch])).loss);
    return values;
  };
  const mapped = await Whisper.load(stream, path, { trainable });
  if (linux) t.true(mappings(path) > 0);
  const copied = Whisper.fromTensors(stream, config, tensorsOf(config), { trainable });
  t.deepEqual(await losses(mapped), await losses(copied));
  t.deepEqual(await readFile(join(path, 'model.safetensors')), before);
  for (const model of [mapped, copied]) model.dispose();
});

test('mapped weights are not counted as memory of the stream, copied ones are', async (t) => {
  const own = new Stream({ threads: 1 });
  const count = async (dtype: FloatDtype, compute: ComputeType): Promise<number> => {
    const model = await Whisper.load(own, await folderOf(t, dtype), { compute });
    const { persistent } = own.memory();
    model.dispose();
    t.is(own.memory().persistent, 0);
    return persistent;
  };
  t.is(await count('f32', 'fp32'), 0);
  t.true((await count('f16', 'fp32')) > (await count('f32', 'bf16')));
  t.true((await count('f16', 'int8')) > 0);
  own.close();
});

test('an expert opens as a source that lists its tensors, and readExpert reads the same', async (t) => {
  const path = join(await scratch(t), 'expert.catalan.safetensors');
  await writeExpert(path, config, 'catalan', randomExpertTensors(config, 'catalan', 3), { note: 'kept' });
  const { tensors } = await readExpert(path, config);
  const file = await openExpert(path, config);
  t.is(file.language, 'catalan');
  t.is(file.metadata.note, 'kept');
  t.deepEqual(file.weights.names(), [...tensors.keys()]);
  for (const [name, tensor] of tensors) t.deepEqual(await file.weights.read(name), tensor);
  await file.close();
  await refused(t, 'ERR_EXPERT', /width 32/, () => openExpert(path, tinyConfig({ d_model: 32 })));
});

const onLinux = linux ? test.serial : test.serial.skip;
const support = (name: string): string => fileURLToPath(new URL(`../support/${name}`, import.meta.url));

onLinux('a model that nobody holds any more lets go of its file', async (t) => {
  setFlagsFromString('--expose-gc');
  const gc = runInNewContext('gc') as () => void;
  const path = await folderOf(t);
  const heard = await (async () => logitsOf(await Whisper.load(stream, path)))();
  t.true(heard.every(Number.isFinite));
  for (let i = 0; i < 1000 && mappings(path) > 0; i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 10));
    await stream.sync();
  }
  t.is(mappings(path), 0);
});

onLinux('two worker threads map a file, and let go of it when they are terminated', async (t) => {
  const path = await folderOf(t);
  const model = await Whisper.load(stream, path);
  const expected = await logitsOf(model);
  model.dispose();
  const workers = [1, 2].map(
    () =>
      new Worker(support('worker-boot.mjs'), {
        workerData: { module: new URL('../support/load-worker.ts', import.meta.url).href, folder: path },
      }),
  );
  const said = await Promise.all(
    workers.map((worker) => new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject))),
  );
  t.deepEqual(said, [expected, expected]);
  t.true(mappings(path) > 0);
  await Promise.all(workers.map((worker) => worker.terminate()));
  t.is(mappings(path), 0);
});

onLinux(
  'memory: loading keeps what it must: nothing of a file in the type of the products, else the converted weights',
  async (t) => {
    const path = join(await scratch(t), 'model');
    const wide = tinyConfig({
      d_model: 512,
      encoder_attention_heads: 8,
      decoder_attention_heads: 8,
      encoder_ffn_dim: 2048,
      decoder_ffn_dim: 2048,
      encoder_layers: 3,
      decoder_layers: 6,
    });
    const pool = normals(1 << 20, random(2), 0.02);
    const entries = Array.from(whisperTensorShapes(wide), ([name, shape]) => {
      const size = shape.reduce((a, b) => a * b, 1);
      return { name, dtype: 'f32' as const, shape, data: new Uint8Array(pool.buffer, 0, 4 * size) };
    });
    const bytes = entries.reduce((sum, { data }) => sum + data.byteLength, 0);
    await writeModelFolder(path, { config: wide, tensors: entries });
    const load = async (compute: ComputeType) => {
      const flags = ['--expose-gc', '--import=tsx', support('load-memory.ts'), path, compute];
      const { stdout } = await promisify(execFile)(process.execPath, flags);
      const used = JSON.parse(stdout) as Record<'peak' | 'anonymous' | 'file' | 'counted', number>;
      const mb = Object.entries(used).map(([what, n]) => `${what} ${(n / 1e6).toFixed(1)}`);
      t.log(`${compute}: a file of ${(bytes / 1e6).toFixed(0)} MB, ${mb.join(', ')} MB`);
      return used;
    };
    const SLACK = 30e6;
    const fp32 = await load('fp32');
    t.is(fp32.counted, 0);
    t.true(fp32.peak < SLACK, 'nothing is read before it is used');
    const bf16 = await load('bf16');
    t.true(bf16.counted > 0.45 * bytes && bf16.counted < 0.51 * bytes);
    t.true(bf16.peak < bf16.counted + SLACK);
  },
);
