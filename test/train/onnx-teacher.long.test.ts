/** A teacher in ONNX says what the same teacher says here. */
import { copyFileSync, cpSync, existsSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import test from 'ava';
import { exportOnnx, train } from '../../lib/recipes/index.js';
import type { UpdateReport } from '../../lib/train/index.js';
import { openOnnx } from '../../lib/weights/index.js';
import { cli, corpusRows, root, scratchFolder, writeRows, writeTinyModel } from '../support/cli.js';

const { path: scratch, remove } = scratchFolder();
const at = (name: string): string => join(scratch, name);
const manifest = writeRows(at('rows.jsonl'), corpusRows('ca', 'train', 'in', 5));
const teacher = { d_model: 32, encoder_ffn_dim: 128, decoder_ffn_dim: 128, decoder_layers: 2 };
test.before(async () => {
  await writeTinyModel(at('student'), 1);
  // Large weights, so that its distribution is not flat.
  await writeTinyModel(at('teacher'), 2, { ...teacher, init_std: 0.3 });
  await exportOnnx({ model: at('teacher'), output: at('logits') });
  await exportOnnx({ model: at('teacher'), output: at('hidden'), hidden: true, maxFileBytes: 100_000 });
  await exportOnnx({ model: at('teacher'), output: at('int8'), dtypes: ['int8'] });
});
test.after.always(remove);

const updates = async (
  from: string,
  output: string,
  options: Partial<Parameters<typeof train>[0]> = {},
): Promise<UpdateReport[]> => {
  const reports: UpdateReport[] = [];
  await train({
    ...{ model: at('student'), teacher: from, manifest, output, language: 'ca', batchSize: 2, steps: 3 },
    ...options,
    onUpdate: (report) => {
      reports.push(report);
    },
  });
  return reports;
};

test('losses of three updates equal those of the live teacher: by last hidden rows, by logits, by a file', async (t) => {
  const live = await updates(at('teacher'), at('live'));
  t.true(live.every(({ distillation }) => distillation > 0.01));
  for (const [name, from] of Object.entries({
    hidden: at('hidden'),
    logits: at('logits'),
    file: at('logits/onnx/decoder_model_merged.onnx'),
  })) {
    const got = await updates(from, at(`run-${name}`));
    t.is(got.length, 3);
    for (const [i, { loss, distillation, crossEntropy }] of got.entries()) {
      const expected = live[i]!;
      t.log(name, i + 1, loss, expected.loss);
      for (const [what, a, b] of [
        ['loss', loss, expected.loss],
        ['distillation', distillation, expected.distillation],
        ['cross-entropy', crossEntropy, expected.crossEntropy],
      ] as const)
        t.true(Math.abs(a / b - 1) <= 1e-4, `${name}, update ${i + 1}, ${what}: ${a}, live ${b}`);
    }
  }
});

test('over padded positions too, in the way of the reference, and in bf16', async (t) => {
  const compat = { options: { compat: 'reference' } } as const;
  const [live, theirs] = [
    await updates(at('teacher'), at('live-r'), compat),
    await updates(at('logits'), at('run-r'), compat),
  ];
  t.is(theirs.length, 3);
  for (const [i, { distillation }] of theirs.entries())
    t.true(Math.abs(distillation / live[i]!.distillation - 1) <= 1e-4, `${distillation}, ${live[i]!.distillation}`);
  const bf16 = await updates(at('hidden'), at('run-bf16'), { compute: 'bf16' });
  const beside = await updates(at('teacher'), at('live-bf16'), { compute: 'bf16' });
  t.is(bf16.length, 3);
  // Its rows come of fp32, those of the live one of bf16.
  for (const [i, { loss }] of bf16.entries()) t.true(Math.abs(loss / beside[i]!.loss - 1) <= 0.01, `${loss}`);
});

test('what cannot teach is refused in words, and nothing is written', async (t) => {
  const refused = async (from: string, code: string, message: RegExp): Promise<void> => {
    const error = await t.throwsAsync(updates(from, at('refused')), { message }, from);
    t.is((error as unknown as { code: string }).code, code, from);
  };
  await refused(
    at('int8/onnx/decoder_model_merged_quantized.onnx'),
    'ERR_ONNX',
    /token embedding .*take the export in fp32/,
  );
  await refused(at('gone.onnx'), 'ERR_ONNX', /expected a name as Optimum gives it/);
  cpSync(at('logits'), at('alone'), { recursive: true });
  rmSync(at('alone/onnx/encoder_model.onnx'));
  await refused(at('alone'), 'ERR_ONNX', /expected its encoder beside it/);
  cpSync(at('logits'), at('cut'), { recursive: true });
  truncateSync(at('cut/onnx/decoder_model_merged.onnx'), 30_000);
  await refused(at('cut'), 'ERR_ONNX', /no sound ONNX file: .* leaves what it lies in/);
  mkdirSync(at('nameless'));
  for (const name of ['encoder_model.onnx', 'decoder_model_merged.onnx'])
    copyFileSync(at(`logits/onnx/${name}`), at(`nameless/${name}`));
  await refused(at('nameless'), 'ERR_ONNX', /config\.json/);
  await writeTinyModel(at('other'), 3, { vocab_size: 500 });
  await exportOnnx({ model: at('other'), output: at('other-onnx') });
  await refused(at('other-onnx'), 'ERR_VOCABULARY', /vocabulary/);
  t.false(existsSync(at('refused')));
});

test('without onnxruntime-node the command says how it is installed', async (t) => {
  const hide = pathToFileURL(join(root, 'test', 'support', 'without-onnxruntime.mjs')).href;
  const args = [
    'train',
    '--model',
    at('student'),
    '--teacher',
    at('hidden'),
    '--manifest',
    manifest,
    '--language',
    'ca',
  ];
  const { code, stderr } = await cli([...args, '--steps', '1', '--output', at('hidden-run')], {
    env: { NODE_OPTIONS: `--import=${hide}` },
  });
  t.is(code, 1);
  t.regex(stderr, /npm install --ignore-scripts onnxruntime-node/);
});

test('shapes are read packed, as proto3 writes them, and number by number', async (t) => {
  const field = (number: number, bytes: readonly number[]): number[] => [8 * number + 2, bytes.length, ...bytes];
  const text = (value: string): number[] => [...Buffer.from(value)];
  for (const [dims, shape] of [
    [field(1, [8]), [8]],
    [field(1, [2, 4]), [2, 4]],
    [
      [8, 2, 8, 4],
      [2, 4],
    ],
  ] as const) {
    const tensor = [
      ...dims,
      16,
      1,
      ...field(8, text('x')),
      ...field(
        9,
        Array.from({ length: 32 }, () => 0),
      ),
    ];
    const path = at('packed.onnx');
    writeFileSync(path, Uint8Array.from(field(7, field(5, tensor))));
    const file = await openOnnx(path);
    t.deepEqual([...file.info('x').shape], [...shape]);
    await file.close();
  }
});

test('a file of ONNX tells what goes in and out, and its tensors, in it or beside it', async (t) => {
  const name = 'model.decoder.embed_tokens.weight';
  const [inside, beside] = [
    await openOnnx(at('logits/onnx/decoder_model_merged.onnx')),
    await openOnnx(at('hidden/onnx/decoder_model_merged.onnx')),
  ];
  t.true(inside.inputs.some(({ name, f32 }) => name === 'encoder_hidden_states' && f32));
  t.true(inside.inputs.some(({ name, f32 }) => name === 'input_ids' && !f32));
  t.deepEqual(
    beside.outputs.map(({ name }) => name).filter((name) => !name.startsWith('present')),
    ['logits', 'last_hidden_state'],
  );
  t.is(beside.files.length, 2);
  t.deepEqual(await inside.read(name), await beside.read(name));
  await inside.close();
  await beside.close();
});
